"""Flat positions of elements that index arrays name, and sums at them.

One array of positions into a contiguous array stands for any kind of index: reading is then
``take``, and adding is ``ufunc.at`` on one dimension, which NumPy does in a fast loop, five to
fifteen times as fast as with a tuple of index arrays.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.guard import on_its_device


def most(numbers: Any) -> Any:
    """The largest of some numbers, or NaN, by what NumPy does without a way through Python."""
    plain = numbers.__class__ is np.ndarray
    return numbers.item(numbers.argmax()) if plain else numbers.max()


def least(numbers: Any) -> Any:
    """The smallest of some numbers; see `most`."""
    plain = numbers.__class__ is np.ndarray
    return numbers.item(numbers.argmin()) if plain else numbers.min()


def row_major_strides(shape: tuple[int, ...]) -> list[int]:
    """Steps in elements between neighbours along each dimension of a contiguous array."""
    strides = [1] * len(shape)
    for d in range(len(shape) - 1, 0, -1):
        strides[d - 1] = strides[d] * shape[d]
    return strides


@on_its_device
def along(xp: Any, shape: tuple[int, ...], index: Any, dim: int) -> Any:
    """Positions, in an array of a shape, of ``[i][j]...[index[i, j, ...]]...`` at ``dim``.

    The index has as many dimensions as the array (a 0-d array counts as one with one element)
    and the result the shape of the index.
    """
    if not shape:
        return index
    if not index.size:  # strides of 0 would have no neighbours to count
        return index.astype(np.int64)
    if xp is np and index.size <= _FEW:
        step, start = _known_starts(shape, index.shape, dim)
    else:
        step, start = _starts(xp, shape, index.shape, dim)
    flat = index if step == 1 else index * step
    if start is not None:
        flat = flat + start
    return flat if flat.dtype == np.int64 else flat.astype(np.int64)


def _starts(xp: Any, shape: tuple[int, ...], sizes: tuple[int, ...], dim: int) -> tuple[int, Any]:
    """The step along ``dim``, and where the rows in that direction start; None: at 0."""
    strides = row_major_strides(shape)
    start = None
    for d, n in enumerate(sizes):
        if d != dim and n > 1:
            part = xp.arange(0, n * strides[d], strides[d] or 1)[:n]
            part = part.reshape((n,) + (1,) * (len(sizes) - 1 - d))
            start = part if start is None else start + part
    return strides[dim], start


_FEW = 1 << 10  # small indices come again, and a table takes longer to make than to use
_known_starts = functools.lru_cache(256)(functools.partial(_starts, np))


@on_its_device
def slices(xp: Any, shape: tuple[int, ...], index: Any, dim: int) -> Any:
    """Positions of whole slices along ``dim``: (sizes before, len(index), sizes after), in 3-d."""
    before, after = 1, 1
    for n in shape[:dim]:
        before *= n
    for n in shape[dim + 1 :]:
        after *= n
    size = shape[dim] if shape else 1
    flat = index.astype(np.int64).reshape(1, -1, 1) * after
    if after != 1:
        flat = flat + xp.arange(after)
    if before != 1:
        step = size * after
        flat = flat + xp.arange(0, before * step, step or 1)[:before].reshape(-1, 1, 1)
    return flat


def row_numbers(xp: Any, shape: tuple[int, ...], index: tuple[Any, ...]) -> Any:
    """Integer index arrays for the first dimensions as numbers of rows; None for other indices.

    Numbers below 0 count from the end, of the dimension or of all rows.
    """
    rows: Any = None
    for n, item in zip(shape, index):
        if isinstance(item, slice) or item.dtype == np.bool_:
            return None
        if len(index) > 1 or item.dtype == np.uint8:
            item = item.astype(np.int64, copy=False)
            item = xp.where(item < 0, item + n, item)
        rows = item if rows is None else rows * n + item
    return rows


def add_indexed(xp: Any, out: Any, index: tuple[Any, ...], values: Any) -> Any:
    """``out[index] += values`` for a contiguous array, repeated indices included; returns it."""
    rows = row_numbers(xp, out.shape, index)
    size = 1
    for n in out.shape if rows is None else out.shape[len(index) :]:
        size *= n
    if rows is None:
        return add_at(xp, out, xp.arange(size).reshape(out.shape)[index], values)
    shape = (*rows.shape, *out.shape[len(index) :])
    if values.shape != shape:
        values = xp.broadcast_to(values, shape)
    if size == 1:
        return add_at(xp, out, rows, values.reshape(rows.shape))
    if out.size:
        add_rows(xp, out.reshape(-1, size), rows, values.reshape(-1, size))
    return out


_PAIRS = {np.dtype(np.float32): np.complex64, np.dtype(np.float64): np.complex128}


def add_rows(xp: Any, out: Any, rows: Any, values: Any) -> None:
    """Add rows, (count, size), to those of a contiguous matrix that integers name."""
    size, pair = out.shape[1], _PAIRS.get(out.dtype)
    if xp is np and pair is not None and size % 2 == 0 and values.dtype == out.dtype:
        # Two elements as one complex number: half as many positions.
        out, values, size = out.view(pair), np.ascontiguousarray(values).view(pair), size // 2
    first = rows.reshape(-1, 1).astype(np.int64, copy=False) * size
    add_at(xp, out, first + xp.arange(size), values)


def counts(xp: Any, places: Any, size: int) -> Any:
    """How often each number below ``size`` is among integers; none of them is another.

    CuPy's bincount would wait for the largest of them.
    """
    places = places.reshape(-1)
    if xp is np:
        return np.bincount(places, minlength=size)
    return add_at(xp, xp.zeros(size, np.int32), places, xp.ones(1, np.int32))


def add_at(xp: Any, out: Any, flat: Any, values: Any) -> Any:
    """Add values to a contiguous array at flat positions, repeated ones included; returns it.

    Values broadcast to the shape of the positions.
    """
    if flat.size == 0:
        return out
    if values.shape != flat.shape:
        values = xp.broadcast_to(values, flat.shape)
    flat = flat.reshape(-1)
    if flat.dtype != np.int64:
        flat = flat.astype(np.int64)
    values = values.reshape(-1)
    if xp is not np and out.dtype.name not in ("int32", "float16", "float32", "float64"):
        # CuPy adds to these only; sums of unsigned integers wrap to the right values.
        kind = np.float32 if out.dtype in dtypes.HALVES else np.uint64
        wide = out.reshape(-1).astype(kind)
        xp.add.at(wide, flat, values.astype(kind))
        out[...] = wide.astype(out.dtype).reshape(out.shape)
        return out
    xp.add.at(out.reshape(-1), flat, values.astype(out.dtype, copy=False))
    return out
