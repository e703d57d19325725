"""Convolution of raw arrays as products with columns, the windows of the input laid side by side.

`convolve`, `input_gradient` and `weight_gradient` work on arrays (N, C, H, W) and one group
of channels; paddings are ((top, bottom), (left, right)). What `gradlite.ops.conv` adds is
groups, shapes, errors and rules.

How it is fast on the CPU: the batch goes by in blocks whose columns stay in the second-level
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

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

BLOCK_BYTES = 600_000
# With so few channels, runs along the width of the image are longer than runs of channels.
FEW_CHANNELS = 4
# Up to this many multiplications OpenBLAS works on the operands where they are.
SMALL_PRODUCT = 1_000_000
NO_PADS: Pads = ((0, 0), (0, 0))


def window_counts(size: Pair, kernel: Pair, stride: Pair, pads: Pads, dilation: Pair) -> Pair:
    """How many windows fit in both directions (0 or less when none does)."""
    height, width = (
        (size[i] + sum(pads[i]) - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i in (0, 1)
    )
    return height, width


def tap(place: int, count: int, stride: int, dilation: int) -> slice:
    """Where one element of the kernel meets the (padded) input, for every window."""
    start = place * dilation
    return slice(start, start + (count - 1) * stride + 1, stride)


def block_size(xp: Any, images: int, rows: int, row_bytes: int) -> Pair:
    """How many images, and rows of each, go through the cache together; all of them on a GPU."""
    if xp is not np:
        return images, rows
    image_bytes = max(1, row_bytes * rows)
    if image_bytes > 2 * BLOCK_BYTES:
        return 1, max(1, BLOCK_BYTES // row_bytes)
    return max(1, min(images, BLOCK_BYTES // image_bytes)), rows


def channels_last(channels: int, kernel: Pair) -> bool:
    """Whether columns are laid out with the channels last."""
    return channels > FEW_CHANNELS and kernel != (1, 1)


def padded_buffer(xp: Any, images: int, x: Any, pads: Pads, last: bool) -> tuple[Any, Any, Any]:
    """Room for some padded images.

    Returns the buffer, zero where the padding is, the part of it that images fill, and the
    part of the images that goes there: a negative padding cuts rows or columns off.
    """
    _, c, h, w = x.shape
    (top, bottom), (left, right) = pads
    height, width = h + top + bottom, w + left + right
    shape = (images, height, width, c) if last else (images, c, height, width)
    buffer = (
        xp.zeros(shape, x.dtype) if max(top, bottom, left, right) > 0 else xp.empty(shape, x.dtype)
    )
    down = slice(max(top, 0), height - max(bottom, 0))
    along = slice(max(left, 0), width - max(right, 0))
    if min(top, bottom, left, right) < 0:
        rows = slice(max(-top, 0), h - max(-bottom, 0))
        x = x[:, :, rows, max(-left, 0) : w - max(-right, 0)]
    if last:
        return buffer, buffer[:, down, along], x.transpose(0, 2, 3, 1)
    return buffer, buffer[:, :, down, along], x


def sliding(xp: Any, buffer: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """Overlapping windows of a buffer as a view."""
    if xp is np:
        return np.ndarray(shape, buffer.dtype, buffer, 0, strides)
    return xp.lib.stride_tricks.as_strided(buffer, shape, strides)


def columns(
    xp: Any, x: Any, kernel: Pair, stride: Pair, pads: Pads, dilation: Pair
) -> Iterator[tuple[slice, slice, Any]]:
    """The columns of a batch, block by block.

    Yields the images of the block, its output pixels (a part of OH * OW) and the columns:
    (images, pixels, kernel_height * kernel_width * C) when `channels_last`, else
    (images, C * kernel_height * kernel_width, pixels). The memory is used again.
    """
    n, c, h, w = x.shape
    kh, kw = kernel
    oh, ow = window_counts((h, w), kernel, stride, pads, dilation)
    if kernel == (1, 1) and pads == NO_PADS:
        if stride != (1, 1):
            x = x[:, :, :: stride[0], :: stride[1]]
        yield slice(0, n), slice(0, oh * ow), x.reshape(n, c, oh * ow)
        return
    k = c * kh * kw
    last = channels_last(c, kernel)
    images, rows = block_size(xp, n, oh, ow * k * x.itemsize)
    buffer, inner, source = padded_buffer(xp, images, x, pads, last)
    s = buffer.strides
    if last:
        shape: tuple[int, ...] = (images, oh, ow, kh, kw, c)
        strides = (s[0], s[1] * stride[0], s[2] * stride[1], s[1] * dilation[0], s[2] * dilation[1], s[3])  # fmt: skip
        if dilation[1] == 1:
            shape, strides = (*shape[:4], kw * c), (*strides[:4], s[3])
        memory = xp.empty((images, rows, *shape[2:]), x.dtype)
    else:
        shape = (images, c, kh, kw, oh, ow)
        strides = (s[0], s[1], s[2] * dilation[0], s[3] * dilation[1], s[2] * stride[0], s[3] * stride[1])  # fmt: skip
        memory = xp.empty((*shape[:4], rows, ow), x.dtype)
    windows = sliding(xp, buffer, shape, strides)
    for first in range(0, n, images):
        count = min(images, n - first)
        inner[:count] = source[first : first + count]
        for row in range(0, oh, rows):
            high = min(rows, oh - row)
            if last:
                block = memory[:count, :high]
                block[...] = windows[:count, row : row + high]
                block = block.reshape(count, high * ow, k)
            else:
                block = memory[:count]
                if high < rows:
                    block = xp.empty((*block.shape[:4], high, ow), x.dtype)
                block[...] = windows[:count, :, :, :, row : row + high]
                block = block.reshape(count, k, high * ow)
            yield slice(first, first + count), slice(row * ow, (row + high) * ow), block


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


def convolve(
    xp: Any, x: Any, w: Any, stride: Pair, pads: Pads, dilation: Pair, bias: Any = None
) -> Any:
    """The cross-correlation of x (N, C, H, W) with w (O, C, KH, KW): (N, O, OH, OW)."""
    n, c = x.shape[:2]
    o, _, kh, kw = w.shape
    oh, ow = window_counts(x.shape[2:], (kh, kw), stride, pads, dilation)
    y = xp.empty((n, o, oh * ow), x.dtype)
    last = channels_last(c, (kh, kw))
    matrix = (
        xp.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(-1, o) if last else w.reshape(o, -1)
    )
    if bias is not None:
        bias = bias.reshape(o, 1)
    for images, pixels, block in columns(xp, x, (kh, kw), stride, pads, dilation):
        part = y[images, :, pixels]
        if not last:
            parts = pieces(block.shape[2], block.shape[1] * o) if xp is np else 1
            xp.matmul(matrix, in_pieces(block, parts), out=in_pieces(part, parts))
        elif xp is np and block.shape[1] * block.shape[2] * o > SMALL_PRODUCT:
            count, size, k = block.shape
            product = np.dot(block.reshape(-1, k), matrix)
            part[...] = product.reshape(count, size, o).swapaxes(1, 2)
        else:
            xp.matmul(matrix.T, block.swapaxes(1, 2), out=part)
        if bias is not None:
            part += bias
    return y.reshape(n, o, oh, ow)


def weight_gradient(
    xp: Any, x: Any, g: Any, kernel: Pair, stride: Pair, pads: Pads, dilation: Pair
) -> Any:
    """The gradient of a convolution's weight from its input x and its output's gradient g."""
    n, c = x.shape[:2]
    o = g.shape[1]
    kh, kw = kernel
    g = g.reshape(n, o, g.shape[2] * g.shape[3])
    last = channels_last(c, kernel)
    total = xp.zeros((o, c * kh * kw), x.dtype)
    for images, pixels, block in columns(xp, x, kernel, stride, pads, dilation):
        parts = xp.matmul(g[images, :, pixels], block if last else block.swapaxes(1, 2))
        total += parts.sum(0)
    if last:
        return xp.ascontiguousarray(total.reshape(o, kh, kw, c).transpose(0, 3, 1, 2))
    return total.reshape(o, c, kh, kw)


def input_gradient(
    xp: Any, g: Any, w: Any, size: Pair, stride: Pair, pads: Pads, dilation: Pair
) -> Any:
    """The gradient of a convolution's input, of height and width ``size``."""
    n = g.shape[0]
    _, c, kh, kw = w.shape
    if (kh, kw) == (1, 1) and pads == NO_PADS:
        product = convolve(xp, g, w.swapaxes(0, 1), (1, 1), pads, (1, 1))
        if stride == (1, 1):
            return product
        result = xp.zeros((n, c, *size), g.dtype)
        result[:, :, :: stride[0], :: stride[1]] = product
        return result
    if stride == (1, 1) and c > FEW_CHANNELS:
        # The kernel turned by 180 degrees over the gradient: again a convolution.
        reach = (dilation[0] * (kh - 1), dilation[1] * (kw - 1))
        around = tuple((reach[i] - pads[i][0], reach[i] - pads[i][1]) for i in (0, 1))
        turned = w[:, :, ::-1, ::-1].swapaxes(0, 1)
        return convolve(xp, g, turned, stride, around, dilation)  # type: ignore[arg-type]
    return _windows_summed(xp, g, w, size, stride, pads, dilation)


def _windows_summed(
    xp: Any, g: Any, w: Any, size: Pair, stride: Pair, pads: Pads, dilation: Pair
) -> Any:
    """The gradient of the columns, each window's added to where the window came from."""
    n, o, oh, ow = g.shape
    _, c, kh, kw = w.shape
    k = c * kh * kw
    last = channels_last(c, (kh, kw))
    matrix = (xp.ascontiguousarray(w.transpose(0, 2, 3, 1)) if last else w).reshape(o, k)
    images, rows = block_size(xp, n, oh, ow * k * g.itemsize)
    result = (xp.zeros if min(map(min, pads)) < 0 else xp.empty)((n, c, *size), g.dtype)
    buffer, inner, target = padded_buffer(xp, images, result, pads, last)
    for first in range(0, n, images):
        count = min(images, n - first)
        buffer[...] = 0
        for row in range(0, oh, rows):
            high = min(rows, oh - row)
            part = g[first : first + count, :, row : row + high].reshape(count, o, high * ow)
            if last:
                block = xp.matmul(part.swapaxes(1, 2), matrix)
                block = block.reshape(count, high, ow, kh, kw, c)
                below = buffer[:count, row * stride[0] :]
            else:
                block = xp.matmul(matrix.T, part).reshape(count, c, kh, kw, high, ow)
                below = buffer[:count, :, row * stride[0] :]
            for i in range(kh):
                down = tap(i, high, stride[0], dilation[0])
                for j in range(kw):
                    along = tap(j, ow, stride[1], dilation[1])
                    if last:
                        below[:, down, along] += block[:, :, :, i, j]
                    else:
                        below[:, :, down, along] += block[:, :, i, j]
        target[first : first + count] = inner[:count]
    return result


# ---------------------------------------------------------------- one input channel a group
def depthwise(
    xp: Any, x: Any, w: Any, stride: Pair, pads: Pads, dilation: Pair, bias: Any = None
) -> Any:
    """The convolution of each channel of x with its own kernels, w (C * M, 1, KH, KW)."""
    n, c = x.shape[:2]
    o, _, kh, kw = w.shape
    oh, ow = window_counts(x.shape[2:], (kh, kw), stride, pads, dilation)
    m = o // c
    kernels = w.reshape(c, m, kh, kw, 1, 1)
    y = xp.zeros((n, c, m, oh, ow), x.dtype)
    images, _ = block_size(xp, n, 1, oh * ow * o * x.itemsize)
    buffer, inner, source = padded_buffer(xp, images, x, pads, False)
    for first in range(0, n, images):
        count = min(images, n - first)
        inner[:count] = source[first : first + count]
        part = y[first : first + count]
        for i in range(kh):
            for j in range(kw):
                window = buffer[:count, :, tap(i, oh, stride[0], dilation[0]), tap(j, ow, stride[1], dilation[1])]  # fmt: skip
                part += window[:, :, None] * kernels[:, :, i, j]
    y = y.reshape(n, o, oh, ow)
    if bias is not None:
        y += bias.reshape(o, 1, 1)
    return y


def depthwise_weight_gradient(
    xp: Any, x: Any, g: Any, kernel: Pair, stride: Pair, pads: Pads, dilation: Pair
) -> Any:
    """The gradient of the kernels of `depthwise`."""
    n, c = x.shape[:2]
    _, o, oh, ow = g.shape
    m, (kh, kw) = o // c, kernel
    g = g.reshape(n, c, m, oh, ow)
    images, _ = block_size(xp, n, 1, oh * ow * o * x.itemsize)
    buffer, inner, source = padded_buffer(xp, images, x, pads, False)
    total = xp.zeros((kh, kw, c, m), x.dtype)
    for first in range(0, n, images):
        count = min(images, n - first)
        inner[:count] = source[first : first + count]
        part = g[first : first + count]
        for i in range(kh):
            for j in range(kw):
                window = buffer[:count, :, tap(i, oh, stride[0], dilation[0]), tap(j, ow, stride[1], dilation[1])]  # fmt: skip
                total[i, j] += (window[:, :, None] * part).reshape(count, c, m, -1).sum((0, 3))
    return xp.ascontiguousarray(total.transpose(2, 3, 0, 1)).reshape(o, 1, kh, kw)


def depthwise_input_gradient(
    xp: Any, g: Any, w: Any, size: Pair, stride: Pair, pads: Pads, dilation: Pair, channels: int
) -> Any:
    """The gradient of the input of `depthwise`."""
    n, o, oh, ow = g.shape
    c, (kh, kw) = channels, w.shape[2:]
    g = g.reshape(n, c, o // c, oh, ow)
    kernels = w.reshape(c, o // c, kh, kw, 1, 1)
    result = (xp.zeros if min(map(min, pads)) < 0 else xp.empty)((n, c, *size), g.dtype)
    images, _ = block_size(xp, n, 1, oh * ow * o * g.itemsize)
    buffer, inner, target = padded_buffer(xp, images, result, pads, False)
    for first in range(0, n, images):
        count = min(images, n - first)
        buffer[...] = 0
        part = g[first : first + count]
        for i in range(kh):
            for j in range(kw):
                spread = part * kernels[:, :, i, j]
                spread = spread[:, :, 0] if o == c else spread.sum(2)
                buffer[:count, :, tap(i, oh, stride[0], dilation[0]), tap(j, ow, stride[1], dilation[1])] += spread  # fmt: skip
        target[first : first + count] = inner[:count]
    return result
