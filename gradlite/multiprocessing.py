"""Python's `multiprocessing` under PyTorch's name, and `spawn`, which starts many and waits.

A tensor that is sent to another process arrives there as a copy: no memory is shared.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import *  # noqa: F403
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

__all__ = [  # noqa: PLE0604
    "ProcessContext",
    "ProcessException",
    "ProcessExitedException",
    "ProcessRaisedException",
    "spawn",
    "start_processes",
    *multiprocessing.__all__,
]

# How long a process may take to end once it is asked to, in seconds.
GRACE = 30.0
# Characters of a traceback: what a pipe holds that is read when the process has ended.
MOST_TOLD = 15_000


class ProcessException(Exception):  # noqa: N818  # PyTorch's name
    """A process did not end well: ``error_index`` says which, ``error_pid`` its number."""

    def __init__(self, msg: str, error_index: int, error_pid: int | None) -> None:
        super().__init__(msg)
        self.msg, self.error_index, self.error_pid = msg, error_index, error_pid


class ProcessRaisedException(ProcessException):
    """The function raised an exception, whose traceback is the message."""


class ProcessExitedException(ProcessException):
    """The process ended itself or was ended: ``exit_code``, and ``signal_name`` of a signal."""

    def __init__(
        self,
        msg: str,
        error_index: int,
        error_pid: int | None,
        exit_code: int,
        signal_name: str | None = None,
    ) -> None:
        super().__init__(msg, error_index, error_pid)
        self.exit_code, self.signal_name = exit_code, signal_name


class ProcessContext:
    """Processes that `spawn` has started with ``join=False``: ``processes``."""

    def __init__(self, processes: Sequence[BaseProcess], errors: Sequence[Connection]) -> None:
        self.processes, self._errors = list(processes), errors
        self._running = {process.sentinel: i for i, process in enumerate(processes)}

    def pids(self) -> list[int | None]:
        """The numbers of the processes."""
        return [process.pid for process in self.processes]

    def join(self, timeout: float | None = None, grace_period: float | None = None) -> bool:
        """Wait until one ends, all of them well, or the time is over; True when all have ended.

        When one has failed the others are ended: asked to, and after ``grace_period`` seconds
        killed.

        Raises:
            ProcessRaisedException: the function raised something in one of them.
            ProcessExitedException: one ended in another way than by its function's return.
        """
        ended = wait(list(self._running), timeout) if self._running else []
        for i in sorted(self._running.pop(sentinel) for sentinel in ended):  # type: ignore[arg-type]
            self.processes[i].join()
            if self.processes[i].exitcode:
                self._end(GRACE if grace_period is None else grace_period)
                raise self._failure(i)
        return not self._running

    def _end(self, grace: float) -> None:
        for process in self.processes:
            if process.is_alive():
                process.terminate()
        end = time.monotonic() + grace
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._running.clear()

    def _failure(self, i: int) -> ProcessException:
        process, error = self.processes[i], self._errors[i]
        code = process.exitcode or 0
        try:
            told = error.recv() if error.poll() else ""
        except EOFError:  # it ended before it could tell anything
            told = ""
        if told:
            message = f"\n\n-- Process {i} terminated with the following error:\n{told}"
            return ProcessRaisedException(message, i, process.pid)
        name = signal.Signals(-code).name if code < 0 else None
        how = f"signal {name}" if name else f"exit code {code}"
        return ProcessExitedException(
            f"process {i} terminated with {how}", i, process.pid, code, name
        )


SpawnContext = ProcessContext


def _call(fn: Callable[..., Any], i: int, args: tuple[Any, ...], error: Connection) -> None:
    try:
        fn(i, *args)
    except KeyboardInterrupt:
        pass  # the program that waits has been interrupted as well, and tells it
    except Exception:
        error.send(traceback.format_exc()[-MOST_TOLD:])
        raise SystemExit(1) from None


def start_processes(
    fn: Callable[..., Any],
    args: tuple[Any, ...] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> ProcessContext | None:
    """Call ``fn(i, *args)`` in a process for each ``i`` below ``nprocs``.

    Args:
        fn: a function of a module, which a new process can import.
        join: wait until all have ended.
        daemon: end them when this process ends.
        start_method: of `multiprocessing`.

    Returns:
        None, and with ``join=False`` the processes.

    Raises:
        ProcessException: with ``join``, as soon as one fails; the others are ended.
    """
    context: Any = multiprocessing.get_context(start_method)
    processes, errors = [], []
    for i in range(nprocs):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_call, args=(fn, i, args, send), daemon=daemon)
        process.start()
        send.close()
        processes.append(process)
        errors.append(receive)
    started = ProcessContext(processes, errors)
    if not join:
        return started
    while not started.join():
        pass
    return None


spawn = start_processes  # new processes of Python, unless another start method is given
