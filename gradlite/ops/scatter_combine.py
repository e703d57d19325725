"""The ops that combine what an index sends to one place: the largest, the smallest, the product."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import determinism, dtypes
from gradlite.ops import indexing, positions
from gradlite.ops.dispatch import OUT
from gradlite.ops.op import Op

# ------------------------------------------------------------------------------- launches
PRODUCT, LARGEST, SMALLEST, SUM = range(4)
NOTHING = (1.0, -math.inf, math.inf)  # what changes nothing
WHOLE = frozenset(map(np.dtype, ("int64", "int32", "int16", "int8", "uint8")))


def serves(K: Any, x: Any, index: Any, dim: int) -> bool:
    """Whether the kernels combine at an index: it is smaller than the array along ``dim`` alone."""
    shape, own = x.shape, index.shape
    whole = bool(shape) and (*own[:dim], shape[dim], *own[dim + 1 :]) == shape
    taken = x.size > 0 if x.dtype in WHOLE else bool(K.takes(x))
    return whole and taken and 0 < index.size < indexing.MOST and x.size < indexing.MOST


def _walk(K: Any, how: int, index: Any, shape: tuple[int, ...], dim: int) -> tuple[Any, ...]:
    """The index, how many of it a thread does in turn, and sizes and steps as kernels want them."""
    outer, size, inner = indexing.split(shape, dim)
    count = index.shape[dim]
    index, steps = indexing.walked(K, index, dim)
    few = how == PRODUCT and indexing.few_to_a_place(count, outer * inner)
    ordered = few or determinism.are_deterministic_algorithms_enabled()
    in_turn = count if ordered else 1
    return index, in_turn, outer * (count // in_turn) * inner, (outer, size, count, inner, *steps)


def _combine(how: int) -> Any:
    """``fused_forward`` of an op here."""

    def fused_forward(K: Any, x: Any, index: Any, src: Any, dim: int, include_self: bool) -> Any:
        if not serves(K, x, index, dim):
            return NotImplemented
        if x.dtype in WHOLE:
            return _combine_whole(K, how, x, index, src, dim, include_self)
        if not K.takes(x, src):
            return NotImplemented
        dtype = K.acc(x.dtype)
        out = K.xp.array(x, dtype, order="C")
        if not include_self:
            number = indexing.bits_of(NOTHING[how], dtype)
            indexing.put_along(K, "scatter_reduce", out, index, dim, number=number)
        index, in_turn, threads, sizes = _walk(K, how, index, x.shape, dim)
        K.elementwise(
            "scatter_reduce", x.dtype, threads, K.dense(src), index, out,
            K.errors("scatter_reduce"), how, in_turn, *sizes,
        )  # fmt: skip
        return out.astype(x.dtype, copy=False)

    return fused_forward


def _combine_whole(
    K: Any, how: int, x: Any, index: Any, src: Any, dim: int, include_self: bool
) -> Any:
    """The same of whole numbers, in 64 bits."""
    out = K.xp.array(x, np.int64, order="C")
    if not include_self:
        info = np.iinfo(x.dtype)
        number = (1, int(info.min), int(info.max))[how]
        indexing.put_along(K, "scatter_reduce", out, index, dim, number=number)
    combine_whole(K, "scatter_reduce", how, out, index, src, dim)
    return out.astype(x.dtype, copy=False)


def combine_whole(K: Any, op: str, how: int, out: Any, index: Any, src: Any, dim: int) -> None:
    """Combine what is in an array of int64 with what an index sends there."""
    outer, size, inner = indexing.split(out.shape, dim)
    values = K.dense(src if src.dtype == np.int64 else src.astype(np.int64))
    index, steps = indexing.walked(K, index, dim)
    K.elementwise(
        "scatter_reduce_whole", np.float32, values.size, values, index, out, K.errors(op), how,
        outer, size, values.size // (outer * inner), inner, *steps,
    )  # fmt: skip


def _gradients(K: Any, how: int, ctx: Any, grad: Any) -> Any:
    """``fused_backward``: the gradients of what was there before and of what was sent there."""
    x, index, src, *others = ctx.saved
    dim, include_self = ctx.attrs
    if not K.takes(grad, x, src) or not serves(K, x, index, dim):
        return NotImplemented
    dtype, shape = x.dtype, x.shape
    grad, x, src = K.dense(grad), K.dense(x), K.dense(src)
    out = K.dense(others[0]) if others else None
    counts = K.zeros(shape, np.uint64)
    products = K.xp.ones(shape, K.acc(dtype)) if how == PRODUCT else None
    index, in_turn, threads, sizes = _walk(K, how, index, shape, dim)
    K.elementwise(
        "scatter_reduce_parts", dtype, threads, src, index, out, counts, products,
        K.errors("scatter_reduce"), how, in_turn, *sizes,
    )  # fmt: skip
    left = right = None
    if ctx.edges[0] is not None:
        left = K.empty(shape, dtype)
        K.elementwise(
            "scatter_reduce_backward", dtype, left.size, grad, x, out, counts, products, left, how,
            int(include_self), left.size,
        )  # fmt: skip
    if ctx.edges[2] is not None:
        right = K.empty(src.shape, dtype)
        K.elementwise(
            "scatter_reduce_values_backward", dtype, right.size, grad, x, src, index, out, counts,
            products, right, K.errors("scatter_reduce"), how, int(include_self), *sizes,
        )  # fmt: skip
    return left, None, right


# ------------------------------------------------------------------------------------ ops
class ScatterAmax(Op):
    """The largest of what is written to each place; ties share the gradient evenly."""

    reads = ((0, 1, 2, OUT), (), (0, 1, 2, OUT))
    constants = (1,)
    grad_name = "ScatterReduceBackward0"

    def forward(xp: Any, x: Any, index: Any, src: Any, dim: int, include_self: bool) -> Any:
        return _extremum(xp, xp.maximum, -np.inf, x, index, src, dim, include_self)

    fused_forward = _combine(LARGEST)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return _gradients(K, LARGEST, ctx, grad)  # as it is of the smallest

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, index, src, out = ctx.saved
        dim, include_self = ctx.attrs
        dtype = F.array(grad).dtype
        reached = F.to_copy(src == F.gather(out, index, dim), dtype)
        kept = F.to_copy(x == out, dtype)
        if not include_self:  # only what nothing was written to keeps its own value
            kept = F.scatter_value(F.zeros(x.shape, grad) + 1, index, dim, 0)
        share = grad / F.scatter_add(kept, index, reached, dim)
        left = share * kept if ctx.edges[0] is not None else None
        right = F.gather(share, index, dim) * reached if ctx.edges[2] is not None else None
        return left, None, right


class ScatterAmin(ScatterAmax):
    """The smallest of what is written to each place; ties share the gradient evenly."""

    grad_name = "ScatterReduceBackward0"

    def forward(xp: Any, x: Any, index: Any, src: Any, dim: int, include_self: bool) -> Any:
        return _extremum(xp, xp.minimum, np.inf, x, index, src, dim, include_self)

    fused_forward = _combine(SMALLEST)


class ScatterProd(Op):
    """The product of what is written to each place."""

    reads = ((0, 1, 2), (), (0, 1, 2))
    constants = (1,)
    grad_name = "ScatterReduceBackward0"

    def forward(xp: Any, x: Any, index: Any, src: Any, dim: int, include_self: bool) -> Any:
        out = xp.array(x, order="C")
        flat = positions.along(xp, x.shape, index, dim).reshape(-1)
        cells, factors = out.reshape(-1), src.reshape(-1)
        if not include_self:
            cells[flat] = 1
        if xp is np:
            np.multiply.at(cells, flat, factors)
            return out
        if not flat.size:
            return out
        # CuPy has no products at repeated indices: running ones over equal neighbours, of 2, 4, ...
        # factors, so that nobody has to ask the GPU how often an index is repeated.
        order = xp.argsort(flat, kind="stable")
        flat, products, step = flat[order], factors[order], 1
        while step < flat.size:
            before = xp.where(flat[step:] == flat[:-step], products[:-step], 1)
            products = xp.concatenate((products[:step], products[step:] * before))
            step *= 2
        last = xp.searchsorted(flat, flat, side="right") - 1
        cells[flat] = cells[flat] * products[last]  # the same number at every repetition
        return out

    fused_forward = _combine(PRODUCT)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return _gradients(K, PRODUCT, ctx, grad)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, index, src = ctx.saved
        dim, include_self = ctx.attrs
        one, nothing = F.zeros((), grad) + 1, F.zeros((), grad)
        left = right = None
        if ctx.edges[0] is not None:
            # The product of the others: with 1 in the input's place where that is 0.
            held = F.where(x == 0, one, x)
            left = grad * F.scatter_prod(held, index, src, dim, include_self) / held
            if not include_self:
                left = F.scatter_value(left, index, dim, 0)
        if ctx.edges[2] is not None:
            zero = src == 0
            zeros = F.scatter_add(
                F.zeros(x.shape, grad), index, F.to_copy(zero, F.array(grad).dtype), dim
            )
            only = zero & (F.gather(zeros, index, dim) == 1)
            # Without the only 0 of a place for that one, with it for all others.
            rest = F.scatter_prod(x, index, F.where(only, one, src), dim, include_self)
            total = F.scatter_prod(x, index, src, dim, include_self)
            others = F.gather(grad * total, index, dim) / F.where(zero, one, src)
            right = F.where(only, F.gather(grad * rest, index, dim), F.where(zero, nothing, others))
        return left, None, right


def _extremum(
    xp: Any, ufunc: Any, none: float, x: Any, index: Any, src: Any, dim: int, include_self: bool
) -> Any:
    out = xp.array(x, order="C")
    flat = positions.along(xp, x.shape, index, dim).reshape(-1)
    if not include_self:
        least: Any = none
        if x.dtype == np.bool_:
            least = none > 0
        elif x.dtype not in dtypes.FLOATING:
            info = np.iinfo(x.dtype)
            least = info.min if none < 0 else info.max
        out.reshape(-1)[flat] = least
    if xp is np:
        ufunc.at(out.reshape(-1), flat, src.reshape(-1))
    else:
        largest = none < 0
        keys = _keys(xp, out.reshape(-1), largest)
        xp.maximum.at(keys, flat, _keys(xp, src.reshape(-1), largest))
        out[...] = _values(xp, keys, out.dtype, largest).reshape(out.shape)
    return out


def _keys(xp: Any, x: Any, largest: bool) -> Any:
    """Unsigned integers in the order of the values, or in the opposite one; NaN is the last.

    CuPy's atomics drop NaN, round float64 to float32, and know neither small nor, before
    version 14.1, long integers.
    """
    if x.dtype not in dtypes.FLOATING:
        keys = x.astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63)
        return keys if largest else ~keys
    x = x if x.dtype.itemsize > 2 else x.astype(np.float32)
    kind = np.uint32 if x.dtype.itemsize == 4 else np.uint64
    bits, sign = x.view(kind), kind(1 << 8 * x.dtype.itemsize - 1)
    keys = xp.where(bits < sign, bits | sign, ~bits)
    return xp.where(x == x, keys if largest else ~keys, kind(np.iinfo(kind).max))


def _values(xp: Any, keys: Any, dtype: Any, largest: bool) -> Any:
    """The values behind `_keys`, in their dtype."""
    ordered = keys if largest else ~keys
    if dtype not in dtypes.FLOATING:
        return (ordered ^ np.uint64(1 << 63)).view(np.int64).astype(dtype)
    kind, last = keys.dtype.type, np.iinfo(keys.dtype).max
    sign = kind(1 << 8 * keys.dtype.itemsize - 1)
    values = xp.where(ordered < sign, ~ordered, ordered ^ sign)
    values = values.view(np.float32 if keys.dtype.itemsize == 4 else np.float64)
    return xp.where(keys == kind(last), values.dtype.type(np.nan), values).astype(dtype)
