"""Convolutions of single channels by compiled code, where there is a C++ compiler.

What `gradlite.ops.grouped` does tap by tap with array calls, the functions of depthwise.hpp do
plane by plane. Each function here gives None where the compiled code does not fit. Recorded as
one call, of which replays of array calls make the same one.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np

from gradlite.backends import launches, libraries
from gradlite.backends.memory import address
from gradlite.ops.windows import Geometry, Pair

# Work of so many multiplications is worth a library, and a small program never makes one.
LEAST_WORK = 1 << 18
FUNCTIONS = {"depthwise_convolved": 5, "depthwise_spread": 4, "depthwise_kernels": 4}


def convolve(xp: Any, x: Any, w: Any, bias: Any, geometry: Geometry) -> Any:
    """The cross-correlation of x (N, C, H, W) with w (C * M, 1, KH, KW), plus a bias (C * M,)."""
    counts = geometry.counts(x.shape[2:], w.shape[2:])
    library = _library(x, w, w.shape, counts)
    if library is None or (bias is not None and bias.dtype != x.dtype):
        return None
    y = np.empty((x.shape[0], len(w), *counts), x.dtype)
    added = None if bias is None else np.ascontiguousarray(bias)
    _run(library, "depthwise_convolved", _slide(x.shape, w.shape, counts, geometry), x, w, added, y)
    return y


def input_gradient(xp: Any, g: Any, w: Any, size: Pair, geometry: Geometry, channels: int) -> Any:
    """The gradient of the input, of height and width ``size``."""
    counts = (g.shape[2], g.shape[3])
    library = _library(g, w, w.shape, counts)
    if library is None:
        return None
    dx = np.empty((g.shape[0], channels, *size), g.dtype)
    _run(library, "depthwise_spread", _slide(dx.shape, w.shape, counts, geometry), g, w, dx)
    return dx


def weight_gradient(xp: Any, x: Any, g: Any, kernel: Pair, geometry: Geometry) -> Any:
    """The gradient of the kernels."""
    shape, counts = (g.shape[1], 1, *kernel), (g.shape[2], g.shape[3])
    library = _library(x, g, shape, counts)
    if library is None:
        return None
    dw = np.empty(shape, x.dtype)
    _run(library, "depthwise_kernels", _slide(x.shape, shape, counts, geometry), x, g, dw)
    return dw


def _run(library: Any, name: str, slide: Any, *arrays: Any) -> None:
    kept = [None if a is None else np.ascontiguousarray(a) for a in arrays]
    addresses = [None if a is None else address(a) for a in kept]
    getattr(library, name)(slide, *addresses)
    launches.note(name)


def _library(x: Any, other: Any, w: tuple[int, ...], counts: Pair) -> Any:
    """The functions for kernels of a shape and a result of a height and width, or None."""
    if x.shape[0] * w[0] * w[2] * w[3] * counts[0] * counts[1] < LEAST_WORK:
        return None
    if x.__class__ is not np.ndarray or x.dtype != other.dtype or not x.dtype.isnative:
        return None
    return _loaded(x.dtype)


@lru_cache(8)
def _loaded(dtype: Any) -> Any:
    return libraries.functions("depthwise", dtype.name, FUNCTIONS)


@lru_cache(1024)
def _slide(x: tuple[int, ...], w: tuple[int, ...], counts: Pair, geometry: Geometry) -> Any:
    """The numbers of a convolution: a Slide of images.hpp."""
    numbers = geometry.numbers(x, w, counts)
    return (ctypes.c_longlong * len(numbers))(*numbers)
