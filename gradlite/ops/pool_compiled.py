"""Max-pooling by windows of 2 x 2 by compiled code, where there is a C++ compiler.

What `gradlite.ops.pooling` does element by element of the windows, the functions of maxima.hpp do
in one pass. Each function here gives None where the compiled code does not fit.
"""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from typing import Any

import numpy as np

from gradlite.backends import launches, libraries
from gradlite.backends.memory import address
from gradlite.ops.windows import Geometry, Pair

# So many pixels are worth a library, and a small program never makes one.
LEAST_PIXELS = 1 << 17
FUNCTIONS = {"max_pool": 4, "max_pool_scatter": 4}
WINDOW, WINDOWS = (2, 2), Geometry((2, 2))


def maxima(x: Any, kernel: Pair, geometry: Geometry) -> Any:
    """The maximum of every window, and the number of the element that it is."""
    library = _library(x, x.shape, kernel, geometry)
    if library is None or not _row_major(x):
        return None
    *many, h, w = x.shape
    out = np.empty((*many, h // 2, w // 2), x.dtype)
    winners = np.empty(out.shape, np.uint8)
    library.max_pool(_sizes(x.shape), address(x), address(out), address(winners))
    launches.note("max_pool")
    return out, winners


def scatter(
    g: Any, winners: Any, shape: tuple[int, ...], kernel: Pair | None, geometry: Geometry | None
) -> Any:
    """Zeros with a value per window added at its winner."""
    library = _library(g, shape, kernel, geometry)
    if library is None or not _row_major(winners) or winners.dtype != np.uint8:
        return None
    g = np.ascontiguousarray(g)
    out = np.empty(shape, g.dtype)
    library.max_pool_scatter(_sizes(tuple(shape)), address(g), address(winners), address(out))
    launches.note("max_pool_scatter")
    return out


def _library(x: Any, shape: tuple[int, ...], kernel: Any, geometry: Any) -> Any:
    """The functions for windows over images of a shape, or None."""
    if kernel != WINDOW or geometry != WINDOWS or math.prod(shape) < LEAST_PIXELS:
        return None
    if x.__class__ is not np.ndarray or not x.dtype.isnative:
        return None
    return _loaded(x.dtype)


@lru_cache(8)
def _loaded(dtype: Any) -> Any:
    return libraries.functions("maxima", dtype.name, FUNCTIONS)


def _row_major(x: Any) -> bool:
    return bool(x.flags.c_contiguous and x.flags.aligned)


@lru_cache(256)
def _sizes(shape: tuple[int, ...]) -> Any:
    return (ctypes.c_longlong * 3)(math.prod(shape[:-2]), *shape[-2:])
