"""Running sums, products, logarithms of sums and extremes with the kernels of ``scan.cu``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from gradlite.ops.softmax import extent

FLOAT32, INT32, INT64 = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.int64)
UINT8 = np.dtype(np.uint8)
MOST = 1 << 31  # elements of an array whose places a kernel counts in 32 bits


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


@lru_cache(maxsize=4096)
def _division(outer: int, n: int, inner: int, serial: bool) -> tuple[int, int, int]:
    """How many columns a block has, into how many parts each is cut, and how many blocks."""
    columns = outer * inner
    # Threads read what lies beside each other together: steps, or columns where these do.
    most = 256 // min(32, _power_of_two(inner))
    if columns >= 1 << 14:
        most = 32 if inner == 1 else 1
    width = 256 // min(_power_of_two(-(-n // 4)), most)
    tiles = -(-columns // width)
    parts = 1 if serial else max(1, min(64, 256 // tiles, n * width // 4096))
    parts = -(-n // -(-n // parts))  # none of them empty
    return width, parts, min(tiles * parts, 1 << 16)


def _launch(
    K: Any, name: str, dtype: Any, arrays: tuple[Any, ...], sizes: tuple[int, ...], way: int
) -> None:
    """Launch a kernel of ``scans.cuh``; ``way`` is its parameter that says which way it goes."""
    outer, n, inner = sizes
    width, parts, blocks = _division(outer, n, inner, K.serial)
    # A state takes 24 bytes at most.
    scratch = K.empty((6 * parts * outer * inner,), INT32) if parts > 1 else None
    sizes = (*sizes, parts, width)
    for leaves in (1, 0) if parts > 1 else (0,):
        K.launch(name, dtype, (blocks,), (256,), *arrays, scratch, *sizes, way, leaves)


def running(K: Any, name: str, arrays: tuple[Any, ...], dim: int, backwards: bool = False) -> Any:
    """What a kernel makes of arrays of one shape by running along a dimension."""
    first = arrays[0]
    if not first.ndim or not K.takes(*arrays):
        return NotImplemented
    dense = tuple(map(K.dense, arrays))
    out = K.empty(first.shape, first.dtype)
    _launch(K, name, first.dtype, (*dense, out), extent(first.shape, dim), int(backwards))
    return out


def running_count(K: Any, mask: Any) -> Any:
    """In how many places up to each a mask holds, all its elements being one row."""
    counts = K.empty(mask.shape, INT64)
    _launch(K, "running_count", FLOAT32, (K.dense(mask), counts), (1, mask.size, 1), 0)
    return counts


def running_extreme(K: Any, x: Any, dim: int, sign: int) -> Any:
    """Where along a dimension the largest (sign 1) or smallest (-1) element so far is.

    Other elements than floating ones are whole numbers, or bools.
    """
    index = K.empty(x.shape, INT64)
    name, dtype = "running_extreme", x.dtype
    if not K.takes(x):
        name, dtype, x = "running_extreme_integers", FLOAT32, x.astype(INT64, copy=False)
    _launch(K, name, dtype, (K.dense(x), index), extent(x.shape, dim), sign)
    return index


def running_product_gradient(K: Any, grad: Any, x: Any, out: Any, dim: int) -> Any:
    """The gradient of running products along a dimension."""
    if not x.ndim or not K.takes(grad, x, out):
        return NotImplemented
    grad, x, out = K.dense(grad), K.dense(x), K.dense(out)
    slopes, places = K.empty(x.shape, K.acc(x.dtype)), K.empty(x.shape, UINT8)
    dx = K.empty(x.shape, x.dtype)
    sizes = extent(x.shape, dim)
    arrays = (grad, x, out, slopes, places)
    _launch(K, "running_product_slopes", x.dtype, arrays, sizes, 0)
    _launch(K, "running_product_backward", x.dtype, (slopes, places, x, out, dx), sizes, 1)
    return dx


def product_gradient(K: Any, grad: Any, x: Any, out: Any, dim: int | None, whole: bool) -> Any:
    """The gradient of the products along a dimension, or of that of all elements.

    That of ``whole`` arrays is 0 where several factors are, whatever the others are.
    """
    if not K.takes(grad, x, out) or x.size >= MOST:
        return NotImplemented
    sizes = (1, x.size, 1) if dim is None else extent(x.shape, dim)
    x, grad, out = K.dense(x), K.dense(grad), K.dense(out)
    dx = K.empty(x.shape, x.dtype)
    # Products without a zero among their factors need no parts, and nothing is read for them.
    parts = max(1, min(sizes[1] // 64, 256, (1 << 16) // out.size))
    partials = K.empty((3, parts, out.size), K.acc(x.dtype))
    K.elementwise("prod_parts", x.dtype, 4 * parts * out.size, x, out, partials, *sizes, parts)
    arrays = (grad, x, out, partials, dx)
    K.elementwise("prod_backward", x.dtype, x.size, *arrays, *sizes, parts, int(whole))
    return dx
