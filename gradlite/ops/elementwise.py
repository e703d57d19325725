"""Elementwise functions of one tensor: exponentials, logarithms, roots, signs."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.memory_format import memory_format, preserve_format
from gradlite.ops import elements_compiled
from gradlite.ops.activation_edits import edited
from gradlite.ops.dispatch import OUT, apply1
from gradlite.ops.fused import activation_kernels
from gradlite.ops.layout import copy_order, laid_out
from gradlite.ops.op import Elementwise, Op
from gradlite.ops.operands import cast
from gradlite.ops.pointwise import slope, value
from gradlite.ops.samples import S, bools, normal, unary
from gradlite.ops.samples import positive as positive_values
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "abs",
    "absolute",
    "clone",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log10",
    "log1p",
    "log2",
    "neg",
    "negative",
    "positive",
    "reciprocal",
    "rsqrt",
    "sigmoid",
    "sqrt",
    "square",
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


class Exp(Elementwise):
    reads = ((OUT,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.exp(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * out,)


@public(
    samples=lambda: unary(),
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def exp(input: Tensor) -> Tensor:
    """e to the power of each element, elementwise.

    >>> import gradlite
    >>> gradlite.exp(gradlite.tensor([0.0, 1.0]))
    tensor([1.0000, 2.7183])
    """
    return float_op(Exp, input)


class Expm1(Elementwise):
    reads = ((OUT,),)
    fused_backward = slope("one_more")

    def forward(xp: Any, x: Any) -> Any:
        return xp.expm1(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * (out + 1),)


@public(
    samples=lambda: unary(),
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def expm1(input: Tensor) -> Tensor:
    """``exp(x) - 1``, accurate near 0, elementwise.

    >>> import gradlite
    >>> gradlite.expm1(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 1.7183])
    """
    return float_op(Expm1, input)


class Exp2(Elementwise):
    reads = ((OUT,),)
    fused_backward = slope("scaled", math.log(2))

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


class Log(Elementwise):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.log(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / x,)


@public(
    samples=lambda: unary(positive_values),
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def log(input: Tensor) -> Tensor:
    """The natural logarithm, elementwise.

    >>> import gradlite
    >>> gradlite.log(gradlite.tensor([1.0, 2.0]))
    tensor([0.0000, 0.6931])
    """
    return float_op(Log, input)


class Log2(Elementwise):
    reads = ((0,),)
    fused_backward = slope("quotient", math.log(2))

    def forward(xp: Any, x: Any) -> Any:
        return xp.log2(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / (x * math.log(2)),)


@public(
    samples=lambda: unary(positive_values),
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def log2(input: Tensor) -> Tensor:
    """The logarithm to base 2, elementwise.

    >>> import gradlite
    >>> gradlite.log2(gradlite.tensor([1.0, 8.0]))
    tensor([0., 3.])
    """
    return float_op(Log2, input)


class Log10(Elementwise):
    reads = ((0,),)
    fused_backward = slope("quotient", math.log(10))

    def forward(xp: Any, x: Any) -> Any:
        return xp.log10(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / (x * math.log(10)),)


@public(
    samples=lambda: unary(positive_values),
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def log10(input: Tensor) -> Tensor:
    """The logarithm to base 10, elementwise.

    >>> import gradlite
    >>> gradlite.log10(gradlite.tensor([1.0, 50.0]))
    tensor([0.0000, 1.6990])
    """
    return float_op(Log10, input)


class Log1p(Elementwise):
    grad_name = "Log1PBackward0"
    reads = ((0,),)
    fused_backward = slope("log1p")

    def forward(xp: Any, x: Any) -> Any:
        return xp.log1p(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad / (x + 1),)


@public(
    samples=lambda: unary(positive_values),
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def log1p(input: Tensor) -> Tensor:
    """``log(1 + x)``, accurate near 0, elementwise.

    >>> import gradlite
    >>> gradlite.log1p(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 0.6931])
    """
    return float_op(Log1p, input)


class Sqrt(Elementwise):
    reads = ((OUT,),)
    fused_backward = slope("quotient", 2.0)

    def forward(xp: Any, x: Any) -> Any:
        return xp.sqrt(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad / (out * 2),)


@public(samples=lambda: unary(positive_values), method=True, inplace=True)
def sqrt(input: Tensor) -> Tensor:
    """The square root; NaN below 0, elementwise.

    >>> import gradlite
    >>> gradlite.sqrt(gradlite.tensor([4.0, 9.0]))
    tensor([2., 3.])
    """
    return float_op(Sqrt, input)


class Rsqrt(Elementwise):
    reads = ((OUT,),)
    fused_forward, fused_backward = value("rsqrt"), slope("rsqrt")

    def forward(xp: Any, x: Any) -> Any:
        return 1 / xp.sqrt(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * -0.5 * (out * out * out),)


@public(
    samples=lambda: unary(positive_values),
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def rsqrt(input: Tensor) -> Tensor:
    """``1 / sqrt(x)``, elementwise.

    >>> import gradlite
    >>> gradlite.rsqrt(gradlite.tensor([4.0, 16.0]))
    tensor([0.5000, 0.2500])
    """
    return float_op(Rsqrt, input)


class Reciprocal(Elementwise):
    reads = ((OUT,),)
    fused_backward = slope("reciprocal")

    def forward(xp: Any, x: Any) -> Any:
        return xp.reciprocal(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (-grad * (out * out),)


@public(
    samples=lambda: unary(positive_values),
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def reciprocal(input: Tensor) -> Tensor:
    """``1 / x``, elementwise.

    >>> import gradlite
    >>> gradlite.reciprocal(gradlite.tensor([4.0, 5.0]))
    tensor([0.2500, 0.2000])
    """
    return float_op(Reciprocal, input)


def logistic(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)) of an array: (1 + tanh(x / 2)) / 2 would lose all digits below -17."""
    out = xp.asarray(xp.negative(x))
    xp.exp(out, out=out)
    out += x.dtype.type(1)
    return xp.reciprocal(out, out=out)


class Sigmoid(Elementwise):
    reads = ((OUT,),)
    fused_forward, fused_backward = activation_kernels("sigmoid")
    native_from = native_backward_from = 1 << 16
    native_dtypes = "f"

    forward = logistic

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * (out * (1 - out)),)


@public(samples=lambda: unary(), method=True, inplace=partial(edited, Sigmoid))
def sigmoid(input: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``, elementwise.

    >>> import gradlite
    >>> gradlite.sigmoid(gradlite.tensor([0.0, 2.0]))
    tensor([0.5000, 0.8808])
    """
    return float_op(Sigmoid, input)


class Neg(Elementwise):
    one_step = delegates = True

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


@public(samples=lambda: unary(), method=True, errors=lambda: [S(bools(3))])
def positive(input: Tensor) -> Tensor:
    """The tensor itself.

    >>> import gradlite
    >>> gradlite.positive(gradlite.tensor([1, -2]))
    tensor([ 1, -2])

    Raises:
        RuntimeError: the tensor is bool.
    """
    if input.array.dtype == np.bool_:
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return input


class Abs(Elementwise):
    reads = ((0,),)
    fused_backward = slope("abs")

    def forward(xp: Any, x: Any) -> Any:
        return xp.abs(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        made = elements_compiled.slope(F, "abs_slope", grad, x)
        return (grad * F.sign(x),) if made is None else made


@public(samples=lambda: unary(), method=True, inplace=True)
def abs(input: Tensor) -> Tensor:
    """The absolute value, elementwise; its gradient at 0 is 0.

    >>> import gradlite
    >>> gradlite.abs(gradlite.tensor([1, -2]))
    tensor([1, 2])
    """
    if input.array.dtype == np.bool_:
        raise NotImplementedError("\"abs_cpu\" not implemented for 'Bool'")
    return apply1(Abs, input)


@public(samples=lambda: unary(), method=True, inplace=True)
def square(input: Tensor) -> Tensor:
    """``x ** 2``, elementwise.

    >>> import gradlite
    >>> gradlite.square(gradlite.tensor([1.0, -3.0]))
    tensor([1., 9.])
    """
    return input**2


@public(samples=lambda: [S(normal(3, 2)), S(bools(3))], method=True, differentiable=True)
def clone(input: Tensor, *, memory_format: memory_format = preserve_format) -> Tensor:
    """A copy with a storage of its own that passes gradients on.

    Its elements lie as the input's do, or in a format's order.

    >>> import gradlite
    >>> gradlite.clone(gradlite.tensor([1, 2]))
    tensor([1, 2])
    """
    if memory_format is not preserve_format:
        return apply1(Clone, input, memory_format.order_of(input.array.ndim))
    return apply1(Clone, input)


class Clone(Op):
    moves = True

    def forward(xp: Any, x: Any, order: tuple[int, ...] | None = None) -> Any:
        return x.copy(copy_order(x)) if order is None else laid_out(xp, x, order)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (grad,)


def _attach() -> None:
    t: Any = Tensor
    t.__neg__, t.__abs__ = neg, abs
    t.__pos__ = positive
    t.negative, t.absolute = neg, abs
    t.negative_, t.absolute_ = t.neg_, t.abs_


_attach()
negative, absolute = neg, abs
