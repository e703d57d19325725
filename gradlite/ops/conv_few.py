"""Convolutions of few images by compiled code, where there is a C++ compiler.

`gradlite.ops.conv_compiled` works on as many images at once as a vector has lanes. Batches that
are smaller go through the functions of few.hpp, image by image. Each function here gives None where
NumPy is as good, or where the compiled code does not fit.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np

from gradlite.backends import launches, libraries
from gradlite.backends.memory import address, steps
from gradlite.ops.windows import VECTOR, Geometry, Pair

# Work of so many multiplications is worth a library, and a small program never makes one.
LEAST_WORK = 1 << 20
# Fewer elements of a kernel, outputs or pixels leave little to add up for what is laid out.
LEAST_TAPS, LEAST_OUTPUTS, LEAST_PIXELS = 64, 8, 512
# The sums of a kernel's gradient are kept for every lane: no more than fits the caches.
MOST_SUMS = 4_000_000
FUNCTIONS = {"few_convolved": 5, "few_kernels": 4}


def convolve(x: Any, w: Any, geometry: Geometry, bias: Any, y: Any = None) -> Any:
    """The cross-correlation of x (N, C, H, W) with w (O, C, KH, KW), plus a bias (O,).

    ``y`` has places for it.
    """
    counts = geometry.counts(x.shape[2:], w.shape[2:]) if y is None else y.shape[2:]
    library = _library(x, w, w.shape, counts)
    if library is None:
        return None
    y = np.empty((x.shape[0], w.shape[0], *counts), x.dtype) if y is None else y
    job = _job(x.shape, steps(x), w.shape, steps(w), counts, steps(y), geometry)
    bias = None if bias is None else np.ascontiguousarray(bias)  # kept, while it is read
    added = None if bias is None else address(bias)
    library.few_convolved(job, address(x), address(w), added, address(y))
    launches.note("few_convolved")
    return y


def weight_gradient(x: Any, g: Any, kernel: Pair, geometry: Geometry) -> Any:
    """The gradient of the kernels."""
    shape = (g.shape[1], x.shape[1], *kernel)
    library = _library(x, g, shape, g.shape[2:])
    if library is None or shape[0] * shape[1] * kernel[0] * kernel[1] * VECTOR > MOST_SUMS:
        return None
    out = np.empty(shape, x.dtype)
    job = _job(x.shape, steps(x), shape, (0, 0, 0, 0), g.shape[2:], steps(g), geometry)
    library.few_kernels(job, address(x), address(g), address(out))
    launches.note("few_kernels")
    return out


def fits(x: Any, other: Any, w: tuple[int, ...], counts: Pair) -> bool:
    """Whether convolutions with kernels of a shape are made by compiled code."""
    return _library(x, other, w, counts) is not None


def _library(x: Any, other: Any, w: tuple[int, ...], counts: Pair) -> Any:
    """The functions for a convolution of x with kernels of a shape, or None."""
    o, c, kh, kw = w
    taps, pixels = c * kh * kw, counts[0] * counts[1]
    if kh * kw == 1 or taps < LEAST_TAPS or o < LEAST_OUTPUTS or pixels < LEAST_PIXELS:
        return None  # a product of matrices, or little to gain
    if x.shape[0] * pixels * o * taps < LEAST_WORK:
        return None
    for array in (x, other):
        if array.__class__ is not np.ndarray or not array.dtype.isnative or not _whole(array):
            return None
    return _loaded(x.dtype) if x.dtype == other.dtype else None


def _whole(array: Any) -> bool:
    """Whether elements lie at places for them."""
    return bool(array.flags.aligned) and not any(s % array.itemsize for s in array.strides)


@lru_cache(8)
def _loaded(dtype: Any) -> Any:
    return libraries.functions("few", dtype.name, FUNCTIONS)


@lru_cache(1024)
def _job(
    x: tuple[int, ...],
    images: tuple[int, ...],
    w: tuple[int, ...],
    kernels: tuple[int, ...],
    counts: Pair,
    results: tuple[int, ...],
    geometry: Geometry,
) -> Any:
    """The numbers of a convolution: a Few of few.hpp."""
    numbers = (*geometry.numbers(x, w, counts), *images, *kernels, *results)
    return (ctypes.c_longlong * len(numbers))(*numbers)
