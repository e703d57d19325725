"""Tools around training: data loading, checkpointing."""

from gradlite.utils import checkpoint as checkpoint
from gradlite.utils import data as data
