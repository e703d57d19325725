"""The order of random words by compiled code (``compiled/orders.hpp``), on NumPy's arrays."""

from __future__ import annotations

import ctypes
import os
import subprocess
from functools import cache
from typing import Any

import numpy as np

from gradlite.backends import libraries


@cache
def _function() -> Any:
    if os.environ.get("GRADLITE_NATIVE") == "0":
        return None
    try:
        function = libraries.load("orders").order
    except (RuntimeError, OSError, subprocess.SubprocessError):
        return None
    pointer = ctypes.c_void_p
    function.argtypes = pointer, ctypes.c_longlong, pointer, pointer
    function.restype = None
    return function


def argsort(words: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """The indices that sort an array of uint64, ties by index; None where there is no compiler.

    The words are to be spread evenly over all 64 bits, as random ones are: others take long.
    """
    function, n = _function(), words.size
    if function is None or n >= 1 << 31:
        return None
    words, some, order = np.ascontiguousarray(words), np.empty(n, np.int64), np.empty(n, np.int64)
    function(words.ctypes.data, n, some.ctypes.data, order.ctypes.data)
    return order
