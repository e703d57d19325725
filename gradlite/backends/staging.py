"""Small tables on a device that the host rewrites between launches, without waiting for it."""

from __future__ import annotations

from typing import Any

import numpy as np

# How many copies to a GPU may be under way before the host waits for the oldest.
IN_FLIGHT = 4


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
        self._ring: list[tuple[np.ndarray[Any, Any], Any]] = []
        if xp is np:
            return
        self.values = np.zeros(n, np.int64)
        self._sent = self.values.copy()
        self._turn = 0
        import cupyx

        for _ in range(IN_FLIGHT):
            # Pinned: from other memory the driver may wait for the stream before it copies.
            pinned = cupyx.empty_pinned(n, np.int64)
            self._ring.append((pinned, xp.cuda.Event(disable_timing=True)))

    def send(self) -> None:
        """Let the launches that follow see the values."""
        if not self._ring or (self.values == self._sent).all():
            return
        self._sent[...] = self.values
        pinned, event = self._ring[self._turn]
        self._turn = (self._turn + 1) % IN_FLIGHT
        event.synchronize()  # until the copy of IN_FLIGHT turns ago has read this buffer
        pinned[...] = self.values
        self.array.set(pinned)
        event.record()
