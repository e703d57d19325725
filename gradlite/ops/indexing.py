"""Launches of the kernels that read rows and elements at indices, add to them or write there.

An array is seen as (outer, size, inner) with the indices going along the middle, as in
kernels/index.cu and put.cu. The functions that add give the same bits at every run, but for sums
of many terms in few rows, and for these too after `use_deterministic_algorithms`; of what is
written to one place any may stay, and after that the last. ``op`` is who hears of an index out of
bounds (`Launcher.errors`).
"""

from __future__ import annotations

import math
from operator import le
from typing import Any

import numpy as np

from gradlite import determinism
from gradlite.ops import guard, scans
from gradlite.ops.namespaces import NAMESPACES

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
    K: Any, op: str, x: Any, index: Any, dim: int, out_shape: tuple[int, ...], lowest: int = 0
) -> Any:
    """The slices along a dimension that an array of indices names."""
    outer, size, inner = split(x.shape, dim)
    count, dtype = index.size, x.dtype
    x, index, out = K.dense(x), as_index(K, index), K.empty(out_shape, dtype)
    if inner >= SHORT or out.size >= MOST:
        K.rows(
            "take_rows", dtype, outer * count, inner, x, index, out, K.errors(op), lowest, outer,
            size, count, inner,
        )  # fmt: skip
    else:
        _take(K, op, x, index, out, lowest, outer, size, count, inner, (0, 1, 0))
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


_OF_THE_SAME_BITS = {
    np.dtype(whole): np.dtype(floats)
    for whole, floats in (("int64", "float64"), ("int32", "float32"))
}


def movable(x: Any) -> Any:
    """An array as it is moved: whole numbers as floats of the same bits, where there are such."""
    floats = _OF_THE_SAME_BITS.get(x.dtype)
    return x if floats is None else x.view(floats)


def take_along(K: Any, op: str, x: Any, index: Any, dim: int) -> Any:
    """Elements along a dimension: the index is `inside` the shape of x."""
    x = _part(x, index, dim)
    outer, size, inner = split(x.shape, dim)
    count = index.shape[dim]
    out = K.empty(index.shape, x.dtype)
    index, steps = walked(K, index, dim)
    _take(K, op, K.dense(x), index, out, 0, outer, size, count, inner, steps)
    return out


def walked(K: Any, index: Any, dim: int) -> tuple[Any, tuple[int, int, int]]:
    """An index as kernels read it, and its steps: a vector, where it is one that was expanded."""
    alike = [n == 1 or step == 0 for n, step in zip(index.shape, index.strides)]
    alike[dim] = True
    if all(alike):
        index = index[tuple(slice(None) if d == dim else 0 for d in range(index.ndim))]
        return as_index(K, index), (0, 1, 0)
    inner = math.prod(index.shape[dim + 1 :])
    return as_index(K, index), (index.shape[dim] * inner, inner, 1)


def _take(
    K: Any, op: str, x: Any, index: Any, out: Any, lowest: int, outer: int, size: int, count: int,
    inner: int, steps: tuple[int, int, int],
) -> None:  # fmt: skip
    K.elementwise(
        "take_along", x.dtype, out.size, x, index, out, K.errors(op), lowest, outer, size, count,
        inner, *steps,
    )  # fmt: skip


def add_rows(
    K: Any, op: str, out: Any, index: Any, values: Any, lowest: int = 0, skipped: int = -1
) -> None:
    """out[index[i]] += values[i], for a row-major out of (rows, inner); not for index `skipped`."""
    rows, inner = out.shape
    count, dtype = index.size, out.dtype
    index, values = as_index(K, index), K.dense(values)
    narrow = K.acc(dtype) != dtype
    if K.serial or rows * count <= SEARCHED:
        tiles = -(-inner * dtype.itemsize // 512)
        grid = (K.row_geometry(rows, 1)[0][0], min(tiles, 65535))
        K.launch(
            "add_rows_searched", dtype, grid, (32, 8), values, index, out, K.errors(op), lowest,
            skipped, rows, count, inner,
        )  # fmt: skip
    elif narrow or values.size >= MOST or determinism.are_deterministic_algorithms_enabled():
        if lowest < 0:
            index = K.xp.where(index < 0, index - lowest, index)
        order = K.xp.argsort(index.reshape(-1))
        K.rows(
            "add_rows_sorted", dtype, count, inner, values, index.reshape(-1)[order], order, out,
            K.errors(op), skipped, rows, count, inner,
        )  # fmt: skip
    else:
        _add_atomic(K, op, out, index, values, lowest, skipped, 1, rows, count, inner, (0, 1, 0))


def add_slices(K: Any, op: str, out: Any, index: Any, values: Any, dim: int) -> None:
    """Add slices along a dimension to those that a vector of indices names."""
    outer, size, inner = split(out.shape, dim)
    if outer == 1:
        add_rows(K, op, out.reshape(size, inner), index, values)
    else:
        _add(K, op, out, index, values, outer, size, index.size, inner, (0, 1, 0))


def add_along(K: Any, op: str, out: Any, index: Any, values: Any, dim: int) -> None:
    """Add elements at indices along a dimension, which are `inside` the shape of ``out``."""
    part = _part(out, index, dim)
    sums = K.dense(part)
    outer, size, inner = split(sums.shape, dim)
    count = index.shape[dim]
    index, steps = walked(K, index, dim)
    _add(K, op, sums, index, values, outer, size, count, inner, steps)
    if sums is not part:
        part[...] = sums


def adds(K: Any, shape: tuple[int, ...], dim: int, *arrays: Any) -> bool:
    """Whether kernels add arrays to slices or elements along a dimension of one of a shape."""
    outer, _, inner = split(shape, dim)
    return outer * inner < MOST and bool(K.takes(*arrays))


def few_to_a_place(count: int, places: int) -> bool:
    """Whether one thread may do all that goes to a place, in order."""
    return count <= TERMS or places >= SUMS


def _add(
    K: Any, op: str, out: Any, index: Any, values: Any, outer: int, size: int, count: int, inner:
    int, steps: tuple[int, int, int],
) -> None:  # fmt: skip
    index, values = as_index(K, index), K.dense(values)
    dtype = out.dtype
    few = few_to_a_place(count, outer * inner)
    ordered = few or determinism.are_deterministic_algorithms_enabled()
    if K.acc(dtype) != dtype or values.size >= MOST or (ordered and not K.serial):
        K.elementwise(
            "add_along", dtype, outer * inner, values, index, out, K.errors(op), 0, outer, size,
            count, inner, *steps,
        )  # fmt: skip
    else:
        _add_atomic(K, op, out, index, values, 0, -1, outer, size, count, inner, steps)


def _add_atomic(
    K: Any, op: str, out: Any, index: Any, values: Any, lowest: int, skipped: int, outer: int, size:
    int, count: int, inner: int, steps: tuple[int, int, int],
) -> None:  # fmt: skip
    K.elementwise(
        "add_along_atomic", out.dtype, values.size, values, index, out, K.errors(op), lowest,
        skipped, outer, size, count, inner, *steps,
    )  # fmt: skip


# ------------------------------------------------------------------------------- writing
def puts(K: Any, x: Any, count: int) -> bool:
    """Whether kernels write so many elements into an array."""
    return bool(K.takes(movable(x))) and 0 < count < MOST


def puts_along(K: Any, x: Any, index: Any, dim: int) -> bool:
    """Whether `put_along` writes at an index into an array."""
    return inside(x.shape, index.shape, dim) and puts(K, x, index.size)


def puts_slices(K: Any, x: Any, index: Any, dim: int) -> bool:
    """Whether `put_slices` writes at a vector of indices into an array."""
    size = x.shape[dim] if x.ndim else 1
    return size > 0 and puts(K, x, x.size // size * index.size)


def put_along(
    K: Any, op: str, out: Any, index: Any, dim: int, values: Any = None, number: Any = 0
) -> None:
    """Write values, or a number, at indices along a dimension.

    The index is `inside` the shape of ``out`` and has the shape of the values. Which of those at
    repeated indices stays is not said, unless determinism is asked for: the last.
    """
    out = movable(out)
    part = _part(out, index, dim)
    written = K.dense(part)
    sizes, count = split(written.shape, dim), index.shape[dim]
    index, steps = walked(K, index, dim)
    _put(K, op, written, index, values, number, 0, sizes, count, steps)
    if written is not part:
        part[...] = written


def put_slices(
    K: Any,
    op: str,
    out: Any,
    index: Any,
    dim: int,
    values: Any = None,
    number: Any = 0,
    lowest: int = 0,
) -> None:
    """Write slices, or a number, where a vector of indices names those of a row-major array."""
    out = movable(out)
    sizes = split(out.shape, dim)
    _put(K, op, out, as_index(K, index), values, number, lowest, sizes, index.size, (0, 1, 0))


def _put(
    K: Any, op: str, out: Any, index: Any, values: Any, number: Any, lowest: int,
    sizes: tuple[int, int, int], count: int, steps: tuple[int, int, int],
) -> None:  # fmt: skip
    outer, size, inner = sizes
    dtype, bits, value_steps = out.dtype, 0, (count * inner, inner, 1)
    if values is None:
        bits = number
    else:
        values = movable(values)
        if values.size == 1 or not any(values.strides):  # a number that was expanded
            value_steps = (0, 0, 0)
            values = values[(slice(0, 1),) * values.ndim] if values.ndim else values
        values = K.dense(values)
    in_turn = count if determinism.are_deterministic_algorithms_enabled() else 1
    K.elementwise(
        "put_along", dtype, outer * (count // in_turn) * inner, values, bits, index, out,
        K.errors(op), lowest, in_turn, outer, size, count, inner, *steps, *value_steps,
    )  # fmt: skip


def scatters_masked(K: Any, x: Any, source: Any) -> bool:
    """Whether kernels put the elements of a source where a mask holds."""
    return not K.serial and puts(K, x, x.size) and source.size < MOST


def masked_scatter(K: Any, x: Any, mask: Any, source: Any) -> Any:
    """An array with the elements of a source, in order, where a mask of its shape holds."""
    x, mask, out = K.dense(x), K.dense(mask), K.empty(x.shape, x.dtype)
    counts, read = scans.running_count(K, mask), K.dense(source) if source.size else x
    arrays = movable(x), mask, counts, movable(read), movable(out)
    dtype, n = arrays[0].dtype, x.size
    errors = K.errors("masked_scatter", "element of source")
    K.elementwise("masked_scatter", dtype, n, *arrays, errors, source.size, n)
    return out


def masked_elements(K: Any, x: Any, mask: Any, shape: tuple[int, ...]) -> Any:
    """The elements where a mask holds, in order, and zeros behind them."""
    out = K.zeros(shape, x.dtype)
    if not out.size:
        return out
    x, mask = K.dense(x), K.dense(mask)
    counts, n = scans.running_count(K, mask), x.size
    K.elementwise("masked_scatter_backward", x.dtype, n, x, mask, counts, out, out.size, n)
    return out


def true_places(K: Any, numbers: Any, mask: Any, count: int) -> tuple[Any, Any]:
    """The numbers where a mask holds, in order, and whether it does in as many places as wanted."""
    numbers, mask, places = K.dense(numbers), K.dense(mask), K.zeros((count,), numbers.dtype)
    counts = scans.running_count(K, mask).reshape(-1)
    if count:
        arrays = movable(numbers), mask, counts, movable(places)
        name = "masked_scatter_backward"
        K.elementwise(name, arrays[0].dtype, mask.size, *arrays, count, mask.size)
    return places, counts[-1] == count


def bits_of(number: Any, dtype: Any) -> int:
    """What a number is in memory, as `put_along` takes it."""
    with np.errstate(all="ignore"):
        array = np.array([number]).astype(dtype)
    return int(array.view(f"i{array.itemsize}")[0])


# ----------------------------------------------------------------- arrays for several dimensions
def names_rows(index: tuple[Any, ...]) -> bool:
    """Whether an index is arrays of numbers alone, no masks and slices, and none is empty."""
    return all(
        not isinstance(item, slice) and item.dtype != np.bool_ and bool(item.size) for item in index
    )


def row_numbers(K: Any, op: str, shape: tuple[int, ...], index: tuple[Any, ...]) -> tuple[Any, int]:
    """Index arrays for the first dimensions as numbers of rows, and the lowest that is valid.

    Numbers below 0 count from the end. Who reads the numbers checks them; those of several arrays
    are checked here.
    """
    if len(index) == 1:
        return index[0], -shape[0]
    common = np.broadcast_shapes(*(item.shape for item in index))
    numbers = K.empty(common, np.int64)
    for place, (n, item) in enumerate(zip(shape, index)):
        if item.shape != common:
            item = K.xp.broadcast_to(item, common)
        K.elementwise(
            "row_numbers", np.float32, numbers.size, numbers if place else None, as_index(K, item),
            numbers, K.errors(op), -n, n, numbers.size,
        )  # fmt: skip
    return numbers, 0


def puts_rows(K: Any, x: Any, index: tuple[Any, ...], values: Any, accumulate: bool) -> bool:
    """Whether `put_rows` writes, or adds, values at index arrays into an array."""
    if not names_rows(index) or not values.size:
        return False
    taken = K.takes(x, values) if accumulate else K.takes(movable(x))
    rows = math.prod(np.broadcast_shapes(*(item.shape for item in index)))
    return bool(taken) and rows * math.prod(x.shape[len(index) :]) < MOST


def put_rows(
    K: Any, op: str, out: Any, index: tuple[Any, ...], values: Any, accumulate: bool
) -> None:
    """Write values to a row-major array at index arrays for its first dimensions, or add them."""
    n = len(index)
    rows, lowest = row_numbers(K, op, out.shape, index)
    shape = (*rows.shape, *out.shape[n:])
    if values.shape != shape:
        values = K.xp.broadcast_to(values, shape)
    table = out.reshape(math.prod(out.shape[:n]), -1)
    if accumulate:
        add_rows(K, op, table, rows, values, lowest)
    else:
        put_slices(K, op, table, rows, 0, values, lowest=lowest)


def check_all(op: str, x: Any, index: tuple[Any, ...]) -> None:
    """`check` index arrays that were left to kernels, which do not serve."""
    K = NAMESPACES[x.__class__].launcher
    if K is not None and not K.serial and names_rows(index):
        for n, item in zip(x.shape, index):
            check(K, op, item, -n, n)


def check(K: Any, op: str, index: Any, lowest: int, size: int) -> None:
    """Note an error, of which the host will hear, unless lowest <= index < size everywhere."""
    n = index.size
    if n:
        with guard.on(index):
            index = as_index(K, index)
            K.elementwise("check_indices", np.float32, n, index, K.errors(op), lowest, size, n)


def counted_from_front(K: Any, op: str, index: Any, size: int) -> Any:
    """An index without negative numbers, and checked; 0 stands for those that are not valid."""
    with guard.on(index):
        numbers, n = K.empty(index.shape, np.int64), index.size
        arrays = None, as_index(K, index), numbers, K.errors(op)
        K.elementwise("row_numbers", np.float32, n, *arrays, -size, size, n)
    return numbers


def one_hot(K: Any, index: Any, classes: int) -> Any:
    """Rows of int64 with a 1 at each index."""
    out = K.empty((*index.shape, classes), np.int64)
    count, errors = index.size, K.errors("one_hot", "Class value")
    K.rows("one_hot", np.float32, count, classes, K.dense(index), out, errors, count, classes)
    return out
