"""The largest and smallest elements: max, min, amax, argmax, aminmax, cummax, ..."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import return_types
from gradlite.ops import (
    extremes_compiled,
    guard,
    indexing,
    natively,
    positions,
    reductions,
    scans,
)
from gradlite.ops.arithmetic import maximum, minimum
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import OUT, apply, apply1
from gradlite.ops.gather import Along
from gradlite.ops.guard import on_its_device
from gradlite.ops.halves import single
from gradlite.ops.keywords import numpy_keywords
from gradlite.ops.layout import row_major
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.ops.reduce import keepdim_shape, reduced_dims, spread
from gradlite.ops.samples import S, distinct, integers
from gradlite.ops.softmax import row_max
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "amax",
    "amin",
    "aminmax",
    "argmax",
    "argmin",
    "cummax",
    "cummin",
    "max",
    "min",
]


def nonempty(name: str, x: Any, dims: tuple[int, ...] | None) -> None:
    """An error when a reduction without an identity would have nothing to reduce."""
    if x.size:
        return
    if dims is None:
        error = IndexError if name.startswith("arg") else RuntimeError
        hint = (
            "" if name.startswith("arg") else " Specify the reduction dim with the 'dim' argument."
        )
        raise error(
            f"{name}(): Expected reduction dim to be specified for input.numel() == 0.{hint}"
        )
    for d in dims:
        if x.shape[d] == 0:
            raise IndexError(f"{name}(): Expected reduction dim {d} to have non-zero size.")


# ------------------------------------------------------------------------ over several
class Amax(Op):
    """The largest element over dimensions; ties share the gradient evenly."""

    reads = ((0, OUT),)
    row_major = True

    def forward(xp: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        made = extremes_compiled.extremes(x, dims, True)
        if made is not None:
            return made.reshape(keepdim_shape(x.shape, dims)) if keepdim else made
        if xp is np and x.ndim > 1 and dims == (x.ndim - 1,) and x.flags.c_contiguous and x.size:
            shape = keepdim_shape(x.shape, dims) if keepdim else x.shape[:-1]
            return row_max(x.reshape(-1, x.shape[-1])).reshape(shape)
        return x.max(axis=dims, keepdims=keepdim)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, out = ctx.saved
        shape, dims = tuple(ctx.shapes[0]), ctx.attrs[0]
        return (_evenly(F, x == spread(F, out, shape, dims), grad, shape, dims),)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, out = ctx.saved
        return reductions.extreme_gradient(K, grad, x, out, ctx.attrs[0], 0)

    def fused_forward(K: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        return reductions.extremes(K, x, dims, keepdim, 1)


class Amin(Amax):
    """The smallest element over dimensions; ties share the gradient evenly."""

    def forward(xp: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        made = extremes_compiled.extremes(x, dims, False)
        if made is not None:
            return made.reshape(keepdim_shape(x.shape, dims)) if keepdim else made
        return x.min(axis=dims, keepdims=keepdim)

    def fused_forward(K: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        return reductions.extremes(K, x, dims, keepdim, -1)


class Max(Amax):
    """The largest of all elements; NaNs share the gradient too."""

    grad_name = "MaxBackward1"

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, out = ctx.saved
        shape, dims = tuple(ctx.shapes[0]), ctx.attrs[0]
        reached = (x == out) | ((x != x) & (out != out))
        return (_evenly(F, reached, grad, shape, dims),)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, out = ctx.saved
        return reductions.extreme_gradient(K, grad, x, out, ctx.attrs[0], 1)


class Min(Max):
    """The smallest of all elements; NaNs share the gradient too."""

    grad_name = "MinBackward1"

    def forward(xp: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        made = extremes_compiled.extremes(x, dims, False)
        if made is not None:
            return made.reshape(keepdim_shape(x.shape, dims)) if keepdim else made
        return x.min(axis=dims, keepdims=keepdim)

    def fused_forward(K: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        return reductions.extremes(K, x, dims, keepdim, -1)


class AminmaxLow(Amin):
    grad_name = "AminmaxBackward0"


class AminmaxHigh(Amax):
    grad_name = "AminmaxBackward0"


def _evenly(F: Any, reached: Any, grad: Any, shape: tuple[int, ...], dims: Any) -> Any:
    """A reduction's gradient divided among the elements that reached the result."""
    share = F.to_copy(reached, F.array(grad).dtype)
    count = F.sum(share, dims, True)
    return spread(F, grad, shape, dims) * (share / count)


def _reductions() -> list[Any]:
    return [
        S(distinct(3, 4)),
        S(distinct(3, 4), 0),
        S(distinct(3, 4), -1, True),
        S(distinct(2, 3, 4), (0, 2)),
        S(distinct(2, 3, 4), dim=(1, 2), keepdim=True),
        S(distinct(2, 3, 4), ()),
        S(distinct()),
        S(distinct(), 0),
        S(distinct(0, 3), 1),
        S(integers(0, 2, 3, 4).astype(float), smooth=False),
        S(integers(0, 2, 3, 4).astype(float), 1, smooth=False),
        S(integers(0, 9, 3, 4), 1),
        S(integers(0, 2, 3, 4) > 0, 0),
        S(np.array([1.0, np.nan, 2.0]), smooth=False),
    ]


def _reduction_errors() -> list[Any]:
    return [S(distinct(0, 3)), S(distinct(0, 3), 0), S(distinct(2), 1), S(distinct(2), (0, 0))]


@public(samples=_reductions, method=True, errors=_reduction_errors)
@numpy_keywords
def amax(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The largest elements over one or more dimensions; all by default.

    Elements that tie for the largest share the gradient evenly, unlike with `max`.

    >>> import gradlite
    >>> gradlite.amax(gradlite.tensor([[1.0, 5.0], [7.0, 2.0]]), 1)
    tensor([5., 7.])
    """
    return _over("amax", Amax, input, dim, keepdim)


@public(samples=_reductions, method=True, errors=_reduction_errors)
@numpy_keywords
def amin(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The smallest elements over one or more dimensions; all by default.

    Elements that tie for the smallest share the gradient evenly, unlike with `min`.

    >>> import gradlite
    >>> gradlite.amin(gradlite.tensor([[1.0, 5.0], [7.0, 2.0]]), 1)
    tensor([1., 2.])
    """
    return _over("amin", Amin, input, dim, keepdim)


def _over(name: str, op: Any, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    dims = reduced_dims(dim, input.array.ndim)
    everything = dim is None or (isinstance(dim, (tuple, list)) and not dim)
    given = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)  # as messages have them
    nonempty(name, input.array, None if everything else given)
    return apply1(op, input, dims, keepdim)


# ------------------------------------------------------------------------ along one dim
class Pick(Op):
    """Of each row along a dimension the one element that an index names: x, index -> values.

    The index has the shape of the result, with or without the dimension.
    """

    reads = ((1,), ())
    constants = (1,)

    def forward(xp: Any, x: Any, index: Any, dim: int) -> Any:
        if not x.ndim:
            return x.copy()
        rows = index.reshape(keepdim_shape(x.shape, (dim,)))
        return x.reshape(-1).take(positions.along(xp, x.shape, rows, dim)).reshape(index.shape)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (index,) = ctx.saved
        (dim,) = ctx.attrs
        shape = tuple(ctx.shapes[0])
        if not shape:
            return grad.reshape(()), None
        kept = keepdim_shape(shape, (dim,))
        zeros = F.zeros(shape, grad)
        return F.scatter_add(zeros, index.reshape(kept), grad.reshape(kept), dim), None

    def fused_forward(K: Any, x: Any, index: Any, dim: int) -> Any:
        if not x.ndim or not K.takes(x) or not 0 < index.size < indexing.MOST:
            return NotImplemented
        rows = index.reshape(keepdim_shape(x.shape, (dim,)))
        return indexing.take_along(K, "gather", x, rows, dim).reshape(index.shape)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        (index,), (dim,), shape = ctx.saved, ctx.attrs, tuple(ctx.shapes[0])
        if not shape or not indexing.adds(K, shape, dim, grad):
            return NotImplemented
        kept = keepdim_shape(shape, (dim,))
        out = K.zeros(shape, grad.dtype)
        indexing.add_along(K, "gather", out, index.reshape(kept), grad.reshape(kept), dim)
        return out, None


class PickMax(Pick):
    grad_name = "MaxBackward0"


class PickMin(Pick):
    grad_name = "MinBackward0"


@on_its_device
def arg_extremum(name: str, function: str, input: Tensor, dim: int, keepdim: bool) -> Tensor:
    """The index of the first extremum (NaN counts as one) of each row along a dimension."""
    array = input.array
    d = wrap_dim(dim, array.ndim)
    if array.ndim == 0:
        return wrap(NAMESPACES[array.__class__].xp.zeros((), np.int64))
    nonempty(name, array, (d,))
    K, index = NAMESPACES[array.__class__].launcher, NotImplemented
    if K is not None:
        sign = 1 if function == "argmax" else -1
        index = reductions.extremes(K, array, (d,), False, sign, with_index=True)
    index = getattr(array, function)(axis=d) if index is NotImplemented else index[1]
    return wrap(index.reshape(keepdim_shape(array.shape, (d,))) if keepdim else index)


def _along(name: str, op: Any, input: Tensor, dim: Any, keepdim: bool) -> Any:
    if isinstance(dim, bool) or not hasattr(dim, "__index__"):
        raise TypeError(
            f"{name}() received an invalid combination of arguments - got "
            f"({dim.__class__.__name__}), but expected one of: (), (Tensor other) or "
            "(int dim, bool keepdim)"
        )
    index = arg_extremum(name, f"arg{name}", input, dim, keepdim)
    values = apply(op, (input, index), wrap_dim(dim, input.array.ndim))
    return getattr(return_types, name)((values, index))


def _whole(name: str, op: Any, input: Tensor, keepdim: bool) -> Tensor:
    if keepdim:
        raise TypeError(
            f"{name}() received an invalid combination of arguments - got (keepdim=bool), but "
            "expected one of: (), (Tensor other) or (int dim, bool keepdim)"
        )
    nonempty(name, input.array, None)
    return apply1(op, input, tuple(range(input.array.ndim)), False)


def _with_index() -> list[Any]:
    return [
        S(distinct(3, 4)),
        S(distinct(3, 4), 0),
        S(distinct(3, 4), -1, True),
        S(distinct(2, 3, 4), dim=1),
        S(distinct(2, 3, 4), 2),
        S(distinct()),
        S(distinct(), 0),
        S(distinct(0, 3), 1),
        S(distinct(3, 1), distinct(4) + 0.05),
        S(integers(0, 2, 3, 4).astype(float), smooth=False),
        S(integers(0, 2, 3, 4).astype(float), 1, smooth=False),
        S(integers(0, 9, 3, 4), 1),
        S(integers(0, 2, 3, 4) > 0, 0),
        S(np.array([1.0, np.nan, 2.0, np.nan]), smooth=False),
        S(np.array([1.0, np.nan, 2.0, np.nan]), 0, smooth=False),
    ]


def _with_index_errors() -> list[Any]:
    return [S(distinct(0, 3)), S(distinct(0, 3), 0), S(distinct(2), 1), S(distinct(2), "a")]


@public(samples=_with_index, method=True, errors=_with_index_errors)
@numpy_keywords
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The largest element; with ``dim``, those along it with their indices.

    ``max(a, b)`` of two tensors is `maximum`.

    >>> import gradlite
    >>> x = gradlite.tensor([[1.0, 5.0], [7.0, 2.0]])
    >>> gradlite.max(x)
    tensor(7.)
    >>> values, indices = gradlite.max(x, 1)
    >>> indices
    tensor([1, 0])

    Raises:
        RuntimeError: there is no element.
        IndexError: the dimension is empty or out of range.
    """
    if dim is None and other is None:
        return _whole("max", Max, input, keepdim)
    if isinstance(dim, Tensor) or other is not None:
        return maximum(input, dim if other is None else other)
    return _along("max", PickMax, input, dim, keepdim)


@public(samples=_with_index, method=True, errors=_with_index_errors)
@numpy_keywords
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The smallest element; with ``dim``, those along it with their indices.

    ``min(a, b)`` of two tensors is `minimum`.

    >>> import gradlite
    >>> x = gradlite.tensor([[1.0, 5.0], [7.0, 2.0]])
    >>> gradlite.min(x)
    tensor(1.)
    >>> values, indices = gradlite.min(x, 1)
    >>> indices
    tensor([0, 1])

    Raises:
        RuntimeError: there is no element.
        IndexError: the dimension is empty or out of range.
    """
    if dim is None and other is None:
        return _whole("min", Min, input, keepdim)
    if isinstance(dim, Tensor) or other is not None:
        return minimum(input, dim if other is None else other)
    return _along("min", PickMin, input, dim, keepdim)


def _index_samples() -> list[Any]:
    return [
        S(distinct(3, 4)),
        S(distinct(3, 4), 0),
        S(distinct(3, 4), -1, True),
        S(distinct(3, 4), keepdim=True),
        S(distinct()),
        S(distinct(), 0),
        S(distinct(0, 3), 1),
        S(integers(0, 2, 3, 4), 1),
        S(np.array([1.0, np.nan, 2.0, np.nan])),
    ]


def _index_errors() -> list[Any]:
    return [S(distinct(0, 3)), S(distinct(0, 3), 0), S(distinct(2), 1), S(np.array([True]))]


@public(samples=_index_samples, method=True, differentiable=False, errors=_index_errors)
@numpy_keywords
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first largest element: along ``dim``, or into the tensor as one row.

    >>> import gradlite
    >>> gradlite.argmax(gradlite.tensor([[1.0, 5.0], [7.0, 2.0]]), dim=1)
    tensor([1, 0])
    """
    return _arg("argmax", input, dim, keepdim)


@public(samples=_index_samples, method=True, differentiable=False, errors=_index_errors)
@numpy_keywords
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first smallest element: along ``dim``, or into the tensor as one row.

    >>> import gradlite
    >>> gradlite.argmin(gradlite.tensor([[1.0, 5.0], [7.0, 2.0]]), dim=1)
    tensor([0, 1])
    """
    return _arg("argmin", input, dim, keepdim)


def _arg(name: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    array = input.array
    if array.dtype == np.bool_:
        raise RuntimeError(f"{name}(): does not support bool input")
    if dim is not None:
        return arg_extremum(name, name, input, dim, keepdim)
    nonempty(name, array, None)
    xp = NAMESPACES[array.__class__].xp
    with guard.on(array):
        index = xp.asarray(getattr(array, name)())
    return wrap(index.reshape((1,) * array.ndim) if keepdim else index)


@public(
    samples=lambda: [
        S(distinct(3, 4)),
        S(distinct(3, 4), dim=0),
        S(distinct(3, 4), dim=-1, keepdim=True),
        S(distinct()),
        S(np.ones((2, 3)), smooth=False),
        S(integers(0, 9, 3, 4), dim=1),
    ],
    method=True,
    errors=lambda: [S(distinct(0, 3)), S(distinct(0, 3), dim=0)],
)
@numpy_keywords
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest and the largest elements, as ``(min, max)``.

    >>> import gradlite
    >>> low, high = gradlite.aminmax(gradlite.tensor([3.0, 1.0, 2.0]))
    >>> low, high
    (tensor(1.), tensor(3.))
    """
    if input.array.size == 0:
        if dim is None:
            raise RuntimeError(
                "aminmax(): cannot compute aminmax over an empty dimension as the operation has "
                "no identity."
            )
        d = wrap_dim(dim, input.array.ndim)
        if input.array.shape[d] == 0:
            raise IndexError(f"aminmax: Expected reduction dim {d} to have non-zero size.")
    dims = reduced_dims(dim, input.array.ndim)
    ends = (apply1(op, input, dims, keepdim) for op in (AminmaxLow, AminmaxHigh))
    return return_types.aminmax(ends)


# ---------------------------------------------------------------------------- running
NATIVE_FROM = 1 << 8  # elements from which on a kernel on the CPU beats NumPy


class Cummax(Along):
    grad_name = "CummaxBackward0"


class Cummin(Along):
    grad_name = "CumminBackward0"


def _accumulate(xp: Any, ufunc: Any, array: Any, dim: int) -> Any:
    """``ufunc.accumulate``; on CuPy, which lacks it for extrema, in steps that double."""
    if xp is np:
        return ufunc.accumulate(array, axis=dim)
    result = array.copy()
    rows, step = xp.moveaxis(result, dim, 0), 1
    while step < len(rows):
        rows[step:] = ufunc(rows[step:], rows[:-step])
        step *= 2
    return result


@on_its_device
def _running(name: str, op: Any, input: Tensor, dim: int) -> Any:
    K = NAMESPACES[input.array.__class__].launcher
    if K is None:
        K = natively.launcher_of(input.array, "running_extreme", NATIVE_FROM)
    if K is not None and input.array.ndim and input.array.size:
        d = wrap_dim(dim, input.array.ndim)
        sign = 1 if name == "cummax" else -1
        index = wrap(scans.running_extreme(K, input.array, d, sign))
        return getattr(return_types, name)((apply(op, (input, index), d), index))
    array = single(input.array)
    d = wrap_dim(dim, array.ndim)
    xp = NAMESPACES[array.__class__].xp
    if array.ndim == 0 or array.size == 0:
        index = wrap(xp.zeros(array.shape, np.int64))
    else:
        ufunc = xp.maximum if name == "cummax" else xp.minimum
        running = _accumulate(xp, ufunc, array, d)
        # A later element that ties takes over: the index is the last place so far where the
        # element is the running extremum.
        reached = (array == running) | ((array != array) & (running != running))
        places = xp.arange(array.shape[d]).reshape((-1,) + (1,) * (array.ndim - 1 - d))
        index = wrap(row_major(_accumulate(xp, xp.maximum, xp.where(reached, places, 0), d)))
    return getattr(return_types, name)((apply(op, (input, index), d), index))


def _running_samples() -> list[Any]:
    return [
        S(distinct(3, 4), 0),
        S(distinct(3, 4), -1),
        S(distinct(5), dim=0),
        S(distinct(), 0),
        S(distinct(0, 3), 1),
        S(integers(0, 3, 8).astype(float), 0, smooth=False),
        S(np.array([1.0, np.nan, 3.0, np.nan, 2.0]), 0, smooth=False),
        S(integers(0, 9, 3, 4), 1),
    ]


@public(samples=_running_samples, method=True, errors=lambda: [S(distinct(3), 1)])
@numpy_keywords
def cummax(input: Tensor, dim: int) -> Any:
    """The largest element so far along a dimension, with its index.

    >>> import gradlite
    >>> gradlite.cummax(gradlite.tensor([1, 3, 2]), 0).values
    tensor([1, 3, 3])
    """
    return _running("cummax", Cummax, input, dim)


@public(samples=_running_samples, method=True, errors=lambda: [S(distinct(3), 1)])
@numpy_keywords
def cummin(input: Tensor, dim: int) -> Any:
    """The smallest element so far along a dimension, with its index.

    >>> import gradlite
    >>> gradlite.cummin(gradlite.tensor([2, 1, 3]), 0).values
    tensor([2, 1, 1])
    """
    return _running("cummin", Cummin, input, dim)
