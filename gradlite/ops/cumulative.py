"""Products, and running sums and products along a dimension."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import scans
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import OUT, apply1
from gradlite.ops.extrema import numpy_keywords
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import cast
from gradlite.ops.reduce import spread
from gradlite.ops.samples import S, bools, integers, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "cumprod",
    "cumsum",
    "logcumsumexp",
    "prod",
]


# ---------------------------------------------------------------- products with zeros
def _has_zero(F: Any, x: Any) -> bool:
    return bool((F.array(x) == 0).any())


def _without_each(F: Any, rows: Any) -> Any:
    """Rows (..., n) as (..., n, n) whose i-th has a 1 in place of element i.

    Products of these need no division, so they are right where elements are 0.
    """
    n = rows.shape[-1]
    xp = NAMESPACES[F.array(rows).__class__].xp
    wide = F.expand(F.unsqueeze(rows, rows.ndim - 1), (*rows.shape[:-1], n, n))
    return F.where(xp.eye(n, dtype=bool), F.zero_beside(rows) + 1, wide)


def _products_of_others(F: Any, rows: Any) -> Any:
    """For each element of a row the product of all others."""
    if F.tensors:
        return F.prod(_without_each(F, rows), rows.ndim, False)
    xp = F.xp
    before, after = xp.ones_like(rows), xp.ones_like(rows)
    if rows.shape[-1] > 1:
        xp.multiply.accumulate(rows[..., :-1], axis=-1, out=before[..., 1:])
        after[..., :-1] = xp.multiply.accumulate(rows[..., :0:-1], axis=-1)[..., ::-1]
    return before * after


class Prod(Op):
    """The product of all elements, or along one dimension."""

    reads = ((0, OUT),)
    row_major = True

    def forward(xp: Any, x: Any, dim: int | None, keepdim: bool) -> Any:
        return x.prod(axis=dim, keepdims=keepdim, dtype=x.dtype)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, out = ctx.saved
        dim = ctx.attrs[0]
        shape = tuple(ctx.shapes[0])
        dims = tuple(range(len(shape))) if dim is None else (dim,)
        if not _has_zero(F, x):
            return (spread(F, grad * out, shape, dims) / x,)
        if dim is None:
            others = _products_of_others(F, x.reshape((-1,))).reshape(shape)
        else:
            others = _products_of_others(F, x.swapaxes(dim, -1)).swapaxes(dim, -1)
        return (spread(F, grad, shape, dims) * others,)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, out = ctx.saved
        return scans.product_gradient(K, grad, x, out, ctx.attrs[0])


class ProdDim(Prod):
    grad_name = "ProdBackward1"


# --------------------------------------------------------------------------- running
def accumulate(xp: Any, ufunc: str, x: Any, dim: int, dtype: Any) -> Any:
    """Running results of ``add`` or ``multiply``."""
    n = x.shape[dim]
    # NumPy accumulates one element after another, in 3.5 ns each; a step for all rows at once
    # costs 1 us and then a tenth of that per element (a third where rows are not contiguous).
    each = 0.4 if dim < x.ndim - 1 else 1.2
    if xp is not np or x.size * 3.5 < n * 1000 + x.size * each:
        return getattr(xp, ufunc).accumulate(x, axis=dim, dtype=dtype)
    out = x.astype(dtype, order="C")
    steps, step = np.moveaxis(out, dim, 0), getattr(np, ufunc)
    for k in range(1, n):
        step(steps[k - 1], steps[k], steps[k])
    return out


class Cumsum(Op):
    """Running sums along a dimension, from the end when reversed."""

    delegates = True
    row_major = True

    def forward(xp: Any, x: Any, dim: int, reverse: bool) -> Any:
        if x.ndim == 0:
            return x.copy()
        out = accumulate(xp, "add", xp.flip(x, dim) if reverse else x, dim, x.dtype)
        return xp.flip(out, dim) if reverse else out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        dim, reverse = ctx.attrs
        return (F.cumsum(grad, dim, not reverse),)

    def fused_forward(K: Any, x: Any, dim: int, reverse: bool) -> Any:
        return scans.running(K, "running_sum", (x,), dim, reverse)


def _past_zeros(xp: Any, x: Any, out: Any, grad: Any, dim: int) -> Any:
    """The gradient of running products with zeros among the factors.

    Behind the first zero no factor has one. That of the zero itself comes from the products behind
    it, up to the second one, times what lies before it.
    """
    zero, one, is_zero = x.dtype.type(0), x.dtype.type(1), x == 0
    zeros = xp.add.accumulate(is_zero, axis=dim, dtype=np.int64)
    before, first = zeros == 0, (zeros == 1) & is_zero
    slopes = xp.flip(xp.where(before, grad * out, zero), dim)
    sums = xp.flip(accumulate(xp, "add", slopes, dim, x.dtype), dim)
    factors = xp.where(before, x, one)
    behind = accumulate(xp, "multiply", xp.where(before | first, one, x), dim, x.dtype)
    reached = (zeros > 0) & (zeros - is_zero <= 1)  # with the second zero, as in PyTorch
    of_first = xp.where(reached, grad * behind, zero).sum(axis=dim, keepdims=True, dtype=x.dtype)
    of_first = of_first * factors.prod(axis=dim, keepdims=True, dtype=x.dtype)
    return xp.where(before, sums / factors, xp.where(first, of_first, zero))


class Cumprod(Op):
    """Running products along a dimension."""

    reads = ((0, OUT),)
    row_major = True

    def forward(xp: Any, x: Any, dim: int) -> Any:
        return accumulate(xp, "multiply", x, dim, x.dtype) if x.ndim else x.copy()

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, out = ctx.saved
        (dim,) = ctx.attrs
        if not x.ndim:
            return (grad.reshape(()),)
        if not _has_zero(F, x):
            return (F.cumsum(grad * out, dim, True) / x,)
        if not F.tensors:
            return (_past_zeros(F.xp, x, out, grad, dim),)
        rows, row_grads = x.swapaxes(dim, -1), grad.swapaxes(dim, -1)
        n = rows.shape[-1]
        # Place k of product i holds x_0 ... x_k without x_i; only k >= i depend on x_i.
        partial = F.cumprod(_without_each(F, rows), rows.ndim)
        later = NAMESPACES[F.array(x).__class__].xp.tri(n, dtype=bool).T
        partial = F.where(later, partial, F.zero_beside(partial))
        product = F.matmul(partial, F.unsqueeze(row_grads, rows.ndim))
        return (product.reshape(rows.shape).swapaxes(dim, -1),)

    def fused_forward(K: Any, x: Any, dim: int) -> Any:
        return scans.running(K, "running_product", (x,), dim)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, out = ctx.saved
        dx = scans.running(K, "running_product_backward", (grad, x, out), ctx.attrs[0], True)
        return dx if dx is NotImplemented else (dx,)


class Logcumsumexp(Op):
    """Logarithms of running sums of exponentials, from the end when reversed."""

    reads = ((0, OUT),)
    row_major = True

    def forward(xp: Any, x: Any, dim: int, reverse: bool) -> Any:
        if x.ndim == 0:
            return x.copy()
        source = xp.flip(x, dim) if reverse else x
        if xp is np:
            out = np.logaddexp.accumulate(source, axis=dim, dtype=x.dtype)
        else:  # CuPy's logaddexp cannot accumulate: steps that double
            out = source.copy()
            rows, step = xp.moveaxis(out, dim, 0), 1
            while step < len(rows):
                rows[step:] = xp.logaddexp(rows[step:], rows[:-step])
                step *= 2
        return xp.flip(out, dim) if reverse else out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, out = ctx.saved
        dim, reverse = ctx.attrs
        if not x.ndim:
            return (grad.reshape(()),)
        # The sum of grad_j exp(x_i - out_j) over j >= i, as logarithms for either sign.
        total = None
        low = F.zero_beside(grad) - np.inf
        for sign in (1, -1):
            part = grad * sign
            some = part > 0
            logs = F.where(some, F.log(F.where(some, part, F.zero_beside(grad) + 1)) - out, low)
            term = F.exp(F.logcumsumexp(logs, dim, not reverse) + x)
            total = term if total is None else total - term
        return (total,)

    def fused_forward(K: Any, x: Any, dim: int, reverse: bool) -> Any:
        return scans.running(K, "running_log_sum", (x,), dim, reverse)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, out = ctx.saved
        dim, reverse = ctx.attrs
        arrays = grad, x, out
        dx = scans.running(K, "running_log_sum_backward", arrays, dim, not reverse)
        return dx if dx is NotImplemented else (dx,)


# -------------------------------------------------------------------------- functions
def _converted(input: Tensor, dtype: Any) -> Tensor:
    """The input in the dtype asked for; bools and integers count in int64."""
    if dtype is not None:
        return cast(input, dtypes.as_dtype(dtype).numpy)
    return input if input.array.dtype in dtypes.FLOATING else cast(input, np.int64)


def _zeros(*shape: int) -> Any:
    """Normal values with one 0 in each row but the first, and a second one in the last."""
    values = normal(*shape)
    values[..., 1:, 1] = 0
    values[..., -1, 2] = 0
    return values


def _samples() -> list[Any]:
    return [
        S(normal(3, 4), 0),
        S(normal(3, 4), -1),
        S(normal(2, 3, 4), dim=1),
        S(_zeros(3, 4), 1),
        S(_zeros(2, 3, 4), 2),
        S(normal(), 0),
        S(normal(0, 3), 0),
        S(normal(0, 3), 1),
        S(normal(2, 600), 0),
        S(normal(900, 2), 1),
        S(integers(1, 4, 3, 4), 1),
        S(integers(1, 4, 5).astype(np.int32), 0),
    ]


def _errors() -> list[Any]:
    return [S(normal(3), 1), S(normal(3), -2)]


@public(
    samples=lambda: [
        S(normal(3, 4)),
        S(_zeros(2, 4)),
        S(normal()),
        S(normal(0)),
        *_samples(),
        S(normal(3, 4), 1, True),
        S(bools(4), 0),
        S(_zeros(3, 4), 0, True),
    ],
    method=True,
    errors=lambda: [S(normal(3), 1), S(normal(3, 3), (0, 1))],
    autocast=("float32", "float32-result"),
)
@numpy_keywords
def prod(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The product of all elements or along a dimension; integers multiply in int64.

    >>> import gradlite
    >>> gradlite.prod(gradlite.tensor([[1.0, 2.0], [3.0, 4.0]]), 1)
    tensor([ 2., 12.])
    """
    input = _converted(input, dtype)
    if dim is None:
        return apply1(Prod, input, None, keepdim)
    if not hasattr(dim, "__index__"):
        raise TypeError(
            "prod() received an invalid combination of arguments - got "
            f"({dim.__class__.__name__}), but expected one of: (*, gradlite.dtype dtype) or "
            "(int dim, bool keepdim, *, gradlite.dtype dtype)"
        )
    d = wrap_dim(dim, input.array.ndim)
    return apply1(ProdDim, input, d if input.array.ndim else None, keepdim)


@public(
    samples=_samples,
    method=True,
    inplace=True,
    errors=_errors,
    autocast=("", "float32-result"),
)
@numpy_keywords
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running sums along a dimension; integers add up in int64.

    >>> import gradlite
    >>> gradlite.cumsum(gradlite.tensor([1, 2, 3]), 0)
    tensor([1, 3, 6])
    """
    input = _converted(input, dtype)
    return apply1(Cumsum, input, wrap_dim(dim, input.array.ndim), False)


@public(
    samples=_samples,
    method=True,
    inplace=True,
    errors=_errors,
    autocast=("", "float32-result"),
)
@numpy_keywords
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running products along a dimension; integers multiply in int64.

    >>> import gradlite
    >>> gradlite.cumprod(gradlite.tensor([1, 2, 3]), 0)
    tensor([1, 2, 6])
    """
    input = _converted(input, dtype)
    return apply1(Cumprod, input, wrap_dim(dim, input.array.ndim))


@public(
    samples=lambda: [
        S(normal(3, 4), 0),
        S(normal(3, 4), -1),
        S(normal(2, 3, 4) * 100, dim=1),
        S(normal(), 0),
        S(normal(0, 3), 1),
    ],
    method=True,
    errors=_errors,
)
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """The logarithms of the running sums of exponentials along a dimension.

    >>> import gradlite
    >>> gradlite.logcumsumexp(gradlite.tensor([0.0, 0.0, 0.0]), 0)
    tensor([0.0000, 0.6931, 1.0986])
    """
    if input.array.dtype not in dtypes.FLOATING:
        raise NotImplementedError(
            f"\"logcumsumexp_out_cpu\" not implemented for '{type_name(input.array.dtype)}'"
        )
    return apply1(Logcumsumexp, input, wrap_dim(dim, input.array.ndim), False)
