"""Products, and running sums and products along a dimension."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import scans
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import OUT, apply1
from gradlite.ops.keywords import numpy_keywords
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import cast
from gradlite.ops.reduce import keepdim_shape
from gradlite.ops.samples import S, bools, integers, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "cumprod",
    "cumsum",
    "logcumsumexp",
    "prod",
]


# --------------------------------------------------------------------------- products
def _has_zero(x: Any) -> bool:
    return bool((x == 0).any())


def _products_of_others(xp: Any, rows: Any) -> Any:
    """For each element of a row the product of all others."""
    before, after = xp.ones_like(rows), xp.ones_like(rows)
    if rows.shape[-1] > 1:
        xp.multiply.accumulate(rows[..., :-1], axis=-1, out=before[..., 1:])
        after[..., :-1] = xp.multiply.accumulate(rows[..., :0:-1], axis=-1)[..., ::-1]
    return before * after


def _more(F: Any, x: Any, dim: int, before: int, after: int, value: float = 0) -> Any:
    """More of one value before and after the elements along a dimension; less where negative."""
    sides = tuple((before, after) if d == dim else (0, 0) for d in range(x.ndim))
    return F.constant_pad_nd(x, sides, value)


class ProdGrad(Op):
    """The gradient of a product, in the factors.

    With ``whole`` it is 0 where several factors are, as PyTorch's of all elements is.
    """

    reads = ((1,), (0, 1), ())
    row_major = True

    def forward(xp: Any, grad: Any, x: Any, out: Any, dim: int | None, whole: bool) -> Any:
        shape = keepdim_shape(x.shape, range(x.ndim) if dim is None else (dim,))
        grad, out = grad.reshape(shape), out.reshape(shape)
        if xp is np and not _has_zero(x):
            return grad * out / x
        is_zero = x == 0
        if dim is None:
            others = _products_of_others(xp, x.reshape((-1,))).reshape(x.shape)
        else:
            others = _products_of_others(xp, x.swapaxes(dim, -1)).swapaxes(dim, -1)
        if whole:
            others = xp.where(is_zero.sum() > 1, x.dtype.type(0), others)
        if xp is np:
            return grad * others
        return xp.where(is_zero.any(), grad * others, grad * out / x)  # a GPU is not waited for

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        slopes, x = ctx.saved
        dim = ctx.attrs[0]
        if dim is None:
            x, grad, dim = x.reshape((-1,)), grad.reshape((-1,)), 0
        # The product of all others is that of those before times that of those behind.
        turned = F.flip(x, (dim,))
        rows = [_more(F, r, dim, 0, -1) for r in (x, turned)]
        products = [F.cumprod(r, dim) for r in rows]
        before, behind = (_more(F, p, dim, 1, 0, 1) for p in products)
        behind = F.flip(behind, (dim,))
        of_slopes = of_x = None
        if ctx.needs_input_grad[0]:
            of_slopes = F.sum_dim(grad * before * behind, (dim,), False).reshape(ctx.shapes[0])
        if ctx.needs_input_grad[1]:
            grad = grad * slopes.reshape(keepdim_shape(x.shape, (dim,)))
            both = grad * behind, F.flip(grad * before, (dim,))
            of_before, of_behind = (
                _more(F, F.cumprod_grad(_more(F, g, dim, -1, 0), r, p, dim, F.tensors), dim, 0, 1)
                for g, r, p in zip(both, rows, products)
            )
            of_x = (of_before + F.flip(of_behind, (dim,))).reshape(ctx.shapes[1])
        return of_slopes, of_x, None

    def fused_forward(K: Any, grad: Any, x: Any, out: Any, dim: int | None, whole: bool) -> Any:
        return scans.product_gradient(K, grad, x, out, dim, whole)


class Prod(Op):
    """The product of all elements, or along one dimension."""

    reads = ((0, OUT),)
    delegates = True
    row_major = True

    def forward(xp: Any, x: Any, dim: int | None, keepdim: bool) -> Any:
        return x.prod(axis=dim, keepdims=keepdim, dtype=x.dtype)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, out = ctx.saved
        dim = ctx.attrs[0]
        if 0 in x.shape:
            return (F.zeros(tuple(x.shape), grad),)
        return (F.prod_grad(grad, x, out, dim, dim is None and not F.tensors),)


class ProdDim(Prod):
    grad_name = "ProdBackward1"


# --------------------------------------------------------------------------- running
def running_dtype(xp: Any, dtype: Any) -> Any:
    """In which dtype NumPy is to add up: one after another, so that errors of each would add up."""
    return np.float64 if xp is np and dtype == np.float32 else dtype


def accumulate(xp: Any, ufunc: str, x: Any, dim: int, dtype: Any) -> Any:
    """Running results of ``add`` or ``multiply``, those of float32 on the CPU rounded once each."""
    n = x.shape[dim]
    precise = running_dtype(xp, dtype)
    # NumPy accumulates one element after another, in 3.5 ns each; a step for all rows at once
    # costs 1 us and then a tenth of that per element (a third where rows are not contiguous).
    each = 0.4 if dim < x.ndim - 1 else 1.2
    if xp is not np or x.size * 3.5 < n * 1000 + x.size * each:
        out = getattr(xp, ufunc).accumulate(x, axis=dim, dtype=precise)
        return out.astype(dtype, copy=False)
    out = x.astype(precise, order="C")
    steps, step = np.moveaxis(out, dim, 0), getattr(np, ufunc)
    for k in range(1, n):
        step(steps[k - 1], steps[k], steps[k])
    return out.astype(dtype, copy=False)


class Cumsum(Op):
    """Running sums along a dimension, from the end when reversed."""

    delegates = True
    row_major = True
    native_from = 1 << 8

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


class Recurrence(Op):
    """s_j = value_j + factor_j s_(j-1), or from the end s_j = value_j + factor_(j+1) s_(j+1).

    Each is what the gradient of the other in the values is made by.
    """

    reads = ((1,), (1, OUT))
    row_major = True

    def forward(xp: Any, values: Any, factors: Any, dim: int, backwards: bool) -> Any:
        out = values.copy(order="C")
        steps, factors = xp.moveaxis(out, dim, 0), xp.moveaxis(factors, dim, 0)
        if backwards:
            steps, factors = steps[::-1], factors[::-1]
        for j in range(1, len(steps)):
            steps[j] += factors[j - backwards] * steps[j - 1]
        return out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        factors, out = ctx.saved
        dim, backwards = ctx.attrs
        of_values = F.recurrence(grad, factors, dim, not backwards)
        of_factors = None
        if ctx.needs_input_grad[1]:
            before, behind = (of_values, out) if backwards else (out, of_values)
            of_factors = _more(F, before, dim, 1, -1) * behind
        return of_values, of_factors

    def fused_forward(K: Any, values: Any, factors: Any, dim: int, backwards: bool) -> Any:
        return scans.running(K, "recurrence", (values, factors), dim, backwards)


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


def _term_by_term(x: Any, grad: Any, dim: int) -> Any:
    """The same with 0 times what is infinite or NaN in it, as in PyTorch under create_graph."""
    factors, slopes = np.moveaxis(x, dim, 0), np.moveaxis(grad, dim, 0)
    result = np.empty_like(factors)
    before = np.ones_like(factors[0])
    for k in range(len(factors)):
        terms = factors[k:].copy()
        terms[0] = before
        result[k] = (slopes[k:] * np.multiply.accumulate(terms, 0)).sum(0)
        before = before * factors[k]
    return np.moveaxis(result, 0, dim)


class CumprodGrad(Op):
    """The gradient of running products, in the factors.

    Args:
        graph: whether it is part of a graph itself, where PyTorch adds up other terms.
    """

    reads = ((1, 2), (0, 1, 2), (0, 1))
    row_major = True

    def forward(xp: Any, grad: Any, x: Any, out: Any, dim: int, graph: bool) -> Any:
        if xp is np and not _has_zero(x):
            return Cumsum.forward(xp, grad * out, dim, True) / x
        if xp is np and graph and not np.isfinite(x).all():
            return _term_by_term(x, grad, dim)
        return _past_zeros(xp, x, out, grad, dim)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        # The gradient is y_(j-1) s_j, with s_j = g_j + x_(j+1) s_(j+1): nothing is divided by.
        slopes, x, out = ctx.saved
        dim = ctx.attrs[0]
        of_slopes = of_x = of_out = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            of_slopes = F.recurrence(grad * _more(F, out, dim, 1, -1, 1), x, dim, False)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            sums = F.recurrence(slopes, x, dim, True)
        if ctx.needs_input_grad[1]:
            of_x = _more(F, of_slopes, dim, 1, -1) * sums
        if ctx.needs_input_grad[2]:
            of_out = _more(F, grad * sums, dim, -1, 1)
        return of_slopes if ctx.needs_input_grad[0] else None, of_x, of_out

    def fused_forward(K: Any, grad: Any, x: Any, out: Any, dim: int, graph: bool) -> Any:
        return scans.running_product_gradient(K, grad, x, out, dim)


class Cumprod(Op):
    """Running products along a dimension."""

    reads = ((0, OUT),)
    delegates = True
    row_major = True
    native_from = 1 << 8  # forward alone: the rule is PyTorch's where factors are no numbers

    def forward(xp: Any, x: Any, dim: int) -> Any:
        return accumulate(xp, "multiply", x, dim, x.dtype) if x.ndim else x.copy()

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, out = ctx.saved
        if math.prod(x.shape) <= 1:
            return (grad.reshape(tuple(x.shape)),)
        return (F.cumprod_grad(grad, x, out, *ctx.attrs, F.tensors),)

    def fused_forward(K: Any, x: Any, dim: int) -> Any:
        return scans.running(K, "running_product", (x,), dim)


class Logcumsumexp(Op):
    """Logarithms of running sums of exponentials, from the end when reversed."""

    reads = ((0, OUT),)
    row_major = True
    native_from = native_backward_from = 1 << 8

    def forward(xp: Any, x: Any, dim: int, reverse: bool) -> Any:
        if x.ndim == 0:
            return x.copy()
        source = xp.flip(x, dim) if reverse else x
        if xp is np:
            wide = running_dtype(xp, x.dtype)
            out = np.logaddexp.accumulate(source, axis=dim, dtype=wide).astype(x.dtype, copy=False)
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
