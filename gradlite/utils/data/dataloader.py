"""DataLoader: batches from a dataset, in this process or from worker processes."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar, cast

from gradlite import random
from gradlite.backends import cuda
from gradlite.utils.data.collate import default_collate, default_convert
from gradlite.utils.data.dataset import Dataset, IterableDataset
from gradlite.utils.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    draw,
)
from gradlite.utils.data.workers import Fetcher, FetchPlan

T_co = TypeVar("T_co", covariant=True)

_FIXED = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")


class DataLoader(Generic[T_co]):
    """An iterable over a dataset's batches.

    Args:
        dataset: a map-style dataset (``__getitem__`` and ``__len__``) or an `IterableDataset`.
        batch_size: samples per batch; None hands out single samples.
        shuffle: visit the samples in random order, a new one in each pass.
        sampler: the order as an iterable of indices, instead of ``shuffle``.
        batch_sampler: an iterable of lists of indices, instead of ``batch_size``, ``shuffle``,
            ``sampler`` and ``drop_last``.
        num_workers: processes that load batches ahead of time; 0 loads in this one.
        collate_fn: makes a batch of a list of samples; by default `default_collate`.
        pin_memory: copy batches to page-locked memory, which speeds up the copy to a GPU.
        drop_last: leave out an incomplete last batch.
        timeout: the most seconds to wait for a batch from the workers; 0 waits for ever.
        worker_init_fn: called in each worker with its number, once the seeds are set.
        multiprocessing_context: how workers are started: a start method's name or a context of
            `multiprocessing`.
        generator: where the order and the workers' base seed come from; by default the global
            generator.
        prefetch_factor: batches that each worker loads ahead, by default 2.
        persistent_workers: keep the workers from one pass to the next.
        pin_memory_device: ignored, as in PyTorch.
        in_order: with workers, hand out the batches in the sampler's order, not in the order in
            which they are finished.

    A pass draws its base seed and its order from the generator and nothing else, so that a
    generator state saved between two passes repeats all that follow. Worker ``i`` seeds
    gradlite's, Python's and NumPy's global generators with base seed + ``i``.

    Raises:
        ValueError: options that exclude each other or are out of range.
        RuntimeError: while iterating, a worker that died, or ``timeout``.

    >>> loader = DataLoader([1.0, 2.0, 3.0], batch_size=2)
    >>> [batch.tolist() for batch in loader]
    [[1.0, 2.0], [3.0]]
    """

    dataset: Dataset[T_co]
    batch_size: int | None
    num_workers: int
    pin_memory: bool
    drop_last: bool
    timeout: float
    sampler: Sampler[Any] | Iterable[Any]
    batch_sampler: Sampler[Any] | Iterable[Any] | None
    prefetch_factor: int | None

    _initialized = False

    def __init__(
        self,
        dataset: Dataset[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[Any] | Iterable[Any] | None = None,
        batch_sampler: Sampler[Any] | Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: random.Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check_worker_options(num_workers, timeout, prefetch_factor, persistent_workers)
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.in_order = in_order
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable:
            _check_stream_options(shuffle, sampler, batch_sampler)
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, "
                    "sampler, and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError(
                "batch_size=None option disables auto-batching and is mutually exclusive "
                "with drop_last"
            )
        if sampler is None:
            if self._iterable:
                sampler = _Endless()
            elif shuffle:
                sampler = RandomSampler(cast(Any, dataset), generator=generator)
            else:
                sampler = SequentialSampler(cast(Any, dataset))
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(cast(Any, sampler), batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.generator = generator
        if collate_fn is None:
            collate_fn = default_convert if batch_sampler is None else default_collate
        self.collate_fn = collate_fn
        self.persistent_workers = persistent_workers
        self._announced_length: int | None = None
        self._iterator: Any = None
        self._initialized = True
        self.check_worker_number_rationality()

    def __setattr__(self, name: str, value: Any) -> None:
        if self._initialized and name in _FIXED:
            raise ValueError(
                f"{name} attribute should not be set after {type(self).__name__} is initialized"
            )
        super().__setattr__(name, value)

    @property
    def multiprocessing_context(self) -> Any:
        """The `multiprocessing` context that starts the workers; None for the default one."""
        return self._context

    @multiprocessing_context.setter
    def multiprocessing_context(self, context: Any) -> None:
        self._context = None if context is None else _as_context(context, self.num_workers)

    @property
    def _auto_collation(self) -> bool:
        return self.batch_sampler is not None

    @property
    def _index_sampler(self) -> Any:
        """What gives a fetch its argument: lists of indices, or single ones."""
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def _fetch_plan(self) -> FetchPlan:
        return FetchPlan(
            self.dataset, self._iterable, self._auto_collation, self.collate_fn, self.drop_last
        )

    def __iter__(self) -> Iterator[Any]:
        if self.num_workers == 0:
            return SingleProcessIterator(self)
        from gradlite.utils.data.multiprocess import WorkerIterator

        if self.persistent_workers and self._iterator is not None and self._iterator.alive:
            self._iterator.restart(self)
            return cast("Iterator[Any]", self._iterator)
        iterator = WorkerIterator(self)
        if self.persistent_workers:
            self._iterator = iterator
        return iterator

    def __len__(self) -> int:
        if not self._iterable:
            return len(self._index_sampler)
        # Remembered, because a pass that gives more than was announced deserves a warning.
        length = self._announced_length = len(cast(Any, self.dataset))
        if self.batch_size is None:
            return length
        return length // self.batch_size if self.drop_last else math.ceil(length / self.batch_size)

    def check_worker_number_rationality(self) -> None:
        """Warn about more workers than processors that this process may use."""
        if not self.num_workers:
            return
        affinity = getattr(os, "sched_getaffinity", None)
        processors = len(affinity(0)) if affinity else os.cpu_count()
        if processors is None:
            advice = (
                "DataLoader is not able to compute a suggested max number of worker in current "
                "system."
            )
        elif self.num_workers > processors:
            note = "" if affinity else " (`cpuset` is not taken into account)"
            advice = (
                f"Our suggested max number of worker in current system is {processors}{note}, "
                "which is smaller than what this DataLoader is going to create."
            )
        else:
            return
        warnings.warn(
            f"This DataLoader will create {self.num_workers} worker processes in total. {advice} "
            "Please be aware that excessive worker creation might get DataLoader running slow or "
            "even freeze, lower the worker number to avoid potential slowness/freeze if necessary.",
            stacklevel=3,
        )


class BatchIterator:
    """One pass over a DataLoader: the part that does not depend on who loads the batches.

    It keeps no reference to the loader, which may keep one to it: workers should end when the
    last user's reference goes, not when the garbage collector finds a cycle.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._dataset = loader.dataset
        self._index_sampler = loader._index_sampler
        self._num_workers = loader.num_workers
        # Without workers nobody reads it: the pass may be part of a captured step.
        self._base_seed = draw(loader.generator)
        self._pin = loader.pin_memory and _can_pin(loader)
        self._begin(loader)

    def _begin(self, loader: DataLoader[Any]) -> None:
        self._indices = iter(self._index_sampler)
        self._yielded = 0
        self._announced = loader._announced_length

    def _next_batch(self) -> Any:
        raise NotImplementedError

    def __iter__(self) -> BatchIterator:
        return self

    def __next__(self) -> Any:
        batch = self._next_batch()
        if self._pin:
            batch = pin(batch)
        self._yielded += 1
        if self._announced is not None and self._yielded > self._announced:
            self._warn_of_length()
        return batch

    def __len__(self) -> int:
        return len(self._index_sampler)

    def __getstate__(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} cannot be pickled")

    def _warn_of_length(self) -> None:
        message = (
            f"Length of IterableDataset {self._dataset} was reported to be {self._announced}"
            f"(when accessing len(dataloader)), but {self._yielded} samples have been fetched. "
        )
        if self._num_workers > 0:
            message += (
                "For multiprocessing data-loading, this could be caused by not properly "
                "configuring the IterableDataset replica at each worker."
            )
        warnings.warn(message, stacklevel=3)


class SingleProcessIterator(BatchIterator):
    """A pass that loads each batch when it is asked for."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        self._fetch = Fetcher(loader._fetch_plan())

    def _next_batch(self) -> Any:
        return self._fetch(next(self._indices))


class _Endless(Sampler[None]):
    """Stands in for the order of a stream, whose end only the dataset knows."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


def pin(batch: Any) -> Any:
    """The batch with its tensors in page-locked memory."""
    if hasattr(batch, "pin_memory"):
        return batch.pin_memory()
    if isinstance(batch, dict):
        return type(batch)({key: pin(value) for key, value in batch.items()})
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(pin, batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map(pin, batch))
    return batch


def _can_pin(loader: DataLoader[Any]) -> bool:
    if loader.pin_memory_device:
        warnings.warn(
            "pin_memory_device is deprecated, the current accelerator will be used as the device,"
            f"ignore pin_memory_device='{loader.pin_memory_device}'.",
            stacklevel=5,
        )
    available = cuda.status()[0]
    if not available:
        warnings.warn(
            "'pin_memory' argument is set as true but no accelerator is found, then device "
            "pinned memory won't be used.",
            stacklevel=5,
        )
    return available


def _check_worker_options(
    num_workers: int, timeout: float, prefetch_factor: int | None, persistent_workers: bool
) -> None:
    if num_workers < 0:
        raise ValueError(
            "num_workers option should be non-negative; "
            "use num_workers=0 to disable multiprocessing."
        )
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if prefetch_factor is not None:
        if num_workers == 0:
            raise ValueError(
                "prefetch_factor option could only be specified in multiprocessing."
                "let num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor to "
                "None."
            )
        if prefetch_factor < 0:
            raise ValueError("prefetch_factor option should be non-negative")
    if persistent_workers and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")


def _check_stream_options(shuffle: Any, sampler: Any, batch_sampler: Any) -> None:
    for name, value in (
        ("shuffle", shuffle or None),
        ("sampler", sampler),
        ("batch_sampler", batch_sampler),
    ):
        if value is not None:
            raise ValueError(
                f"DataLoader with IterableDataset: expected unspecified {name} option, "
                f"but got {name}={value}"
            )


def _as_context(context: Any, num_workers: int) -> Any:
    import multiprocessing

    if num_workers == 0:
        raise ValueError(
            "multiprocessing_context can only be used with multi-process loading "
            f"(num_workers > 0), but got num_workers={num_workers}"
        )
    if isinstance(context, str):
        methods = multiprocessing.get_all_start_methods()
        if context not in methods:
            raise ValueError(
                "multiprocessing_context option should specify a valid start method in "
                f"{methods!r}, but got multiprocessing_context={context!r}"
            )
        return multiprocessing.get_context(context)
    if not isinstance(context, multiprocessing.context.BaseContext):
        raise TypeError(
            "multiprocessing_context option should be a valid context object or a string "
            f"specifying the start method, but got multiprocessing_context={context}"
        )
    return context
