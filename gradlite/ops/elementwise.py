"""Elementwise functions of one tensor, and the choice between two (`where`, `clamp`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.arithmetic import binary_op, cast, operand, promoted, same_device_or_scalar, sum_to
from gradlite.ops.samples import S, bools, distinct, integers, normal, positive, unary, uniform
from gradlite.ops.table import NAMESPACES, OUT, Op, apply, apply1, public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "abs",
    "absolute",
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
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "ceil",
    "clamp",
    "clip",
    "clone",
    "cos",
    "cosh",
    "exp",
    "exp2",
    "expm1",
    "fix",
    "floor",
    "frac",
    "isfinite",
    "isinf",
    "isnan",
    "log",
    "log10",
    "log1p",
    "log2",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "neg",
    "negative",
    "reciprocal",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
    "where",
]


def float_op(op: Any, input: Tensor) -> Tensor:
    """Run a unary op whose result is floating: integers go to the default dtype first."""
    if not isinstance(input, Tensor):
        raise TypeError(
            f"{op.fname}(): argument 'input' (position 1) must be Tensor, "
            f"not {input.__class__.__name__}"
        )
    if input.array.dtype not in dtypes.FLOATING:
        input = cast(input, dtypes.get_default_dtype().numpy)
    return apply1(op, input)


class Exp(Op):
    reads = ((OUT,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.exp(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * out,)


@public(samples=lambda: unary(), method=True, inplace=True)
def exp(input: Tensor) -> Tensor:
    """e to the power of each element, elementwise.

    >>> import gradlite
    >>> gradlite.exp(gradlite.tensor([0.0, 1.0]))
    tensor([1.0000, 2.7183])
    """
    return float_op(Exp, input)


class Expm1(Op):
    reads = ((OUT,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.expm1(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * (out + 1),)


@public(samples=lambda: unary(), method=True, inplace=True)
def expm1(input: Tensor) -> Tensor:
    """``exp(x) - 1``, accurate near 0, elementwise.

    >>> import gradlite
    >>> gradlite.expm1(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 1.7183])
    """
    return float_op(Expm1, input)


class Exp2(Op):
    reads = ((OUT,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.exp2(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * out * math.log(2),)


@public(samples=lambda: unary(), method=True, inplace=True)
def exp2(input: Tensor) -> Tensor:
    """2 to the power of each element, elementwise.

    >>> import gradlite
    >>> gradlite.exp2(gradlite.tensor([0.0, 3.0]))
    tensor([1., 8.])
    """
    return float_op(Exp2, input)


class Log(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.log(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / x,)


@public(samples=lambda: unary(positive), method=True, inplace=True)
def log(input: Tensor) -> Tensor:
    """The natural logarithm, elementwise.

    >>> import gradlite
    >>> gradlite.log(gradlite.tensor([1.0, 2.0]))
    tensor([0.0000, 0.6931])
    """
    return float_op(Log, input)


class Log2(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.log2(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / (x * math.log(2)),)


@public(samples=lambda: unary(positive), method=True, inplace=True)
def log2(input: Tensor) -> Tensor:
    """The logarithm to base 2, elementwise.

    >>> import gradlite
    >>> gradlite.log2(gradlite.tensor([1.0, 8.0]))
    tensor([0., 3.])
    """
    return float_op(Log2, input)


class Log10(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.log10(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / (x * math.log(10)),)


@public(samples=lambda: unary(positive), method=True, inplace=True)
def log10(input: Tensor) -> Tensor:
    """The logarithm to base 10, elementwise.

    >>> import gradlite
    >>> gradlite.log10(gradlite.tensor([1.0, 100.0]))
    tensor([0., 2.])
    """
    return float_op(Log10, input)


class Log1p(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.log1p(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / (x + 1),)


@public(samples=lambda: unary(positive), method=True, inplace=True)
def log1p(input: Tensor) -> Tensor:
    """``log(1 + x)``, accurate near 0, elementwise.

    >>> import gradlite
    >>> gradlite.log1p(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 0.6931])
    """
    return float_op(Log1p, input)


class Sqrt(Op):
    reads = ((OUT,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.sqrt(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad / (out * 2),)


@public(samples=lambda: unary(positive), method=True, inplace=True)
def sqrt(input: Tensor) -> Tensor:
    """The square root; NaN below 0, elementwise.

    >>> import gradlite
    >>> gradlite.sqrt(gradlite.tensor([4.0, 9.0]))
    tensor([2., 3.])
    """
    return float_op(Sqrt, input)


class Rsqrt(Op):
    reads = ((OUT,),)

    def forward(xp: Any, x: Any) -> Any:
        return 1 / xp.sqrt(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * -0.5 * (out * out * out),)


@public(samples=lambda: unary(positive), method=True, inplace=True)
def rsqrt(input: Tensor) -> Tensor:
    """``1 / sqrt(x)``, elementwise.

    >>> import gradlite
    >>> gradlite.rsqrt(gradlite.tensor([4.0, 16.0]))
    tensor([0.5000, 0.2500])
    """
    return float_op(Rsqrt, input)


class Reciprocal(Op):
    reads = ((OUT,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.reciprocal(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (-grad * (out * out),)


@public(samples=lambda: unary(positive), method=True, inplace=True)
def reciprocal(input: Tensor) -> Tensor:
    """``1 / x``, elementwise.

    >>> import gradlite
    >>> gradlite.reciprocal(gradlite.tensor([4.0, 5.0]))
    tensor([0.2500, 0.2000])
    """
    return float_op(Reciprocal, input)


class Sin(Op):
    reads = ((0,),)

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


class Cos(Op):
    reads = ((0,),)

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


class Tan(Op):
    reads = ((OUT,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.tan(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * (out * out + 1),)


@public(samples=lambda: unary(lambda *s: uniform(-1.2, 1.2, *s)), method=True, inplace=True)
def tan(input: Tensor) -> Tensor:
    """The tangent of an angle in radians, elementwise.

    >>> import gradlite
    >>> gradlite.tan(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 1.5574])
    """
    return float_op(Tan, input)


class Asin(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.arcsin(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / F.sqrt(1 - x * x),)


@public(samples=lambda: unary(lambda *s: uniform(-0.9, 0.9, *s)), method=True, inplace=True)
def asin(input: Tensor) -> Tensor:
    """The inverse sine, elementwise.

    >>> import gradlite
    >>> gradlite.asin(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 1.5708])
    """
    return float_op(Asin, input)


class Acos(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.arccos(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (-grad / F.sqrt(1 - x * x),)


@public(samples=lambda: unary(lambda *s: uniform(-0.9, 0.9, *s)), method=True, inplace=True)
def acos(input: Tensor) -> Tensor:
    """The inverse cosine, elementwise.

    >>> import gradlite
    >>> gradlite.acos(gradlite.tensor([1.0, 0.0]))
    tensor([0.0000, 1.5708])
    """
    return float_op(Acos, input)


class Atan(Op):
    reads = ((0,),)

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


class Sinh(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.sinh(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * F.cosh(x),)


@public(samples=lambda: unary(), method=True, inplace=True)
def sinh(input: Tensor) -> Tensor:
    """The hyperbolic sine, elementwise.

    >>> import gradlite
    >>> gradlite.sinh(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 1.1752])
    """
    return float_op(Sinh, input)


class Cosh(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.cosh(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * F.sinh(x),)


@public(samples=lambda: unary(), method=True, inplace=True)
def cosh(input: Tensor) -> Tensor:
    """The hyperbolic cosine, elementwise.

    >>> import gradlite
    >>> gradlite.cosh(gradlite.tensor([0.0, 1.0]))
    tensor([1.0000, 1.5431])
    """
    return float_op(Cosh, input)


class Tanh(Op):
    reads = ((OUT,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.tanh(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * (1 - out * out),)


@public(samples=lambda: unary(), method=True, inplace=True)
def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent, elementwise.

    >>> import gradlite
    >>> gradlite.tanh(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 0.7616])
    """
    return float_op(Tanh, input)


class Asinh(Op):
    reads = ((0,),)

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


class Acosh(Op):
    reads = ((0,),)

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


class Atanh(Op):
    reads = ((0,),)

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


class Sigmoid(Op):
    """1 / (1 + exp(-x)), as (1 + tanh(x / 2)) / 2, which never overflows."""

    reads = ((OUT,),)

    def forward(xp: Any, x: Any) -> Any:
        half = x.dtype.type(0.5)
        out = xp.tanh(x * half)
        out = xp.asarray(out)
        out *= half
        out += half
        return out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * (out * (1 - out)),)


@public(samples=lambda: unary(), method=True, inplace=True)
def sigmoid(input: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``, elementwise.

    >>> import gradlite
    >>> gradlite.sigmoid(gradlite.tensor([0.0, 2.0]))
    tensor([0.5000, 0.8808])
    """
    return float_op(Sigmoid, input)


class Neg(Op):
    def forward(xp: Any, x: Any) -> Any:
        return xp.negative(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (-grad,)


@public(samples=lambda: unary(), method=True, inplace=True)
def neg(input: Tensor) -> Tensor:
    """``-x``, elementwise.

    >>> import gradlite
    >>> gradlite.neg(gradlite.tensor([1, -2]))
    tensor([-1,  2])

    Raises:
        RuntimeError: the tensor is bool.
    """
    if input.array.dtype == np.bool_:
        raise RuntimeError(
            "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to "
            "invert a mask, use the `~` or `logical_not()` operator instead."
        )
    return apply1(Neg, input)


class Abs(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.abs(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * F.sign(x),)


@public(samples=lambda: unary(), method=True, inplace=True)
def abs(input: Tensor) -> Tensor:
    """The absolute value, elementwise; its gradient at 0 is 0.

    >>> import gradlite
    >>> gradlite.abs(gradlite.tensor([1, -2]))
    tensor([1, 2])
    """
    return apply1(Abs, input)


class Flat(Op):
    """Base of the step functions: their gradient is 0 everywhere."""

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.zeros(grad.shape, grad),)


class Sign(Flat):
    def forward(xp: Any, x: Any) -> Any:
        return x.copy() if x.dtype.kind == "b" else xp.sign(x)


class Floor(Flat):
    def forward(xp: Any, x: Any) -> Any:
        return xp.floor(x) if x.dtype.kind == "f" else x.copy()


class Ceil(Flat):
    def forward(xp: Any, x: Any) -> Any:
        return xp.ceil(x) if x.dtype.kind == "f" else x.copy()


class Trunc(Flat):
    def forward(xp: Any, x: Any) -> Any:
        return xp.trunc(x) if x.dtype.kind == "f" else x.copy()


class Round(Flat):
    """To the nearest integer (or decimal place), halves to the even one."""

    def forward(xp: Any, x: Any, decimals: int) -> Any:
        return xp.round(x, decimals) if x.dtype.kind == "f" else x.copy()


@public(samples=lambda: unary(), method=True, inplace=True)
def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1 by the sign of each element; the gradient is 0.

    >>> import gradlite
    >>> gradlite.sign(gradlite.tensor([3.0, -2.0, 0.0]))
    tensor([ 1., -1.,  0.])
    """
    return apply1(Sign, input)


@public(samples=lambda: unary(distinct), method=True, inplace=True)
def floor(input: Tensor) -> Tensor:
    """The largest integer not above each element; the gradient is 0.

    >>> import gradlite
    >>> gradlite.floor(gradlite.tensor([1.5, -1.5]))
    tensor([ 1., -2.])
    """
    return apply1(Floor, input)


@public(samples=lambda: unary(distinct), method=True, inplace=True)
def ceil(input: Tensor) -> Tensor:
    """The smallest integer not below each element; the gradient is 0.

    >>> import gradlite
    >>> gradlite.ceil(gradlite.tensor([1.5, -1.5]))
    tensor([ 2., -1.])
    """
    return apply1(Ceil, input)


@public(samples=lambda: unary(distinct), method=True, inplace=True)
def trunc(input: Tensor) -> Tensor:
    """Each element without its fraction; the gradient is 0.

    >>> import gradlite
    >>> gradlite.trunc(gradlite.tensor([1.5, -1.5]))
    tensor([ 1., -1.])
    """
    return apply1(Trunc, input)


@public(samples=lambda: [*unary(distinct), S(distinct(4), decimals=1)], method=True, inplace=True)
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """To the nearest integer, halves to the even one; the gradient is 0.

    >>> import gradlite
    >>> gradlite.round(gradlite.tensor([0.5, 1.5, 2.4]))
    tensor([0., 2., 2.])
    """
    return apply1(Round, input, decimals)


@public(samples=lambda: unary(distinct), method=True, inplace=True)
def frac(input: Tensor) -> Tensor:
    """The fraction of each element, with its sign.

    >>> import gradlite
    >>> gradlite.frac(gradlite.tensor([1.5, -1.25]))
    tensor([ 0.5000, -0.2500])
    """
    return input - input.trunc()


@public(samples=lambda: unary(), method=True, inplace=True)
def square(input: Tensor) -> Tensor:
    """``x ** 2``, elementwise.

    >>> import gradlite
    >>> gradlite.square(gradlite.tensor([1.0, -3.0]))
    tensor([1., 9.])
    """
    return input**2


# ----------------------------------------------------------------------------- choosing
class Where(Op):
    reads = ((), (0,), (0,))

    def forward(xp: Any, condition: Any, a: Any, b: Any) -> Any:
        return xp.where(condition, a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (condition,) = ctx.saved
        zero = F.zeros((), grad)
        left = right = None
        if ctx.edges[1] is not None:
            left = sum_to(F, F.where(condition, grad, zero), ctx.shapes[1])
        if ctx.edges[2] is not None:
            right = sum_to(F, F.where(condition, zero, grad), ctx.shapes[2])
        return None, left, right


@public(
    samples=lambda: [
        S(bools(3, 4), normal(3, 4), normal(4)),
        S(bools(4), normal(3, 1), normal(3, 4)),
        S(bools(3), normal(3), 2.0),
        S(bools(3), 0.0, normal(3)),
        S(bools(), normal(), normal()),
        S(bools(0, 3), normal(3), normal(0, 3)),
    ],
)
def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """``input`` where the condition holds, ``other`` elsewhere; all three broadcast.

    With the condition alone: the indices where it holds, one int64 tensor per dimension.

    >>> import gradlite
    >>> x = gradlite.tensor([1.0, -2.0])
    >>> gradlite.where(x > 0, x, 0.0)
    tensor([1., 0.])
    """
    if input is None and other is None:
        return tuple(wrap(i) for i in condition.array.nonzero())
    if condition.array.dtype != np.bool_:
        if condition.array.dtype != np.uint8:
            raise RuntimeError(
                "where expected condition to be a boolean tensor, but got a tensor with dtype "
                f"{condition.dtype.name.capitalize()}"
            )
        condition = cast(condition, np.bool_)
    a, b = operand(input), operand(other)
    xp = NAMESPACES[condition.array.__class__].xp
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        arrays = [v.array if isinstance(v, Tensor) else v for v in (a, b)]
        common = dtypes.result_dtype(arrays)
        a, b = (
            cast(v, common) if isinstance(v, Tensor) else wrap(xp.asarray(v, dtype=common))
            for v in (a, b)
        )
    elif a.array.dtype != b.array.dtype:
        a, b = promoted(a, b)
    a, _ = same_device_or_scalar(a, condition)
    b, _ = same_device_or_scalar(b, condition)
    return apply(Where, (condition, a, b))


class Clamp(Op):
    """Between bounds; the gradient passes where the value lies within them, ends included."""

    reads = ((0,),)
    grad_name = "ClampBackward1"

    def forward(xp: Any, x: Any, low: Any, high: Any) -> Any:
        if low is not None and high is not None and low > high:
            return xp.full_like(x, high)
        out = x if low is None else xp.maximum(x, x.dtype.type(low))
        return out if high is None else xp.minimum(out, x.dtype.type(high))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        low, high = ctx.attrs
        if low is None:
            inside = x <= high
        elif high is None:
            inside = x >= low
        else:
            inside = (x >= low) & (x <= high)
        return (F.where(inside, grad, F.zeros((), grad)),)


@public(
    samples=lambda: [
        S(distinct(3, 4), -0.5, 0.8),
        S(distinct(5), min=0.1),
        S(distinct(5), max=0.1),
        S(distinct(5), 1.0, -1.0),
        S(distinct(3, 4), distinct(4) - 2, distinct(3, 1) + 2),
    ],
    method=True,
    inplace=True,
)
def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Values limited to [min, max]; either bound may be a number, a tensor or None.

    >>> import gradlite
    >>> gradlite.clamp(gradlite.tensor([-2.0, 0.5, 2.0]), -1, 1)
    tensor([-1.0000,  0.5000,  1.0000])

    Raises:
        RuntimeError: neither bound was given.
    """
    if min is None and max is None:
        raise RuntimeError("clamp: At least one of 'min' or 'max' must not be None")
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        if min is not None:
            input = where(input >= min, input, min)
        return input if max is None else where(input <= max, input, max)
    if dtypes.category(input.array.dtype) < 2 and (
        isinstance(min, float) or isinstance(max, float)
    ):
        input = cast(input, dtypes.get_default_dtype().numpy)
    return apply1(Clamp, input, min, max)


clip = clamp
Tensor.clip, Tensor.clip_ = clamp, Tensor.clamp_  # type: ignore[attr-defined]


# ------------------------------------------------------------------------ tests and bits
def _constant(function: str, *inputs: Any) -> Tensor:
    xp = NAMESPACES[inputs[0].array.__class__].xp
    arrays = [i.array if isinstance(i, Tensor) else i for i in inputs]
    return wrap(xp.asarray(getattr(xp, function)(*arrays)))


@public(samples=lambda: [S(np.array([1.0, np.nan, np.inf])), S(np.arange(3))], method=True, differentiable=False)
def isnan(input: Tensor) -> Tensor:
    """Whether each element is NaN.

    >>> import gradlite
    >>> gradlite.isnan(gradlite.tensor([1.0, float("nan")]))
    tensor([False,  True])
    """
    return _constant("isnan", input)


@public(samples=lambda: [S(np.array([1.0, np.nan, -np.inf])), S(np.arange(3))], method=True, differentiable=False)
def isinf(input: Tensor) -> Tensor:
    """Whether each element is infinite.

    >>> import gradlite
    >>> gradlite.isinf(gradlite.tensor([1.0, float("inf")]))
    tensor([False,  True])
    """
    return _constant("isinf", input)


@public(samples=lambda: [S(np.array([1.0, np.nan, -np.inf])), S(np.arange(3))], method=True, differentiable=False)
def isfinite(input: Tensor) -> Tensor:
    """Whether each element is finite.

    >>> import gradlite
    >>> gradlite.isfinite(gradlite.tensor([1.0, float("inf")]))
    tensor([ True, False])
    """
    return _constant("isfinite", input)


@public(samples=lambda: [S(bools(4)), S(normal(3)), S(integers(0, 2, 4))], method=True, inplace=True, differentiable=False)
def logical_not(input: Tensor) -> Tensor:
    """Whether each element is zero or False.

    >>> import gradlite
    >>> gradlite.logical_not(gradlite.tensor([0, 3]))
    tensor([ True, False])
    """
    return _constant("logical_not", input)


@public(samples=lambda: [S(bools(4), bools(4)), S(normal(3), integers(0, 2, 3))], method=True, inplace=True, differentiable=False)
def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """Whether both elements are nonzero.

    >>> import gradlite
    >>> gradlite.logical_and(gradlite.tensor([0, 3]), gradlite.tensor([1, 1]))
    tensor([False,  True])
    """
    return _constant("logical_and", input, other)


@public(samples=lambda: [S(bools(4), bools(4)), S(normal(3), integers(0, 2, 3))], method=True, inplace=True, differentiable=False)
def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """Whether one of both elements is nonzero.

    >>> import gradlite
    >>> gradlite.logical_or(gradlite.tensor([0, 3]), gradlite.tensor([0, 0]))
    tensor([False,  True])
    """
    return _constant("logical_or", input, other)


@public(samples=lambda: [S(bools(4), bools(4)), S(normal(3), integers(0, 2, 3))], method=True, inplace=True, differentiable=False)
def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """Whether exactly one of both elements is nonzero.

    >>> import gradlite
    >>> gradlite.logical_xor(gradlite.tensor([0, 3]), gradlite.tensor([1, 1]))
    tensor([ True, False])
    """
    return _constant("logical_xor", input, other)


def _bits(function: str, input: Any, other: Any) -> Tensor:
    a, b = operand(input), operand(other)
    if not isinstance(a, Tensor):
        a, b = b, a
    arrays = [v.array if isinstance(v, Tensor) else v for v in (a, b)]
    common = dtypes.result_dtype(arrays)
    if dtypes.category(common) == 2:
        raise RuntimeError(f'"{function}_cpu" not implemented for \'{common.name}\'')
    xp = NAMESPACES[a.array.__class__].xp
    left, right = (xp.asarray(v).astype(common) for v in arrays)
    return wrap(xp.asarray(getattr(xp, function)(left, right)))


@public(samples=lambda: [S(bools(4), bools(4)), S(integers(0, 9, 4), 3)], method=True, inplace=True, differentiable=False)
def bitwise_and(input: Any, other: Any) -> Tensor:
    """Bitwise and of integers; logical and of bools.

    >>> import gradlite
    >>> gradlite.bitwise_and(gradlite.tensor([6, 5]), 3)
    tensor([2, 1])
    """
    return _bits("bitwise_and", input, other)


@public(samples=lambda: [S(bools(4), bools(4)), S(integers(0, 9, 4), 3)], method=True, inplace=True, differentiable=False)
def bitwise_or(input: Any, other: Any) -> Tensor:
    """Bitwise or of integers; logical or of bools.

    >>> import gradlite
    >>> gradlite.bitwise_or(gradlite.tensor([6, 5]), 3)
    tensor([7, 7])
    """
    return _bits("bitwise_or", input, other)


@public(samples=lambda: [S(bools(4), bools(4)), S(integers(0, 9, 4), 3)], method=True, inplace=True, differentiable=False)
def bitwise_xor(input: Any, other: Any) -> Tensor:
    """Bitwise exclusive or of integers; of bools, whether they differ.

    >>> import gradlite
    >>> gradlite.bitwise_xor(gradlite.tensor([6, 5]), 3)
    tensor([5, 6])
    """
    return _bits("bitwise_xor", input, other)


@public(samples=lambda: [S(bools(4)), S(integers(0, 9, 4))], method=True, inplace=True, differentiable=False)
def bitwise_not(input: Tensor) -> Tensor:
    """Bitwise not of integers; logical not of bools.

    >>> import gradlite
    >>> gradlite.bitwise_not(gradlite.tensor([0, -3]))
    tensor([-1,  2])
    """
    if input.array.dtype.kind == "f":
        raise RuntimeError(
            "bitwise_not expected an integer or bool tensor, "
            f"but got a tensor of dtype {input.dtype}"
        )
    return _constant("invert", input)


@public(samples=lambda: [S(normal(3, 2)), S(bools(3))], method=True, differentiable=True)
def clone(input: Tensor) -> Tensor:
    """A copy with a storage of its own that passes gradients on.

    >>> import gradlite
    >>> gradlite.clone(gradlite.tensor([1, 2]))
    tensor([1, 2])
    """
    return apply1(Clone, input)


class Clone(Op):
    def forward(xp: Any, x: Any) -> Any:
        return x.copy("K") if x.flags.c_contiguous is False and 0 not in x.strides else x.copy()

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (grad,)


def _operators() -> None:
    t: Any = Tensor
    t.__neg__, t.__abs__ = neg, abs
    t.__pos__ = lambda self: self
    t.__round__ = lambda self, ndigits=0: round(self, decimals=ndigits or 0)
    t.__floor__, t.__ceil__, t.__trunc__ = floor, ceil, trunc
    t.__invert__ = bitwise_not
    t.__and__ = t.__rand__ = bitwise_and
    t.__or__ = t.__ror__ = bitwise_or
    t.__xor__ = t.__rxor__ = bitwise_xor
    t.__iand__, t.__ior__, t.__ixor__ = t.bitwise_and_, t.bitwise_or_, t.bitwise_xor_
    t.negative, t.absolute, t.fix = neg, abs, trunc
    t.negative_, t.absolute_ = t.neg_, t.abs_
    t.arcsin, t.arccos, t.arctan = asin, acos, atan
    t.where = lambda self, condition, other: where(condition, self, other)


_operators()
negative, absolute, fix = neg, abs, trunc
arcsin, arccos, arctan = asin, acos, atan
arcsinh, arccosh, arctanh = asinh, acosh, atanh
