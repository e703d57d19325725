"""Convolution, relu and max-pooling as one op, for layers that would call one after the other.

With compiled code nothing as large as the convolution's result is written or read (see
`gradlite.ops.conv_maxima`); NumPy has a quarter of the numbers for relu, forward and backward.
"""

from __future__ import annotations

from typing import Any

from gradlite.ops import conv_compiled, conv_maxima
from gradlite.ops.conv import geometry_of
from gradlite.ops.conv_maxima import WINDOW, WINDOWS
from gradlite.ops.dispatch import OUT, apply
from gradlite.ops.op import Op
from gradlite.ops.windows import Geometry
from gradlite.tensor import Tensor


class ConvolutionReluMaxPool(Op):
    """The maxima of windows of 2 x 2 of relu(convolution); aux: which element of each won."""

    reads = ((1, OUT), (0, OUT), (OUT,))
    has_aux = True
    grad_name = "MaxPool2DWithIndicesBackward0"

    def forward(xp: Any, x: Any, w: Any, b: Any, geometry: Geometry) -> Any:
        return conv_maxima.convolve_and_pool(xp, x, w, geometry, b, True)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, w, out = ctx.saved
        (geometry,) = ctx.attrs
        shape, kernels = tuple(ctx.shapes[0]), tuple(ctx.shapes[1])
        # Of a maximum: what relu gives 0 has no gradient.
        g = F.threshold_backward(grad, F.detach(out))
        grad_bias = None
        if ctx.edges[2] is not None:
            grad_bias = F.channel_sum(g) if F.tensors else conv_maxima.channel_sums(F.xp, g)
        counts = geometry.counts(shape[2:], kernels[2:])
        if x is not None and not F.tensors:
            joined = (geometry, ctx.aux, counts)
            if w is not None:
                made = conv_maxima.spread_gradients(F.xp, x, g, w, *joined)
                return (*made, grad_bias)
            return (
                None,
                conv_maxima.spread_weight_gradient(F.xp, x, g, kernels[2:], *joined),
                grad_bias,
            )
        images = (*shape[:1], *kernels[:1], *counts)
        full = F.max_pool_scatter(g, ctx.aux, images, WINDOW, WINDOWS)
        return (
            None if w is None else F.convolution_input_grad(full, w, shape, geometry, 1),
            None if x is None else F.convolution_weight_grad(x, full, kernels, geometry, 1),
            grad_bias,
        )


def conv_relu_pool(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any
) -> Tensor | None:
    """``max_pool2d(relu(conv2d(input, weight, bias, ...)), 2)``, or None where it
    does not fit."""
    x, w = input.array, weight.array
    if x.ndim != 4 or w.ndim != 4 or x.dtype != w.dtype or x.shape[1] != w.shape[1]:
        return None
    if bias is not None and bias.array.dtype != x.dtype:
        return None
    geometry: Any = geometry_of("conv2d", 2, input, weight, bias, stride, padding, dilation, 1)
    if x.shape[0] == 0 or not conv_compiled.joins(x.shape, x.dtype, w.shape, geometry):
        return None
    return apply(ConvolutionReluMaxPool, (input, weight, bias), geometry)  # type: ignore[no-any-return]
