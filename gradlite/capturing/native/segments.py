"""Segments: functions of compiled code, each for a run of recorded calls."""

from __future__ import annotations

import ctypes
from typing import Any

from gradlite.capturing.native.translate import GUARD_FAILED
from gradlite.capturing.plan import GuardError


class Segment:
    """A compiled function of a plan, called without arguments.

    Attributes:
        function: takes the address of a table of pointers and gives 0, or what went wrong.
        table: that address.
    """

    __slots__ = ("function", "table")

    def __init__(self, function: Any, table: int) -> None:
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_longlong
        self.function, self.table = function, table

    def __call__(self) -> None:
        code = self.function(self.table)
        if code:
            fail(code)


def fail(code: int) -> None:
    """Raise what a segment's number other than 0 means."""
    if code == GUARD_FAILED:
        raise GuardError
    raise IndexError(f"index out of range in call {code - 1} of a captured step")
