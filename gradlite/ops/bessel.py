"""Modified Bessel functions of the first kind.

The derivatives are those of Abramowitz and Stegun, Handbook of Mathematical Functions, 9.6.26 and
9.6.27.
"""

from __future__ import annotations

from typing import Any

from gradlite.backends import bessel
from gradlite.ops.dispatch import OUT
from gradlite.ops.elementwise import float_op
from gradlite.ops.layout import as_operands_lie
from gradlite.ops.op import Elementwise
from gradlite.ops.samples import unary
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["i0"]


class I0(Elementwise):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return bessel.i0(xp, x)

    forward = as_operands_lie(forward, operands=1)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * F.i1(x),)


class I0e(Elementwise):
    reads = ((0, OUT),)
    grad_name = "SpecialI0EBackward0"

    def forward(xp: Any, x: Any) -> Any:
        return bessel.i0e(xp, x)

    forward = as_operands_lie(forward, operands=1)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, out = ctx.saved
        return (grad * (F.i1e(x) - F.sign(x) * out),)


def _divisor(F: Any, x: Any) -> tuple[Any, Any]:
    """Where x is 0, and x with 1 there: the functions' slope is 1/2 at 0."""
    at_zero = x == 0
    return at_zero, F.where(at_zero, F.zero_beside(x) + 1, x)


class I1(Elementwise):
    reads = ((0,),)  # for a half the result is rounded, and what is made of it less precise
    grad_name = "SpecialI1Backward0"

    def forward(xp: Any, x: Any) -> Any:
        return bessel.i1(xp, x)

    forward = as_operands_lie(forward, operands=1)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        at_zero, safe = _divisor(F, x)
        slope = F.i0(x) - F.i1(x) / safe
        return (grad * F.where(at_zero, F.zero_beside(x) + 0.5, slope),)


class I1e(Elementwise):
    reads = ((0,),)
    grad_name = "SpecialI1EBackward0"

    def forward(xp: Any, x: Any) -> Any:
        return bessel.i1e(xp, x)

    forward = as_operands_lie(forward, operands=1)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        at_zero, safe = _divisor(F, x)
        slope = F.i0e(x) - F.i1e(x) * (F.sign(x) + 1 / safe)
        return (grad * F.where(at_zero, F.zero_beside(x) + 0.5, slope),)


@public(samples=unary, method=True, inplace=True)
def i0(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind of order 0, elementwise.

    >>> import gradlite
    >>> gradlite.i0(gradlite.tensor([0.0, 1.0]))
    tensor([1.0000, 1.2661])
    """
    return float_op(I0, input)


@public(samples=unary, torch="special.i0e")
def i0e(input: Tensor) -> Tensor:
    """``exp(-|x|)`` times the modified Bessel function of order 0, elementwise.

    >>> import gradlite
    >>> gradlite.special.i0e(gradlite.tensor([0.0, 1000.0]))
    tensor([1.0000, 0.0126])
    """
    return float_op(I0e, input)


@public(samples=unary, torch="special.i1")
def i1(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind of order 1, elementwise.

    >>> import gradlite
    >>> gradlite.special.i1(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 0.5652])
    """
    return float_op(I1, input)


@public(samples=unary, torch="special.i1e")
def i1e(input: Tensor) -> Tensor:
    """``exp(-|x|)`` times the modified Bessel function of order 1, elementwise.

    >>> import gradlite
    >>> gradlite.special.i1e(gradlite.tensor([0.0, 1000.0]))
    tensor([0.0000, 0.0126])
    """
    return float_op(I1e, input)
