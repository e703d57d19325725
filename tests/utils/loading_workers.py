"""Data sets for loaders with workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradlite.utils.data import Dataset, IterableDataset, get_worker_info


class Numbers(Dataset[int]):
    """The integers below n."""

    def __init__(self, n: int = 10) -> None:
        self.n = n

    def __getitem__(self, index: int) -> Any:
        return index

    def __len__(self) -> int:
        return self.n


class Stream(IterableDataset[int]):
    """A worker's share of the integers from start to end."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        if info is None:
            return iter(range(self.start, self.end))
        return iter(range(self.start + info.id, self.end, info.num_workers))
