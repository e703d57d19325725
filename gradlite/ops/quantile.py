"""Quantiles and the most frequent elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import return_types
from gradlite.ops.choose import where
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import apply
from gradlite.ops.extrema import Pick
from gradlite.ops.guard import on_its_device
from gradlite.ops.halves import single
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.reduce import keepdim_shape
from gradlite.ops.samples import S, constant, distinct, integers
from gradlite.ops.sorting import sort
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["mode", "nanquantile", "quantile"]

INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _fractions(input: Tensor, q: Any, interpolation: str) -> Any:
    """The quantiles asked for, a float64 array or a number, with the arguments checked.

    What lies on a GPU is not waited for, and so not checked.
    """
    if input.array.dtype not in (np.float32, np.float64):
        raise RuntimeError("quantile() input tensor must be either float or double dtype")
    if input.array.size == 0:
        raise RuntimeError("quantile() input tensor must be non-empty")
    if interpolation not in INTERPOLATIONS:
        raise RuntimeError(
            f"quantile() interpolation must be one of linear, lower, higher, midpoint or nearest, "
            f"but got {interpolation}"
        )
    if isinstance(q, Tensor):
        if q.array.dtype != input.array.dtype:
            raise RuntimeError("quantile() q tensor must be same dtype as the input tensor")
        if q.array.ndim > 1:
            raise RuntimeError("quantile() q must be a scalar or 1D tensor")
        if q.array.__class__ is not input.array.__class__:
            raise RuntimeError("quantile() q tensor must be on the same device as the input tensor")
        wanted = q.array.astype(np.float64)
        if q.is_cpu and ((wanted < 0) | (wanted > 1)).any():
            raise RuntimeError("quantile() q values must be in the range [0, 1]")
        return wanted
    if not 0 <= q <= 1:
        raise RuntimeError(f"quantile() q must be in the range [0, 1] but got {q:g}")
    return float(q)


@on_its_device
def _quantile(
    name: str, input: Tensor, q: Any, dim: int | None, keepdim: bool, interpolation: str
) -> Tensor:
    wanted = _fractions(input, q, interpolation)
    shape = input.array.shape
    d = None if dim is None else wrap_dim(dim, len(shape))
    rows: Any = input.reshape(-1) if d is None or not shape else input.movedim(d, -1)
    ordered: Any = sort(rows).values
    array = ordered.array
    xp = NAMESPACES[array.__class__].xp
    n = array.shape[-1]
    missing = (array != array).sum(axis=-1, keepdims=True)
    count = n - missing if name == "nanquantile" else xp.full_like(missing, n)
    fractions = wanted if wanted.__class__ is float else wanted.reshape(-1)
    rank = fractions * xp.maximum(count - 1, 0)  # (*, how many)
    below = {"higher": xp.ceil, "nearest": xp.round}.get(interpolation, xp.floor)(rank)
    low: Any = ordered.gather(-1, wrap(below.astype(np.int64)))
    if interpolation in ("linear", "midpoint"):
        high = ordered.gather(-1, wrap(xp.ceil(rank).astype(np.int64)))
        share = rank - below if interpolation == "linear" else xp.full_like(rank, 0.5)
        weight: Any = wrap(share.astype(array.dtype))
        if interpolation == "linear" and isinstance(q, Tensor) and q.requires_grad:
            steps = wrap(xp.maximum(count - 1, 0).astype(array.dtype))
            weight = weight + (q - q.detach()).reshape(-1) * steps  # type: ignore[operator]
        low = low.lerp(high, weight)
    lost = count == 0 if name == "nanquantile" else missing > 0
    result: Any = where(wrap(xp.broadcast_to(lost, low.array.shape)), float("nan"), low)
    result = result.movedim(-1, 0)
    if keepdim:
        ones = (1,) * len(shape) if d is None else keepdim_shape(shape, (d,)) if shape else ()
        result = result.reshape(result.array.shape[0], *ones)
    vector = wanted.__class__ is not float and wanted.ndim
    return result if vector else result.squeeze(0)  # type: ignore[no-any-return]


def _samples() -> list[Any]:
    return [
        S(distinct(7), 0.3),
        S(distinct(3, 4), constant(np.array([0.1, 0.5, 1.0])), 1),
        S(distinct(3, 4), 0.6, 0, True),
        S(distinct(3, 4), constant(np.array([0.25, 0.75])), dim=-1, keepdim=True),
        S(distinct(3, 4), 0.4),
        S(distinct(6), 0.4, interpolation="lower"),
        S(distinct(6), 0.4, interpolation="higher"),
        S(distinct(6), 0.5, interpolation="midpoint"),
        S(distinct(6), 0.3, interpolation="nearest"),
        S(distinct(), 0.3),
        S(constant(np.array([[1.0, np.nan, 3.0], [2.0, 5.0, 4.0]])), 0.5, 1),
        S(constant(np.array([np.nan, np.nan])), 0.5),
    ]


def _errors() -> list[Any]:
    return [
        S(distinct(3), 1.5),
        S(distinct(3), 0.5, interpolation="x"),
        S(integers(0, 3, 3), 0.5),
        S(distinct(0), 0.5),
        S(distinct(3), 0.5, 1),
    ]


@public(
    samples=_samples,
    method=True,
    errors=_errors,
    autocast=("float32", ""),
)
def quantile(
    input: Tensor,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """The value below which a fraction q of the elements lies; NaN when there is a NaN.

    Between two elements: ``linear``, ``lower``, ``higher``, ``midpoint`` or ``nearest``. For a
    vector of fractions the result has a first dimension with one entry for each.

    >>> import gradlite
    >>> gradlite.quantile(gradlite.tensor([1.0, 2.0, 3.0, 4.0]), 0.5)
    tensor(2.5000)
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation)


@public(
    samples=_samples,
    method=True,
    errors=_errors,
    autocast=("float32", ""),
)
def nanquantile(
    input: Tensor,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """`quantile` of the elements that are not NaN.

    >>> import gradlite
    >>> gradlite.nanquantile(gradlite.tensor([1.0, float("nan"), 3.0]), 0.5)
    tensor(2.)
    """
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation)


class Mode(Pick):
    """The most frequent element of each row."""


def _mode_index(row: Any) -> int:
    values, counts = np.unique(row, return_counts=True)
    most = values[counts.argmax()]
    return int(np.flatnonzero(row == most if most == most else row != row)[-1])


@public(
    samples=lambda: [
        S(np.array([[1.0, 2.0, 2.0, 4.0], [2.0, 2.0, 9.0, 9.0]]), smooth=False),
        S(integers(0, 3, 9)),
        S(integers(0, 3, 4, 5), 0),
        S(integers(0, 3, 4, 5), 1, True),
        S(np.array(3.0), smooth=False),
    ],
    method=True,
    errors=lambda: [S(distinct(0, 2), 0), S(distinct(2), 1)],
)
@on_its_device
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent element along a dimension (the smallest of those), with its last index.

    NaNs count as one value; PyTorch's answer for rows with NaNs depends on how it sorts them.

    >>> import gradlite
    >>> gradlite.mode(gradlite.tensor([3, 1, 1, 3, 2])).values
    tensor(1)
    """
    array = input.array
    d = wrap_dim(dim, array.ndim)
    if array.ndim and array.shape[d] == 0:
        raise IndexError(f"mode(): Expected reduction dim {d} to have non-zero size.")
    xp = NAMESPACES[array.__class__].xp
    host = single(array if xp is np else array.get())
    rows = np.moveaxis(host, d, -1) if host.ndim else host.reshape(1)
    found = [_mode_index(row) for row in rows.reshape(-1, rows.shape[-1])]
    shape = keepdim_shape(array.shape, (d,)) if keepdim and array.ndim else rows.shape[:-1]
    index = wrap(xp.asarray(np.array(found, np.int64).reshape(shape)))
    return return_types.mode((apply(Mode, (input, index), d), index))
