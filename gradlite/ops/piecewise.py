"""Piecewise linear activation functions: relu and its relatives, hard and shrinking ones.

Where a rule compares, a NaN takes the side that it takes in PyTorch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends.cpu import clip
from gradlite.ops.activation_edits import activated, edited
from gradlite.ops.binary import sum_to
from gradlite.ops.column_sums import map_columns, sum_parts, total
from gradlite.ops.dispatch import OUT, apply, apply1
from gradlite.ops.fused import activation_kernels, fused_slope
from gradlite.ops.op import Elementwise, type_name
from gradlite.ops.operands import as_number, check_floating, filling
from gradlite.ops.samples import S, distinct, normal, unary
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "prelu",
    "relu",
    "relu6",
    "softshrink",
    "threshold",
]

BOUNDS = {
    np.dtype(k): (np.array(0, k), np.array(np.inf, k)) for k in ("float16", "float32", "float64")
}
_WORDS = {
    np.dtype(f"float{n}"): (np.dtype(f"int{n}"), np.array(0, f"int{n}"), np.array(1, f"int{n}"))
    for n in (32, 64)
}


class ThresholdBackward(Elementwise):
    """grad where out > 0, else 0: exact for infinite and NaN gradients too."""

    reads = ((1,), ())

    def forward(xp: Any, grad: Any, out: Any) -> Any:
        kind = out.dtype
        if xp is np and out.ndim and kind in _WORDS:
            # Read as integers, positive floats are positive and -0.0 is negative: 0 or 1
            # times the gradient's bits.
            word, zero, one = _WORDS[kind]
            mask = clip(out.view(word), zero, one)
            mask *= grad.view(word)
            return mask.view(kind)
        return xp.where(out <= 0, xp.zeros((), out.dtype), grad)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return F.threshold_backward(grad, F.detach(out)), None

    def fused_forward(K: Any, grad: Any, out: Any) -> Any:
        return fused_slope(K, "relu_backward", grad, out)


_threshold_backward = ThresholdBackward.forward


class Relu(Elementwise):
    reads = ((OUT,),)
    fused_forward, fused_backward = activation_kernels("relu")

    def forward(xp: Any, x: Any) -> Any:
        bounds = BOUNDS.get(x.dtype) if xp is np else None
        if bounds is not None:
            zero, infinity = bounds
            return clip(x, zero, infinity)
        if x.dtype == np.bool_:
            raise RuntimeError("Boolean inputs not supported for relu")
        return xp.maximum(x, 0)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        if grad.__class__ is np.ndarray and F.twins is None:
            return (_threshold_backward(np, grad, out),)
        return (F.threshold_backward(grad, F.detach(out)),)


def _edit_relu(input: Tensor, inplace: bool = False) -> bool:
    return edited(Relu, input)


@public(samples=lambda: unary(distinct), method=True, inplace=_edit_relu)
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """``max(x, 0)``; the gradient at 0 is 0.

    >>> import gradlite
    >>> gradlite.relu(gradlite.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    if inplace:
        return input.relu_()  # type: ignore[attr-defined,no-any-return]
    return apply1(Relu, input)


class LeakyRelu(Elementwise):
    reads = ((0,),)
    fused_forward, fused_backward = activation_kernels("leaky_relu")
    native_from = native_backward_from = 1 << 14

    def forward(xp: Any, x: Any, slope: float) -> Any:
        return xp.where(x > 0, x, x * x.dtype.type(slope))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (F.where(x > 0, grad, grad * ctx.attrs[0]),)


@public(
    samples=lambda: [*unary(distinct), S(distinct(5), 0.2), S(distinct(5), -0.5)],
    torch="nn.functional.leaky_relu",
)
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where positive, else ``negative_slope * x``.

    >>> import gradlite
    >>> gradlite.nn.functional.leaky_relu(gradlite.tensor([-1.0, 2.0]))
    tensor([-0.0100,  2.0000])
    """
    check_floating("leaky_relu_cpu", input)
    return activated(LeakyRelu, input, inplace, negative_slope)


class Hardtanh(Elementwise):
    """Between bounds; the gradient at the bounds is 0."""

    reads = ((0,),)
    fused_forward, fused_backward = activation_kernels("hardtanh")
    native_from = native_backward_from = 1 << 14

    def forward(xp: Any, x: Any, low: float, high: float) -> Any:
        kind = x.dtype.type
        return xp.minimum(xp.maximum(x, kind(low)), kind(high))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        low, high = ctx.attrs
        return (F.where((x <= low) | (x >= high), F.zero_beside(grad), grad),)


@public(
    samples=lambda: [*unary(distinct), S(distinct(5), -0.4, 0.6)], torch="nn.functional.hardtanh"
)
def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """x limited to [min_val, max_val].

    >>> import gradlite
    >>> gradlite.nn.functional.hardtanh(gradlite.tensor([-3.0, 0.5]))
    tensor([-1.0000,  0.5000])
    """
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    kind = input.array.dtype.kind
    if kind == "b":
        raise RuntimeError("Bool inputs not supported for hardtanh")
    if kind == "u" and min_val < 0:
        raise RuntimeError("cannot do hardtanh on an unsigned type with negative limits")
    return activated(Hardtanh, input, inplace, min_val, max_val)


@public(samples=lambda: [*unary(distinct), S(distinct(5) * 5)], torch="nn.functional.relu6")
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """x limited to [0, 6].

    >>> import gradlite
    >>> gradlite.nn.functional.relu6(gradlite.tensor([-3.0, 8.0]))
    tensor([0., 6.])
    """
    return hardtanh(input, 0.0, 6.0, inplace)


class Hardsigmoid(Elementwise):
    reads = ((0,),)
    fused_forward, fused_backward = activation_kernels("hardsigmoid")
    native_from = native_backward_from = 1 << 14

    def forward(xp: Any, x: Any) -> Any:
        kind = x.dtype.type
        return xp.minimum(xp.maximum(x + kind(3), kind(0)), kind(6)) / kind(6)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (F.where((x > -3) & (x < 3), grad / 6, F.zero_beside(grad)),)


@public(
    # PyTorch's gradient multiplies by a float32 sixth
    samples=lambda: [*unary(distinct, rtol=1e-7), S(distinct(5) * 3, rtol=1e-7)],
    torch="nn.functional.hardsigmoid",
)
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``x / 6 + 1/2`` limited to [0, 1].

    >>> import gradlite
    >>> gradlite.nn.functional.hardsigmoid(gradlite.tensor([-4.0, 0.0, 1.5]))
    tensor([0.0000, 0.5000, 0.7500])
    """
    check_floating("hardsigmoid_cpu", input)
    return activated(Hardsigmoid, input, inplace)


class Hardswish(Elementwise):
    reads = ((0,),)
    fused_forward, fused_backward = activation_kernels("hardswish")
    native_from = native_backward_from = 1 << 14

    def forward(xp: Any, x: Any) -> Any:
        kind = x.dtype.type
        return x * xp.minimum(xp.maximum(x + kind(3), kind(0)), kind(6)) / kind(6)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        middle = grad * (x / 3 + 0.5)
        return (F.where(x <= -3, F.zero_beside(grad), F.where(x < 3, middle, grad)),)


@public(samples=lambda: [*unary(distinct), S(distinct(5) * 3)], torch="nn.functional.hardswish")
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * relu6(x + 3) / 6`` (Howard et al. 2019).

    >>> import gradlite
    >>> gradlite.nn.functional.hardswish(gradlite.tensor([-4.0, 1.5]))
    tensor([-0.0000,  1.1250])
    """
    check_floating("hardswish_cpu", input)
    return activated(Hardswish, input, inplace)


class Hardshrink(Elementwise):
    reads = ((0,),)
    fused_forward, fused_backward = activation_kernels("hardshrink")
    native_from = native_backward_from = 1 << 14

    def forward(xp: Any, x: Any, lambd: float) -> Any:
        return xp.where((x >= -lambd) & (x <= lambd), x.dtype.type(0), x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        (lambd,) = ctx.attrs
        return (F.where((x >= -lambd) & (x <= lambd), F.zero_beside(grad), grad),)


@public(samples=lambda: [S(distinct(3, 4)), S(distinct(5), 0.3)], torch="nn.functional.hardshrink")
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where ``|x| > lambd``, else 0.

    >>> import gradlite
    >>> gradlite.nn.functional.hardshrink(gradlite.tensor([-0.3, 2.0]))
    tensor([0., 2.])
    """
    check_floating("hardshrink_cpu", input)
    if input.array.dtype in dtypes.HALVES:  # PyTorch's bound is rounded to the input's dtype
        lambd = float(input.array.dtype.type(lambd))
    return apply1(Hardshrink, input, lambd)


class Softshrink(Elementwise):
    reads = ((0,),)
    fused_forward, fused_backward = activation_kernels("softshrink")
    native_from = native_backward_from = 1 << 14

    def forward(xp: Any, x: Any, lambd: float) -> Any:
        kind = x.dtype.type
        # x less what of it lies within the bounds, so that a NaN stays one.
        return x - xp.minimum(xp.maximum(x, kind(-lambd)), kind(lambd))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        (lambd,) = ctx.attrs
        return (F.where((x >= -lambd) & (x <= lambd), F.zero_beside(grad), grad),)


@public(samples=lambda: [S(distinct(3, 4)), S(distinct(5), 0.3)], torch="nn.functional.softshrink")
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by ``lambd``, 0 within.

    >>> import gradlite
    >>> gradlite.nn.functional.softshrink(gradlite.tensor([-0.3, 2.0]))
    tensor([0.0000, 1.5000])
    """
    check_floating("softshrink_check", input)
    limit = dtypes.finfo(input.dtype).max
    if not 0 <= lambd <= limit:
        raise RuntimeError(
            f"lambda must be in range [0, {limit:g}] for input dtype "
            f"{type_name(input.array.dtype)}, but found {lambd:g}"
        )
    return apply1(Softshrink, input, lambd)


class Threshold(Elementwise):
    reads = ((0,),)
    fused_forward, fused_backward = activation_kernels("threshold")
    native_from = native_backward_from = 1 << 14

    def forward(xp: Any, x: Any, threshold: float, value: float) -> Any:
        return xp.where(x <= threshold, x.dtype.type(value), x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (F.where(x <= ctx.attrs[0], F.zero_beside(grad), grad),)


@public(samples=lambda: [S(distinct(3, 4), 0.3, -1.0)], torch="nn.functional.threshold")
def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where above the threshold, else ``value``.

    >>> import gradlite
    >>> gradlite.nn.functional.threshold(gradlite.tensor([0.1, 2.0]), 0.5, -1.0)
    tensor([-1.,  2.])
    """
    if input.array.dtype == np.bool_:
        raise NotImplementedError("\"threshold_cpu\" not implemented for 'Bool'")
    value = filling(as_number(value), input.array.dtype)
    return activated(Threshold, input, inplace, threshold, value)


class Prelu(Elementwise):
    reads = ((0, 1), (0,))
    grad_name = "PreluKernelBackward0"
    native_from = native_backward_from = 1 << 14

    def forward(xp: Any, x: Any, weight: Any) -> Any:
        return xp.where(x > 0, x, weight * x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, weight = ctx.saved
        left = right = None
        if ctx.edges[0] is not None:
            left = F.where(x > 0, grad, grad * weight)
        if ctx.edges[1] is not None:
            part = F.where(x > 0, F.zero_beside(grad), grad * x)
            right = sum_to(F, part, tuple(ctx.shapes[1]))
        return left, right

    def fused_forward(K: Any, x: Any, weight: Any) -> Any:
        if not K.takes(x, weight):
            return NotImplemented
        x, weight = K.dense(x), K.dense(weight)
        out = K.empty_like(x)
        planes, length, channels = _planes(x.shape, weight.shape)
        if length == 1 < channels:
            map_columns(K, "prelu_columns_forward", x.dtype, planes // channels, channels, x,
                        weight, out)  # fmt: skip
        else:
            pieces = _pieces(planes, length)
            sizes = planes, length, channels, pieces
            K.rows("prelu_forward", x.dtype, planes * pieces, length // pieces, x, weight, out,
                   *sizes)  # fmt: skip
        return out

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, weight = ctx.saved
        if weight is None or not K.takes(grad, x, weight):
            return NotImplemented
        arrays = K.dense(grad), K.dense(x), K.dense(weight), K.empty_like(x)
        dtype = x.dtype
        right = None if ctx.edges[1] is None else K.empty(weight.shape, dtype)
        planes, length, channels = _planes(x.shape, weight.shape)
        if length == 1 < channels:
            kernel = "prelu_columns_backward"
            partials, _ = sum_parts(K, kernel, dtype, 1, planes // channels, channels, *arrays)
            if right is not None:
                total(K, dtype, partials, right)
        else:
            pieces = _pieces(planes, length)
            partials = K.empty((planes, pieces), K.acc(dtype))
            sizes = planes, length, channels, pieces
            K.rows("prelu_backward", dtype, planes * pieces, length // pieces, *arrays, partials,
                   *sizes)  # fmt: skip
            if right is not None:
                parts = planes // channels
                K.rows("prelu_total", dtype, channels, parts * pieces, partials, right, channels,
                       parts, pieces)  # fmt: skip
        return arrays[3], right


def _planes(shape: tuple[int, ...], weights: tuple[int, ...]) -> tuple[int, int, int]:
    """Of an array with its channels where the weights are: the planes, of one channel each in
    turn, how long they are, and the channels. With one weight the array is one plane."""
    channels = math.prod(weights)
    if channels == 1:
        return 1, math.prod(shape), 1
    length = math.prod(shape[weights.index(channels) + 1 :])
    return math.prod(shape) // length, length, channels


def _pieces(planes: int, length: int) -> int:
    """Into how many pieces to cut every plane: enough to fill a GPU, of 1024 elements at least."""
    return max(1, min(-(-4096 // planes), length // 1024))


@public(
    samples=lambda: [S(distinct(2, 3, 4), normal(1)), S(distinct(2, 3, 4), normal(3))],
    torch="nn.functional.prelu",
    autocast="lower",
)
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where positive, else ``weight * x``; one weight, or one per channel (dimension 1).

    >>> import gradlite
    >>> gradlite.nn.functional.prelu(gradlite.tensor([-2.0, 2.0]), gradlite.tensor([0.1]))
    tensor([-0.2000,  2.0000])
    """
    n = weight.array.size
    if weight.array.ndim > 1:
        raise RuntimeError(
            "prelu: Expected `weight` to be a scalar or 1D tensor, but got: "
            f"ndim = {weight.array.ndim}"
        )
    if n != 1:
        if input.array.ndim == 0:
            raise RuntimeError("Not allow zero-dim input tensor.")
        channels = input.array.shape[1] if input.array.ndim > 1 else 1
        if n != channels:
            raise RuntimeError(
                "Mismatch of parameter numbers and input channel size. Found parameter numbers = "
                f"{n} and channel size = {channels}."
            )
        weight = weight.reshape(  # type: ignore[attr-defined]
            tuple(n if d == 1 else 1 for d in range(input.array.ndim))
        )
    elif input.array.ndim != 1:
        weight = weight.reshape((1,) * input.array.ndim)  # type: ignore[attr-defined]
    return apply(Prelu, (input, weight))  # type: ignore[no-any-return]
