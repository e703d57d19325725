"""Tests of whole tensors: all, any, count_nonzero, isclose, allclose, equal."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends.cpu import loud, quiet
from gradlite.ops import together
from gradlite.ops.dispatch import same_device
from gradlite.ops.gather import broadcast_shape, check_tensor
from gradlite.ops.guard import on_its_device
from gradlite.ops.keywords import numpy_keywords
from gradlite.ops.layout import as_operands_lie, row_major
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import type_name
from gradlite.ops.reduce import reduced_dims
from gradlite.ops.samples import S, bools, integers, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "all",
    "allclose",
    "any",
    "count_nonzero",
    "equal",
    "isclose",
]


@on_its_device
def _truth(function: str, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    array = input.array
    xp = NAMESPACES[array.__class__].xp
    if isinstance(dim, (tuple, list)) and not dim:
        result = array != 0
    else:
        dims = reduced_dims(dim, array.ndim)
        result = getattr(array, function)(axis=dims, keepdims=keepdim)
    # PyTorch keeps uint8, its bool of old.
    kind = np.uint8 if array.dtype == np.uint8 else np.bool_
    return wrap(row_major(xp.asarray(result, dtype=kind)))


def _truth_samples() -> list[Any]:
    return [
        S(bools(3, 4)),
        S(bools(3, 4), 0),
        S(bools(2, 3, 4), (0, -1)),
        S(bools(3, 4), dim=1, keepdim=True),
        S(integers(0, 2, 3, 4), 1),
        S(integers(0, 2, 3, 4).astype(np.uint8), 1),
        S(np.array([0.0, np.nan])),
        S(bools(3, 4), ()),
        S(np.zeros((0, 3)), 0),
        S(np.zeros(0)),
        S(np.array(2.0), 0),
    ]


@public(samples=_truth_samples, method=True, differentiable=False)
@numpy_keywords
def all(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are nonzero: a bool tensor (uint8 for uint8 input).

    >>> import gradlite
    >>> gradlite.all(gradlite.tensor([[True, True], [True, False]]), 1)
    tensor([ True, False])
    """
    return _truth("all", input, dim, keepdim)


@public(samples=_truth_samples, method=True, differentiable=False)
@numpy_keywords
def any(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether an element is nonzero: a bool tensor (uint8 for uint8 input).

    >>> import gradlite
    >>> gradlite.any(gradlite.tensor([[False, True], [False, False]]), 1)
    tensor([ True, False])
    """
    return _truth("any", input, dim, keepdim)


@public(
    samples=lambda: [
        S(integers(0, 2, 3, 4)),
        S(integers(0, 2, 3, 4), 0),
        S(bools(2, 3, 4), (0, 2)),
        S(np.array([0.0, np.nan, -1.0])),
    ],
    method=True,
    differentiable=False,
)
@on_its_device
def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """The number of nonzero elements, over all or some dimensions.

    >>> import gradlite
    >>> gradlite.count_nonzero(gradlite.tensor([[0, 1], [2, 3]]), 1)
    tensor([1, 2])
    """
    nonzero = input.array != 0
    return wrap(nonzero.sum(axis=reduced_dims(dim, nonzero.ndim), dtype=np.int64))


def _close_samples() -> list[Any]:
    x = normal(3, 4)
    values = np.array([1.0, np.inf, -np.inf, np.nan, np.inf])
    others = np.array([1.0 + 1e-6, np.inf, np.inf, np.nan, 1.0])
    return [
        S(x, x + 1e-7),
        S(x, x + 1e-4),
        S(x, x * (1 + 1e-3), 1e-2),
        S(x, x + 1e-3, atol=1e-2),
        S(values, others),
        S(values, others, equal_nan=True),
        S(x, normal(4)),
        S(integers(0, 3, 4), integers(0, 3, 4)),
    ]


def _close_errors() -> list[Any]:
    return [
        S(normal(2), np.ones(2, np.int64)),
        S(normal(2), normal(3)),
        S(normal(2), normal(2), atol=-1),
        S(normal(2), 1.0),
    ]


def close_by_kernel(K: Any, x: Any, y: Any, rtol: float, atol: float, equal_nan: bool) -> Any:
    """What `isclose` finds, or None where kernels cannot serve it."""
    if K is None:
        return None
    if x.dtype not in dtypes.FLOATING and (rtol or atol):
        x, y = x.astype(np.float64), y.astype(np.float64)
    if not K.takes(x, y):
        return None
    shape = np.broadcast_shapes(x.shape, y.shape)
    left, right = (together.operand(K, a, shape) for a in (x, y))
    out = K.empty(shape, np.dtype(bool))
    K.elementwise(
        "is_close", x.dtype, out.size, left[0], right[0], out, out.size,
        float(rtol), float(atol), int(equal_nan), *left[1:], *right[1:],
    )  # fmt: skip
    return out


@public(samples=_close_samples, method=True, differentiable=False, errors=_close_errors)
@on_its_device
def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Whether ``|input - other| <= atol + rtol * |other|``, elementwise; infinities as equal.

    >>> import gradlite
    >>> gradlite.isclose(gradlite.tensor([1.0, 2.0]), gradlite.tensor([1.0, 2.1]))
    tensor([ True, False])

    Raises:
        RuntimeError: the dtypes differ, or a tolerance is negative.
    """
    check_tensor("isclose", "other", 2, other)
    same_device(input, other)
    x, y = input.array, other.array
    if x.dtype != y.dtype:
        raise RuntimeError(f"{type_name(x.dtype)} did not match {type_name(y.dtype)}")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value < 0:
            raise RuntimeError(f"{name} must be greater than or equal to zero, but got {value}")
    broadcast_shape(x.shape, y.shape)
    F = NAMESPACES[x.__class__]
    made = as_operands_lie(
        lambda K, x, y: close_by_kernel(K, x, y, rtol, atol, equal_nan), operands=2
    )
    close = made(F.launcher, x, y)
    if close is not None:
        return wrap(close)
    xp = F.xp
    close = x == y
    if equal_nan:
        close = close | ((x != x) & (y != y))
    if rtol or atol:
        if x.dtype not in dtypes.FLOATING:
            x, y = x.astype(np.float64), y.astype(np.float64)
        silence = quiet()
        try:
            apart = xp.abs(x - y)
            close = close | (xp.isfinite(apart) & (apart <= atol + rtol * xp.abs(y)))
        finally:
            loud(silence)
    return wrap(xp.asarray(close))


@public(samples=_close_samples, method=True, differentiable=False, errors=_close_errors)
@on_its_device
def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Whether all elements are close, as `isclose` tells.

    >>> import gradlite
    >>> gradlite.allclose(gradlite.tensor([1.0]), gradlite.tensor([1.0 + 1e-7]))
    True
    """
    return bool(isclose(input, other, rtol, atol, equal_nan).array.all())


@public(
    samples=lambda: [
        S(np.arange(3), np.arange(3)),
        S(np.arange(3), np.arange(3.0)),
        S(np.arange(3), np.arange(4)),
        S(np.zeros((0, 2)), np.zeros((0, 2))),
        S(np.array([np.nan]), np.array([np.nan])),
    ],
    method=True,
    differentiable=False,
    errors=lambda: [S(normal(2), 1)],
)
@on_its_device
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and elements.

    >>> import gradlite
    >>> gradlite.equal(gradlite.tensor([1, 2]), gradlite.tensor([1, 2]))
    True
    """
    check_tensor("equal", "other", 2, other)
    same_device(input, other)
    x, y = input.array, other.array
    return x.shape == y.shape and bool((x == y).all())
