"""Trigonometric and hyperbolic functions, their inverses, degrees; elementwise."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from gradlite.ops.activation_edits import edited
from gradlite.ops.dispatch import OUT
from gradlite.ops.elementwise import float_op
from gradlite.ops.fused import activation_kernels
from gradlite.ops.op import Elementwise
from gradlite.ops.pointwise import slope
from gradlite.ops.samples import S, unary, uniform
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "acos",
    "acosh",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "cos",
    "cosh",
    "deg2rad",
    "rad2deg",
    "sin",
    "sinh",
    "tan",
    "tanh",
]


class Sin(Elementwise):
    reads = ((0,),)
    fused_backward = slope("sin")

    def forward(xp: Any, x: Any) -> Any:
        return xp.sin(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * F.cos(x),)


@public(samples=lambda: unary(), method=True, inplace=True)
def sin(input: Tensor) -> Tensor:
    """The sine of an angle in radians, elementwise.

    >>> import gradlite
    >>> gradlite.sin(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 0.8415])
    """
    return float_op(Sin, input)


class Cos(Elementwise):
    reads = ((0,),)
    fused_backward = slope("cos")

    def forward(xp: Any, x: Any) -> Any:
        return xp.cos(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (-grad * F.sin(x),)


@public(samples=lambda: unary(), method=True, inplace=True)
def cos(input: Tensor) -> Tensor:
    """The cosine of an angle in radians, elementwise.

    >>> import gradlite
    >>> gradlite.cos(gradlite.tensor([0.0, 1.0]))
    tensor([1.0000, 0.5403])
    """
    return float_op(Cos, input)


class Tan(Elementwise):
    reads = ((OUT,),)
    fused_backward = slope("tan")

    def forward(xp: Any, x: Any) -> Any:
        return xp.tan(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * (out * out + 1),)


@public(
    samples=lambda: unary(lambda *s: uniform(-1.2, 1.2, *s)),
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def tan(input: Tensor) -> Tensor:
    """The tangent of an angle in radians, elementwise.

    >>> import gradlite
    >>> gradlite.tan(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 1.5574])
    """
    return float_op(Tan, input)


class Asin(Elementwise):
    reads = ((0,),)
    fused_backward = slope("asin", 1.0)

    def forward(xp: Any, x: Any) -> Any:
        return xp.arcsin(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / F.sqrt(1 - x * x),)


@public(
    samples=lambda: unary(lambda *s: uniform(-0.9, 0.9, *s)),
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def asin(input: Tensor) -> Tensor:
    """The inverse sine, elementwise.

    >>> import gradlite
    >>> gradlite.asin(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 1.5708])
    """
    return float_op(Asin, input)


class Acos(Elementwise):
    reads = ((0,),)
    fused_backward = slope("asin", -1.0)

    def forward(xp: Any, x: Any) -> Any:
        return xp.arccos(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (-grad / F.sqrt(1 - x * x),)


@public(
    samples=lambda: unary(lambda *s: uniform(-0.9, 0.9, *s)),
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def acos(input: Tensor) -> Tensor:
    """The inverse cosine, elementwise.

    >>> import gradlite
    >>> gradlite.acos(gradlite.tensor([1.0, 0.0]))
    tensor([0.0000, 1.5708])
    """
    return float_op(Acos, input)


class Atan(Elementwise):
    reads = ((0,),)
    fused_backward = slope("atan", 1.0)

    def forward(xp: Any, x: Any) -> Any:
        return xp.arctan(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / (x * x + 1),)


@public(samples=lambda: unary(), method=True, inplace=True)
def atan(input: Tensor) -> Tensor:
    """The inverse tangent, elementwise.

    >>> import gradlite
    >>> gradlite.atan(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 0.7854])
    """
    return float_op(Atan, input)


class Sinh(Elementwise):
    reads = ((0,),)
    fused_backward = slope("sinh")

    def forward(xp: Any, x: Any) -> Any:
        return xp.sinh(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * F.cosh(x),)


@public(
    samples=lambda: unary(),
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def sinh(input: Tensor) -> Tensor:
    """The hyperbolic sine, elementwise.

    >>> import gradlite
    >>> gradlite.sinh(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 1.1752])
    """
    return float_op(Sinh, input)


class Cosh(Elementwise):
    reads = ((0,),)
    fused_backward = slope("cosh")

    def forward(xp: Any, x: Any) -> Any:
        return xp.cosh(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * F.sinh(x),)


@public(
    samples=lambda: unary(),
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def cosh(input: Tensor) -> Tensor:
    """The hyperbolic cosine, elementwise.

    >>> import gradlite
    >>> gradlite.cosh(gradlite.tensor([0.0, 1.0]))
    tensor([1.0000, 1.5431])
    """
    return float_op(Cosh, input)


class Tanh(Elementwise):
    reads = ((OUT,),)
    fused_forward, fused_backward = activation_kernels("tanh")
    native_backward_from = 1 << 16

    def forward(xp: Any, x: Any) -> Any:
        return xp.tanh(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * (1 - out * out),)


@public(samples=lambda: unary(), method=True, inplace=partial(edited, Tanh))
def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent, elementwise.

    >>> import gradlite
    >>> gradlite.tanh(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 0.7616])
    """
    return float_op(Tanh, input)


class Asinh(Elementwise):
    reads = ((0,),)
    fused_backward = slope("asinh", 1.0)

    def forward(xp: Any, x: Any) -> Any:
        return xp.arcsinh(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / F.sqrt(x * x + 1),)


@public(samples=lambda: unary(), method=True, inplace=True)
def asinh(input: Tensor) -> Tensor:
    """The inverse hyperbolic sine, elementwise.

    >>> import gradlite
    >>> gradlite.asinh(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 0.8814])
    """
    return float_op(Asinh, input)


class Acosh(Elementwise):
    reads = ((0,),)
    fused_backward = slope("asinh", -1.0)

    def forward(xp: Any, x: Any) -> Any:
        return xp.arccosh(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / F.sqrt(x * x - 1),)


@public(samples=lambda: unary(lambda *s: uniform(1.2, 3.0, *s)), method=True, inplace=True)
def acosh(input: Tensor) -> Tensor:
    """The inverse hyperbolic cosine; NaN below 1, elementwise.

    >>> import gradlite
    >>> gradlite.acosh(gradlite.tensor([1.0, 2.0]))
    tensor([0.0000, 1.3170])
    """
    return float_op(Acosh, input)


class Atanh(Elementwise):
    reads = ((0,),)
    fused_backward = slope("atan", -1.0)

    def forward(xp: Any, x: Any) -> Any:
        return xp.arctanh(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / (1 - x * x),)


@public(samples=lambda: unary(lambda *s: uniform(-0.9, 0.9, *s)), method=True, inplace=True)
def atanh(input: Tensor) -> Tensor:
    """The inverse hyperbolic tangent, elementwise.

    >>> import gradlite
    >>> gradlite.atanh(gradlite.tensor([0.0, 0.5]))
    tensor([0.0000, 0.5493])
    """
    return float_op(Atanh, input)


class Deg2Rad(Elementwise):
    fname = "deg2rad"

    def forward(xp: Any, x: Any) -> Any:
        return x * x.dtype.type(math.pi / 180)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.deg2rad(grad),)


@public(samples=lambda: [*unary(), S(np.arange(4))], method=True, inplace=True)
def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians, elementwise.

    >>> import gradlite
    >>> gradlite.deg2rad(gradlite.tensor([180.0]))
    tensor([3.1416])
    """
    return float_op(Deg2Rad, input)


class Rad2Deg(Elementwise):
    fname = "rad2deg"

    def forward(xp: Any, x: Any) -> Any:
        return x * x.dtype.type(180 / math.pi)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.rad2deg(grad),)


@public(samples=lambda: [*unary(), S(np.arange(4))], method=True, inplace=True)
def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees, elementwise.

    >>> import gradlite
    >>> gradlite.rad2deg(gradlite.tensor([1.0]))
    tensor([57.2958])
    """
    return float_op(Rad2Deg, input)


def _attach() -> None:
    for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh"):
        for ending in ("", "_"):
            inverse = getattr(Tensor, f"a{name}{ending}")
            setattr(Tensor, f"arc{name}{ending}", inverse)


_attach()
arcsin, arccos, arctan = asin, acos, atan
arcsinh, arccosh, arctanh = asinh, acosh, atanh
