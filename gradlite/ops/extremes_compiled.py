"""The largest and smallest numbers of NumPy's arrays by compiled code (``compiled/extremes.hpp``).

NumPy's own go one by one where rows are short or are compared with each other.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from gradlite.backends import libraries
from gradlite.backends.multiply import DTYPES
from gradlite.ops.sums_compiled import arranged, finds_arrays

LEAST = 1 << 12  # elements; fewer are not worth a library


def extremes(x: Any, dims: tuple[int, ...], largest: bool) -> Any:
    """The largest or smallest numbers over dimensions, which are left out of the shape.

    None where the compiled code does not fit.
    """
    if x.__class__ is not np.ndarray or x.size < LEAST or x.dtype.char not in DTYPES:
        return None
    function = _function(x.dtype.char)
    found = None if function is None else arranged(x, dims)
    if found is None:
        return None
    out = np.empty([n for d, n in enumerate(x.shape) if d not in dims], x.dtype)
    x, sizes = found
    return out if function(x, out, sizes, largest) else None


@cache
def _function(char: str) -> Any:
    library = libraries.called("extremes", DTYPES[char].name)
    if library is None:
        return None
    array = ctypes.py_object
    library.extremes.argtypes = (array, array, ctypes.c_void_p, ctypes.c_int)
    fits = finds_arrays(library.extremes, DTYPES[char], 1, lambda x: x.max((0, 2)))
    return library.extremes if fits else None
