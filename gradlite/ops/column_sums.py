"""Sums over the rows of matrices with kernels: gradients of biases and of norms' weights.

The first of two kernels sums parts of the rows, the second adds up the parts (`columns.cuh`,
`channels.cuh`), so the order of the additions, and with it the result, is the same at every run.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=4096)
def parts_of(rows: int, tiles: int) -> int:
    """Into how many parts to cut the rows, for a grid with ``tiles`` blocks for each part.

    It depends on nothing else, so that every GPU adds in the same order. Blocks enough to fill
    one, parts of 32 rows at least, and as few additions one after another as that allows.
    """
    return min(-(-rows // 32), max(-(-512 // tiles), min(-(-rows // 1024), 1024)))


def sum_parts(
    K: Any, kernel: str, dtype: Any, sums: int, rows: int, columns: int, *arrays: Any
) -> tuple[Any, int]:
    """The ``sums`` sums of each part of the rows, and how many parts they are.

    ``kernel`` takes the arrays, where the sums go, the rows, the columns and the parts.
    """
    tiles = -(-columns // (32 * (16 // dtype.itemsize)))
    parts = parts_of(rows, tiles)
    partials = K.empty((sums, parts, columns), K.acc(dtype))
    K.launch(
        kernel, dtype, (tiles, min(parts, 65535)), (32, 8), *arrays, partials, rows, columns, parts
    )
    return partials, parts


def map_columns(K: Any, kernel: str, dtype: Any, rows: int, columns: int, *arguments: Any) -> None:
    """Launch a kernel that walks over columns without summing.

    ``kernel`` takes the arguments, the rows, the columns and the parts.
    """
    tiles = -(-columns // (32 * (16 // dtype.itemsize)))
    parts = min(-(-rows // 8), max(1, 4096 // tiles))
    K.launch(kernel, dtype, (tiles, parts), (32, 8), *arguments, rows, columns, parts)


def total(K: Any, dtype: Any, partials: Any, first: Any, second: Any = None) -> None:
    """Add up the parts of the first and, where wanted, of the second sums."""
    _, parts, columns = partials.shape
    grid = (-(-columns // 32), 1 if second is None else 2)
    K.launch("columns_total", dtype, grid, (32, 8), partials, first, second, parts, columns)


def column_sums(K: Any, x: Any) -> Any:
    """The sums of the columns of a row-major matrix."""
    rows, columns = x.shape
    partials, _ = sum_parts(K, "columns_parts", x.dtype, 1, rows, columns, x)
    out = K.empty((columns,), x.dtype)
    total(K, x.dtype, partials, out)
    return out


def sum_channels(
    K: Any,
    kernel: str,
    dtype: Any,
    shape: tuple[int, int, int],
    *arrays: Any,
    extra: tuple[int, ...] = (),
) -> tuple[Any, int, int]:
    """Two sums over each channel of (samples, channels, length), in parts.

    ``kernel`` is the name before ``_planes`` and ``_samples``, the two ways to go through the
    array; both take the arrays, where the sums go, the shape, what is ``extra``, and a number of
    parts.

    Returns:
        The partial sums, and what `channel_total` has to know of them: parts and inner.
    """
    samples, channels, length = shape
    if length < 64:
        columns = channels * length
        tiles = -(-columns // (32 * (16 // dtype.itemsize)))
        parts = parts_of(samples, tiles)
        partials = K.empty((2, parts, columns), K.acc(dtype))
        grid = (tiles, min(parts, 65535))
        K.launch(
            f"{kernel}_samples", dtype, grid, (32, 8), *arrays, partials, *shape, *extra, parts
        )
        return partials, parts, length
    planes = samples * channels
    pieces = max(1, min(-(-1024 // planes), length // 1024))
    partials = K.empty((2, samples * pieces, channels), K.acc(dtype))
    K.rows(
        f"{kernel}_planes", dtype, planes * pieces, length // pieces,
        *arrays, partials, *shape, *extra, pieces,
    )  # fmt: skip
    return partials, samples * pieces, 1
