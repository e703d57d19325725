"""Tests of elements, and logic on truth values and bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.binary import mismatch
from gradlite.ops.guard import on_its_device
from gradlite.ops.layout import elementwise
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import type_name
from gradlite.ops.operands import fitting, operand, placed
from gradlite.ops.samples import S, bools, integers, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "isfinite",
    "isinf",
    "isnan",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
]


@on_its_device
def _constant(function: str, *inputs: Any) -> Tensor:
    xp = NAMESPACES[inputs[0].array.__class__].xp
    arrays = [i.array if isinstance(i, Tensor) else i for i in inputs]
    try:
        return wrap(xp.asarray(elementwise(xp, function, *arrays)))
    except ValueError:
        raise RuntimeError(mismatch(*(a.shape for a in arrays))) from None


@public(
    samples=lambda: [S(np.array([1.0, np.nan, np.inf])), S(np.arange(3))],
    method=True,
    differentiable=False,
)
def isnan(input: Tensor) -> Tensor:
    """Whether each element is NaN.

    >>> import gradlite
    >>> gradlite.isnan(gradlite.tensor([1.0, float("nan")]))
    tensor([False,  True])
    """
    return _constant("isnan", input)


@public(
    samples=lambda: [S(np.array([1.0, np.nan, -np.inf])), S(np.arange(3))],
    method=True,
    differentiable=False,
)
def isinf(input: Tensor) -> Tensor:
    """Whether each element is infinite.

    >>> import gradlite
    >>> gradlite.isinf(gradlite.tensor([1.0, float("inf")]))
    tensor([False,  True])
    """
    return _constant("isinf", input)


@public(
    samples=lambda: [S(np.array([1.0, np.nan, -np.inf])), S(np.arange(3))],
    method=True,
    differentiable=False,
)
def isfinite(input: Tensor) -> Tensor:
    """Whether each element is finite.

    >>> import gradlite
    >>> gradlite.isfinite(gradlite.tensor([1.0, float("inf")]))
    tensor([ True, False])
    """
    return _constant("isfinite", input)


@public(
    samples=lambda: [S(bools(4)), S(normal(3)), S(integers(0, 2, 4))],
    method=True,
    inplace=True,
    differentiable=False,
)
def logical_not(input: Tensor) -> Tensor:
    """Whether each element is zero or False.

    >>> import gradlite
    >>> gradlite.logical_not(gradlite.tensor([0, 3]))
    tensor([ True, False])
    """
    return _constant("logical_not", input)


@public(
    samples=lambda: [S(bools(4), bools(4)), S(normal(3), integers(0, 2, 3))],
    method=True,
    inplace=True,
    differentiable=False,
    errors=lambda: [S(bools(2), bools(3))],
)
def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """Whether both elements are nonzero.

    >>> import gradlite
    >>> gradlite.logical_and(gradlite.tensor([0, 3]), gradlite.tensor([1, 1]))
    tensor([False,  True])
    """
    return _constant("logical_and", input, other)


@public(
    samples=lambda: [S(bools(4), bools(4)), S(normal(3), integers(0, 2, 3))],
    method=True,
    inplace=True,
    differentiable=False,
    errors=lambda: [S(bools(2), bools(3))],
)
def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """Whether one of both elements is nonzero.

    >>> import gradlite
    >>> gradlite.logical_or(gradlite.tensor([0, 3]), gradlite.tensor([0, 0]))
    tensor([False,  True])
    """
    return _constant("logical_or", input, other)


@public(
    samples=lambda: [S(bools(4), bools(4)), S(normal(3), integers(0, 2, 3))],
    method=True,
    inplace=True,
    differentiable=False,
    errors=lambda: [S(bools(2), bools(3))],
)
def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """Whether exactly one of both elements is nonzero.

    >>> import gradlite
    >>> gradlite.logical_xor(gradlite.tensor([0, 3]), gradlite.tensor([1, 1]))
    tensor([ True, False])
    """
    return _constant("logical_xor", input, other)


@on_its_device
def _bits(function: str, input: Any, other: Any) -> Tensor:
    a, b = operand(input), operand(other)
    if not isinstance(a, Tensor):
        a, b = b, a
    arrays = [v.array if isinstance(v, Tensor) else v for v in (a, b)]
    common = dtypes.result_dtype(arrays)
    if dtypes.category(common) == 2:
        raise NotImplementedError(f"\"{function}_cpu\" not implemented for '{type_name(common)}'")
    xp = NAMESPACES[a.array.__class__].xp
    left, right = (placed(xp, fitting(v, common)).astype(common, copy=False) for v in arrays)
    try:
        return wrap(xp.asarray(elementwise(xp, function, left, right)))
    except ValueError:
        raise RuntimeError(mismatch(left.shape, right.shape)) from None


@public(
    samples=lambda: [S(bools(4), bools(4)), S(integers(0, 9, 4), 3)],
    method=True,
    inplace=True,
    differentiable=False,
    errors=lambda: [S(bools(2), bools(3))],
)
def bitwise_and(input: Any, other: Any) -> Tensor:
    """Bitwise and of integers; logical and of bools.

    >>> import gradlite
    >>> gradlite.bitwise_and(gradlite.tensor([6, 5]), 3)
    tensor([2, 1])
    """
    return _bits("bitwise_and", input, other)


@public(
    samples=lambda: [S(bools(4), bools(4)), S(integers(0, 9, 4), 3)],
    method=True,
    inplace=True,
    differentiable=False,
    errors=lambda: [S(bools(2), bools(3))],
)
def bitwise_or(input: Any, other: Any) -> Tensor:
    """Bitwise or of integers; logical or of bools.

    >>> import gradlite
    >>> gradlite.bitwise_or(gradlite.tensor([6, 5]), 3)
    tensor([7, 7])
    """
    return _bits("bitwise_or", input, other)


@public(
    samples=lambda: [S(bools(4), bools(4)), S(integers(0, 9, 4), 3)],
    method=True,
    inplace=True,
    differentiable=False,
    errors=lambda: [S(bools(2), bools(3))],
)
def bitwise_xor(input: Any, other: Any) -> Tensor:
    """Bitwise exclusive or of integers; of bools, whether they differ.

    >>> import gradlite
    >>> gradlite.bitwise_xor(gradlite.tensor([6, 5]), 3)
    tensor([5, 6])
    """
    return _bits("bitwise_xor", input, other)


@public(
    samples=lambda: [S(bools(4)), S(integers(0, 9, 4))],
    method=True,
    inplace=True,
    differentiable=False,
)
def bitwise_not(input: Tensor) -> Tensor:
    """Bitwise not of integers; logical not of bools.

    >>> import gradlite
    >>> gradlite.bitwise_not(gradlite.tensor([0, -3]))
    tensor([-1,  2])
    """
    if input.array.dtype in dtypes.FLOATING:
        name = type_name(input.array.dtype)
        raise NotImplementedError(f"\"bitwise_not_cpu\" not implemented for '{name}'")
    return _constant("invert", input)


def _invert(self: Tensor) -> Tensor:
    if self.array.dtype in dtypes.FLOATING:
        raise TypeError(
            "~ (operator.invert) is only implemented on integer and Boolean-type tensors"
        )
    return bitwise_not(self)


def _contains(self: Tensor, element: Any) -> bool:
    if not isinstance(element, (Tensor, bool, int, float, np.generic)):
        raise RuntimeError(
            "Tensor.__contains__ only supports Tensor or scalar, but you passed in a "
            f"{type(element)}."
        )
    return bool((self == element).array.any())  # type: ignore[attr-defined]


def _attach() -> None:
    t: Any = Tensor
    t.__contains__ = _contains
    t.__invert__ = _invert
    t.__and__ = t.__rand__ = bitwise_and
    t.__or__ = t.__ror__ = bitwise_or
    t.__xor__ = t.__rxor__ = bitwise_xor
    t.__iand__, t.__ior__, t.__ixor__ = t.bitwise_and_, t.bitwise_or_, t.bitwise_xor_


_attach()
