"""Inputs that compiled code reads where they lie: their addresses, put into its table."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from gradlite.backends import native


class Pointers:
    """Puts the addresses of inputs into a segment's table.

    Args:
        places: for the number of an input its place in the table.
        sizes: their bytes, by the same numbers.
        table: the table.
        taken: first addresses and ends of the memory that the step writes. An input that lies
            there is copied, and so is one that is not row-major.
    """

    def __init__(
        self,
        places: Mapping[int, int],
        sizes: Mapping[int, int],
        table: ctypes.Array[ctypes.c_void_p],
        taken: Sequence[tuple[int, int]],
    ) -> None:
        self._places, self._table, self._taken = dict(places), table, list(taken)
        rows = np.array([(n, place, sizes[n]) for n, place in places.items()], np.int64)
        ranges = np.array(self._taken, np.int64)
        described = [_start(rows), len(rows), ctypes.addressof(table), _start(ranges), len(ranges)]
        inputs = np.array(described, np.int64)
        self._keep = (rows, ranges, inputs)
        self._address = _start(inputs)
        self._point = _library()

    def point(self, values: list[Any]) -> list[Any]:
        """Take the arrays of all inputs; returns copies, to be held until the step has run."""
        if self._point is not None and self._point(values, self._address):
            return []
        held = []
        for number, place in self._places.items():
            array = values[number]
            start = _start(array)
            if not array.flags.c_contiguous or self._touches(start, array.nbytes):
                array = array.copy("C")
                held.append(array)
                start = _start(array)
            self._table[place] = start
        return held

    def _touches(self, start: int, size: int) -> bool:
        return any(start < stop and first < start + size for first, stop in self._taken)


@cache
def _library() -> Callable[[list[Any], int], int] | None:
    """What does it in one call; None where arrays are not laid out as it takes them to be."""
    if native.launcher() is None:
        return None
    text = files("gradlite.capturing.native").joinpath("inputs.hpp").read_text("utf-8")
    try:
        function = native.callable_from_python("inputs", text, []).gradlite_point
    except (RuntimeError, OSError, subprocess.SubprocessError):
        return None
    function.argtypes, function.restype = [ctypes.py_object] * 2, ctypes.c_int
    return function  # type: ignore[no-any-return]


def _start(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])
