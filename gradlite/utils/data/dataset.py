"""Datasets: things with a length and samples by index, or streams of samples."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

import numpy as np

from gradlite import random
from gradlite.ops.guard import on_its_device
from gradlite.tensor import Tensor, wrap

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """A map from an index to a sample; subclasses define ``__getitem__`` and ``__len__``.

    A subclass may also define ``__getitems__(indices)``, which returns the samples of a whole
    batch as a list; a DataLoader then calls it instead of ``__getitem__``.

    >>> class Squares(Dataset[int]):
    ...     def __getitem__(self, index):
    ...         return index**2
    ...
    ...     def __len__(self):
    ...         return 5
    >>> (Squares() + Squares())[7]
    4
    """

    def __getitem__(self, index: Any) -> T_co:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Dataset[T_co]) -> ConcatDataset[T_co]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co], Iterable[T_co]):
    """A stream of samples; subclasses define ``__iter__``, and ``__len__`` where it is known.

    With several workers each has its own copy of the dataset, so ``__iter__`` should hand out
    a worker's share only, as told by :func:`get_worker_info`.
    """

    def __add__(self, other: Dataset[T_co]) -> ChainDataset[T_co]:  # type: ignore[override]
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Sample ``i`` is the tuple of every tensor's row ``i``.

    Batches that a DataLoader puts together with its default ``collate_fn`` are taken by one
    indexing per tensor.

    Args:
        tensors: tensors with the same size of the first dimension.
    """

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Tensor) -> None:
        if any(tensors[0].size(0) != tensor.size(0) for tensor in tensors):
            raise AssertionError("Size mismatch between tensors")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def _collated(self, indices: Any) -> list[Tensor] | None:
        rows = rows_of(indices, len(self.tensors[0]))
        # A gradient has to find its way through the samples' own graph.
        if rows is None or any(tensor._requires_grad for tensor in self.tensors):
            return None
        return [_taken(tensor.array, rows) for tensor in self.tensors]

    def __len__(self) -> int:
        return int(self.tensors[0].size(0))


class Subset(Dataset[T_co]):
    """The samples of a dataset at the given indices, in that order.

    Raises:
        NotImplementedError: a subclass overrides ``__getitem__`` alone, which batches would
            pass by.
    """

    dataset: Dataset[T_co]
    indices: Sequence[int]

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices
        cls = type(self)
        if cls.__getitem__ is not Subset.__getitem__ and cls.__getitems__ is Subset.__getitems__:
            raise NotImplementedError(
                f"{cls.__name__} overrides __getitem__ but not __getitems__. "
                "When subclassing Subset and overriding __getitem__, you must also override "
                "__getitems__ to ensure DataLoader works correctly with your custom logic. "
                "A simple implementation:\n\n"
                "def __getitems__(self, indices):\n"
                "    return [self.__getitem__(idx) for idx in indices]"
            )

    def __getitem__(self, index: Any) -> T_co:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[T_co]:
        samples = samples_at(self.dataset, [self.indices[i] for i in indices])
        return cast("list[T_co]", samples)

    def _collated(self, indices: Any) -> list[Tensor] | None:
        try:
            indices = [self.indices[i] for i in indices]
        except (TypeError, IndexError):  # to be raised anew, sample by sample
            return None
        return collated_at(self.dataset, indices)

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[T_co]):
    """Several datasets, one after the other."""

    datasets: list[Dataset[T_co]]
    cumulative_sizes: list[int]

    def __init__(self, datasets: Iterable[Dataset[T_co]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("datasets should not be an empty iterable")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise AssertionError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = self.cumsum(self.datasets)

    @staticmethod
    def cumsum(sequence: Iterable[Any]) -> list[int]:
        """The running total of lengths."""
        return list(itertools.accumulate(len(element) for element in sequence))

    def __getitem__(self, index: int) -> T_co:
        if index < 0:
            if -index > len(self):
                raise ValueError("absolute value of index should not exceed dataset length")
            index += len(self)
        position = bisect.bisect_right(self.cumulative_sizes, index)
        start = self.cumulative_sizes[position - 1] if position else 0
        return self.datasets[position][index - start]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


class ChainDataset(IterableDataset[T_co]):
    """Several streams, one after the other."""

    def __init__(self, datasets: Iterable[Dataset[T_co]]) -> None:
        self.datasets = datasets

    def _streams(self) -> Iterator[IterableDataset[T_co]]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise AssertionError("ChainDataset only supports IterableDataset")
            yield dataset

    def __iter__(self) -> Iterator[T_co]:
        for dataset in self._streams():
            yield from dataset

    def __len__(self) -> int:
        return sum(len(cast(Any, dataset)) for dataset in self._streams())


class StackDataset(Dataset[Any]):
    """Datasets of the same length side by side: samples are tuples, or dicts with keywords.

    >>> StackDataset(["a", "b"], [1, 2])[1]
    ('b', 2)
    >>> StackDataset(name=["a", "b"], age=[1, 2])[0]
    {'name': 'a', 'age': 1}
    """

    datasets: tuple[Any, ...] | dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args and kwargs:
            raise ValueError(
                "Supported either ``tuple``- (via ``args``) or"
                "``dict``- (via ``kwargs``) like input/output, but both types are given."
            )
        if not args and not kwargs:
            raise ValueError("At least one dataset should be passed")
        self.datasets = args or kwargs
        parts = self._parts()
        self._length = len(parts[0])
        if any(len(part) != self._length for part in parts):
            raise ValueError("Size mismatch between datasets")

    def _parts(self) -> tuple[Any, ...]:
        return tuple(self.datasets.values() if isinstance(self.datasets, dict) else self.datasets)

    def _sample(self, values: Iterable[Any]) -> Any:
        if isinstance(self.datasets, dict):
            return dict(zip(self.datasets, values, strict=True))
        return tuple(values)

    def __getitem__(self, index: Any) -> Any:
        return self._sample(part[index] for part in self._parts())

    def __getitems__(self, indices: list[int]) -> list[Any]:
        columns = []
        for part in self._parts():
            column = samples_at(part, indices)
            if len(column) != len(indices):
                raise ValueError(
                    "Nested dataset's output size mismatch."
                    f" Expected {len(indices)}, got {len(column)}"
                )
            columns.append(column)
        return [self._sample(values) for values in zip(*columns, strict=True)]

    def __len__(self) -> int:
        return self._length


def random_split(
    dataset: Dataset[T_co],
    lengths: Sequence[int | float],
    generator: random.Generator | None = None,
) -> list[Subset[T_co]]:
    """Split a dataset at random into subsets of the given lengths, or fractions that add up to 1.

    With fractions each subset gets the floor of its share, and what is left over goes one by one
    to the first subsets.

    Args:
        generator: where the permutation comes from; by default the global generator.

    Raises:
        ValueError: a fraction outside [0, 1], or lengths that do not add up to the dataset's.

    >>> parts = random_split(range(10), [0.7, 0.3], random.Generator().manual_seed(1))
    >>> [len(part) for part in parts]
    [7, 3]
    """
    total = len(cast(Any, dataset))
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        for i, fraction in enumerate(lengths):
            if fraction < 0 or fraction > 1:
                raise ValueError(f"Fraction at index {i} is not between 0 and 1")
        counts = [math.floor(total * fraction) for fraction in lengths]
        for i in range(total - sum(counts)):
            counts[i % len(counts)] += 1
        for i, count in enumerate(counts):
            if count == 0:
                warnings.warn(
                    f"Length of split at index {i} is 0. This might result in an empty dataset.",
                    stacklevel=2,
                )
        lengths = counts
    if sum(lengths) != total:
        raise ValueError("Sum of input lengths does not equal the length of the input dataset!")
    order = (generator or random.default_generator).permutation(total).tolist()
    ends = itertools.accumulate(cast("Sequence[int]", lengths))
    return [
        Subset(dataset, order[end - int(length) : end])
        for end, length in zip(ends, lengths, strict=True)
    ]


def samples_at(dataset: Any, indices: list[Any]) -> Any:
    """The samples of a batch, by ``__getitems__`` where the dataset has it."""
    getitems = getattr(dataset, "__getitems__", None)
    return getitems(indices) if getitems else [dataset[index] for index in indices]


def collated_at(dataset: Any, indices: Any) -> list[Tensor] | None:
    """What the default collate function makes of a batch, straight from the dataset; else None.

    A dataset that can give a whole batch with one indexing per tensor has a method ``_collated``.
    It counts only if the class that has it is also the one that defines how samples are got, so
    that a subclass that overrides ``__getitem__`` is not passed by.
    """
    for cls in type(dataset).__mro__:
        members = cls.__dict__
        if "_collated" in members:
            return cast("list[Tensor] | None", dataset._collated(indices))
        if "__getitem__" in members or "__getitems__" in members:
            break
    return None


@on_its_device
def _taken(array: Any, rows: np.ndarray[Any, Any]) -> Tensor:
    return wrap(array[rows])


def rows_of(indices: Any, count: int) -> np.ndarray[Any, Any] | None:
    """A batch's indices as an array; None unless all are integers within ``count`` rows."""
    rows = np.asarray(indices)
    if rows.ndim != 1 or rows.dtype.kind != "i" or not rows.size:
        return None
    return None if rows.min() < -count or rows.max() >= count else rows
