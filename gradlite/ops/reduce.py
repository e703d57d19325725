"""Sums, means and other reductions over dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import reductions, sums_compiled
from gradlite.ops.dims import integer, wrap_dim, wrap_dims
from gradlite.ops.dispatch import apply1
from gradlite.ops.layout import row_major
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import cast
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "mean",
    "sum",
]

Dims = Any


_ALL = [tuple(range(ndim)) for ndim in range(65)]  # NumPy's arrays have no more dimensions


def reduced_dims(dim: Any, ndim: int) -> tuple[int, ...]:
    """The dimensions of a reduction, counted from the front; None or () means all."""
    if dim is None:
        return _ALL[ndim]
    if dim.__class__ is not int and not isinstance(dim, (tuple, list)):
        if not hasattr(dim, "__index__") or isinstance(dim, bool):
            raise TypeError(f"argument 'dim' must be tuple of ints, not {dim.__class__.__name__}")
        dim = integer(dim)
    if dim.__class__ is int:
        return (wrap_dim(dim, ndim),) if ndim else (wrap_dim(dim, 0),)[:0]
    if not dim:
        return _ALL[ndim]
    dims = wrap_dims(dim, ndim)
    return dims if ndim else ()


@lru_cache(maxsize=256)
def ones(n: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """A vector of ones: a product with it sums faster than ``sum`` does."""
    return np.ones(n, dtype)


def keepdim_shape(shape: tuple[int, ...], dims: Sequence[int]) -> tuple[int, ...]:
    """The shape of a reduction that keeps its dimensions with size 1."""
    return tuple([1 if d in dims else n for d, n in enumerate(shape)])


def count(shape: tuple[int, ...], dims: Sequence[int]) -> int:
    """How many elements a reduction makes one of."""
    if len(dims) == len(shape):
        return math.prod(shape)
    return math.prod([shape[d] for d in dims])


def spread(F: Any, grad: Any, shape: tuple[int, ...], dims: Sequence[int]) -> Any:
    """A reduction's gradient in the shape of its input."""
    if len(dims) == len(shape) and not F.tensors and F.xp is np:
        full = np.empty(shape, grad.dtype)  # contiguous, which what comes next likes better
        if isinstance(grad, np.generic):
            full.fill(grad)
        elif grad.__class__ is np.ndarray:
            full.fill(grad.item())
        else:
            full[...] = grad.reshape(())
        return full
    return F.expand(grad.reshape(keepdim_shape(shape, dims)), shape)


# So many rows are added one after another, of many rows; then such sums are.
RUN, MANY = 128, 1024


def _has_many_rows(x: Any, dims: tuple[int, ...]) -> bool:
    """Whether NumPy would add up many rows for a sum over dimensions, one after another.

    Each would be rounded to what the sum has grown to: the error grows with their number. Along
    the last dimension it sums pairwise.
    """
    if x.dtype.char not in "fd" or not x.size:
        return False
    rows = [x.shape[d] for d in dims if d < x.ndim - 1]
    if not rows or math.prod(rows) < MANY:
        return False
    return max(rows) >= 2 * RUN or (_are_one(x, dims) and math.prod(rows) >= 2 * RUN)


def _are_one(x: Any, dims: tuple[int, ...]) -> bool:
    """Whether dimensions lie side by side, before the last one, like a single one."""
    first, last = min(dims), max(dims)
    return bool(last < x.ndim - 1 and last - first + 1 == len(dims) and x.flags.c_contiguous)


def sum_of_runs(xp: Any, x: Any, dims: tuple[int, ...]) -> Any:
    """The sum over dimensions with many rows, of which runs are added up first."""
    if _are_one(x, dims):
        first, last = min(dims), max(dims)
        x, dims = x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :]), (first,)
    longest = max([d for d in dims if d < x.ndim - 1], key=x.shape.__getitem__)
    runs, rest = divmod(x.shape[longest], RUN)
    front = (slice(None),) * longest
    split = (*x.shape[:longest], runs, RUN, *x.shape[longest + 1 :])
    many = x[(*front, slice(runs * RUN))].reshape(split)
    if longest == x.ndim - 2 and x.strides[-1] == x.itemsize:
        parts = xp.matmul(ones(RUN, x.dtype)[None], many)[..., 0, :]
    else:
        parts = xp.add.reduce(many, longest + 1)
    precise = xp.float64 if count(x.shape, dims) > RUN * RUN else x.dtype
    out = xp.add.reduce(parts, dims, precise)
    if rest:
        few = xp.add.reduce(x[(*front, slice(runs * RUN, None))], longest, keepdims=True)
        out += xp.add.reduce(few, dims, precise)
    return row_major(out.astype(x.dtype, copy=False))


def by_numpy(xp: Any, x: Any, dims: tuple[int, ...], keepdim: bool, mean: bool = False) -> Any:
    """The sum, or the mean, over dimensions in one call, for which compiled code has its runs."""
    if len(dims) == x.ndim and not keepdim:
        made = xp.add.reduce(x, None)
        return made / x.size if mean else made
    made = xp.add.reduce(x, dims, None, None, keepdim)
    if x.ndim > 2:
        made = row_major(made)
    return made / count(x.shape, dims) if mean else made


def total(xp: Any, x: Any, dims: tuple[int, ...], keepdim: bool, mean: bool = False) -> Any:
    """The same of many numbers, each of which counts."""
    made = sums_compiled.sums(x, dims, mean)
    if made is None and dims and _has_many_rows(x, dims):
        made = sum_of_runs(xp, x, dims)
        made = made / count(x.shape, dims) if mean else made
    if made is None:
        return by_numpy(xp, x, dims, keepdim, mean)
    return made.reshape(keepdim_shape(x.shape, dims)) if keepdim else made


def column_total(xp: Any, x: Any) -> Any:
    """The sums of a matrix's columns, of many numbers."""
    return total(xp, x, (0,), False)


def column_product(xp: Any, x: Any) -> Any:
    """The same as a product with ones, which is several times as fast as NumPy's sum."""
    if x.shape[0] <= 4096:  # its error grows with the rows
        return x.T.dot(ones(x.shape[0], x.dtype))
    return by_numpy(xp, x, (0,), False)


class Sum(Op):
    delegates = True

    def forward(xp: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        if xp is not np:
            return row_major(x.sum(dims, keepdims=keepdim))
        if x.size >= sums_compiled.LEAST and x.dtype.char in "fd":
            return total(np, x, dims, keepdim)
        return by_numpy(np, x, dims, keepdim)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (spread(F, grad, ctx.shapes[0], ctx.attrs[0]),)

    def fused_forward(K: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        return reductions.sums(K, x, dims, keepdim)


class ColumnSums(Op):
    """The sums of a matrix's columns: the gradient of a bias."""

    delegates = True

    def forward(xp: Any, x: Any) -> Any:
        if xp is not np or x.dtype.char not in "fd":
            return Sum.forward(xp, x, (0,), False)
        return (column_total if x.size >= sums_compiled.LEAST else column_product)(np, x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.expand(grad, ctx.shapes[0]),)

    def fused_forward(K: Any, x: Any) -> Any:
        return reductions.sums(K, x, (0,), False)


class SumDim(Sum):
    grad_name = "SumBackward1"


class Mean(Op):
    def forward(xp: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        if xp is not np:
            return row_major(x.mean(dims, keepdims=keepdim))
        if x.size >= sums_compiled.LEAST and x.dtype.char in "fd":
            return total(np, x, dims, keepdim, True)
        return by_numpy(np, x, dims, keepdim, True)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        shape, dims = tuple(ctx.shapes[0]), ctx.attrs[0]
        n = count(shape, dims)
        if grad.__class__ is np.ndarray and grad.ndim == 0:
            grad = grad[()]  # NumPy divides its scalars many times as fast as such arrays
        return (spread(F, grad / n if n else grad, shape, dims),)

    def fused_forward(K: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        return reductions.sums(K, x, dims, keepdim, mean=True)


class MeanDim(Mean):
    grad_name = "MeanBackward1"


def floating(function: str, dtype: Any) -> np.dtype[Any]:
    """The dtype that a mean is asked for in."""
    wanted = dtypes.as_dtype(dtype).numpy
    if wanted not in dtypes.FLOATING:
        raise RuntimeError(
            f"{function}(): could not infer output dtype. Optional dtype must be either a floating "
            f"point or complex dtype. Got: {type_name(wanted)}"
        )
    return wanted


def _reduction_samples() -> list[Any]:
    return [
        S(normal(3, 4)),
        S(normal(3, 4), 0),
        S(normal(3, 4), -1, True),
        S(normal(2, 3, 4), 1),
        S(normal(2, 3, 4), (0, 2)),
        S(normal(2, 3, 4), dim=(1, 2), keepdim=True),
        S(normal()),
        S(normal(), 0),
        S(normal(0, 3), 1),
    ]


@public(
    samples=lambda: [*_reduction_samples(), S(normal(0, 3)), S(np.arange(4)), S(np.ones(3, bool))],
    method=True,
    autocast=("", "float32-result"),
)
def sum(
    input: Tensor,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
    axis: Dims = None,
    keepdims: bool | None = None,
) -> Tensor:
    """The sum over all or some dimensions; integers and bools add up in int64.

    >>> import gradlite
    >>> gradlite.sum(gradlite.tensor([[1.0, 2.0], [3.0, 4.0]]), 0)
    tensor([4., 6.])
    """
    dim = dim if axis is None else axis
    keepdim = keepdim if keepdims is None else keepdims
    if dtype is not None:
        wanted = dtypes.as_dtype(dtype).numpy
        input = cast(input, wanted)
        if wanted not in dtypes.FLOATING and wanted != np.int64:
            # NumPy adds up small integers in larger ones; modulo its range it is the same sum.
            dims = reduced_dims(dim, input.array.ndim)
            return cast(apply1(Sum, cast(input, np.int64), dims, keepdim), wanted)
    elif input.array.dtype not in dtypes.FLOATING:
        input = cast(input, np.int64)
    dims = reduced_dims(dim, input.array.ndim)
    return apply1(Sum if dim is None else SumDim, input, dims, keepdim)


@public(samples=_reduction_samples, method=True)
def mean(
    input: Tensor,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
    axis: Dims = None,
    keepdims: bool | None = None,
) -> Tensor:
    """The mean over all or some dimensions.

    >>> import gradlite
    >>> gradlite.mean(gradlite.tensor([[1.0, 2.0], [3.0, 4.0]]), 0)
    tensor([2., 3.])

    Raises:
        RuntimeError: the dtype is not floating.
    """
    dim = dim if axis is None else axis
    keepdim = keepdim if keepdims is None else keepdims
    if dtype is not None:
        input = cast(input, floating("mean", dtype))
    elif input.array.dtype not in dtypes.FLOATING:
        raise RuntimeError(
            "mean(): could not infer output dtype. Input dtype must be either a floating point or "
            f"complex dtype. Got: {type_name(input.array.dtype)}"
        )
    dims = reduced_dims(dim, input.array.ndim)
    return apply1(Mean if dim is None else MeanDim, input, dims, keepdim)
