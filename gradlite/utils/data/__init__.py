"""Datasets, samplers and the DataLoader."""

from gradlite.utils.data import _utils as _utils
from gradlite.utils.data.collate import collate as collate
from gradlite.utils.data.collate import default_collate as default_collate
from gradlite.utils.data.collate import default_convert as default_convert
from gradlite.utils.data.dataloader import DataLoader as DataLoader
from gradlite.utils.data.dataset import ChainDataset as ChainDataset
from gradlite.utils.data.dataset import ConcatDataset as ConcatDataset
from gradlite.utils.data.dataset import Dataset as Dataset
from gradlite.utils.data.dataset import IterableDataset as IterableDataset
from gradlite.utils.data.dataset import StackDataset as StackDataset
from gradlite.utils.data.dataset import Subset as Subset
from gradlite.utils.data.dataset import TensorDataset as TensorDataset
from gradlite.utils.data.dataset import random_split as random_split
from gradlite.utils.data.distributed import DistributedSampler as DistributedSampler
from gradlite.utils.data.sampler import BatchSampler as BatchSampler
from gradlite.utils.data.sampler import RandomSampler as RandomSampler
from gradlite.utils.data.sampler import Sampler as Sampler
from gradlite.utils.data.sampler import SequentialSampler as SequentialSampler
from gradlite.utils.data.sampler import SubsetRandomSampler as SubsetRandomSampler
from gradlite.utils.data.sampler import WeightedRandomSampler as WeightedRandomSampler
from gradlite.utils.data.workers import WorkerInfo as WorkerInfo
from gradlite.utils.data.workers import get_worker_info as get_worker_info
