"""Data sets of numbers, and what loaders make of them as plain objects."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from gradlite.random import Generator
from gradlite.utils.data import Dataset, IterableDataset

Point = namedtuple("Point", "x y")


class Numbers(Dataset[int]):
    """The integers below n."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __getitem__(self, index: int) -> int:
        if not -self.n <= index < self.n:
            raise IndexError(index)
        return index % self.n

    def __len__(self) -> int:
        return self.n


class Stream(IterableDataset[int]):
    """The integers below n, one after the other; it may tell how many."""

    def __init__(self, n: int, length: int | None = None) -> None:
        self.n = n
        self.length = length

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("no length")
        return self.length


def seeded(seed: int = 1) -> Generator:
    return Generator().manual_seed(seed)


def values(loader: Any) -> list[Any]:
    """The batches as plain Python objects."""
    return [plain(batch) for batch in loader]


def plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
