"""The main process's side of a DataLoader's workers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import weakref
from multiprocessing import connection as mp_connection
from typing import Any, NoReturn

from gradlite.utils.data.dataloader import BatchIterator, DataLoader
from gradlite.utils.data.workers import Restart, Result, Task, WorkerError, receive, run_worker

# How long a worker may take to finish what it is doing when it is told to end.
_GRACE_SECONDS = 5.0

# This process's ends of all connections to workers: every forked worker closes its copies.
_own_ends: weakref.WeakSet[Any] = weakref.WeakSet()


class Worker:
    """A worker process as the main process sees it."""

    def __init__(self, loader: DataLoader[Any], worker_id: int, base_seed: int) -> None:
        context = loader.multiprocessing_context or multiprocessing.get_context()
        far_end: Any
        self.connection: Any
        self.connection, far_end = context.Pipe(duplex=True)
        foreign = [*_own_ends, self.connection] if context.get_start_method() == "fork" else []
        self.process = context.Process(
            target=run_worker,
            args=(
                far_end,
                foreign,
                loader._fetch_plan(),
                (worker_id, loader.num_workers, base_seed),
                loader.worker_init_fn,
            ),
            daemon=True,
        )
        try:
            self.process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            # Held open here, it would hide the worker's end.
            far_end.close()
        _own_ends.add(self.connection)
        self.outstanding = 0
        self.ended = False

    def cause_of_death(self) -> str:
        """What is known about the end of the process."""
        self.process.join(timeout=1.0)
        code = self.process.exitcode
        if code is None or code >= 0:
            return (
                f"exited unexpectedly with exit code {code}. Details are lost due to "
                "multiprocessing. Rerunning with num_workers=0 may give better error trace."
            )
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        text = f"is killed by signal: {name}."
        if name == "SIGKILL":
            text += " It is possible that the system ran out of memory."
        return text


class WorkerIterator(BatchIterator):
    """A pass whose batches come from worker processes.

    Batch ``n`` of the pass is task ``n``, given to the workers in turn. Each worker has up to
    ``prefetch_factor`` tasks at a time; results that arrive early wait in ``_arrived``.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        self._timeout = loader.timeout
        self._in_order = loader.in_order
        self._persistent = loader.persistent_workers
        self._ahead = (loader.prefetch_factor or 1) * loader.num_workers
        self._epoch = 0
        self._workers: list[Worker] = []
        # Ends the workers when the iterator is no longer in use, and at the latest at exit.
        self._finalizer = weakref.finalize(self, end_workers, self._workers, os.getpid())
        try:
            for worker_id in range(loader.num_workers):
                self._workers.append(Worker(loader, worker_id, int(self._base_seed)))
            self._prime()
        except BaseException:
            self._finalizer()
            raise

    @property
    def alive(self) -> bool:
        """Whether the workers still run."""
        return bool(self._finalizer.alive)

    def restart(self, loader: DataLoader[Any]) -> None:
        """Begin another pass with the same workers; what the last one left undone is dropped."""
        self._begin(loader)
        self._epoch += 1
        for worker in self._workers:
            worker.outstanding = 0
            worker.ended = False
            self._send(worker, Restart(self._epoch))
        self._prime()

    def _prime(self) -> None:
        self._arrived: dict[int, Result] = {}
        self._owner: dict[int, Worker] = {}
        self._sent = 0
        self._next_number = 0
        self._turn = 0
        self._sampler_ended = False
        for _ in range(self._ahead):
            self._assign()

    def _assign(self) -> None:
        """Give the next task to the worker whose turn it is."""
        if self._sampler_ended:
            return
        worker = self._next_worker()
        if worker is None:
            return
        try:
            index = next(self._indices)
        except StopIteration:
            self._sampler_ended = True
            return
        self._owner[self._sent] = worker
        worker.outstanding += 1
        self._sent += 1
        self._send(worker, Task(self._epoch, self._sent - 1, index))

    def _next_worker(self) -> Worker | None:
        """The next worker in turn whose stream goes on; out of order, the least busy one."""
        active = [worker for worker in self._workers if not worker.ended]
        if not active:
            return None
        if not self._in_order:
            return min(active, key=lambda worker: worker.outstanding)
        count = len(self._workers)
        while self._workers[self._turn % count].ended:
            self._turn += 1
        self._turn += 1
        return self._workers[(self._turn - 1) % count]

    def _send(self, worker: Worker, message: Task | Restart) -> None:
        try:
            worker.connection.send(message)
        except OSError:
            self._raise_dead(worker)

    def _next_batch(self) -> Any:
        while True:
            result = self._take()
            if result is not None:
                break
            if not self._owner:
                if not self._persistent:
                    self._finalizer()
                raise StopIteration
            self._wait()
        self._assign()
        if isinstance(result.value, WorkerError):
            raise result.value.exception()
        return result.value

    def _take(self) -> Result | None:
        """The result to hand out now, if it has arrived."""
        if not self._in_order and self._arrived:
            return self._arrived.pop(next(iter(self._arrived)))
        while self._next_number < self._sent:
            number = self._next_number
            if number in self._arrived:
                self._next_number += 1
                return self._arrived.pop(number)
            if number in self._owner:
                return None
            # The worker's stream ended before this task.
            self._next_number += 1
        return None

    def _wait(self) -> None:
        """Wait for results and put them where they belong."""
        deadline = time.monotonic() + self._timeout if self._timeout else None
        busy = {w.connection: w for w in self._workers if w.outstanding}
        progress = False
        while not progress:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready: list[Any] = mp_connection.wait(list(busy), left)
            if not ready:
                raise RuntimeError(f"DataLoader timed out after {self._timeout} seconds")
            for connection in ready:
                try:
                    result = receive(connection)
                except (EOFError, OSError):
                    self._raise_dead(busy[connection])
                if result.epoch == self._epoch:
                    self._accept(result)
                    progress = True

    def _accept(self, result: Result) -> None:
        worker = self._owner.pop(result.number)
        worker.outstanding -= 1
        if not result.ended:
            self._arrived[result.number] = result
            return
        worker.ended = True
        self._assign()

    def _raise_dead(self, worker: Worker) -> NoReturn:
        pid, cause = worker.process.pid, worker.cause_of_death()
        self._finalizer()
        raise RuntimeError(
            f"DataLoader worker (pid(s) {pid}) exited unexpectedly: "
            f"DataLoader worker (pid {pid}) {cause}"
        ) from None


def end_workers(workers: list[Worker], owner: int) -> None:
    """End the workers: ask, wait, and in the end kill; leave no process behind."""
    if os.getpid() != owner:  # a copy in a forked process, whose children they are not
        return
    for worker in workers:
        # The worker ends when the connection does.
        _own_ends.discard(worker.connection)
        with contextlib.suppress(OSError):
            worker.connection.close()
    deadline = time.monotonic() + _GRACE_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
    for end in ("terminate", "kill"):
        for worker in workers:
            if worker.process.is_alive():
                getattr(worker.process, end)()
        for worker in workers:
            worker.process.join(1.0)
    for worker in workers:
        if worker.process.exitcode is not None:
            worker.process.close()
    workers.clear()
