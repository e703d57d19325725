"""The part of a data set that one process of several goes through."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from itertools import cycle, islice

from gradlite import random
from gradlite.utils.data.sampler import Sampler

__all__ = ["DistributedSampler"]


class DistributedSampler(Sampler[int]):
    """Every ``num_replicas``-th index of a data set, from the ``rank``-th on.

    Args:
        dataset: something with a length.
        num_replicas: how many processes share it out, which have to be told: there are no groups
            of processes that would know.
        rank: which of them this one is.
        shuffle: in random order, which ``seed`` and the number given to `set_epoch` determine.
        drop_last: leave out the last few where the length is no multiple of ``num_replicas``;
            otherwise the first ones are repeated, so that all processes have as many.

    Raises:
        RuntimeError: ``num_replicas`` or ``rank`` is not given.
        ValueError: there is no such rank.

    >>> [list(DistributedSampler(range(5), 2, rank, shuffle=False)) for rank in range(2)]
    [[0, 2, 4], [1, 3, 0]]
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            raise RuntimeError(
                "Requires distributed package to be available: give num_replicas and rank"
            )
        if not 0 <= rank < num_replicas:
            raise ValueError(
                f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]"
            )
        self.dataset, self.num_replicas, self.rank = dataset, num_replicas, rank
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last
        self.epoch = 0
        size = len(dataset)
        self.num_samples = size // num_replicas if drop_last else -(-size // num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        size = len(self.dataset)
        order: list[int] = list(range(size))
        if self.shuffle:
            generator = random.Generator().manual_seed(self.seed + self.epoch)
            order = generator.permutation(size).tolist()
        return islice(cycle(order), self.rank, self.total_size, self.num_replicas)

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Shuffle otherwise: by a number that all processes have, and that changes each epoch."""
        self.epoch = epoch
