"""Elementwise functions whose gradients, and some of which themselves, are one launch.

The kernels of ``pointwise.cu`` hold many functions each, known by their place in the lists here.
They read operands that broadcast where these lie, and gradients that a sum has spread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite.ops.binary import sum_to
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.together import operand, wanted_shapes

VALUES = {
    name: k
    for k, name in enumerate("rsqrt logit entropy sign angle gumbel limit root sinc".split())
}
SLOPES = {
    name: k
    for k, name in enumerate(
        "scaled quotient one_more log1p rsqrt reciprocal abs sin cos tan atan asin asinh sinh cosh "
        "erf logit unbounded_logit sinc entropy power finite limit root".split()
    )
}
VALUES_OF_TWO = {name: k for k, name in enumerate("remainder xlogy xlog1py floor_divide".split())}
SLOPES_OF_TWO = {
    name: k
    for k, name in enumerate(
        "quotient atan2 hypot remainder logaddexp copysign chosen xlogy xlog1py lerp larger "
        "power".split()
    )
}


def value(name: str, *numbers: float) -> Callable[..., Any]:
    """``fused_forward`` of an op with one input."""

    def fused_forward(K: Any, x: Any, *attrs: Any) -> Any:
        return value_of(K, name, x, *numbers)

    return fused_forward


def value_of(K: Any, name: str, x: Any, first: float = 0.0, second: float = 0.0) -> Any:
    """A function's values."""
    if not K.takes(x):
        return NotImplemented
    x, out = K.dense(x), K.empty_like(x)
    K.elementwise("unary_forward", x.dtype, x.size, x, out, x.size, VALUES[name], first, second)
    return out


def slope(name: str, *numbers: float) -> Callable[..., Any]:
    """``fused_backward`` of an op with one input, which saves one value."""

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return slope_of(K, name, grad, ctx.saved[0], *numbers)

    return fused_backward


def slope_of(
    K: Any, name: str, grad: Any, saved: Any, first: float = 0.0, second: float = 0.0
) -> Any:
    """The gradient of a function, alone in its tuple."""
    if not K.takes(grad, saved) or grad.shape != saved.shape:
        return NotImplemented
    grad, inner, size = operand(K, grad, saved.shape)
    saved, dx = K.dense(saved), K.empty_like(saved)
    K.elementwise(
        "unary_backward", dx.dtype, dx.size,
        grad, saved, dx, dx.size, SLOPES[name], first, second, inner, size,
    )  # fmt: skip
    return (dx,)


def value_of_two(name: str) -> Callable[..., Any]:
    """``fused_forward`` of an op with two operands, of which the second may be a number."""

    def fused_forward(K: Any, x: Any, y: Any) -> Any:
        number = not hasattr(y, "shape")
        if not (K.takes(x) if number else K.takes(x, y)):
            return NotImplemented
        shape = x.shape if number else np.broadcast_shapes(x.shape, y.shape)
        left, right = operand(K, x, shape), operand(K, None if number else y, shape)
        out = K.empty(shape, x.dtype)
        K.elementwise(
            "binary_forward", out.dtype, out.size,
            left[0], right[0], out, out.size, VALUES_OF_TWO[name], float(y) if number else 0.0,
            *left[1:], *right[1:],
        )  # fmt: skip
        return out

    return fused_forward


def slopes(name: str, number: float = 0.0) -> Callable[..., Any]:
    """``fused_backward`` of an op with two operands, which saves both, and maybe a third value."""

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return slopes_of(K, name, grad, ctx.saved, wanted_shapes(ctx, grad), number)

    return fused_backward


def remainder_slopes(K: Any, ctx: Any, grad: Any, number: float) -> Any:
    """``fused_backward`` of remainders, of which the first operand's gradient is what comes in."""
    own, divisor = wanted_shapes(ctx, grad)
    if divisor is None:
        return NotImplemented  # there is nothing to compute
    found = slopes_of(K, "remainder", grad, ctx.saved, (None, divisor), number)
    if found is NotImplemented:
        return found
    first = None if own is None else sum_to(NAMESPACES[grad.__class__], grad, tuple(own))
    return first, found[1]


def slopes_of(
    K: Any,
    name: str,
    grad: Any,
    operands: tuple[Any, ...],
    wanted: tuple[Any, ...],
    number: float = 0.0,
) -> Any:
    """The gradients of a function of two arrays.

    Args:
        operands: those that are read, None for the others, and behind them what has the
            gradient's shape.
        wanted: the shape of each gradient, None where it is not wanted.
    """
    given = [a for a in operands if a is not None]
    if not all(hasattr(a, "shape") for a in given) or not K.takes(grad, *given):
        return NotImplemented
    shape, dtype = grad.shape, grad.dtype
    x, y, *last = operands if operands else (None, None)
    by, left, right = (operand(K, a, shape) for a in (grad, x, y))
    z = K.dense(last[0]) if last and last[0] is not None else None
    outs = [None if own is None else K.empty(shape, dtype) for own in wanted]
    K.elementwise(
        "binary_backward", dtype, grad.size,
        by[0], left[0], right[0], z, *outs, grad.size, SLOPES_OF_TWO[name], float(number),
        *by[1:], *left[1:], *right[1:],
    )  # fmt: skip
    return _summed(outs, wanted)


def product_slopes(K: Any, grad: Any, factors: tuple[Any, ...], wanted: tuple[Any, ...]) -> Any:
    """Both gradients of a product."""
    if not K.takes(grad, *factors):
        return NotImplemented
    by, left, right = (operand(K, a, grad.shape) for a in (grad, *factors))
    outs = [K.empty(grad.shape, grad.dtype) for _ in wanted]
    K.elementwise(
        "product_backward", grad.dtype, grad.size,
        by[0], left[0], right[0], *outs, grad.size, *by[1:], *left[1:], *right[1:],
    )  # fmt: skip
    return _summed(outs, wanted)


def _summed(outs: list[Any], wanted: tuple[Any, ...]) -> tuple[Any, ...]:
    """Gradients in full, summed to the shapes of their operands."""
    return tuple(
        None if out is None else sum_to(NAMESPACES[out.__class__], out, tuple(own))
        for out, own in zip(outs, wanted)
    )
