"""Samplers: the order in which a DataLoader visits a dataset."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar, cast

import numpy as np

from gradlite import random
from gradlite.ops.chances import multinomial
from gradlite.tensor import Tensor, wrap

T_co = TypeVar("T_co", covariant=True)


def draw(generator: random.Generator | None) -> Any:
    """63 bits from a generator, by default the global one, as an array."""
    return (generator or random.default_generator).integers(0, 1 << 63, ())


def draw_seed(generator: random.Generator | None) -> int:
    """The same as a seed."""
    return int(draw(generator))


class Sampler(Generic[T_co]):
    """Base of samplers: ``__iter__`` gives indices (or lists of them); ``__len__`` is optional."""

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError


class SequentialSampler(Sampler[int]):
    """The indices 0, 1, 2, ... of a data source."""

    data_source: Sized

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """The indices of a data source in random order.

    Args:
        data_source: something with a length.
        replacement: draw every index from all of them, instead of going through a permutation.
        num_samples: how many indices; by default the length of the data source. Without
            replacement, one permutation follows the other until there are enough.
        generator: where the order comes from. By default each pass takes one number from the
            global generator and seeds a generator of its own with it.

    Raises:
        TypeError: ``replacement`` is not a bool.
        ValueError: ``num_samples`` is not a positive integer.

    >>> list(RandomSampler(range(5), generator=random.Generator().manual_seed(7)))
    [4, 1, 3, 2, 0]
    """

    data_source: Sized
    replacement: bool

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: random.Generator | None = None,
    ) -> None:
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        if not isinstance(replacement, bool):
            raise TypeError(
                f"replacement should be a boolean value, but got replacement={replacement}"
            )
        if not isinstance(self.num_samples, int) or self.num_samples <= 0:
            raise ValueError(
                "num_samples should be a positive integer value, but got "
                f"num_samples={self.num_samples}"
            )

    @property
    def num_samples(self) -> int:
        """How many indices a pass gives; follows a data source that grows."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        generator = self.generator
        if generator is None:
            generator = random.Generator().manual_seed(draw_seed(None))
        size, left = len(self.data_source), self.num_samples
        if self.replacement:
            # In portions, so that a huge num_samples needs no huge array.
            while left > 0:
                portion = min(left, 1024)
                yield from generator.integers(0, size, (portion,)).tolist()
                left -= portion
        while left > 0:
            yield from generator.permutation(size)[:left].tolist()
            left -= size

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given indices in random order.

    Args:
        indices: a sequence of indices.
        generator: where the order comes from; by default the global generator.
    """

    indices: Sequence[int]

    def __init__(self, indices: Sequence[int], generator: random.Generator | None = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        generator = self.generator or random.default_generator
        for i in generator.permutation(len(self.indices)).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Indices from 0 to ``len(weights) - 1``, drawn in proportion to their weights.

    Args:
        weights: non-negative numbers; they need not add up to 1.
        num_samples: how many indices.
        replacement: whether an index can come more than once.
        generator: where the draws come from; by default the global generator.

    Raises:
        ValueError: a bad ``num_samples`` or ``replacement``, or weights that are not 1-D.

    >>> list(WeightedRandomSampler([0.0, 1.0, 0.0], 3))
    [1, 1, 1]
    """

    weights: Tensor
    num_samples: int
    replacement: bool

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: random.Generator | None = None,
    ) -> None:
        _check_positive_integer("num_samples", num_samples)
        _check_bool("replacement", replacement)
        array = np.asarray(getattr(weights, "array", weights), dtype=np.float64)
        if array.ndim != 1:
            raise ValueError(
                f"weights should be a 1d sequence but given weights have shape {tuple(array.shape)}"
            )
        self.weights = wrap(array)
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        indices: Any = multinomial(
            self.weights, self.num_samples, self.replacement, generator=self.generator
        )
        yield from indices.tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """The indices of another sampler in lists of ``batch_size``.

    Args:
        sampler: a sampler or any iterable.
        batch_size: the length of the lists.
        drop_last: leave out the last list when it is shorter.

    Raises:
        ValueError: a bad ``batch_size`` or ``drop_last``.

    >>> list(BatchSampler(SequentialSampler(range(5)), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, sampler: Sampler[int] | Iterable[int], batch_size: int, drop_last: bool
    ) -> None:
        _check_positive_integer("batch_size", batch_size)
        _check_bool("drop_last", drop_last)
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(itertools.islice(indices, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        count = len(cast(Sized, self.sampler))
        return (count if self.drop_last else count + self.batch_size - 1) // self.batch_size


def _check_positive_integer(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{name} should be a positive integer value, but got {name}={value}")


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} should be a boolean value, but got {name}={value}")
