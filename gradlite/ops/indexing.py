"""Launches of the kernels that read rows and elements at indices, or add to them.

An array is seen as (outer, size, inner) with the indices going along the middle, as in
kernels/index.cu. The functions that add give the same bits at every run, but for sums of many
terms in few rows, and for these too after `use_deterministic_algorithms`.
"""

from __future__ import annotations

import math
from operator import le
from typing import Any

import numpy as np

from gradlite import determinism
from gradlite.ops import guard

# Up to so many comparisons of an index with a row, a warp looks for the indices of its row.
SEARCHED = 1 << 24
# From so many sums on, or up to so many terms in each, one thread to a sum keeps a GPU busy.
SUMS = 1 << 12
TERMS = 64
# A row of fewer elements is read element by element, by neighbouring threads.
SHORT = 8
MOST = 1 << 31  # elements that are told apart by 32-bit numbers


def split(shape: tuple[int, ...], dim: int) -> tuple[int, int, int]:
    """(outer, size, inner) of an array of at least one dimension."""
    return math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])


def as_index(K: Any, index: Any) -> Any:
    """A row-major int64 array."""
    return K.dense(index if index.dtype == np.int64 else index.astype(np.int64))


def take_slices(
    K: Any, x: Any, index: Any, dim: int, out_shape: tuple[int, ...], lowest: int = 0
) -> Any:
    """The slices along a dimension that an array of indices names."""
    outer, size, inner = split(x.shape, dim)
    count, dtype = index.size, x.dtype
    x, index, out = K.dense(x), as_index(K, index), K.empty(out_shape, dtype)
    if inner >= SHORT or out.size >= MOST:
        K.rows(
            "take_rows", dtype, outer * count, inner, x, index, out, K.errors, lowest, outer, size,
            count, inner,
        )  # fmt: skip
    else:
        _take(K, x, index, out, lowest, outer, size, count, inner, (0, 1, 0))
    return out


def inside(shape: tuple[int, ...], index: tuple[int, ...], dim: int) -> bool:
    """Whether an index's shape is nowhere larger than an array's but along one dimension."""
    return bool(shape) and len(shape) == len(index) and all(map(le, _cut(index, shape, dim), shape))


def _cut(shape: tuple[int, ...], whole: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return (*shape[:dim], whole[dim], *shape[dim + 1 :])


def _part(array: Any, index: Any, dim: int) -> Any:
    """What an index can name: a view of the index's sizes in all dimensions but one."""
    shape = _cut(index.shape, array.shape, dim)
    return array if shape == array.shape else array[tuple(map(slice, shape))]


def movable(x: Any) -> Any:
    """An array as `take_along` moves it: int64 as float64 of the same bits."""
    return x.view(np.float64) if x.dtype == np.int64 else x


def take_along(K: Any, x: Any, index: Any, dim: int) -> Any:
    """Elements along a dimension: the index is `inside` the shape of x."""
    x = _part(x, index, dim)
    outer, size, inner = split(x.shape, dim)
    count = index.shape[dim]
    out = K.empty(index.shape, x.dtype)
    steps = (count * inner, inner, 1)
    _take(K, K.dense(x), as_index(K, index), out, 0, outer, size, count, inner, steps)
    return out


def _take(
    K: Any, x: Any, index: Any, out: Any, lowest: int, outer: int, size: int, count: int,
    inner: int, steps: tuple[int, int, int],
) -> None:  # fmt: skip
    K.elementwise(
        "take_along", x.dtype, out.size, x, index, out, K.errors, lowest, outer, size, count, inner,
        *steps,
    )  # fmt: skip


def add_rows(K: Any, out: Any, index: Any, values: Any, lowest: int = 0, skipped: int = -1) -> None:
    """out[index[i]] += values[i], for a row-major out of (rows, inner); not for index `skipped`."""
    rows, inner = out.shape
    count, dtype = index.size, out.dtype
    index, values = as_index(K, index), K.dense(values)
    narrow = K.acc(dtype) != dtype
    if K.serial or rows * count <= SEARCHED:
        tiles = -(-inner * dtype.itemsize // 512)
        grid = (K.row_geometry(rows, 1)[0][0], min(tiles, 65535))
        K.launch(
            "add_rows_searched", dtype, grid, (32, 8), values, index, out, K.errors, lowest,
            skipped, rows, count, inner,
        )  # fmt: skip
    elif narrow or values.size >= MOST or determinism.are_deterministic_algorithms_enabled():
        if lowest < 0:
            index = K.xp.where(index < 0, index - lowest, index)
        order = K.xp.argsort(index.reshape(-1))
        K.rows(
            "add_rows_sorted", dtype, count, inner, values, index.reshape(-1)[order], order, out,
            K.errors, skipped, rows, count, inner,
        )  # fmt: skip
    else:
        _add_atomic(K, out, index, values, lowest, skipped, 1, rows, count, inner, (0, 1, 0))


def add_slices(K: Any, out: Any, index: Any, values: Any, dim: int) -> None:
    """Add slices along a dimension to those that a vector of indices names."""
    outer, size, inner = split(out.shape, dim)
    if outer == 1:
        add_rows(K, out.reshape(size, inner), index, values)
    else:
        _add(K, out, index, values, outer, size, index.size, inner, (0, 1, 0))


def add_along(K: Any, out: Any, index: Any, values: Any, dim: int) -> None:
    """Add elements at indices along a dimension, which are `inside` the shape of ``out``."""
    part = _part(out, index, dim)
    sums = K.dense(part)
    outer, size, inner = split(sums.shape, dim)
    count = index.shape[dim]
    _add(K, sums, index, values, outer, size, count, inner, (count * inner, inner, 1))
    if sums is not part:
        part[...] = sums


def _add(
    K: Any, out: Any, index: Any, values: Any, outer: int, size: int, count: int, inner: int,
    steps: tuple[int, int, int],
) -> None:  # fmt: skip
    index, values = as_index(K, index), K.dense(values)
    dtype = out.dtype
    few_to_a_sum = count <= TERMS or outer * inner >= SUMS
    ordered = few_to_a_sum or determinism.are_deterministic_algorithms_enabled()
    if K.acc(dtype) != dtype or values.size >= MOST or (ordered and not K.serial):
        K.elementwise(
            "add_along", dtype, outer * inner, values, index, out, K.errors, 0, outer, size, count,
            inner, *steps,
        )  # fmt: skip
    else:
        _add_atomic(K, out, index, values, 0, -1, outer, size, count, inner, steps)


def _add_atomic(
    K: Any, out: Any, index: Any, values: Any, lowest: int, skipped: int, outer: int, size: int,
    count: int, inner: int, steps: tuple[int, int, int],
) -> None:  # fmt: skip
    K.elementwise(
        "add_along_atomic", out.dtype, values.size, values, index, out, K.errors, lowest, skipped,
        outer, size, count, inner, *steps,
    )  # fmt: skip


def check(K: Any, index: Any, lowest: int, size: int) -> None:
    """Note an error, of which the host will hear, unless lowest <= index < size everywhere."""
    n = index.size
    if n:
        with guard.on(index):
            index = as_index(K, index)
            K.elementwise("check_indices", np.float32, n, index, K.errors, lowest, size, n)


def one_hot(K: Any, index: Any, classes: int) -> Any:
    """Rows of int64 with a 1 at each index."""
    out = K.empty((*index.shape, classes), np.int64)
    count = index.size
    K.rows("one_hot", np.float32, count, classes, K.dense(index), out, K.errors, count, classes)
    return out
