"""Convolutions in one and two dimensions, and their transposes; `conv3d` builds on the ops.

A convolution is linear in its input and in its weight, so three ops, `Convolution`,
`ConvolutionInputGrad` and `ConvolutionWeightGrad`, are each other's gradients, to any order.
One-dimensional convolutions are two-dimensional ones of height 1; the attributes of all ops
are pairs, or a `Volume`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gradlite.ops import conv_launch, grouped, volumes
from gradlite.ops.conv_arguments import (
    check_dtypes,
    check_filled,
    check_shapes,
    check_tensors,
    hashable,
    lift,
    numbers,
    shaped,
    size_of,
    with_batch,
)
from gradlite.ops.dispatch import apply
from gradlite.ops.op import Op
from gradlite.ops.reduce import spread
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.ops.volumes import Volume
from gradlite.ops.windows import Geometry, Pair
from gradlite.tensor import Tensor

__all__ = [
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
]


Slides = Geometry | Volume


# --------------------------------------------------------------------------- raw arrays
def _loops(x: Any) -> Any:
    """The module with the loops for volumes or for images."""
    return volumes if x.ndim == 5 else grouped


# ---------------------------------------------------------------------------------- ops
class ChannelSum(Op):
    """The sum over all dimensions but the second: the gradient of a bias."""

    def forward(xp: Any, x: Any) -> Any:
        n, c = x.shape[:2]
        if xp is np and x.flags.c_contiguous and x.size:
            rows = x.reshape(n * c, -1)
            return np.dot(rows, np.ones(rows.shape[1], x.dtype)).reshape(n, c).sum(0)
        return x.sum((0, *range(2, x.ndim)))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        shape = tuple(ctx.shapes[0])
        return (spread(F, grad, shape, (0, *range(2, len(shape)))),)

    def fused_forward(K: Any, x: Any) -> Any:
        return conv_launch.channel_sums(K, x) if K.takes(x) else NotImplemented


class Convolution(Op):
    reads = ((1,), (0,), ())

    def forward(xp: Any, x: Any, w: Any, b: Any, geometry: Slides, groups: int) -> Any:
        y = _loops(x).convolve(xp, lift(x), lift(w), b, geometry, groups)
        return y.reshape((*y.shape[:2], y.shape[3])) if x.ndim == 3 else y

    def fused_forward(K: Any, x: Any, w: Any, b: Any, geometry: Slides, groups: int) -> Any:
        return conv_launch.forward(K, x, w, b, geometry, groups)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return conv_launch.backward(K, ctx, grad)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, w = ctx.saved
        shapes, attrs = ctx.shapes, ctx.attrs
        grad_bias = None if ctx.edges[2] is None else F.channel_sum(grad)
        if x is not None and w is not None and not F.tensors:
            return (*_gradients(F.xp, x, grad, w, *attrs), grad_bias)
        return (
            None if w is None else F.convolution_input_grad(grad, w, tuple(shapes[0]), *attrs),
            None if x is None else F.convolution_weight_grad(x, grad, tuple(shapes[1]), *attrs),
            grad_bias,
        )


def _gradients(xp: Any, x: Any, g: Any, w: Any, geometry: Slides, groups: int) -> Any:
    """The gradients of input and weight at once, on raw arrays."""
    grad_x, grad_w = _loops(x).gradients(xp, lift(x), lift(g), lift(w), geometry, groups)
    return (
        shaped(grad_x, x.shape),
        shaped(grad_w, w.shape),
    )


class ConvolutionInputGrad(Op):
    """The gradient of a convolution with respect to its input."""

    reads = ((1,), (0,))
    grad_name = "ConvolutionBackwardBackward0"

    def forward(xp: Any, g: Any, w: Any, shape: Any, geometry: Slides, groups: int) -> Any:
        result = _loops(g).input_gradient(xp, lift(g), lift(w), size_of(shape), geometry, groups)
        return shaped(result, shape)

    def fused_forward(K: Any, g: Any, w: Any, shape: Any, geometry: Slides, groups: int) -> Any:
        return conv_launch.for_input(K, g, w, shape, geometry, groups)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        g, w = ctx.saved
        shape, attrs = tuple(ctx.shapes[1]), ctx.attrs[1:]
        return (
            None if w is None else F.convolution(grad, w, None, *attrs),
            None if g is None else F.convolution_weight_grad(grad, g, shape, *attrs),
        )


class ConvolutionWeightGrad(Op):
    """The gradient of a convolution with respect to its weight."""

    reads = ((1,), (0,))
    grad_name = "ConvolutionBackwardBackward0"

    def forward(xp: Any, x: Any, g: Any, shape: Any, geometry: Slides, groups: int) -> Any:
        result = _loops(x).weight_gradient(xp, lift(x), lift(g), size_of(shape), geometry, groups)
        return shaped(result, shape)

    def fused_forward(K: Any, x: Any, g: Any, shape: Any, geometry: Slides, groups: int) -> Any:
        return conv_launch.for_weight(K, x, g, shape, geometry, groups)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, g = ctx.saved
        shape, attrs = tuple(ctx.shapes[0]), ctx.attrs[1:]
        return (
            None if g is None else F.convolution_input_grad(g, grad, shape, *attrs),
            None if x is None else F.convolution(x, grad, None, *attrs),
        )


class ConvolutionTranspose(Op):
    """The input gradient of a convolution, plus a bias, as an op of its own."""

    reads = ((1,), (0,), ())
    grad_name = "ConvolutionBackward0"

    def forward(xp: Any, x: Any, w: Any, b: Any, shape: Any, geometry: Slides, groups: int) -> Any:
        y = ConvolutionInputGrad.forward(xp, x, w, shape, geometry, groups)
        if b is not None:
            y += b.reshape((-1, *(1,) * (y.ndim - 2)))
        return y

    def fused_forward(
        K: Any, x: Any, w: Any, b: Any, shape: Any, geometry: Slides, groups: int
    ) -> Any:
        y = conv_launch.for_input(K, x, w, shape, geometry, groups)
        if b is not None and y is not NotImplemented:
            y += b.reshape((-1, *(1,) * (y.ndim - 2)))
        return y

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return conv_launch.transposed_backward(K, ctx, grad)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, w = ctx.saved
        shape, attrs = tuple(ctx.shapes[1]), ctx.attrs[1:]
        return (
            None if w is None else F.convolution(grad, w, None, *attrs),
            None if x is None else F.convolution_weight_grad(grad, x, shape, *attrs),
            None if ctx.edges[2] is None else F.channel_sum(grad),
        )


# ----------------------------------------------------------------------------- functions
def _pairs(values: tuple[int, ...], fill: int) -> Pair:
    """The values of one dimension as those of two, or those of a volume's plane."""
    return (fill, values[0]) if len(values) == 1 else (values[-2], values[-1])


def _slides(strides: Any, sides: Any, dilations: Any) -> Slides:
    """How kernels slide along one, two or three dimensions."""
    pads = ((0, 0), *sides)[-2:]
    plane = Geometry(_pairs(strides, 1), (pads[0], pads[1]), _pairs(dilations, 1))
    return plane if len(sides) < 3 else Volume(strides[0], sides[0], dilations[0], plane)


@functools.lru_cache(256, typed=True)
def _geometry(
    name: str,
    dims: int,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    bias: tuple[int, ...] | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Slides:
    """How the kernels slide, from the checked arguments."""
    kernel = weight[2:]
    spatial = len(kernel)
    strides = numbers(name, "stride", stride, spatial, dims)
    dilations = numbers(name, "dilation", dilation, spatial)
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise RuntimeError(f"Invalid padding string: '{padding}'")
        if padding == "same" and max(strides) > 1:
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        totals = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilations, kernel)]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        sides = [(p, p) for p in numbers(name, "padding", padding, spatial)]
    paddings = tuple(side[0] for side in sides)
    check_shapes(shape, weight, bias, strides, paddings, dilations, groups, False)
    sizes = [n + sum(side) for n, side in zip(shape[2:], sides)]
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]
    if any(n < r for n, r in zip(sizes, reach)):
        raise RuntimeError(
            f"Calculated padded input size per channel: ({' x '.join(map(str, sizes))}). Kernel "
            f"size: ({' x '.join(map(str, reach))}). Kernel size can't be greater than actual "
            "input size"
        )
    check_filled(shape)
    return _slides(strides, sides, dilations)


@functools.lru_cache(256, typed=True)
def _transposed_geometry(
    name: str,
    dims: int,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    bias: tuple[int, ...] | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> tuple[tuple[int, ...], Slides]:
    """The shape of the output, and how the kernels slide over it."""
    kernel = weight[2:]
    spatial = len(kernel)
    strides = numbers(name, "stride", stride, spatial, dims)
    dilations = numbers(name, "dilation", dilation, spatial)
    if isinstance(padding, str):
        raise TypeError(f"{name}(): argument 'padding' must be tuple of ints, not str")
    paddings = numbers(name, "padding", padding, spatial)
    extra = numbers(name, "output_padding", output_padding, spatial)
    if min(paddings) >= 0 and min(extra) < 0:
        raise RuntimeError("negative output_padding is not supported")
    check_shapes(shape, weight, bias, strides, paddings, dilations, groups, True)
    check_filled(shape)
    if any(e >= s and e >= d for e, s, d in zip(extra, strides, dilations)):
        raise RuntimeError(_too_much_output_padding(extra, strides, dilations))
    own = shape[2:]
    reach = [(n - 1) * a + b * (k - 1) + 1 for n, a, b, k in zip(own, strides, dilations, kernel)]
    outputs = [r - 2 * p + q for r, p, q in zip(reach, paddings, extra)]
    if min(outputs) <= 0:
        raise RuntimeError(
            f"Given input size per channel: ({' x '.join(map(str, own))}). Calculated output "
            f"size per channel: ({' x '.join(map(str, outputs))}). Output size is too small"
        )
    # The output padding is what the convolution back would leave out at the far end.
    sides = [(p, p - q) for p, q in zip(paddings, extra)]
    return (shape[0], weight[1] * groups, *outputs), _slides(strides, sides, dilations)


def _too_much_output_padding(extra: Any, strides: Any, dilations: Any) -> str:
    axes = ("depth", "height", "width")[-max(len(extra), 2) :]
    rows = [
        ("output_padding", extra if len(extra) > 1 else (0, *extra)),
        ("stride", strides if len(extra) > 1 else (1, *strides)),
        ("dilation", dilations if len(extra) > 1 else (1, *dilations)),
    ]
    numbers = " ".join(f"{name}_{axis}: {n}" for name, row in rows for axis, n in zip(axes, row))
    return f"output padding must be smaller than either stride or dilation, but got {numbers}"


def geometry_of(
    name: str,
    dims: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *settings: Any,
) -> Slides:
    """How the kernels slide, from stride, padding, dilation and groups."""
    shape = None if bias is None else bias.array.shape
    arguments = (x.array.shape, weight.array.shape, shape, *map(hashable, settings))
    return _geometry(name, dims, *arguments)


def convolution(
    name: str,
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    check_tensors(name, input, weight, bias)
    x, batched = with_batch(name, input, dims)
    check_dtypes(x, weight, bias)
    geometry = geometry_of(name, dims, x, weight, bias, stride, padding, dilation, groups)
    y = apply(Convolution, (x, weight, bias), geometry, groups)
    return y if batched else y.squeeze(0)  # type: ignore[no-any-return]


def transposed_convolution(
    name: str,
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *settings: Any,
) -> Tensor:
    check_tensors(name, input, weight, bias)
    x, batched = with_batch(name, input, dims)
    check_dtypes(x, weight, bias)
    shape, geometry = _transposed_geometry(
        name,
        dims,
        x.array.shape,
        weight.array.shape,
        None if bias is None else bias.array.shape,
        *(hashable(value) for value in settings),
    )
    y = apply(ConvolutionTranspose, (x, weight, bias), shape, geometry, settings[3])
    return y if batched else y.squeeze(0)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(2, 3, 6), normal(4, 3, 3), normal(4)),
        S(normal(2, 3, 7), normal(4, 3, 2), stride=2, padding=1),
        S(normal(2, 4, 8), normal(6, 2, 3), normal(6), 1, 2, 2, 2),
        S(normal(3, 6), normal(2, 3, 3), padding="same"),
    ],
    torch="nn.functional.conv1d",
    errors=lambda: [
        S(normal(2, 4, 6), normal(4, 3, 3)),
        S(normal(2, 3, 2), normal(4, 3, 3)),
        S(normal(3), normal(4, 3, 3)),
        S(normal(3, 0), normal(4, 3, 1), padding=1),
    ],
    autocast="lower",
)
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation of sequences with kernels; see `conv2d`.

    Shapes: input (N, C, L) or (C, L), weight (O, C / groups, K), bias (O,); output
    (N, O, (L + 2 padding - dilation (K - 1) - 1) // stride + 1).

    >>> import gradlite
    >>> x = gradlite.arange(5.0).view(1, 1, 5)
    >>> gradlite.nn.functional.conv1d(x, gradlite.ones(1, 1, 3))
    tensor([[[3., 6., 9.]]])
    """
    return convolution("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


@public(
    samples=lambda: [
        S(normal(2, 3, 5, 6), normal(4, 3, 3, 3), normal(4)),
        S(normal(2, 3, 5, 6), normal(4, 3, 3, 2), stride=(2, 1), padding=(1, 2)),
        S(normal(2, 6, 5, 5), normal(7, 6, 3, 3), normal(7), 1, 1),
        S(normal(2, 6, 7, 7), normal(4, 3, 3, 3), normal(4), 2, 2, 2, 2),
        S(normal(2, 3, 6, 5), normal(6, 1, 3, 3), None, 2, 1, 1, 3),
        S(normal(2, 5, 4, 4), normal(3, 5, 1, 1), normal(3)),
        S(normal(1, 5, 5, 5), normal(3, 5, 1, 1), stride=2),
        S(normal(3, 5, 5), normal(2, 3, 3, 1), padding="same"),
        S(normal(0, 3, 5, 5), normal(2, 3, 2, 2)),
    ],
    torch="nn.functional.conv2d",
    errors=lambda: [
        S(normal(2, 4, 8, 8), normal(4, 3, 3, 3)),
        S(normal(2, 3, 2, 2), normal(4, 3, 3, 3)),
        S(normal(2, 3, 5, 5), normal(4, 3, 3, 3), normal(3)),
        S(normal(2, 3, 5, 5), normal(4, 3, 3, 3), stride=0),
        S(normal(2, 3, 5, 5), normal(4, 3, 3, 3), padding="some"),
        S(normal(2, 3, 0, 4), normal(4, 3, 1, 1), padding=1),
    ],
    autocast="lower",
)
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation of images with kernels, the convolution of neural networks.

    y[n, o, i, j] = bias[o] + sum over c, u, v of weight[o, c, u, v] *
    x[n, c, i * stride + u * dilation - padding, j * stride + v * dilation - padding], with
    zeros outside of the image. Numbers may be given per dimension, as (height, width).

    Shapes: input (N, C, H, W) or (C, H, W), weight (O, C / groups, KH, KW), bias (O,); output
    (N, O, OH, OW) with OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1.

    Args:
        padding: rows and columns of zeros on both sides; "valid" is none, "same" as many as
            keep the size (stride 1 only), one more after than before when odd.
        groups: the channels are split into so many groups, each with kernels of its own.

    >>> import gradlite
    >>> x = gradlite.ones(1, 1, 3, 3)
    >>> gradlite.nn.functional.conv2d(x, gradlite.ones(1, 1, 3, 3), padding=1)
    tensor([[[[4., 6., 4.],
              [6., 9., 6.],
              [4., 6., 4.]]]])

    Raises:
        RuntimeError: sizes, dtypes or numbers that do not fit.
    """
    return convolution("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


@public(
    samples=lambda: [
        S(normal(2, 3, 5), normal(3, 4, 3), normal(4)),
        S(normal(2, 4, 5), normal(4, 2, 3), normal(4), 2, 1, 1, 2),
        S(normal(3, 4), normal(3, 2, 2), None, 2, 0, 2, 1, 3),
    ],
    torch="nn.functional.conv_transpose1d",
    errors=lambda: [
        S(normal(2, 3, 5), normal(4, 2, 3)),
        S(normal(2, 3, 0), normal(3, 2, 3)),
    ],
    autocast="lower",
)
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transpose of `conv1d`: what its gradient does to its input; see `conv_transpose2d`.

    Shapes: input (N, C, L) or (C, L), weight (C, O / groups, K), bias (O,); output (N, O,
    (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1).

    >>> import gradlite
    >>> x = gradlite.ones(1, 1, 3)
    >>> gradlite.nn.functional.conv_transpose1d(x, gradlite.ones(1, 1, 2))
    tensor([[[1., 2., 2., 1.]]])
    """
    settings = (stride, padding, output_padding, groups, dilation)
    return transposed_convolution("conv_transpose1d", 1, input, weight, bias, *settings)


@public(
    samples=lambda: [
        S(normal(2, 3, 4, 3), normal(3, 2, 3, 3), normal(2)),
        S(normal(2, 4, 3, 3), normal(4, 3, 3, 2), normal(6), 2, 1, (1, 0), 2),
        S(normal(2, 3, 3, 4), normal(3, 6, 2, 2), None, 2),
        S(normal(2, 6, 3, 3), normal(6, 7, 3, 3), normal(7), 1, 1),
        S(normal(3, 3, 3), normal(3, 1, 2, 3), normal(3), 2, 0, 2, 3, 3),
    ],
    torch="nn.functional.conv_transpose2d",
    errors=lambda: [
        S(normal(2, 3, 5, 5), normal(4, 2, 3, 3)),
        S(normal(2, 3, 5, 5), normal(3, 2, 3, 3), output_padding=1),
    ],
    autocast="lower",
)
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transpose of `conv2d`, the map that its gradient applies: it enlarges images.

    Shapes: input (N, C, H, W) or (C, H, W), weight (C, O / groups, KH, KW), bias (O,); output
    (N, O, OH, OW) with OH = (H - 1) stride - 2 padding + dilation (KH - 1) + output_padding + 1.

    >>> import gradlite
    >>> x = gradlite.ones(1, 1, 2, 2)
    >>> gradlite.nn.functional.conv_transpose2d(x, gradlite.ones(1, 1, 2, 2))
    tensor([[[[1., 2., 1.],
              [2., 4., 2.],
              [1., 2., 1.]]]])

    Raises:
        RuntimeError: sizes, dtypes or numbers that do not fit; an ``output_padding`` that is
            not smaller than stride or dilation.
    """
    settings = (stride, padding, output_padding, groups, dilation)
    return transposed_convolution("conv_transpose2d", 2, input, weight, bias, *settings)
