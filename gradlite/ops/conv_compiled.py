"""Convolutions of whole batches by compiled code, where there is a C++ compiler.

What `gradlite.ops.columns` does with products of columns, the functions of planes.hpp do without
columns: a vector holds one pixel of many images. Each function here gives None where NumPy is as
good, or where the compiled code does not fit.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np

from gradlite.backends import launches, libraries
from gradlite.backends.memory import address, steps
from gradlite.ops import conv_few
from gradlite.ops.windows import VECTOR, Geometry, Pair, phases, rows_of_copies, turned_back

# Work of so many multiplications is worth a library, and a small program never makes one.
LEAST_WORK = 1 << 22
# Of the lanes of all vectors, so large a part has to hold images.
LEAST_FILLED = 2 / 3
# The sums of a kernel's gradient are kept for every lane: no more than fits the caches.
MOST_SUMS = 4_000_000
COPIES = 600_000  # bytes of images and results together, to stay in the second-level cache
LEAST_VECTOR = 32  # with narrower ones NumPy's products are faster
NO_STEPS = (0, 0, 0, 0)
# The functions of planes.hpp, with how many arguments they have.
FUNCTIONS = {
    "images_convolved": 5, "kernels_gradient": 4, "maxima_of_convolved": 6, "spread_convolved": 5,
    "spread_kernels_gradient": 5,
}  # fmt: skip


def convolve(x: Any, w: Any, geometry: Geometry, bias: Any = None) -> Any:
    """The cross-correlation of x (N, C, H, W) with w (O, C, KH, KW), plus a bias (O,)."""
    counts = geometry.counts(x.shape[2:], w.shape[2:])
    library = _library(x, w, w.shape, counts)
    if bias is not None and bias.dtype != x.dtype:
        return None
    if library is None:
        return conv_few.convolve(x, w, geometry, bias)
    w = np.ascontiguousarray(w)
    y = np.empty((x.shape[0], w.shape[0], *counts), x.dtype)
    _convolve(library, x, w, w.shape, steps(w), geometry, bias, y)
    return y


def input_gradient(g: Any, w: Any, size: Pair, geometry: Geometry) -> Any:
    """The gradient of the input: for each phase of the stride a convolution by one step."""
    o, c, *kernel = w.shape
    counts, taps = g.shape[2:], (w.shape[2], w.shape[3])
    library = _library(g, w, (c, o, *kernel), counts)
    if library is None and not conv_few.fits(g, w, (c, o, *kernel), counts):
        return None
    w = np.ascontiguousarray(w)
    parts = phases(geometry, taps, size, counts)
    reached = len(parts) == geometry.stride[0] * geometry.stride[1]
    out = (np.empty if reached else np.zeros)((g.shape[0], c, *size), g.dtype)
    for phase in parts:
        high, wide = (slice(first, None, step) for first, step, _ in phase.taps)
        # The kernels turned by 180 degrees, from outputs to inputs.
        turned = w[:, :, high, wide][:, :, ::-1, ::-1].swapaxes(0, 1)
        part = out[:, :, phase.rows, phase.columns]
        made = part if part.flags.c_contiguous else np.empty(part.shape, g.dtype)
        if library is not None:
            _convolve(library, g, turned, turned.shape, steps(turned), phase.geometry, None, made)
        elif conv_few.convolve(g, turned, phase.geometry, None, made) is None:
            return None  # kernels of some phases are small
        if made is not part:
            part[...] = made
    return out


def weight_gradient(x: Any, g: Any, kernel: Pair, geometry: Geometry) -> Any:
    """The gradient of the kernels."""
    shape = (g.shape[1], x.shape[1], *kernel)
    if not _fits(x, g, shape, g.shape[2:]):
        return conv_few.weight_gradient(x, g, kernel, geometry)
    library = _loaded(x.dtype)
    x, g = _planes(x), _planes(g)
    out = np.empty(shape, x.dtype)
    grads = (*steps(g)[:2], 0, 0)
    job = _job(x.shape, steps(x)[:2], shape, NO_STEPS, g.shape[2:], geometry, grads)
    library.kernels_gradient(job, address(x), address(g), address(out))
    launches.note("kernels_gradient")
    return out


def joins(x: Any, dtype: Any, w: tuple[int, ...], geometry: Geometry) -> bool:
    """Whether convolutions of images of a shape, and kernels of another, are joined with pooling.

    Batches that fill all vectors, and windows that cover all of the convolution's results.
    """
    counts = geometry.counts(x[2:], (w[2], w[3]))
    reach = [d * (k - 1) for d, k in zip(geometry.dilation, w[2:])]
    return (
        dtype.name in libraries.REAL
        and dtype.isnative
        and not any(n % 2 for n in (*counts, *x[2:]))
        and x[0] % (VECTOR // dtype.itemsize) == 0
        and geometry.stride == (1, 1)
        and all(0 <= p <= far for sides, far in zip(geometry.pads, reach) for p in sides)
    )


def maxima(x: Any, w: Any, geometry: Geometry, bias: Any, out: Any = None) -> Any:
    """The maxima of windows of 2 x 2 of relu(x * w + bias), and the winners.

    ``out`` has row-major places for both.
    """
    if not _fits_maxima(x, w, w.shape, geometry) or (bias is not None and bias.dtype != x.dtype):
        return None
    counts = geometry.counts(x.shape[2:], w.shape[2:])
    w = np.ascontiguousarray(w)
    shape = (x.shape[0], w.shape[0], counts[0] // 2, counts[1] // 2)
    y, winners = (np.empty(shape, x.dtype), np.empty(shape, np.uint8)) if out is None else out
    x = _planes(x)
    bias = None if bias is None else np.ascontiguousarray(bias)
    job = _job(x.shape, steps(x)[:2], w.shape, steps(w), counts, geometry)
    added = None if bias is None else address(bias)
    arrays = (address(x), address(w), added, address(y), address(winners))
    _loaded(x.dtype).maxima_of_convolved(job, *arrays)
    launches.note("maxima_of_convolved")
    return y, winners


def spread_gradients(
    x: Any,
    g: Any,
    shape: tuple[int, ...],
    w: Any,
    geometry: Geometry,
    winners: Any,
    out: Any = (None, None),
) -> Any:
    """The gradients of x and of kernels of a shape from that of their `maxima`.

    That of x needs the kernels; it is None without them. ``out`` has row-major places for both.
    """
    if not _fits_maxima(x, g, shape, geometry):
        return None
    library = _loaded(x.dtype)
    g, winners = np.ascontiguousarray(g), np.ascontiguousarray(winners)
    o, high, wide = g.shape[1:]
    counts, grads = (2 * high, 2 * wide), (o * high * wide, 0, high, wide)
    grad_x, grad_w = out
    grad_w = np.empty(shape, x.dtype) if grad_w is None else grad_w
    if w is not None:
        w = np.ascontiguousarray(w)
        turned = w[:, :, ::-1, ::-1].swapaxes(0, 1)
        grad_x = np.empty(x.shape, x.dtype) if grad_x is None else grad_x
        back = turned_back(geometry, (w.shape[2], w.shape[3]))
        full = (x.shape[0], o, *counts)
        job = _job(full, (0, 0), turned.shape, steps(turned), x.shape[2:], back, grads)
        arrays = (address(g), address(winners), address(turned), address(grad_x))
        library.spread_convolved(job, *arrays)
        launches.note("spread_convolved")
    x = _planes(x)
    job = _job(x.shape, steps(x)[:2], shape, NO_STEPS, counts, geometry, grads)
    arrays = (address(x), address(g), address(winners), address(grad_w))
    library.spread_kernels_gradient(job, *arrays)
    launches.note("spread_kernels_gradient")
    return grad_x, grad_w


def _fits_maxima(x: Any, other: Any, w: tuple[int, ...], geometry: Geometry) -> bool:
    return (
        x.__class__ is np.ndarray
        and x.dtype == other.dtype
        and _worth(x.shape[0], w, geometry.counts(x.shape[2:], (w[2], w[3])))
        and w[0] * w[1] * w[2] * w[3] * VECTOR <= MOST_SUMS
        and joins(x.shape, x.dtype, w, geometry)
        and _loaded(x.dtype) is not None
    )


def _convolve(
    library: Any,
    x: Any,
    w: Any,
    shape: tuple[int, ...],
    kernels: tuple[int, ...],
    geometry: Geometry,
    bias: Any,
    y: Any,
) -> None:
    x = _planes(x)
    bias = None if bias is None else np.ascontiguousarray(bias)
    job = _job(x.shape, steps(x)[:2], shape, kernels, y.shape[2:], geometry)
    added = None if bias is None else address(bias)
    library.images_convolved(job, address(x), address(w), added, address(y))
    launches.note("images_convolved")


def fits(x: Any, g: Any, shape: tuple[int, ...], counts: Pair) -> bool:
    """Whether the gradient of kernels of a shape is made by compiled code."""
    return _fits(x, g, shape, counts) or conv_few.fits(x, g, shape, counts)


def _fits(x: Any, g: Any, shape: tuple[int, ...], counts: Pair) -> bool:
    small = shape[0] * shape[1] * shape[2] * shape[3] * VECTOR <= MOST_SUMS
    return small and _library(x, g, shape, counts) is not None


def _library(x: Any, other: Any, shape: tuple[int, ...], counts: Pair) -> Any:
    """The functions for a convolution of x with kernels of a shape, or None.

    Args:
        x, other: arrays that have to be of one dtype.
        shape: (O, C, KH, KW).
        counts: height and width of the result.
    """
    n = x.shape[0]
    if not _worth(n, shape, counts):
        return None
    if x.__class__ is not np.ndarray or x.dtype != other.dtype or not x.dtype.isnative:
        return None
    lanes = VECTOR // x.itemsize
    if n < LEAST_FILLED * lanes * -(-n // lanes):
        return None
    return _loaded(x.dtype)


def _worth(n: int, w: tuple[int, ...], counts: Pair) -> bool:
    o, c, kh, kw = w
    work = n * counts[0] * counts[1] * o * c * kh * kw
    return work >= LEAST_WORK and kh * kw > 1  # else it is a product of matrices


@lru_cache(8)
def _loaded(dtype: Any) -> Any:
    library = libraries.functions("planes", dtype.name, FUNCTIONS)
    if library is not None and ctypes.c_int.in_dll(library, "vector_bytes").value < LEAST_VECTOR:
        return None
    return library


def _planes(x: Any) -> Any:
    """Images whose planes are in row-major order, or a copy."""
    item = x.itemsize
    n, c, h, w = x.strides
    if w == item and h == w * x.shape[3] and n % item == c % item == 0 and x.flags.aligned:
        return x
    return np.ascontiguousarray(x)


@lru_cache(1024)
def _job(
    x: tuple[int, ...],
    images: tuple[int, ...],
    w: tuple[int, ...],
    kernels: tuple[int, ...],
    counts: Pair,
    geometry: Geometry,
    grads: tuple[int, ...] = NO_STEPS,
) -> Any:
    """The numbers that describe a convolution: a Job of planes.hpp."""
    o, c, kh, kw = w
    rows = rows_of_copies(c, counts, (kh, kw), geometry, o * counts[1] * VECTOR, COPIES)
    numbers = (*geometry.numbers(x, w, counts), *images, *kernels, *grads, rows)
    return (ctypes.c_longlong * len(numbers))(*numbers)
