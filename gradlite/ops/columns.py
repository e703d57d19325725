"""Convolution of raw arrays as products with columns, the windows of the input laid side by side.

`convolve`, `input_gradient` and `weight_gradient` work on arrays (N, C, H, W) and one group
of channels. What `gradlite.ops.conv` adds is groups, shapes, errors and rules.

Large batches are the business of `gradlite.ops.conv_compiled` where there is a compiler. How
NumPy is fast: the batch goes by in blocks whose columns stay in the second-level
cache, and each image of a block is one matrix product, often small enough for BLAS to skip
packing its operands. Columns of many channels lie with the channels last, so that they are
copied in runs of ``kernel_width * C`` elements, and the products are arranged so that results
come out in the order (N, C, H, W) without a transposition. Backward makes the columns again
instead of keeping them: they are ``kernel_height * kernel_width`` times the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradlite.ops import conv_compiled
from gradlite.ops.products import product_of
from gradlite.ops.windows import (
    Geometry,
    Pair,
    block_size,
    blocks,
    padded_buffer,
    sliding,
    turned_back,
)

# With so few channels, runs along the width of the image are longer than runs of channels.
FEW_CHANNELS = 4
# Up to this many multiplications OpenBLAS works on the operands where they are.
SMALL_PRODUCT = 1_000_000


def channels_last(channels: int, kernel: Pair) -> bool:
    """Whether columns are laid out with the channels last."""
    return channels > FEW_CHANNELS and kernel != (1, 1)


def columns(
    xp: Any, x: Any, kernel: Pair, geometry: Geometry
) -> Iterator[tuple[slice, slice, Any]]:
    """The columns of a batch, block by block.

    Yields the images of the block, its output pixels (a part of OH * OW) and the columns:
    (images, pixels, kernel_height * kernel_width * C) when `channels_last`, else
    (images, C * kernel_height * kernel_width, pixels). The memory is used again.
    """
    n, c, h, w = x.shape
    oh, ow = counts = geometry.counts((h, w), kernel)
    if kernel == (1, 1) and not geometry.padded:
        x = x[:, :, :: geometry.stride[0], :: geometry.stride[1]]
        yield slice(0, n), slice(0, oh * ow), x.reshape(n, c, oh * ow)
        return
    k = c * kernel[0] * kernel[1]
    last = channels_last(c, kernel)
    images, rows = block_size(xp, n, oh, ow * k * x.itemsize)
    buffer, inner, source = padded_buffer(xp, images, x, geometry.pads, last=last)
    windows = sliding(xp, buffer, kernel, counts, geometry, last=last)
    shape = windows.shape
    memory = xp.empty((images, rows, *shape[2:]) if last else (*shape[:4], rows, ow), x.dtype)
    for block in blocks(n, images):
        count = block.stop - block.start
        inner[:count] = source[block]
        for row in range(0, oh, rows):
            high = min(rows, oh - row)
            if last:
                part = memory[:count, :high]
                part[...] = windows[:count, row : row + high]
                part = part.reshape(count, high * ow, k)
            else:
                part = (
                    memory[:count]
                    if high == rows
                    else xp.empty((count, *shape[1:4], high, ow), x.dtype)
                )
                part[...] = windows[:count, :, :, :, row : row + high]
                part = part.reshape(count, k, high * ow)
            yield block, slice(row * ow, (row + high) * ow), part


def pieces(size: int, work: int) -> int:
    """Into how many equal pieces to cut ``size`` so that BLAS takes each for a small product."""
    for parts in range(1, size // 64 + 1):
        if size % parts == 0 and work * (size // parts) <= SMALL_PRODUCT:
            return parts
    return 1


def in_pieces(matrices: Any, parts: int) -> Any:
    """(images, rows, pixels) as (images, parts, rows, pixels / parts)."""
    if parts == 1:
        return matrices
    n, rows, size = matrices.shape
    return matrices.reshape(n, rows, parts, size // parts).swapaxes(1, 2)


def _matrix(xp: Any, w: Any, last: bool) -> Any:
    """The kernels as what columns are multiplied with, in the layout of the columns."""
    if last:
        return xp.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(-1, w.shape[0])
    return w.reshape(w.shape[0], -1)


def _product(xp: Any, matrix: Any, block: Any, out: Any, last: bool) -> None:
    """Columns times kernels, into a part (images, O, pixels) of the result."""
    if not last:
        parts = pieces(block.shape[2], matrix.size) if xp is np else 1
        product_of(xp)(matrix, in_pieces(block, parts), out=in_pieces(out, parts))
    elif xp is np and block.shape[1] * matrix.size > SMALL_PRODUCT:
        count, size, k = block.shape
        product = np.dot(block.reshape(-1, k), matrix)
        out[...] = product.reshape(count, size, -1).swapaxes(1, 2)
    else:
        product_of(xp)(matrix.T, block.swapaxes(1, 2), out=out)


def convolve(xp: Any, x: Any, w: Any, geometry: Geometry, bias: Any = None) -> Any:
    """The cross-correlation of x (N, C, H, W) with w (O, C, KH, KW): (N, O, OH, OW)."""
    made = conv_compiled.convolve(x, w, geometry, bias)
    if made is not None:
        return made
    n, c = x.shape[:2]
    o, _, *kernel = w.shape
    size = (kernel[0], kernel[1])
    oh, ow = geometry.counts(x.shape[2:], size)
    y = xp.empty((n, o, oh, ow), x.dtype)
    flat = y.reshape(n, o, oh * ow)
    last = channels_last(c, size)
    matrix = _matrix(xp, w, last)
    if bias is not None:
        bias = bias.reshape(o, 1)
    for images, pixels, block in columns(xp, x, size, geometry):
        part = flat[images, :, pixels]
        _product(xp, matrix, block, part, last)
        if bias is not None:
            part += bias
    return y


def weight_gradient(xp: Any, x: Any, g: Any, kernel: Pair, geometry: Geometry) -> Any:
    """The gradient of a convolution's weight from its input x and its output's gradient g."""
    made = conv_compiled.weight_gradient(x, g, kernel, geometry)
    if made is not None:
        return made
    c = x.shape[1]
    n, o, oh, ow = g.shape
    g = g.reshape(n, o, oh * ow)
    last = channels_last(c, kernel)
    total = xp.zeros((o, c * kernel[0] * kernel[1]), x.dtype)
    for images, pixels, block in columns(xp, x, kernel, geometry):
        parts = product_of(xp)(g[images, :, pixels], block if last else block.swapaxes(1, 2))
        total += parts.sum(0)
    if last:
        return xp.ascontiguousarray(total.reshape(o, *kernel, c).transpose(0, 3, 1, 2))
    return total.reshape(o, c, *kernel)


def input_gradient(xp: Any, g: Any, w: Any, size: Pair, geometry: Geometry) -> Any:
    """The gradient of a convolution's input, of height and width ``size``."""
    made = conv_compiled.input_gradient(g, w, size, geometry)
    if made is not None:
        return made
    n = g.shape[0]
    _, c, kh, kw = w.shape
    stride, pads, dilation = geometry
    if (kh, kw) == (1, 1) and not geometry.padded:
        product = convolve(xp, g, w.swapaxes(0, 1), Geometry())
        if stride == (1, 1):
            return product
        result = xp.zeros((n, c, *size), g.dtype)
        result[:, :, :: stride[0], :: stride[1]] = product
        return result
    if stride == (1, 1) and c > FEW_CHANNELS:
        return convolve(xp, g, _turned(w), turned_back(geometry, (kh, kw)))
    return _windows_summed(xp, g, w, size, geometry)


def _turned(w: Any) -> Any:
    """The kernels turned by 180 degrees, from outputs to inputs."""
    return w[:, :, ::-1, ::-1].swapaxes(0, 1)


def gradients(xp: Any, x: Any, g: Any, w: Any, geometry: Geometry) -> tuple[Any, Any]:
    """The gradients of input and weight, which can share the columns of the gradient."""
    n, c, h, width = x.shape
    o, _, kh, kw = w.shape
    last = channels_last(o, (kh, kw))
    compiled = conv_compiled.fits(x, g, w.shape, g.shape[2:])
    if compiled or not last or geometry.stride != (1, 1) or c <= FEW_CHANNELS:
        return (
            input_gradient(xp, g, w, (h, width), geometry),
            weight_gradient(xp, x, g, (kh, kw), geometry),
        )
    matrix = _matrix(xp, _turned(w), last)
    grad_x = xp.empty(x.shape, g.dtype)
    flat, pixels_of_x = grad_x.reshape(n, c, h * width), x.reshape(n, c, h * width)
    total = xp.zeros((c, kh * kw * o), g.dtype)
    for images, pixels, block in columns(xp, g, (kh, kw), turned_back(geometry, (kh, kw))):
        _product(xp, matrix, block, flat[images, :, pixels], last)
        total += product_of(xp)(pixels_of_x[images, :, pixels], block).sum(0)
    total = total.reshape(c, kh, kw, o)[:, ::-1, ::-1].transpose(3, 0, 1, 2)
    return grad_x, xp.ascontiguousarray(total)


def _windows_summed(xp: Any, g: Any, w: Any, size: Pair, geometry: Geometry) -> Any:
    """The gradient of the columns, each window's added to where the window came from."""
    n, o, oh, ow = g.shape
    _, c, kh, kw = w.shape
    k = c * kh * kw
    last = channels_last(c, (kh, kw))
    matrix = (xp.ascontiguousarray(w.transpose(0, 2, 3, 1)) if last else w).reshape(o, k)
    images, rows = block_size(xp, n, oh, ow * k * g.itemsize)
    result = xp.zeros((n, c, *size), g.dtype)
    buffer, inner, target = padded_buffer(xp, images, result, geometry.pads, last=last)
    for block in blocks(n, images):
        count = block.stop - block.start
        buffer[...] = 0
        for row in range(0, oh, rows):
            high = min(rows, oh - row)
            part = g[block, :, row : row + high].reshape(count, o, high * ow)
            below = slice(row * geometry.stride[0], None)
            if last:
                windows = product_of(xp)(part.swapaxes(1, 2), matrix)
                windows = windows.reshape(count, high, ow, kh, kw, c).transpose(0, 5, 3, 4, 1, 2)
                sums = buffer[:count, below].transpose(0, 3, 1, 2)
            else:
                windows = product_of(xp)(matrix.T, part).reshape(count, c, kh, kw, high, ow)
                sums = buffer[:count, :, below]
            for i in range(kh):
                for j in range(kw):
                    down, along = geometry.tap(i, j, (high, ow))
                    sums[:, :, down, along] += windows[:, :, i, j]
        target[block] = inner[:count]
    return result
