"""Datasets read from files, and one that comes with scikit-learn."""

from gradlite.datasets.images import MNIST as MNIST
from gradlite.datasets.images import digits as digits
from gradlite.datasets.images import read_idx as read_idx
from gradlite.datasets.tables import CSVDataset as CSVDataset
from gradlite.datasets.text import TextDataset as TextDataset
from gradlite.datasets.text import Vocabulary as Vocabulary
