"""Convolution of raw arrays in groups of channels, each with kernels of its own.

The three functions are those of `gradlite.ops.columns` with a number of groups. Groups of one
input channel (depthwise convolutions) have too little to multiply for a matrix product: they
go tap by tap over the whole image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops import columns, depthwise_compiled
from gradlite.ops.windows import Geometry, Pair, block_size, blocks, padded_buffer, turned_back


def convolve(xp: Any, x: Any, w: Any, bias: Any, geometry: Geometry, groups: int) -> Any:
    """The cross-correlation of x (N, C, H, W) with w (O, C / groups, KH, KW)."""
    c, (o, inner, *kernel) = x.shape[1], w.shape
    if c == 0:
        counts = geometry.counts(x.shape[2:], (kernel[0], kernel[1]))
        y = xp.zeros((x.shape[0], o, *counts), x.dtype)
        return y if bias is None else y + bias.reshape(o, 1, 1)
    if groups == 1:
        return columns.convolve(xp, x, w, geometry, bias)
    if inner == 1:
        made = depthwise_compiled.convolve(xp, x, w, bias, geometry) if xp is np else None
        return _depthwise(xp, x, w, bias, geometry) if made is None else made
    parts = [
        columns.convolve(xp, x[:, i], w[j], geometry, None if bias is None else bias[j])
        for i, j in _channels(groups, c, o)
    ]
    return xp.concatenate(parts, axis=1)


def input_gradient(xp: Any, g: Any, w: Any, size: Pair, geometry: Geometry, groups: int) -> Any:
    """The gradient of the input, of height and width ``size``."""
    o, inner = w.shape[:2]
    if inner == 0:
        return xp.zeros((g.shape[0], 0, *size), g.dtype)
    if groups == 1:
        return columns.input_gradient(xp, g, w, size, geometry)
    if inner == 1:
        compiled = depthwise_compiled.input_gradient
        made = compiled(xp, g, w, size, geometry, groups) if xp is np else None
        return _depthwise_input_gradient(xp, g, w, size, geometry, groups) if made is None else made
    parts = [
        columns.input_gradient(xp, g[:, j], w[j], size, geometry)
        for _, j in _channels(groups, groups, o)
    ]
    return xp.concatenate(parts, axis=1)


def weight_gradient(xp: Any, x: Any, g: Any, kernel: Pair, geometry: Geometry, groups: int) -> Any:
    """The gradient of the weight."""
    c, o = x.shape[1], g.shape[1]
    if c == 0:
        return xp.zeros((o, 0, *kernel), x.dtype)
    if groups == 1:
        return columns.weight_gradient(xp, x, g, kernel, geometry)
    if c == groups:
        made = depthwise_compiled.weight_gradient(xp, x, g, kernel, geometry) if xp is np else None
        return _depthwise_weight_gradient(xp, x, g, kernel, geometry) if made is None else made
    parts = [
        columns.weight_gradient(xp, x[:, i], g[:, j], kernel, geometry)
        for i, j in _channels(groups, c, o)
    ]
    return xp.concatenate(parts, axis=0)


def gradients(xp: Any, x: Any, g: Any, w: Any, geometry: Geometry, groups: int) -> tuple[Any, Any]:
    """The gradients of the input and of the weight."""
    if groups == 1 and x.shape[1] > 0:
        return columns.gradients(xp, x, g, w, geometry)
    return (
        input_gradient(xp, g, w, x.shape[2:], geometry, groups),
        weight_gradient(xp, x, g, w.shape[2:], geometry, groups),
    )


def _channels(groups: int, inputs: int, outputs: int) -> list[tuple[slice, slice]]:
    """The input and output channels of each group."""
    a, b = inputs // groups, outputs // groups
    return [(slice(i * a, i * a + a), slice(i * b, i * b + b)) for i in range(groups)]


# ---------------------------------------------------------------- one input channel a group
def _rows_of_images(xp: Any, x: Any, geometry: Geometry, counts: Pair) -> Any:
    """With stride 1: padded images as one long row per channel, block by block.

    In a row, an element of the kernel meets all windows in one run of ``counts[0]`` times the
    padded width, which is long, instead of in one run per row of the image. What lies beyond
    the windows at the end of each row is to be left out. Yields blocks and their rows.
    """
    n, c = x.shape[:2]
    (top, bottom), sides = geometry.pads
    height, width = x.shape[2] + top + bottom, x.shape[3] + sum(sides)
    images, _ = block_size(xp, n, 1, 2 * c * height * width * x.itemsize)
    # One more row below: the last run ends after the last window.
    buffer, inner, source = padded_buffer(xp, images, x, ((top, bottom + 1), sides))
    rows = buffer.reshape(images, c, (height + 1) * width)
    for block in blocks(n, images):
        count = block.stop - block.start
        inner[:count] = source[block]
        yield block, rows[:count], counts[0] * width, width


def _depthwise_rows(xp: Any, x: Any, w: Any, bias: Any, geometry: Geometry) -> Any:
    """`_depthwise` with stride 1 and one kernel per channel."""
    n, c = x.shape[:2]
    kh, kw = w.shape[2:]
    counts = geometry.counts(x.shape[2:], (kh, kw))
    kernels = w.reshape(c, kh, kw, 1)
    y = xp.empty((n, c, *counts), x.dtype)
    for block, rows, run, width in _rows_of_images(xp, x, geometry, counts):
        sums = xp.zeros((rows.shape[0], c, run), x.dtype)
        if bias is not None:
            sums += bias.reshape(c, 1)
        products = xp.empty(sums.shape, x.dtype)
        for i in range(kh):
            for j in range(kw):
                start = i * geometry.dilation[0] * width + j * geometry.dilation[1]
                xp.multiply(rows[:, :, start : start + run], kernels[:, i, j], out=products)
                sums += products
        y[block] = sums.reshape(-1, c, counts[0], width)[..., : counts[1]]
    return y


def _depthwise_rows_weight_gradient(
    xp: Any, x: Any, g: Any, kernel: Pair, geometry: Geometry
) -> Any:
    c, high, wide = g.shape[1:]
    total = xp.zeros((c, 1, *kernel), x.dtype)
    for block, rows, run, width in _rows_of_images(xp, x, geometry, (high, wide)):
        grads = xp.zeros((rows.shape[0], c, high, width), g.dtype)
        grads[..., :wide] = g[block]
        grads = grads.reshape(-1, c, run)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                start = i * geometry.dilation[0] * width + j * geometry.dilation[1]
                window = rows[:, :, start : start + run]
                if xp is np:
                    total[:, 0, i, j] += np.einsum("ncl,ncl->nc", window, grads).sum(0)
                else:
                    total[:, 0, i, j] += (window * grads).sum((0, 2))
    return total


def _depthwise(xp: Any, x: Any, w: Any, bias: Any, geometry: Geometry) -> Any:
    """Each channel with kernels of its own: w is (C * M, 1, KH, KW)."""
    n, c = x.shape[:2]
    o, _, kh, kw = w.shape
    if o == c and geometry.stride == (1, 1):
        return _depthwise_rows(xp, x, w, bias, geometry)
    counts = geometry.counts(x.shape[2:], (kh, kw))
    kernels = w.reshape(c, o // c, kh, kw, 1, 1)
    y = xp.zeros((n, c, o // c, *counts), x.dtype)
    images, _ = block_size(xp, n, 1, counts[0] * counts[1] * o * x.itemsize)
    buffer, inner, source = padded_buffer(xp, images, x, geometry.pads)
    for block in blocks(n, images):
        count = block.stop - block.start
        inner[:count] = source[block]
        for i in range(kh):
            for j in range(kw):
                down, along = geometry.tap(i, j, counts)
                y[block] += buffer[:count, :, None, down, along] * kernels[:, :, i, j]
    y = y.reshape(n, o, *counts)
    if bias is not None:
        y += bias.reshape(o, 1, 1)
    return y


def _depthwise_weight_gradient(xp: Any, x: Any, g: Any, kernel: Pair, geometry: Geometry) -> Any:
    n, c = x.shape[:2]
    o, *counts = g.shape[1:]
    if o == c and geometry.stride == (1, 1):
        return _depthwise_rows_weight_gradient(xp, x, g, kernel, geometry)
    g = g.reshape(n, c, o // c, *counts)
    images, _ = block_size(xp, n, 1, counts[0] * counts[1] * o * x.itemsize)
    buffer, inner, source = padded_buffer(xp, images, x, geometry.pads)
    total = xp.zeros((c, o // c, *kernel), x.dtype)
    for block in blocks(n, images):
        count = block.stop - block.start
        inner[:count] = source[block]
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                down, along = geometry.tap(i, j, (counts[0], counts[1]))
                products = buffer[:count, :, None, down, along] * g[block]
                total[:, :, i, j] += products.reshape(*products.shape[:3], -1).sum((0, 3))
    return total.reshape(o, 1, *kernel)


def _depthwise_input_gradient(
    xp: Any, g: Any, w: Any, size: Pair, geometry: Geometry, c: int
) -> Any:
    n, o, *counts = g.shape
    kh, kw = w.shape[2:]
    if o == c and geometry.stride == (1, 1):
        turned = w[:, :, ::-1, ::-1]
        return _depthwise_rows(xp, g, turned, None, turned_back(geometry, (kh, kw)))
    g = g.reshape(n, c, o // c, *counts)
    kernels = w.reshape(c, o // c, kh, kw, 1, 1)
    result = xp.zeros((n, c, *size), g.dtype)
    images, _ = block_size(xp, n, 1, counts[0] * counts[1] * o * g.itemsize)
    buffer, inner, target = padded_buffer(xp, images, result, geometry.pads)
    for block in blocks(n, images):
        count = block.stop - block.start
        buffer[...] = 0
        for i in range(kh):
            for j in range(kw):
                down, along = geometry.tap(i, j, (counts[0], counts[1]))
                spread = g[block] * kernels[:, :, i, j]
                buffer[:count, :, down, along] += spread[:, :, 0] if o == c else spread.sum(2)
        target[block] = inner[:count]
    return result
