"""What a kernel notes when an index or a value is out of bounds, and the error that comes of it.

A GPU works behind the host's back, so the error comes late: when the host next waits for the
GPU's results, or launches another kernel that notes. Nothing has been read or written outside.
"""

from __future__ import annotations

import weakref
from threading import Lock
from typing import Any

import numpy as np

from gradlite.backends import cuda

# What the kernels of all ops look at on one device: indices, class numbers, offsets.
KINDS = 64
REFUSED = 2
_CLEAN = bytes(KINDS * 24)


class Notes:
    """Where the kernels of a device note, for each op and what it looks at, (1, index, size).

    Or `REFUSED` alone, of what is no index: then what it looks at is the error's own words.

    In page-locked memory, to which a GPU writes by itself: a look there costs next to nothing.

    Attributes:
        host: the same memory as the host sees it.
    """

    def __init__(self, xp: Any, device: int = 0) -> None:
        self._places: dict[tuple[str, ...], Any] = {}
        self._names: list[str] = []
        self._lock = Lock()
        if xp is np:
            self.host = self.array = np.zeros((KINDS, 3), np.int64)
            return
        import cupyx

        self.host = host = cupyx.empty_pinned((KINDS, 3), np.int64)
        host.fill(0)
        memory = xp.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, device)
        pointer = xp.cuda.MemoryPointer(memory, 0)
        self.array = xp.ndarray((KINDS, 3), np.int64, memptr=pointer)
        watched.append(weakref.ref(self, watched.remove))

    def place(self, op: str, *what: str) -> Any:
        """An array of the device, a row for everything that the kernels of an op look at."""
        found = self._places.get((op, *what))
        if found is None:
            with self._lock:
                first = len(self._names)
                if first + len(what) > KINDS:
                    raise RuntimeError(f"{op}: kernels note more than {KINDS} kinds of numbers")
                found = self._places[(op, *what)] = self.array[first : first + len(what)]
                self._names += [f"{op}: {name}" for name in what]
        return found

    def take(self) -> list[str]:
        """What has been noted, in words; it is then forgotten."""
        rows = [row for row in range(KINDS) if self.host[row, 0]]
        # The kernel may not have written the rest yet.
        if any(row[0] != REFUSED and not row.all() for row in self.host[rows]):
            cupy = cuda.module()
            for index in range(cupy.cuda.runtime.getDeviceCount()):  # one of which has met it
                cupy.cuda.Device(index).synchronize()
        found = [
            self._names[row]
            if kind == REFUSED
            else f"{self._names[row]} {index} is out of bounds for dimension with size {size}"
            for row, (kind, index, size) in zip(rows, self.host[rows].tolist())
        ]
        self.host[rows] = 0
        return found


watched: list[weakref.ref[Notes]] = []


def check() -> None:
    """RuntimeError if a kernel that has run met an index out of bounds."""
    for reference in watched:
        notes = reference()
        if notes is not None and notes.host.tobytes() != _CLEAN:
            found = notes.take()
            if found:
                raise RuntimeError("\n".join(["CUDA error: device-side assert triggered", *found]))
