"""Reductions of values that an index tensor sends to the same place."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import guard
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import apply
from gradlite.ops.gather import check_tensor
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.operands import cast
from gradlite.ops.samples import S, constant, distinct, integers
from gradlite.ops.scatter_checks import check_scatter, check_slices, cut
from gradlite.ops.scatter_combine import ScatterAmax, ScatterAmin, ScatterProd, serves
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["index_reduce", "scatter_reduce"]


OPS = {"amax": ScatterAmax, "amin": ScatterAmin, "prod": ScatterProd}


def _samples() -> list[Any]:
    found = []
    for reduce in ("sum", "mean", "amax", "amin", "prod"):
        for include_self in (True, False):
            options: Any = {"reduce": reduce, "include_self": include_self}
            found.append(
                S(distinct(3, 4), 1, integers(0, 4, 3, 5), distinct(3, 5) + 0.05, **options)
            )
            found.append(S(distinct(4), 0, np.array([0, 0, 2]), distinct(3) + 0.05, **options))
    ties = np.array([1.0, 1.0, 2.0])
    found.append(S(ties, 0, np.array([0, 0, 2]), ties, "amax", smooth=False))
    found.append(S(np.arange(4), 0, np.array([0, 0, 1]), np.array([5, 8, 9]), "mean"))
    for reduce in ("amax", "amin"):
        for include_self in (True, False):
            options = {"reduce": reduce, "include_self": include_self}
            pairs = np.array([0, 1, 1, 2]), np.array([-5, 8, -9, 1 << 40])
            found.append(S(np.arange(-2, 2), 0, *pairs, **options))
            values = constant(np.array([np.nan, -1.0, np.inf, 0.1]))
            held = constant(np.array([0.0, np.nan, -np.inf, -2.0]))
            found.append(S(values, 0, np.array([0, 0, 2, 3]), held, **options))
    return found


@public(
    samples=_samples,
    method=True,
    inplace="composed",
    errors=lambda: [
        S(distinct(3), 0, np.array([0]), distinct(1), "x"),
        S(distinct(3), 0, np.array([3]), distinct(1), "sum"),
    ],
)
def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """`scatter` where values for the same place are combined: "sum", "mean",
    "amax", "amin" or "prod".

    The input's own element takes part unless ``include_self=False``.

    >>> import gradlite
    >>> groups = gradlite.tensor([0, 0, 1])
    >>> values = gradlite.tensor([1.0, 3.0, 5.0])
    >>> gradlite.scatter_reduce(gradlite.zeros(2), 0, groups, values, "mean", include_self=False)
    tensor([2., 5.])
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise RuntimeError(
            f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}"
        )
    check_tensor("scatter", "index", 3, index)
    d = check_scatter(input, dim, index, src, _seen_by_kernels(input, dim, index, reduce))
    values: Any = cut(src, index.array.shape)
    if reduce in OPS:
        op = OPS[reduce]
        return apply(op, (input, index, values), d, include_self)  # type: ignore[no-any-return]
    start: Any = input if include_self else input.scatter(d, index, 0)
    total = start.scatter_add(d, index, values)
    if reduce == "sum":
        return total  # type: ignore[no-any-return]
    if input.array.dtype == np.bool_:
        raise NotImplementedError("scatter_reduce: a mean of 'Bool' is not implemented")
    ones = input.new_ones(input.array.shape)
    if not include_self:
        ones = ones.scatter(d, index, 0)
    count: Any = ones.scatter_add(d, index, values.new_ones(index.array.shape)).clamp(min=1)
    if input.array.dtype in dtypes.FLOATING:
        return total / count  # type: ignore[no-any-return]
    with guard.on(total.array):  # not by `div`, which would wait for whether a count is 0
        return wrap(total.array // count.array)


def _seen_by_kernels(input: Tensor, dim: int, index: Tensor, reduce: str) -> Any:
    """For `check_scatter`: whether a kernel that combines looks at the index."""
    x = input.array
    K = NAMESPACES[x.__class__].launcher
    if reduce not in OPS or K is None:
        return x
    return True if x.ndim and serves(K, x, index.array, wrap_dim(dim, x.ndim)) else None


def _slices() -> list[Any]:
    found = []
    for reduce in ("prod", "mean", "amax", "amin"):
        for include_self in (True, False):
            options: Any = {"include_self": include_self}
            source = distinct(4, 3) + 0.05
            found.append(S(distinct(3, 3), 0, np.array([0, 0, 2, 0]), source, reduce, **options))
            whole = np.array([[1, -7], [2, 4]])
            found.append(
                S(np.arange(6).reshape(2, 3), 1, np.array([2, 2]), whole, reduce, **options)
            )
    return found


@public(
    samples=_slices,
    method=True,
    inplace="composed",
    errors=lambda: [
        S(distinct(3), 0, np.array([0]), distinct(1), "sum"),
        S(distinct(3), 0, np.array([3]), distinct(1), "prod"),
        S(distinct(3, 2), 0, np.array([0]), distinct(1, 3), "prod"),
    ],
)
def index_reduce(
    input: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Tensor:
    """`index_add` with "prod", "mean", "amax" or "amin" in place of the sum.

    >>> import gradlite
    >>> rows = gradlite.tensor([1, 1])
    >>> source = gradlite.tensor([[3.0], [4.0]])
    >>> gradlite.index_reduce(gradlite.ones(2, 1), 0, rows, source, "prod")
    tensor([[ 1.],
            [12.]])
    """
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise RuntimeError(
            "index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got "
            f"{reduce}."
        )
    d = check_slices("index_reduce", input, dim, index, source)
    shape = [1] * source.array.ndim
    if shape:
        shape[d] = index.array.size
    places: Any = cast(index, np.int64).reshape(shape)  # type: ignore[attr-defined]
    places = places.expand(source.array.shape)
    return scatter_reduce(input, d, places, source, reduce, include_self=include_self)
