"""Elementwise comparison of two operands."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import guard
from gradlite.ops.binary import mismatch
from gradlite.ops.halves import single
from gradlite.ops.layout import elementwise
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.operands import fitting, operand, same_device_or_scalar
from gradlite.ops.samples import S, binary
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "eq",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "le",
    "less",
    "less_equal",
    "lt",
    "ne",
    "not_equal",
]


def _compare(function: str, input: Any, other: Any) -> Tensor:
    if guard.several is None:
        return _compare_here(function, input, other)
    with guard.several.on(input, other):
        return _compare_here(function, input, other)


def _compare_here(function: str, input: Any, other: Any) -> Tensor:
    a, b = operand(input), operand(other)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        a, b = same_device_or_scalar(a, b)
        x, y = a.array, b.array
        if x.dtype != y.dtype:
            common = dtypes.result_dtype([x, y])
            x, y = x.astype(common), y.astype(common)
    elif isinstance(a, Tensor):
        x, y = _beside_number(a.array, b)
    else:
        y, x = _beside_number(b.array, a)
    xp = NAMESPACES[(a if isinstance(a, Tensor) else b).array.__class__].xp
    half = (x if isinstance(a, Tensor) else y).dtype
    if half in dtypes.HALVES:  # numbers are rounded first, and NaN compares without a warning
        x, y = (single(xp.asarray(value, half)) for value in (x, y))
    try:
        return wrap(xp.asarray(elementwise(xp, function, x, y)))
    except ValueError:
        raise RuntimeError(mismatch(x.shape, y.shape)) from None


def _beside_number(x: Any, number: Any) -> tuple[Any, Any]:
    """An array and a number in the dtype that PyTorch compares them in."""
    if x.dtype in dtypes.FLOATING:
        return x, number
    common = dtypes.result_dtype([x, number])
    return x if x.dtype == common else x.astype(common), fitting(number, common)


def _comparison_samples() -> list[Any]:
    return [*binary(), S(np.arange(4.0), 2), S(np.arange(4), np.arange(4)), S(np.arange(3), 1.5)]


_comparison = public(
    samples=_comparison_samples,
    method=True,
    inplace=True,
    differentiable=False,
    errors=lambda: [S(np.arange(2), np.arange(3))],
)


@_comparison
def eq(input: Any, other: Any) -> Tensor:
    """Elementwise ``input == other``, a bool tensor.

    >>> import gradlite
    >>> gradlite.eq(gradlite.tensor([1, 2]), 2)
    tensor([False,  True])
    """
    return _compare("equal", input, other)


@_comparison
def ne(input: Any, other: Any) -> Tensor:
    """Elementwise ``input != other``, a bool tensor.

    >>> import gradlite
    >>> gradlite.ne(gradlite.tensor([1, 2]), 2)
    tensor([ True, False])
    """
    return _compare("not_equal", input, other)


@_comparison
def lt(input: Any, other: Any) -> Tensor:
    """Elementwise ``input < other``, a bool tensor.

    >>> import gradlite
    >>> gradlite.lt(gradlite.tensor([1, 2]), 2)
    tensor([ True, False])
    """
    return _compare("less", input, other)


@_comparison
def le(input: Any, other: Any) -> Tensor:
    """Elementwise ``input <= other``, a bool tensor.

    >>> import gradlite
    >>> gradlite.le(gradlite.tensor([1, 2]), 1)
    tensor([ True, False])
    """
    return _compare("less_equal", input, other)


@_comparison
def gt(input: Any, other: Any) -> Tensor:
    """Elementwise ``input > other``, a bool tensor.

    >>> import gradlite
    >>> gradlite.gt(gradlite.tensor([1, 2]), 1)
    tensor([False,  True])
    """
    return _compare("greater", input, other)


@_comparison
def ge(input: Any, other: Any) -> Tensor:
    """Elementwise ``input >= other``, a bool tensor.

    >>> import gradlite
    >>> gradlite.ge(gradlite.tensor([1, 2]), 2)
    tensor([False,  True])
    """
    return _compare("greater_equal", input, other)


greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne
