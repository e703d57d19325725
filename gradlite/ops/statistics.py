"""Statistics: variance, median, sums without NaN, histograms."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gradlite import dtypes, return_types
from gradlite.ops import moments
from gradlite.ops.choose import where
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import OUT, apply, apply1
from gradlite.ops.extrema import Max, Pick, nonempty
from gradlite.ops.gather import check_tensor
from gradlite.ops.guard import on_its_device
from gradlite.ops.halves import single
from gradlite.ops.keywords import numpy_keywords
from gradlite.ops.layout import row_major
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.reduce import floating, keepdim_shape, mean, reduced_dims, spread
from gradlite.ops.samples import S, constant, distinct, integers, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "bincount",
    "histc",
    "median",
    "nanmean",
    "nanmedian",
    "nansum",
    "std",
    "std_mean",
    "var",
    "var_mean",
]


# ---------------------------------------------------------------------------- variance
def _count(shape: tuple[int, ...], dims: tuple[int, ...]) -> int:
    n = 1
    for d in dims:
        n *= shape[d]
    return n


def _reciprocal(x: float) -> float:
    return 1 / x if x else float("inf")


def _variances(xp: Any, x: Any, dims: tuple[int, ...], correction: float, keepdim: bool) -> Any:
    """The variances, and the means with the dimensions kept."""
    n = _count(x.shape, dims)
    kind = x.dtype.type
    mean = x.sum(axis=dims, keepdims=True) / kind(n)
    centred = x - mean
    total = (centred * centred).sum(axis=dims, keepdims=keepdim)
    return row_major(xp.asarray(total / kind(max(n - correction, 0)))), mean


def _variance_rule(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
    x = ctx.saved[0]
    shape, (dims, correction, _) = tuple(ctx.shapes[0]), ctx.attrs
    n = _count(shape, dims)
    if F.tensors:
        mean = F.mean(x, dims, True)
    else:
        mean = ctx.aux.reshape(keepdim_shape(shape, dims)).astype(x.dtype, copy=False)
    return (spread(F, grad * (2 * _reciprocal(n - correction)), shape, dims) * (x - mean),)


class Var(Op):
    """Mean squared distance from the mean, with ``n - correction`` as the divisor.

    aux: the means, in any shape.
    """

    reads: tuple[tuple[int, ...], ...] = ((0,),)
    has_aux = True
    native_from, native_backward_from = 1 << 8, 1 << 13

    def forward(xp: Any, x: Any, dims: tuple[int, ...], correction: float, keepdim: bool) -> Any:
        return _variances(xp, x, dims, correction, keepdim)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return _variance_rule(ctx, grad, F)

    def fused_forward(
        K: Any, x: Any, dims: tuple[int, ...], correction: float, keepdim: bool
    ) -> Any:
        return moments.variance(K, x, dims, correction, keepdim, False)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        (x,), (dims, correction, _) = ctx.saved, ctx.attrs
        scale = 2 * _reciprocal(_count(x.shape, dims) - correction)
        return moments.variance_gradient(K, grad, x, ctx.aux, None, dims, scale)


class Std(Var):
    """The square root of the variance; its gradient is 0 where it is 0."""

    reads = ((0, OUT),)

    def forward(xp: Any, x: Any, dims: tuple[int, ...], correction: float, keepdim: bool) -> Any:
        variance, mean = _variances(xp, x, dims, correction, keepdim)
        return xp.sqrt(variance), mean

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        out = ctx.saved[1]
        none = out == 0
        zero = F.zero_beside(grad)
        slope = F.where(none, zero, grad / (F.where(none, zero + 1, out) * 2))
        return _variance_rule(ctx, slope, F)

    def fused_forward(
        K: Any, x: Any, dims: tuple[int, ...], correction: float, keepdim: bool
    ) -> Any:
        return moments.variance(K, x, dims, correction, keepdim, True)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        (x, out), (dims, correction, _) = ctx.saved, ctx.attrs
        scale = _reciprocal(_count(x.shape, dims) - correction)
        return moments.variance_gradient(K, grad, x, ctx.aux, out, dims, scale)


def _variance(
    name: str, op: Any, input: Tensor, dim: Any, unbiased: bool, keepdim: bool, correction: Any
) -> Tensor:
    if isinstance(dim, bool):  # std(unbiased)
        dim, unbiased = None, dim
    if input.array.dtype not in dtypes.FLOATING:
        raise RuntimeError("std and var only support floating point and complex dtypes")
    dims = reduced_dims(dim, input.array.ndim)
    if correction is None:
        correction = 1 if unbiased else 0
    if input.array.size == 0 or _count(input.array.shape, dims) <= correction:
        warnings.warn(
            f"{name}(): degrees of freedom is <= 0. Correction should be strictly less than the "
            "reduction factor (input numel divided by output numel).",
            UserWarning,
            stacklevel=5,
        )
    return apply(op, (input,), dims, correction, keepdim)  # type: ignore[no-any-return]


def _variance_samples() -> list[Any]:
    return [
        S(normal(3, 4)),
        S(normal(3, 4), False),
        S(normal(3, 4), 0),
        S(normal(3, 4), -1, keepdim=True),
        S(normal(2, 3, 4), (0, 2), correction=0),
        S(normal(2, 3, 4), dim=1, unbiased=False),
        S(normal(3, 4), None, correction=2),
        S(np.ones((2, 3)), 1, smooth=False),
        S(normal(4) + 100, rtol=1e-7),
    ]


def _variance_errors() -> list[Any]:
    return [S(np.arange(3)), S(normal(3), 1), S(normal(3), (0, 0))]


@public(samples=_variance_samples, method=True, errors=_variance_errors)
@numpy_keywords
def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: Any = None,
) -> Tensor:
    """The variance, over all or some dimensions, with the divisor ``n - correction``.

    ``correction`` is 1 by default (0 with ``unbiased=False``).

    >>> import gradlite
    >>> gradlite.var(gradlite.tensor([1.0, 2.0, 3.0]))
    tensor(1.)
    """
    return _variance("var", Var, input, dim, unbiased, keepdim, correction)


@public(samples=_variance_samples, method=True, errors=_variance_errors)
@numpy_keywords
def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: Any = None,
) -> Tensor:
    """The standard deviation, over all or some dimensions: the square root of `var`.

    >>> import gradlite
    >>> gradlite.std(gradlite.tensor([1.0, 2.0, 3.0]))
    tensor(1.)
    """
    return _variance("std", Std, input, dim, unbiased, keepdim, correction)


def _and_mean(
    name: str, op: Any, input: Tensor, dim: Any, unbiased: bool, keepdim: bool, correction: Any
) -> tuple[Tensor, Tensor]:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    first = _variance(name, op, input, dim, unbiased, keepdim, correction)
    return first, mean(input, dim, keepdim)


@public(samples=_variance_samples, errors=_variance_errors)
@numpy_keywords
def var_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: Any = None,
) -> tuple[Tensor, Tensor]:
    """`var` and the mean.

    >>> import gradlite
    >>> gradlite.var_mean(gradlite.tensor([1.0, 2.0, 3.0]))
    (tensor(1.), tensor(2.))
    """
    return _and_mean("var_mean", Var, input, dim, unbiased, keepdim, correction)


@public(samples=_variance_samples, errors=_variance_errors)
@numpy_keywords
def std_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: Any = None,
) -> tuple[Tensor, Tensor]:
    """`std` and the mean.

    >>> import gradlite
    >>> gradlite.std_mean(gradlite.tensor([1.0, 2.0, 3.0]))
    (tensor(1.), tensor(2.))
    """
    return _and_mean("std_mean", Std, input, dim, unbiased, keepdim, correction)


# ------------------------------------------------------------------------------ median
class Median(Max):
    """The lower median of all elements; ties share its gradient."""

    grad_name = "MedianBackward0"

    def forward(xp: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        row = x.reshape(-1)
        if xp is np:
            middle = (x.size - 1) // 2
            found = np.partition(row, middle)[middle]
            if x.dtype.kind != "f":
                return found
            return np.where((row != row).any(), row.dtype.type(np.nan), found)
        return row[median_index(xp, row[None], False)[0]]


class Nanmedian(Median):
    grad_name = "NanmedianBackward0"

    def forward(xp: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
        row = x.reshape(-1)
        if x.__class__ is np.ndarray and x.dtype.kind == "f":
            numbers = row[row == row]
            if not numbers.size:
                return row[0]
            middle = (numbers.size - 1) // 2
            return np.partition(numbers, middle)[middle]
        return row[median_index(xp, row[None], True)[0]]


class PickMedian(Pick):
    grad_name = "MedianBackward1"


class PickNanmedian(Pick):
    grad_name = "NanmedianBackward1"


def median_index(xp: Any, rows: Any, skip_nan: bool) -> Any:
    """The place of the lower median in each row; of the first NaN, unless NaNs are skipped."""
    n, rows = rows.shape[-1], single(rows)
    is_nan = rows != rows
    if xp is np and not skip_nan:
        index = rows.argpartition((n - 1) // 2, -1)[..., (n - 1) // 2]
        return np.where(is_nan.any(axis=-1), is_nan.argmax(axis=-1), index)
    order = xp.argsort(rows, axis=-1)
    if skip_nan:
        middle = xp.maximum(n - is_nan.sum(axis=-1) - 1, 0) // 2
        return xp.take_along_axis(order, middle[..., None], -1)[..., 0]
    index = order[..., (n - 1) // 2]
    return xp.where(is_nan.any(axis=-1), is_nan.argmax(axis=-1), index)


@on_its_device
def _median(name: str, whole: Any, pick: Any, input: Tensor, dim: int | None, keepdim: bool) -> Any:
    array = input.array
    if array.dtype == np.bool_:
        raise NotImplementedError("\"median_cpu\" not implemented for 'Bool'")
    xp = NAMESPACES[array.__class__].xp
    if dim is None:
        if array.size == 0:
            return input.new_full((), float("nan"))
        return apply1(whole, input, tuple(range(array.ndim)), False)
    d = wrap_dim(dim, array.ndim)
    if array.ndim == 0:
        index = xp.zeros((), np.int64)
    else:
        nonempty(name, array, (d,))
        index = median_index(xp, xp.moveaxis(array, d, -1), name == "nanmedian")
        index = index.astype(np.int64)
    if keepdim:
        index = index.reshape(keepdim_shape(array.shape, (d,)))
    places = wrap(index)
    return getattr(return_types, name)((apply(pick, (input, places), d), places))


def _median_samples() -> list[Any]:
    return [
        S(distinct(3, 4)),
        S(distinct(5)),
        S(distinct(3, 4), 0),
        S(distinct(3, 5), -1, True),
        S(distinct()),
        S(distinct(), 0),
        S(distinct(0, 3), 1),
        S(np.array([3.0, 3.0, 1.0, 1.0, 3.0]), smooth=False),
        S(np.array([[3.0, np.nan, 1.0], [2.0, 4.0, 0.0]]), 1, smooth=False),
        S(np.array([3.0, np.nan, 1.0]), smooth=False),
        S(integers(0, 9, 3, 3)),
    ]


@public(samples=_median_samples, method=True, errors=lambda: [S(distinct(0, 3), 0)])
@numpy_keywords
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median (the lower of the two middle elements); with ``dim``, with its indices.

    >>> import gradlite
    >>> gradlite.median(gradlite.tensor([3.0, 1.0, 2.0, 4.0]))
    tensor(2.)
    """
    return _median("median", Median, PickMedian, input, dim, keepdim)


@public(samples=_median_samples, method=True, errors=lambda: [S(distinct(0, 3), 0)])
@numpy_keywords
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """`median` of the elements that are not NaN.

    >>> import gradlite
    >>> gradlite.nanmedian(gradlite.tensor([3.0, float("nan"), 1.0]))
    tensor(1.)
    """
    return _median("nanmedian", Nanmedian, PickNanmedian, input, dim, keepdim)


# -------------------------------------------------------------------------- without NaN
def _nan_samples() -> list[Any]:
    values = normal(3, 4)
    values[0, 1] = values[2, 3] = np.nan
    return [
        S(values, smooth=False),
        S(values, 0, smooth=False),
        S(values, (0, 1), True, smooth=False),
        S(normal(3, 4), 1),
        S(constant(np.array([np.nan]))),
    ]


@public(samples=lambda: [*_nan_samples(), S(integers(0, 9, 3))], method=True)
@numpy_keywords
@on_its_device
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum of the elements that are not NaN.

    >>> import gradlite
    >>> gradlite.nansum(gradlite.tensor([1.0, float("nan"), 2.0]))
    tensor(3.)
    """
    if _sums_up(input):
        total: Any = input.sum(dim, keepdim, dtype=dtype)
        if not np.isnan(total.array).any():
            return total  # type: ignore[no-any-return]
    present = wrap(input.array == input.array)
    kept: Any = where(present, input, 0)
    return kept.sum(dim, keepdim, dtype=dtype)  # type: ignore[no-any-return]


def _sums_up(input: Tensor) -> bool:
    """Whether the plain sum may be tried first: no captured step is to have what it depends on."""
    array = input.array
    return array.__class__ is np.ndarray and array.dtype.char in "fd" and array.size > 0


@public(samples=_nan_samples, method=True, errors=lambda: [S(integers(0, 9, 3))])
@numpy_keywords
@on_its_device
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean of the elements that are not NaN.

    >>> import gradlite
    >>> gradlite.nanmean(gradlite.tensor([1.0, float("nan"), 2.0]))
    tensor(1.5000)
    """
    if input.array.dtype not in dtypes.FLOATING:
        raise RuntimeError(
            "nanmean(): expected input to have floating point or complex dtype but got "
            f"{type_name(input.array.dtype)}"
        )
    if dtype is not None:
        floating("nanmean", dtype)
    if _sums_up(input):
        found: Any = input.mean(dim, keepdim, dtype=dtype)
        if not np.isnan(found.array).any():
            return found  # type: ignore[no-any-return]
    present: Any = wrap(input.array == input.array)
    total = nansum(input, dim, keepdim, dtype=dtype)
    return total / present.sum(dim, keepdim)  # type: ignore[no-any-return,operator]


# --------------------------------------------------------------------------- histograms
@public(
    samples=lambda: [
        S(constant(normal(50)), 6, -2, 2),
        S(constant(normal(5, 4)), bins=4),
        S(constant(np.ones(3)), 4),
        S(constant(np.array([1.0, np.nan, 5.0, 3.0])), 4, 0, 3),
    ],
    method=True,
    differentiable=False,
    errors=lambda: [
        S(constant(normal(3)), 0, 0, 3),
        S(constant(normal(3)), 2, 4, 3),
        S(np.arange(3), 4),
        S(constant(np.array([1.0, np.nan])), 4),
    ],
)
@on_its_device
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements fall in each of ``bins`` equal intervals of [min, max].

    Elements outside are not counted; ``min = max`` stands for the elements' own range.

    >>> import gradlite
    >>> gradlite.histc(gradlite.tensor([1.0, 2.0, 1.0]), bins=4, min=0, max=3)
    tensor([0., 2., 1., 0.])
    """
    array = input.array
    low, high = float(min), float(max)
    if low > high:
        raise RuntimeError("gradlite.histc: max must be larger than min")
    if array.dtype not in dtypes.FLOATING:
        raise NotImplementedError(
            f"\"histogram_cpu\" not implemented for '{type_name(array.dtype)}'"
        )
    if bins <= 0:
        raise RuntimeError(
            f"gradlite.histogram(): bins must be > 0, but got {bins} for dimension 0"
        )
    if low == high and array.size:
        low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RuntimeError(f"gradlite.histc: range of [{low:g}, {high:g}] is not finite")
    if low == high:
        low, high = low - 1, high + 1
    xp = NAMESPACES[array.__class__].xp
    inside = array[(array >= low) & (array <= high)]
    place = ((inside - low) / (high - low) * bins).astype(np.int64)
    counts = xp.bincount(xp.minimum(place, bins - 1), minlength=bins)
    return wrap(counts.astype(array.dtype))


@public(
    samples=lambda: [
        S(integers(0, 6, 20)),
        S(integers(0, 6, 20), minlength=9),
        S(integers(0, 6, 20), constant(normal(20))),
        S(np.array([1, 1, 3]), np.array([1, 1, 2])),
        S(np.zeros(0, np.int64)),
    ],
    method=True,
    differentiable=False,
    errors=lambda: [
        S(np.array([-1])),
        S(np.array([[1]])),
        S(np.array([1.0])),
        S(np.array([1]), minlength=-1),
        S(np.array([1]), np.ones(2)),
    ],
)
@on_its_device
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each of 0, 1, 2, ... occurs in a vector, or the sums of its weights.

    >>> import gradlite
    >>> gradlite.bincount(gradlite.tensor([1, 1, 3]))
    tensor([0, 2, 0, 1])
    """
    array = input.array
    if array.dtype in dtypes.FLOATING or array.dtype == np.bool_:
        raise NotImplementedError(
            f"\"bincount_cpu\" not implemented for '{type_name(array.dtype)}'"
        )
    if minlength < 0:
        raise RuntimeError("minlength should be >= 0")
    if array.ndim != 1 or (array.size and array.min() < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    xp = NAMESPACES[array.__class__].xp
    if weights is None:
        return wrap(xp.bincount(array, minlength=minlength).astype(np.int64))
    check_tensor("bincount", "weights", 2, weights)
    if weights.array.shape != array.shape:
        raise RuntimeError("weights should be 1-d and have the same length as input")
    sums = xp.bincount(array, weights.array, minlength)
    return wrap(sums.astype(np.float32) if weights.array.dtype == np.float32 else sums)
