"""Small tables on a device that the host rewrites between launches, without waiting for it.

While a stream captures, what is copied from the host goes through another one: the capture holds
what kernels do with a table, not how its values come there.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from gradlite.backends import transfer

# How many copies to a GPU may be under way before the host waits for the oldest.
IN_FLIGHT = 4


class _OfThread(threading.local):
    side: Any = None  # where copies go while the current stream captures
    tables: dict[Any, Any] | None = None


_of_thread = _OfThread()


@contextmanager
def beside(stream: Any) -> Iterator[dict[Any, Any]]:
    """Context manager for a capture in this thread: copies from the host go to another stream.

    It gives the tables (``tables.py``) that are made inside, in place of those that the launcher
    keeps, which others write to.
    """
    _of_thread.side, _of_thread.tables = stream, {}
    try:
        yield _of_thread.tables
    finally:
        _of_thread.side = _of_thread.tables = None


def not_captured() -> AbstractContextManager[Any]:
    """A context in which nothing becomes part of a capture."""
    return nullcontext() if _of_thread.side is None else _of_thread.side


def own_tables() -> dict[Any, Any] | None:
    """The tables of the capture in this thread, if there is one."""
    return _of_thread.tables


class Upload:
    """Copies of the host's values to one array of a GPU, asynchronous and from pinned memory."""

    def __init__(self, xp: Any, array: Any) -> None:
        import cupyx

        self.array, self._turn, self._ring = array, 0, []
        # Pinned: from other memory the driver may wait for the stream before it copies.
        self._ring = [
            (cupyx.empty_pinned(array.shape, array.dtype), xp.cuda.Event(disable_timing=True))
            for _ in range(IN_FLIGHT)
        ]

    def send(self, values: Any) -> None:
        """Let what follows on the current stream see the values."""
        pinned, event = self._ring[self._turn]
        self._turn = (self._turn + 1) % IN_FLIGHT
        event.synchronize()  # until the copy of IN_FLIGHT turns ago has read this buffer
        pinned[...] = values
        self.array.set(pinned)
        event.record()

    def __del__(self, at_exit: Any = sys.is_finalizing) -> None:
        if at_exit():
            return
        for pinned, event in self._ring:
            if not event.done:
                transfer.keep_until(event, pinned)


class Staging:
    """64-bit numbers that kernels read and the host sets: addresses, sizes, constants.

    On a GPU they are copied asynchronously and only when they differ from the last ones. Copies
    and launches are ordered by the stream, so all have to be on the same one.

    Attributes:
        array: what kernels get.
        values: what the host writes to, before `send`.
    """

    def __init__(self, xp: Any, n: int) -> None:
        self.array = xp.zeros(n, np.int64)
        self.values: np.ndarray[Any, Any] = self.array
        self._upload: Upload | None = None
        if xp is np:
            return
        self.values = np.zeros(n, np.int64)
        self._sent = self.values.copy()
        self._upload = Upload(xp, self.array)

    def send(self) -> None:
        """Let the launches that follow see the values."""
        if self._upload is None or (self.values == self._sent).all():
            return
        self._sent[...] = self.values
        with not_captured():
            self._upload.send(self.values)

    def added(self, amounts: np.ndarray[Any, Any]) -> None:
        """A kernel adds to the numbers on the device: only others than those need a copy then."""
        if self._upload is not None:
            self._sent += amounts
