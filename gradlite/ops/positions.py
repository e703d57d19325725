"""Flat positions of elements that index arrays name, and sums at them.

One array of positions into a contiguous array stands for any kind of index: reading is then
``take``, and adding is ``ufunc.at`` on one dimension, which NumPy does in a fast loop, five to
fifteen times as fast as with a tuple of index arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def row_major_strides(shape: tuple[int, ...]) -> list[int]:
    """Steps in elements between neighbours along each dimension of a contiguous array."""
    strides = [1] * len(shape)
    for d in range(len(shape) - 1, 0, -1):
        strides[d - 1] = strides[d] * shape[d]
    return strides


def along(xp: Any, shape: tuple[int, ...], index: Any, dim: int) -> Any:
    """Positions, in an array of a shape, of ``[i][j]...[index[i, j, ...]]...`` at ``dim``.

    The index has as many dimensions as the array (a 0-d array counts as one with one element)
    and the result the shape of the index.
    """
    if not shape:
        return index
    strides = row_major_strides(shape)
    flat = index if strides[dim] == 1 else index * strides[dim]
    start = None
    for d, n in enumerate(index.shape):
        if d != dim and n > 1:
            part = xp.arange(0, n * strides[d], strides[d] or 1)[:n]
            part = part.reshape((n,) + (1,) * (index.ndim - 1 - d))
            start = part if start is None else start + part
    if start is not None:
        flat = flat + start
    return flat if flat.dtype == np.int64 else flat.astype(np.int64)


def slices(xp: Any, shape: tuple[int, ...], index: Any, dim: int) -> Any:
    """Positions of whole slices along ``dim``: (sizes before, len(index), sizes after), in 3-d."""
    before, after = 1, 1
    for n in shape[:dim]:
        before *= n
    for n in shape[dim + 1 :]:
        after *= n
    size = shape[dim] if shape else 1
    flat = index.astype(np.int64).reshape(1, -1, 1) * after
    if after > 1:
        flat = flat + xp.arange(after)
    if before > 1:
        step = size * after
        flat = flat + xp.arange(0, before * step, step or 1)[:before].reshape(-1, 1, 1)
    return flat


def elements(xp: Any, shape: tuple[int, ...], index: tuple[Any, ...]) -> Any:
    """Positions of what ``array[index]`` reads, for any index that has an index array."""
    arrays = []
    for item in index:
        if isinstance(item, slice) or item.dtype == np.bool_:
            break
        arrays.append(item)
    if len(arrays) < len(index):
        size = 1
        for n in shape:
            size *= n
        return xp.arange(size).reshape(shape)[index]
    flat: Any = None
    for n, item in zip(shape, arrays):
        if len(arrays) > 1 or item.dtype == np.uint8:
            item = item.astype(np.int64)
            item = xp.where(item < 0, item + n, item)
        flat = item if flat is None else flat * n + item
    after = 1
    for n in shape[len(arrays) :]:
        after *= n
    if after == 1 and len(arrays) == len(shape):
        return flat
    # A negative row number stays right: it counts from the end of the flat array too.
    flat = flat.reshape((*flat.shape, *(1,) * (len(shape) - len(arrays)))) * after
    return flat + xp.arange(after).reshape(shape[len(arrays) :])


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
    if xp is not np and out.dtype.kind != "f" and out.dtype.name != "int32":
        # CuPy adds to these integers only; sums of unsigned ones wrap to the right values.
        wide = out.reshape(-1).astype(np.uint64)
        xp.add.at(wide, flat, values.astype(np.uint64))
        out[...] = wide.astype(out.dtype).reshape(out.shape)
        return out
    xp.add.at(out.reshape(-1), flat, values.astype(out.dtype, copy=False))
    return out
