"""Sliding windows of images as columns (unfold), and columns added up to images (fold)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite import dtypes
from gradlite.ops import conv_launch
from gradlite.ops.dispatch import apply1
from gradlite.ops.op import Op, type_name
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.ops.windows import Geometry, Pair, padded_buffer, sliding
from gradlite.tensor import Tensor

__all__ = ["fold", "unfold"]


class Im2Col(Op):
    """(N, C, H, W) to (N, C * KH * KW, windows), or the same without N."""

    delegates = True
    fname = "im2col"

    def forward(xp: Any, x: Any, kernel: Pair, geometry: Geometry) -> Any:
        images = x.reshape((-1, *x.shape[-3:])) if x.ndim == 3 else x
        n, c, h, w = images.shape
        high, wide = counts = geometry.counts((h, w), kernel)
        buffer, inner, source = padded_buffer(xp, n, images, geometry.pads)
        inner[...] = source
        out = xp.empty((n, c, *kernel, *counts), x.dtype)
        out[...] = sliding(xp, buffer, kernel, counts, geometry)
        return out.reshape((*x.shape[:-3], c * kernel[0] * kernel[1], high * wide))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.col2im(grad, tuple(ctx.shapes[0][-2:]), *ctx.attrs),)

    def fused_forward(K: Any, x: Any, kernel: Pair, geometry: Geometry) -> Any:
        return conv_launch.unfolded(K, x, kernel, geometry)


class Col2Im(Op):
    """(N, C * KH * KW, windows) to (N, C, H, W): each window added to where it belongs."""

    delegates = True
    fname = "col2im"

    def forward(xp: Any, x: Any, size: Pair, kernel: Pair, geometry: Geometry) -> Any:
        counts = geometry.counts(size, kernel)
        n, c = (1 if x.ndim == 2 else x.shape[0]), x.shape[-2] // (kernel[0] * kernel[1])
        windows = x.reshape((n, c, *kernel, *counts))
        result = xp.empty((n, c, *size), x.dtype)
        buffer, inner, target = padded_buffer(xp, n, result, geometry.pads)
        buffer[...] = 0
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                down, along = geometry.tap(i, j, counts)
                buffer[:, :, down, along] += windows[:, :, i, j]
        target[...] = inner
        return result.reshape((*x.shape[:-2], c, *size))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.im2col(grad, *ctx.attrs[1:]),)

    def fused_forward(K: Any, x: Any, size: Pair, kernel: Pair, geometry: Geometry) -> Any:
        return conv_launch.folded(K, x, size, kernel, geometry)


def _pair(name: str, value: Any) -> Pair:
    if isinstance(value, Sequence):
        if len(value) != 2:
            raise RuntimeError(f"It is expected {name} equals to 2, but got size {len(value)}")
        return int(value[0]), int(value[1])
    return int(value), int(value)


def _arguments(
    kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> tuple[Pair, Pair, Geometry]:
    kernel, spread = _pair("kernel_size", kernel_size), _pair("dilation", dilation)
    around, step = _pair("padding", padding), _pair("stride", stride)
    for name, short, (height, width) in (
        ("kernel size", "kernel", kernel),
        ("stride", "stride", step),
        ("dilation", "dilation", spread),
    ):
        if height <= 0 or width <= 0:
            raise RuntimeError(
                f"{name} should be greater than zero, but got {short}_height: {height} "
                f"{short}_width: {width}"
            )
    if min(around) < 0:
        raise RuntimeError(
            f"padding should be non-negative, but got pad_height: {around[0]} "
            f"pad_width: {around[1]}"
        )
    pads = ((around[0], around[0]), (around[1], around[1]))
    return kernel, around, Geometry(step, pads, spread)


def _check_input(x: Any, dims: tuple[int, int], name: str) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name}(): argument 'input' (position 1) must be Tensor, not {x.__class__.__name__}"
        )
    shape = x.array.shape
    if name == "unfold" and len(shape) < 3:
        n = max(len(shape), 1)
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], but got {n})"
        )
    if x.array.ndim not in dims or 0 in shape[len(shape) - dims[0] :]:
        what = (
            "tensor with possibly 0 batch size and other non-zero dimensions for input"
            if name == "unfold"
            else "tensor for input with possibly 0 batch size and non-zero dimensions for input"
        )
        raise RuntimeError(
            f"Expected {dims[0]}D or {dims[1]}D (batch mode) {what}, but got: {list(shape)}"
        )
    if x.array.dtype not in dtypes.FLOATING and x.array.dtype.kind != "b":
        op = "im2col_out_cpu" if name == "unfold" else "col2im_out_cpu"
        raise NotImplementedError(f"\"{op}\" not implemented for '{type_name(x.array.dtype)}'")


@public(
    samples=lambda: [
        S(normal(2, 3, 5, 4), 3),
        S(normal(2, 3, 6, 5), (2, 3), 2, 1, (2, 1)),
        S(normal(3, 4, 4), (2, 2), stride=2),
        S(normal(0, 3, 4, 4), 2),
    ],
    torch="nn.functional.unfold",
    errors=lambda: [S(normal(2, 3, 2, 2), 3), S(normal(2, 3, 6, 6), 0), S(normal(2, 0, 6, 6), 3)],
)
def unfold(
    input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """The sliding windows of images, each as a column: im2col.

    Shapes: input (N, C, H, W) or (C, H, W); output (N, C * KH * KW, windows) or without N,
    the windows in row-major order.

    >>> import gradlite
    >>> x = gradlite.arange(9.0).view(1, 1, 3, 3)
    >>> gradlite.nn.functional.unfold(x, 2)
    tensor([[[0., 1., 3., 4.],
             [1., 2., 4., 5.],
             [3., 4., 6., 7.],
             [4., 5., 7., 8.]]])

    Raises:
        RuntimeError: no window fits, or a number is out of range.
    """
    kernel, around, geometry = _arguments(kernel_size, dilation, padding, stride)
    _check_input(input, (3, 4), "unfold")
    size = (input.array.shape[-2], input.array.shape[-1])
    counts = geometry.counts(size, kernel)
    if min(counts) < 1:
        raise RuntimeError(
            f"Given input with spatial size {size}, kernel_size={kernel}, "
            f"dilation={geometry.dilation}, padding={around}, calculated shape of the array "
            f"of sliding blocks as {counts}, but its components must be at least one."
        )
    return apply1(Im2Col, input, kernel, geometry)


@public(
    samples=lambda: [
        S(normal(2, 12, 6), (3, 4), 2),
        S(normal(2, 12, 9), (6, 5), (2, 3), 2, 1, (2, 1)),
        S(normal(12, 4), (4, 4), (2, 2), stride=2),
        S(normal(0, 12, 9), (4, 4), 2),
    ],
    torch="nn.functional.fold",
    errors=lambda: [
        S(normal(2, 28, 16), (6, 6), 3),
        S(normal(2, 27, 15), (6, 6), 3),
        S(normal(2, 27, 15, 1), (6, 6), 3),
    ],
)
def fold(
    input: Tensor,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """Columns added up to images, the transpose of `unfold`: col2im.

    Shapes: input (N, C * KH * KW, windows) or without N; output (N, C, *output_size).

    >>> import gradlite
    >>> x = gradlite.ones(1, 4, 4)
    >>> gradlite.nn.functional.fold(x, (3, 3), 2)
    tensor([[[[1., 2., 1.],
              [2., 4., 2.],
              [1., 2., 1.]]]])

    Raises:
        RuntimeError: the number of columns or their length do not fit.
    """
    size = _pair("output_size", output_size)
    kernel, around, geometry = _arguments(kernel_size, dilation, padding, stride)
    _check_input(input, (2, 3), "fold")
    length, windows = input.array.shape[-2:]
    if length % (kernel[0] * kernel[1]):
        raise RuntimeError(
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, "
            f"but got input.size(1)={length} and kernel_size={kernel}."
        )
    high, wide = geometry.counts(size, kernel)
    if min(high, wide) < 1 or high * wide != windows:
        raise RuntimeError(
            f"Given output_size={size}, kernel_size={kernel}, dilation={geometry.dilation}, "
            f"padding={around}, stride={geometry.stride}, expected size of input's dimension 2 to "
            f"match the calculated number of sliding blocks {high} * {wide} = "
            f"{high * wide}, but got input.size(2)={windows}."
        )
    return apply1(Col2Im, input, size, kernel, geometry)
