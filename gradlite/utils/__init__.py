"""Tools around training: data loading."""

from gradlite.utils import data as data
