"""Sums, means and extremes over dimensions with the kernels of ``reduce.cu``.

All functions take a row-major array, and give NotImplemented for dimensions that the kernels do
not reduce at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gradlite.ops.column_sums import parts_of


@lru_cache(maxsize=4096)
def merged(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[tuple[int, bool], ...]:
    """Sizes, and whether they are reduced, of the fewest dimensions that come to the same."""
    result: list[tuple[int, bool]] = []
    for d, n in enumerate(shape):
        if n == 1:
            continue
        reduced = d in dims
        if result and result[-1][1] == reduced:
            n *= result.pop()[0]
        result.append((n, reduced))
    return tuple(result)


def reduced_shape(shape: Sequence[int], dims: tuple[int, ...], keepdim: bool) -> tuple[int, ...]:
    """The shape of a reduction."""
    if keepdim:
        return tuple(1 if d in dims else n for d, n in enumerate(shape))
    return tuple(n for d, n in enumerate(shape) if d not in dims)


def pieces_for(rows: int, columns: int) -> int:
    """Into how many pieces to cut rows that are too few for a GPU."""
    return max(1, min(-(-1024 // rows), columns // 4096))


def _order(ndim: int, dims: tuple[int, ...]) -> tuple[int, ...]:
    return (*(d for d in range(ndim) if d not in dims), *sorted(dims))


def copies_for_nothing(K: Any, ndim: int, dims: tuple[int, ...]) -> bool:
    """Whether dimensions would have to be moved where NumPy's loops need no copy."""
    return bool(K.serial) and _order(ndim, dims) != tuple(range(ndim))


def as_last(K: Any, x: Any, dims: tuple[int, ...]) -> Any:
    """A row-major array with the reduced dimensions last."""
    order = _order(x.ndim, dims)
    return K.dense(x if order == tuple(range(x.ndim)) else x.transpose(order))


def from_last(K: Any, x: Any, dims: tuple[int, ...]) -> Any:
    """Undo `as_last`."""
    order = _order(x.ndim, dims)
    if order == tuple(range(x.ndim)):
        return x
    return K.dense(x.transpose(sorted(range(x.ndim), key=order.__getitem__)))


def sums(
    K: Any, x: Any, dims: tuple[int, ...], keepdim: bool, mean: bool = False, factor: Any = None
) -> Any:
    """The sums or means over dimensions, of x or of its product with an array of its shape."""
    arrays = (x,) if factor is None else (x, factor)
    if not K.takes(*arrays) or not all(a.flags.c_contiguous for a in arrays):
        return NotImplemented
    form = merged(x.shape, dims)
    sizes: Any = tuple(n for n, _ in form)
    reduced = tuple(r for _, r in form)
    out = K.empty(reduced_shape(x.shape, dims, keepdim), x.dtype)
    divisor = x.size / out.size if mean else 1.0
    if reduced in ((True,), (False, True)):
        _sum_rows(K, x, factor, out, 1 if len(sizes) == 1 else sizes[0], sizes[-1], divisor)
    elif reduced in ((True, False), (False, True, False)):
        _sum_columns(K, x, factor, out, sizes if len(sizes) == 3 else (1, *sizes), divisor)
    elif reduced == (True, False, True):
        _sum_channels(K, x, factor, out, sizes, divisor)
    else:
        return NotImplemented
    return out


def _sum_rows(
    K: Any, x: Any, factor: Any, out: Any, rows: int, columns: int, divisor: float
) -> None:
    pieces = pieces_for(rows, columns)
    whole = pieces == 1
    partials = None if whole else K.empty((rows, pieces), K.acc(x.dtype))
    K.packed_rows(
        "reduce_rows", x.dtype, rows * pieces, columns // pieces, 1,
        x, factor, partials, out if whole else None, rows, columns, pieces, divisor,
    )  # fmt: skip
    if not whole:
        _total(K, out, partials, rows, 1, pieces, divisor)


def _total(
    K: Any, out: Any, partials: Any, channels: int, parts: int, inner: int, divisor: float
) -> None:
    K.rows(
        "reduce_channels_total", out.dtype, channels, parts * inner,
        partials, out, channels, parts, inner, divisor,
    )  # fmt: skip


def _sum_columns(
    K: Any, x: Any, factor: Any, out: Any, sizes: tuple[int, int, int], divisor: float
) -> None:
    outer, rows, columns = sizes
    acc, dtype = K.acc(x.dtype), x.dtype
    if outer > 1:
        parts = max(1, min(-(-16384 // out.size), rows // 32))
        partials = K.empty((outer, parts, columns), acc)
        K.elementwise(
            "reduce_blocks", dtype, 4 * partials.size,
            x, factor, partials, out if parts == 1 else None, outer, rows, columns, parts, divisor,
        )  # fmt: skip
        if parts == 1:
            return
    else:
        tile, folded = 32 * (16 // x.itemsize), columns
        while rows % 2 == 0 and 2 * folded <= tile:  # two rows as one, so that no thread idles
            rows, folded = rows // 2, 2 * folded
        tiles = -(-folded // tile)
        parts = parts_of(rows, tiles)
        partials = K.empty((parts, folded), acc)
        _column_parts(K, x, factor, partials, tiles, rows, folded, parts)
        parts *= folded // columns
    K.launch(
        "reduce_columns_total", dtype, (-(-columns // 32), min(outer, 65535)), (32, 8),
        partials, out, outer, parts, columns, divisor,
    )  # fmt: skip


def _column_parts(
    K: Any, x: Any, factor: Any, partials: Any, tiles: int, rows: int, columns: int, parts: int
) -> None:
    kernel = "reduce_columns" if factor is None else "reduce_column_products"
    arrays = (x,) if factor is None else (x, factor)
    K.launch(
        kernel, x.dtype, (tiles, min(parts, 65535)), (32, 8),
        *arrays, partials, rows, columns, parts,
    )  # fmt: skip


def _sum_channels(
    K: Any, x: Any, factor: Any, out: Any, sizes: tuple[int, int, int], divisor: float
) -> None:
    samples, channels, length = sizes
    acc, dtype = K.acc(x.dtype), x.dtype
    if length < 64:
        columns = channels * length
        tiles = -(-columns // (32 * (16 // x.itemsize)))
        parts, inner = parts_of(samples, tiles), length
        partials = K.empty((parts, columns), acc)
        _column_parts(K, x, factor, partials, tiles, samples, columns, parts)
    else:
        planes = samples * channels
        parts, inner = samples, pieces_for(planes, length)
        partials = K.empty((planes, inner), acc)
        K.packed_rows(
            "reduce_rows", dtype, planes * inner, length // inner, 1,
            x, factor, partials, None, planes, length, inner, 1.0,
        )  # fmt: skip
    _total(K, out, partials, channels, parts, inner, divisor)


def _width(results: int, rows: int, itemsize: int) -> int:
    """How many neighbouring results a block of `extreme_columns` has: one to a thread where rows
    are few, and else a cache line of them, whose rows its threads share."""
    return 256 if rows < 64 else min(128 // itemsize, results)


def extremes(
    K: Any, x: Any, dims: tuple[int, ...], keepdim: bool, sign: int, with_index: bool = False
) -> Any:
    """The largest (sign 1) or smallest (sign -1) elements over dimensions, and their indices."""
    if not K.takes(x) or not x.flags.c_contiguous:
        return NotImplemented
    form = merged(x.shape, dims)
    sizes: Any = tuple(n for n, _ in form)
    reduced = tuple(r for _, r in form)
    if reduced in ((True,), (False, True)):
        outer, rows, columns = (1, *sizes, 1) if len(sizes) == 1 else (*sizes, 1)
    elif reduced in ((True, False), (False, True, False)):
        outer, rows, columns = sizes if len(sizes) == 3 else (1, *sizes)
    else:
        return NotImplemented
    # The extremes of pieces first, where there is too little to do at once.
    if columns == 1:
        pieces = pieces_for(outer, rows)
    else:
        width = _width(outer * columns, rows, x.itemsize)
        pieces = max(1, min(2048 // -(-outer * columns // width), rows // 64))
    pieces = -(-rows // -(-rows // pieces))  # none of them empty
    values: Any = x
    index: Any = None
    for count, left in [(1, rows)] if pieces == 1 else [(pieces, rows), (1, pieces)]:
        out = K.empty((outer, count, columns), x.dtype)
        found = K.empty(out.shape, np.dtype(np.int64)) if with_index else None
        if columns == 1:
            K.packed_rows(
                "extreme_rows", x.dtype, outer * count, left // count, 1,
                values, index, out, found, outer, left, count, sign,
            )  # fmt: skip
        else:
            width = _width(outer * columns, left, x.itemsize)
            tiles = -(-outer * columns // width)
            K.launch(
                "extreme_columns", x.dtype, (min(tiles * count, 1 << 16),), (256,),
                values, index, out, found, outer, left, columns, count, sign, width,
            )  # fmt: skip
        values, index = out, found
    shape = reduced_shape(x.shape, dims, keepdim)
    return (values.reshape(shape), index.reshape(shape)) if with_index else values.reshape(shape)


def extreme_gradient(K: Any, grad: Any, x: Any, out: Any, dims: tuple[int, ...], kind: int) -> Any:
    """The gradient of the extremes over dimensions.

    Args:
        kind: 0 of extremes, 1 of those that NaNs share too, 2 of extremes of magnitudes.
    """
    if not K.takes(grad, x, out) or copies_for_nothing(K, x.ndim, dims):
        return NotImplemented
    rows, columns = out.size, x.size // out.size
    pieces = pieces_for(rows, columns)
    x, grad, out = as_last(K, x, dims), K.dense(grad), K.dense(out)
    dx = K.empty(x.shape, x.dtype)
    if pieces == 1:
        K.packed_rows(
            "extreme_backward", x.dtype, rows, columns, 1, grad, x, out, dx, rows, columns, kind
        )
        return (from_last(K, dx, dims),)
    ties = K.empty((rows, pieces), K.acc(x.dtype))
    size, rest = (rows * pieces, columns // pieces, 1), (rows, columns, pieces, kind)
    K.packed_rows("extreme_ties", x.dtype, *size, x, out, ties, *rest)
    K.packed_rows("extreme_share", x.dtype, *size, grad, x, out, ties, dx, *rest)
    return (from_last(K, dx, dims),)
