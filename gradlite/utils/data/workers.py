"""What runs in a DataLoader's worker processes, and how batches come back from them."""

from __future__ import annotations

import itertools
import os
import pickle
import queue
import random as python_random
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlite import random
from gradlite.utils.data.collate import default_collate
from gradlite.utils.data.dataset import collated_at, samples_at

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# Below this many bytes a message goes through the socket in one piece, which is quicker than a
# file of its own.
_INLINE_BYTES = 1 << 15
_ALIGNMENT = 64


@dataclass(frozen=True)
class WorkerInfo:
    """What :func:`get_worker_info` tells a worker about itself.

    Attributes:
        id: the worker's number, from 0.
        num_workers: how many workers there are.
        seed: the seed of this worker's random numbers: base seed + id.
        dataset: this process's copy of the dataset.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


_worker_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """The current worker's number, seed and dataset; None in the main process."""
    return _worker_info


@dataclass(frozen=True)
class FetchPlan:
    """All that it takes to make batches, in this process or a worker."""

    dataset: Any
    iterable: bool
    batches: bool
    collate_fn: Any
    drop_last: bool


class Fetcher:
    """Makes batches out of indices; one per pass over a dataset."""

    def __init__(self, plan: FetchPlan) -> None:
        self.plan = plan
        self._stream: Iterator[Any] | None = iter(plan.dataset) if plan.iterable else None
        self._whole = plan.batches and plan.collate_fn is default_collate

    def __call__(self, index: Any) -> Any:
        """The batch for a list of indices, or the sample for an index.

        Raises:
            StopIteration: the stream has ended.
        """
        plan = self.plan
        if self._stream is not None:
            return plan.collate_fn(self._from_stream(self._stream, index))
        if not plan.batches:
            return plan.collate_fn(plan.dataset[index])
        if self._whole:
            batch = collated_at(plan.dataset, index)
            if batch is not None:
                return batch
        return plan.collate_fn(samples_at(plan.dataset, index))

    def _from_stream(self, stream: Iterator[Any], index: Any) -> Any:
        wanted = len(index) if self.plan.batches else 1
        samples = list(itertools.islice(stream, wanted))
        if len(samples) < wanted:
            # An iterator may start again after its end; this pass must not.
            self._stream = iter(())
            if not samples or self.plan.drop_last:
                raise StopIteration
        return samples if self.plan.batches else samples[0]


class WorkerError:
    """An exception of a worker, to be raised in the main process with the worker's traceback."""

    def __init__(self, error: BaseException, where: str) -> None:
        self.type: type[BaseException] = type(error)
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.message = f"Caught {self.type.__name__} {where}.\nOriginal {text}"
        try:
            pickle.loads(pickle.dumps(self.type))
        except Exception:  # a class made inside a function, for one
            self.type = RuntimeError
        if issubclass(self.type, StopIteration):  # would end the loop over the loader silently
            self.type = RuntimeError

    def exception(self) -> BaseException:
        """An exception of the same type, or a RuntimeError where the type needs other arguments."""
        if issubclass(self.type, KeyError):
            # KeyError shows the repr of its argument, which hides a traceback's line breaks.
            return self.type(_Verbatim(self.message))
        try:
            return self.type(self.message)
        except Exception:
            return RuntimeError(self.message)


class _Verbatim(str):
    """A string whose repr is itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


# -- sending batches ----------------------------------------------------------------------------


def send(connection: Connection, message: Any) -> None:
    """Send an object; the bytes of large arrays go through an anonymous file in memory.

    Such a file has no name and no fixed place, so nothing is left behind by a process that dies,
    and no limit on ``/dev/shm`` applies. Where the system has none, the bytes follow inline.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in views]
    file = None if sum(sizes) < _INLINE_BYTES else _file_of(views, _offsets(sizes))
    if file is None:
        connection.send((head, [bytes(view) for view in views], None))
        return
    from multiprocessing.reduction import send_handle

    try:
        connection.send((head, None, sizes))
        send_handle(connection, file, None)
    finally:
        os.close(file)


def _file_of(views: list[memoryview], offsets: list[int]) -> int | None:
    """A file in memory with the views' bytes at these offsets; None where there can be none."""
    if not hasattr(os, "memfd_create"):
        return None
    file = None
    try:
        file = os.memfd_create("gradlite-batch")
        for view, offset in zip(views, offsets, strict=False):
            done = 0
            while done < view.nbytes:
                done += os.pwrite(file, view[done:], offset + done)
    except OSError:  # out of file descriptors or memory
        if file is not None:
            os.close(file)
        return None
    return file


def receive(connection: Connection) -> Any:
    """The object that :func:`send` sent; its arrays own their memory and can be written to.

    Raises:
        EOFError, OSError: the other side is gone.
    """
    head, blocks, sizes = connection.recv()
    if sizes is None:
        return pickle.loads(head, buffers=[bytearray(block) for block in blocks])
    from multiprocessing.reduction import recv_handle

    try:
        file = recv_handle(connection)
    except RuntimeError as error:  # died between the two parts of a message
        raise EOFError from error
    try:
        offsets = _offsets(sizes)
        memory = np.empty(offsets[-1], np.uint8).data
        done = 0
        while done < len(memory):
            count = os.preadv(file, [memory[done:]], done)
            if count == 0:  # padding after the last array was never written
                break
            done += count
    finally:
        os.close(file)
    parts = [memory[start : start + n] for start, n in zip(offsets, sizes, strict=False)]
    return pickle.loads(head, buffers=parts)


def _offsets(sizes: list[int]) -> list[int]:
    """Where blocks of these sizes start when each is aligned; the last entry is the total."""
    padded = (-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)
    return list(itertools.accumulate(padded, initial=0))


# -- the worker process -------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """Number ``number`` of pass ``epoch``: make the batch at ``index``."""

    epoch: int
    number: int
    index: Any


@dataclass(frozen=True)
class Restart:
    """Begin pass ``epoch`` over the dataset."""

    epoch: int


@dataclass(frozen=True)
class Result:
    """A worker's answer to a task: ``ended`` when its stream has no more samples."""

    epoch: int
    number: int
    value: Any
    ended: bool = False


class _Inbox:
    """What the main process has sent, read by a thread of its own.

    So the main process never waits for a busy worker to take a message, and a worker notices at
    once that what it was asked for is no longer wanted.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[Task | Restart | None] = queue.SimpleQueue()
        self.epoch = 0
        self.closed = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        message: Task | Restart | None
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                message = None
            if isinstance(message, Restart):
                self.epoch = message.epoch
            self.closed = message is None
            self._queue.put(message)
            if message is None:
                return

    def next(self) -> Task | Restart | None:
        """The next message that still matters; None when the worker is to end."""
        while True:
            message = self._queue.get()
            if message is None or self.closed:
                return None
            if message.epoch == self.epoch:
                return message


def run_worker(
    connection: Connection,
    foreign: list[Connection],
    plan: FetchPlan,
    info: tuple[int, int, int],
    worker_init_fn: Any,
) -> None:
    """The life of a worker process.

    Args:
        connection: to the main process.
        foreign: connections inherited by the fork, which belong to the main process.
        info: the worker's id, the number of workers and the base seed.
        worker_init_fn: the user's function, called with the id.
    """
    global _worker_info
    worker_id, num_workers, base_seed = info
    where = f"in DataLoader worker process {worker_id}"
    # Held open here, they would keep other workers from noticing the main process's end.
    for other in foreign:
        other.close()
    seed = base_seed + worker_id
    random.default_generator.manual_seed(seed)
    python_random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
    _worker_info = WorkerInfo(worker_id, num_workers, seed, plan.dataset)
    fetch: Fetcher | None = None
    failure: WorkerError | None = None
    try:
        inbox = _Inbox(connection)
        try:
            if worker_init_fn is not None:
                worker_init_fn(worker_id)
            fetch = Fetcher(plan)
        except Exception as error:
            failure = WorkerError(error, where)
        while (message := inbox.next()) is not None:
            if isinstance(message, Restart):
                fetch, failure = None, None
                try:
                    fetch = Fetcher(plan)
                except Exception as error:
                    failure = WorkerError(error, where)
                continue
            value, ended = failure, False
            if fetch is not None:
                try:
                    value = fetch(message.index)
                except StopIteration as error:
                    # Only a stream can end; from a dataset with indices it is an error.
                    ended = plan.iterable
                    value = None if ended else WorkerError(error, where)
                except Exception as error:
                    value = WorkerError(error, where)
            _answer(connection, Result(message.epoch, message.number, value, ended), where)
    except (KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        # The main process was interrupted too, or is gone.
        return


def _answer(connection: Connection, result: Result, where: str) -> None:
    """Send a result, or the reason why it cannot be sent."""
    try:
        send(connection, result)
    except OSError:
        raise
    except Exception as error:  # whatever a value's own pickling raises
        send(connection, Result(result.epoch, result.number, WorkerError(error, where)))
