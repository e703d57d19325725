"""softmax, log_softmax, logsumexp."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import OUT, apply1
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import cast
from gradlite.ops.reduce import Sum, count, ones, reduced_dims, spread
from gradlite.ops.reductions import as_last, copies_for_nothing, from_last, reduced_shape
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "log_softmax",
    "logsumexp",
    "softmax",
    "softmin",
]


@lru_cache(maxsize=256)
def _row_starts(rows: int, columns: int) -> np.ndarray[Any, Any]:
    return np.arange(rows) * columns


def row_max(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The maximum of each row of a contiguous matrix; argmax is vectorised, max is not."""
    rows, columns = x.shape
    index = x.argmax(1)
    index += _row_starts(rows, columns)
    return x.take(index)


def row_sum(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The sum of each row of a matrix."""
    return x.dot(ones(x.shape[1], x.dtype))  # type: ignore[no-any-return]


def as_rows(x: Any, dim: int) -> tuple[Any, tuple[int, ...], bool]:
    """The array as contiguous rows along a dimension, the shape before flattening, and whether
    that dimension had to be moved last."""
    moved = dim != x.ndim - 1
    if moved:
        x = x.swapaxes(dim, -1)
    shape = x.shape
    return np.ascontiguousarray(x).reshape(-1, shape[-1]), shape, moved


def from_rows(rows: Any, shape: tuple[int, ...], moved: bool, dim: int) -> Any:
    """Undo `as_rows`."""
    out = rows.reshape(shape)
    return np.ascontiguousarray(out.swapaxes(dim, -1)) if moved else out


def _numpy_float(xp: Any, x: Any) -> bool:
    return xp is np and x.ndim > 0 and x.size > 0


def extent(shape: tuple[int, ...], dim: int) -> tuple[int, int, int]:
    """Sizes of what lies before a dimension, of the dimension, and of what lies behind it."""
    return math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])


def values_rows(
    K: Any, name: str, dtype: Any, rows: int, columns: int, *arguments: Any, kept: int = 1
) -> None:
    """Launch a kernel whose teams keep values of ``kept`` rows in registers, in ``acc_t``."""
    kept *= K.acc(dtype).itemsize // dtype.itemsize
    K.packed_rows(name, dtype, rows, columns, kept, *arguments)


def softmax_forward(K: Any, name: str, x: Any, dim: int) -> Any:
    """``{name}_forward`` over the last dimension, ``{name}_strided_forward`` over another one."""
    if x.ndim == 0 or not K.takes(x):
        return NotImplemented
    x = K.dense(x)
    out = K.empty_like(x)
    n = x.shape[dim]
    if dim == x.ndim - 1:
        outer = x.size // n
        values_rows(K, f"{name}_forward", x.dtype, outer, n, x, out, outer, n)
    else:
        strided(K, f"{name}_strided_forward", "softmax_strided_parts", 2, (x,), (x,), out,
                extent(x.shape, dim))  # fmt: skip
    return out


def softmax_backward(K: Any, name: str, ctx: Any, grad: Any, *scale: float) -> Any:
    """The gradient by kernels that read the output; ``scale`` goes to the one of the last
    dimension."""
    (out,) = ctx.saved
    if out.ndim == 0 or not K.takes(grad, out):
        return NotImplemented
    grad, out = K.dense(grad), K.dense(out)
    dx = K.empty_like(out)
    outer, n, inner = extent(out.shape, ctx.attrs[0])
    if inner == 1:
        arrays = grad, out, dx
        name = f"{name}_backward"
        values_rows(K, name, out.dtype, outer, n, *arrays, outer, n, *scale, kept=2)
    else:
        summed = (grad, out if name == "softmax" else None)
        strided(K, f"{name}_strided_backward", "softmax_strided_sums", 1, summed, (grad, out), dx,
                (outer, n, inner))  # fmt: skip
    return (dx,)


def strided(
    K: Any,
    kernel: str,
    first: str,
    sums: int,
    read: tuple[Any, ...],
    arrays: tuple[Any, ...],
    out: Any,
    sizes: tuple[int, int, int],
) -> None:
    """Launch a kernel over (outer, n, inner); before it, where strips are few and long, ``first``,
    which reads some arrays and leaves ``sums`` values of each part of every strip."""
    outer, n, inner = sizes
    width, parts, partials = strip_width(n, inner), 1, None
    blocks = outer * -(-inner // width)
    if not K.serial:
        # Blocks enough to fill a GPU, parts of 128 steps at least.
        parts = max(1, min(1024 // blocks, n // 128))
    grid = (min(blocks * parts, 1 << 16),), (width, 256 // width)
    if parts > 1:
        partials = K.empty((sums, parts, outer * inner), K.acc(out.dtype))
        K.launch(first, out.dtype, *grid, *read, partials, *sizes, parts)
    K.launch(kernel, out.dtype, *grid, *arrays, partials, out, *sizes, parts)


def strip_width(n: int, inner: int) -> int:
    """The width of a block of a kernel of ``strips.cuh``: few steps are few threads' for each
    neighbour."""
    return min(32 if n > 64 else 64 if n > 32 else 128 if n > 16 else 256,
               max(32, 1 << (inner - 1).bit_length()))  # fmt: skip


def strips(outer: int, n: int, inner: int) -> tuple[tuple[int], tuple[int, int]]:
    """The grid and the block of a kernel of ``strips.cuh``."""
    width = strip_width(n, inner)
    return (min(outer * -(-inner // width), 1 << 16),), (width, 256 // width)


class Softmax(Op):
    """exp(x - max) / sum."""

    reads = ((OUT,),)
    native_from = native_backward_from = 1 << 8
    native_dtypes = "f"

    def forward(xp: Any, x: Any, dim: int) -> Any:
        if not _numpy_float(xp, x):
            if x.size == 0:
                return x.copy()
            axis = dim if x.ndim else None
            e = xp.exp(x - x.max(axis=axis, keepdims=True))
            return xp.asarray(e / e.sum(axis=axis, keepdims=True))
        rows, shape, moved = as_rows(x, dim)
        e = rows - row_max(rows)[:, None]
        np.exp(e, out=e)
        scale = row_sum(e)
        np.reciprocal(scale, out=scale)
        e *= scale[:, None]
        return from_rows(e, shape, moved, dim)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        (dim,) = ctx.attrs
        fast = not F.tensors and F.xp is np and out.size and out.flags.c_contiguous
        if fast and dim == out.ndim - 1:
            y, g = out.reshape(-1, out.shape[-1]), grad.reshape(-1, out.shape[-1])
            result = g - np.einsum("ij,ij->i", y, g)[:, None]
            result *= y
            return (result.reshape(out.shape),)
        total = F.sum(grad * out, (dim,) if out.ndim else (), True)
        return ((grad - total) * out,)

    def fused_forward(K: Any, x: Any, dim: int) -> Any:
        return softmax_forward(K, "softmax", x, dim)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return softmax_backward(K, "softmax", ctx, grad, 1.0)


class LogSoftmax(Op):
    """x - max - log(sum(exp(x - max)))."""

    reads = ((OUT,),)
    native_from = native_backward_from = 1 << 8
    native_dtypes = "f"

    def forward(xp: Any, x: Any, dim: int) -> Any:
        if not _numpy_float(xp, x):
            if x.size == 0:
                return x.copy()
            axis = dim if x.ndim else None
            shifted = x - x.max(axis=axis, keepdims=True)
            total = xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))
            return xp.asarray(shifted - total)
        rows, shape, moved = as_rows(x, dim)
        shifted = rows - row_max(rows)[:, None]
        shifted -= np.log(row_sum(np.exp(shifted)))[:, None]
        return from_rows(shifted, shape, moved, dim)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        (dim,) = ctx.attrs
        total = F.sum(grad, (dim,) if out.ndim else (), True)
        return (grad - F.exp(out) * total,)

    def fused_forward(K: Any, x: Any, dim: int) -> Any:
        return softmax_forward(K, "log_softmax", x, dim)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return softmax_backward(K, "log_softmax", ctx, grad)


def _samples() -> list[Any]:
    return [
        S(normal(3, 4), 1),
        S(normal(3, 4), dim=0),
        S(normal(2, 3, 4), -2),
        S(normal(5), 0),
        S(normal(), 0),
        S(normal(2, 5) * 100, 1),
        S(normal(0, 3), 1),
    ]


def _prepared(name: str, input: Tensor, dim: int | None, dtype: Any) -> tuple[Tensor, int]:
    if dim is None:
        warnings.warn(
            f"Implicit dimension choice for {name} has been deprecated. Change the call to include "
            "dim=X as an argument.",
            stacklevel=3,
        )
        dim = 0 if input.array.ndim in (0, 1, 3) else 1
    if dtype is not None:
        input = cast(input, dtypes.as_dtype(dtype).numpy)
    d = wrap_dim(dim, input.array.ndim)
    if input.array.dtype not in dtypes.FLOATING and input.array.size:
        kernel = "_lastdim_kernel_impl" if d == input.array.ndim - 1 else "_kernel_impl"
        raise NotImplementedError(
            f"\"{name}{kernel}\" not implemented for '{type_name(input.array.dtype)}'"
        )
    return input, d


@public(
    samples=_samples,
    method=True,
    autocast=("", "float32-result"),
)
def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` along a dimension.

    >>> import gradlite
    >>> gradlite.softmax(gradlite.tensor([0.0, 0.0, 1.0]), 0)
    tensor([0.2119, 0.2119, 0.5761])

    Raises:
        IndexError: the dimension is out of range.
    """
    prepared, d = _prepared("softmax", input, dim, dtype)
    return apply1(Softmax, prepared, d)


@public(
    samples=_samples,
    method=True,
    autocast=("", "float32-result"),
)
def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """``log(softmax(x))`` along a dimension, without overflow.

    >>> import gradlite
    >>> gradlite.log_softmax(gradlite.tensor([0.0, 0.0, 1.0]), 0)
    tensor([-1.5514, -1.5514, -0.5514])
    """
    prepared, d = _prepared("log_softmax", input, dim, dtype)
    return apply1(LogSoftmax, prepared, d)


@public(samples=lambda: [S(normal(3, 4), 1)], torch="nn.functional.softmin")
def softmin(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """``softmax(-x)``.

    >>> import gradlite
    >>> gradlite.nn.functional.softmin(gradlite.tensor([0.0, 0.0, 1.0]), 0)
    tensor([0.4223, 0.4223, 0.1554])
    """
    return softmax(-input, dim, dtype)


LONG = 1 << 10  # numbers of a row whose sum is worth more precision


class Logsumexp(Op):
    """log(sum(exp(x))) over dimensions."""

    reads = ((0, OUT),)
    native_from = native_backward_from = 1 << 12
    native_dtypes = "f"
    row_major = True

    def forward(xp: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        if x.size == 0:
            return xp.log(xp.exp(x).sum(axis=dims, keepdims=keepdim))
        top = x.max(axis=dims, keepdims=True)
        top = xp.where(xp.isfinite(top), top, x.dtype.type(0))
        total = xp.log(Sum.forward(xp, xp.exp(x - top), dims, True)) + top
        return (
            total
            if keepdim
            else total.reshape(tuple(n for d, n in enumerate(x.shape) if d not in dims))
        )

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, out = ctx.saved
        shape, dims = tuple(ctx.shapes[0]), ctx.attrs[0]
        return (spread(F, grad, shape, dims) * F.exp(x - spread(F, out, shape, dims)),)

    def fused_forward(K: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        if not K.takes(x) or not dims or copies_for_nothing(K, x.ndim, dims):
            return NotImplemented
        if K.serial and count(x.shape, dims) > LONG:
            return NotImplemented  # the kernel adds up a row as it is, in single precision
        out = K.empty(reduced_shape(x.shape, dims, keepdim), x.dtype)
        rows, columns = out.size, x.size // out.size
        x = as_last(K, x, dims)
        values_rows(K, "logsumexp_forward", x.dtype, rows, columns, x, out, rows, columns)
        return out

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, out = ctx.saved
        dims = ctx.attrs[0]
        if not K.takes(grad, x, out) or not dims or copies_for_nothing(K, x.ndim, dims):
            return NotImplemented
        x = as_last(K, x, dims)
        dx, rows, columns = K.empty(x.shape, x.dtype), out.size, x.size // out.size
        arrays = K.dense(grad), x, K.dense(out), dx
        K.rows("logsumexp_backward", x.dtype, rows, columns, *arrays, rows, columns)
        return (from_last(K, dx, dims),)


@public(
    samples=lambda: [S(normal(3, 4), 1), S(normal(3, 4), (0, 1)), S(normal(3, 4) * 300, 0, True)],
    method=True,
    autocast=("", "float32"),
)
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """``log(sum(exp(x)))`` over dimensions, without overflow.

    >>> import gradlite
    >>> gradlite.logsumexp(gradlite.tensor([1000.0, 1000.0]), 0)
    tensor(1000.6932)
    """
    if input.array.dtype not in dtypes.FLOATING:
        input = cast(input, dtypes.get_default_dtype().numpy)
    return apply1(Logsumexp, input, reduced_dims(dim, input.array.ndim), keepdim)
