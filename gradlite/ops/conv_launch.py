"""Convolutions of images on a GPU: the kernels of kernels/conv.cu and products of matrices.

The arguments are those of `gradlite.ops.grouped`. Each function gives NotImplemented where it
cannot serve. On the CPU the loops of `grouped` and `columns` are better, whose columns stay in
the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from gradlite.ops.column_sums import total
from gradlite.ops.conv_arguments import lift, shaped, size_of
from gradlite.ops.products import product_of
from gradlite.ops.windows import Geometry, Pair

# As much memory as the columns of a batch, or of a part of it, may take.
WORKSPACE = 1 << 27
MOST = 1 << 31  # what the kernels count in 32-bit numbers


def _slides(size: Any, counts: Any, kernel: Any, geometry: Geometry) -> tuple[int, ...]:
    return tuple(
        n
        for i in (0, 1)
        for n in (
            size[i], counts[i], kernel[i], geometry.stride[i], geometry.pads[i][0],
            geometry.dilation[i],
        )
    )  # fmt: skip


def _serves(K: Any, geometry: Any, *arrays: Any) -> bool:
    """Whether this module is for it: images on a GPU, none of them with 2**31 elements."""
    arrays = tuple(array for array in arrays if array is not None)
    return (
        not K.serial
        and isinstance(geometry, Geometry)
        and K.takes(*arrays)
        and max(array.size for array in arrays) < MOST
    )


# ---------------------------------------------------------------------- as the ops call them
def forward(K: Any, x: Any, w: Any, b: Any, geometry: Any, groups: int) -> Any:
    """A convolution of images or sequences."""
    if not _serves(K, geometry, x, w, b):
        return NotImplemented
    y = convolve(K, lift(x), lift(w), b, geometry, groups)
    return y.reshape((*y.shape[:2], y.shape[3])) if x.ndim == 3 else y


def for_input(K: Any, g: Any, w: Any, shape: Any, geometry: Any, groups: int) -> Any:
    """The gradient of the input."""
    if not _serves(K, geometry, g, w):
        return NotImplemented
    return shaped(input_gradient(K, lift(g), lift(w), size_of(shape), geometry, groups), shape)


def for_weight(K: Any, x: Any, g: Any, shape: Any, geometry: Any, groups: int) -> Any:
    """The gradient of the weight."""
    if not _serves(K, geometry, x, g):
        return NotImplemented
    return shaped(weight_gradient(K, lift(x), lift(g), size_of(shape), geometry, groups), shape)


def backward(K: Any, ctx: Any, grad: Any) -> Any:
    """The gradients of input, weight and bias of a convolution."""
    (x, w), attrs = ctx.saved, ctx.attrs
    if not _serves(K, attrs[0], grad, x, w):
        return NotImplemented
    return (
        None if w is None else for_input(K, grad, w, tuple(ctx.shapes[0]), *attrs),
        None if x is None else for_weight(K, x, grad, tuple(ctx.shapes[1]), *attrs),
        None if ctx.edges[2] is None else channel_sums(K, grad),
    )


def unfolded(K: Any, x: Any, kernel: Pair, geometry: Geometry) -> Any:
    """The windows of images (..., C, H, W) as columns (..., C * KH * KW, windows)."""
    *images, c, h, w = x.shape
    counts, n = geometry.counts((h, w), kernel), math.prod(images)
    rows, pixels = c * kernel[0] * kernel[1], counts[0] * counts[1]
    if not _serves(K, geometry, x) or n * rows * pixels >= MOST:
        return NotImplemented
    out = K.empty((*images, rows, pixels), x.dtype)
    K.rows(
        "image_to_columns", x.dtype, n * rows, pixels, K.dense(x), out, n * c,
        *_slides((h, w), counts, kernel, geometry),
    )  # fmt: skip
    return out


def folded(K: Any, x: Any, size: Pair, kernel: Pair, geometry: Geometry) -> Any:
    """Columns added up to images, where `unfolded` has taken them from."""
    *images, rows, _ = x.shape
    shape = (*images, rows // (kernel[0] * kernel[1]), *size)
    if not _serves(K, geometry, x) or math.prod(shape) >= MOST:
        return NotImplemented
    out = K.empty(shape, x.dtype)
    K.elementwise(
        "columns_to_image", x.dtype, out.size, K.dense(x), out, math.prod(shape[:-2]),
        *_slides(size, geometry.counts(size, kernel), kernel, geometry),
    )  # fmt: skip
    return out


def _is_product(kernel: Pair, geometry: Geometry) -> bool:
    """Whether the columns are the image."""
    return kernel == (1, 1) and geometry.stride == (1, 1) and not geometry.padded


def _blocks(images: int, image_bytes: int) -> Iterator[slice]:
    step = max(1, min(images, WORKSPACE // max(1, image_bytes)))
    for first in range(0, images, step):
        yield slice(first, min(first + step, images))


def _columns(
    K: Any, x: Any, kernel: Pair, geometry: Geometry, counts: Pair, extra: int = 0
) -> Iterator[tuple[slice, Any]]:
    """Slices of a row-major batch, and their columns (images, C * KH * KW, pixels).

    ``extra`` is how many bytes more each image takes meanwhile.
    """
    n, c, *size = x.shape
    pixels = counts[0] * counts[1]
    if _is_product(kernel, geometry):
        yield slice(0, n), x.reshape(n, c, pixels)
        return
    rows = c * kernel[0] * kernel[1]
    for block in _blocks(n, rows * pixels * x.itemsize + extra):
        part = x[block]
        columns = K.empty((len(part), rows, pixels), x.dtype)
        slides = _slides(size, counts, kernel, geometry)
        K.rows(
            "image_to_columns", x.dtype, len(part) * rows, pixels, part, columns, len(part) * c,
            *slides,
        )  # fmt: skip
        yield block, columns


def _grouped(matrices: Any, groups: int) -> Any:
    """(images, rows, columns) as (images, groups, rows / groups, columns)."""
    if groups == 1:
        return matrices
    n, rows, columns = matrices.shape
    return matrices.reshape(n, groups, rows // groups, columns)


def _weight(w: Any, groups: int) -> Any:
    """Kernels as matrices: (O, K), or (groups, O / groups, K)."""
    return w.reshape((len(w), -1) if groups == 1 else (groups, len(w) // groups, -1))


def convolve(K: Any, x: Any, w: Any, bias: Any, geometry: Geometry, groups: int) -> Any:
    """The cross-correlation of x (N, C, H, W) with w (O, C / groups, KH, KW)."""
    n, c, *size = x.shape
    o, inner, kh, kw = w.shape
    counts = geometry.counts((size[0], size[1]), (kh, kw))
    x, w = K.dense(x), K.dense(w)
    y = K.empty((n, o, *counts), x.dtype)
    if inner == 1 and groups > 1:
        K.elementwise(
            "depthwise_forward", x.dtype, y.size, x, w, None if bias is None else K.dense(bias), y,
            n, o, o // c, *_slides(size, counts, (kh, kw), geometry),
        )  # fmt: skip
        return y
    flat, weight = y.reshape(n, o, -1), _weight(w, groups)
    for block, columns in _columns(K, x, (kh, kw), geometry, counts):
        product_of(K.xp)(weight, _grouped(columns, groups), out=_grouped(flat[block], groups))
    if bias is not None:
        y += bias.reshape(o, 1, 1)
    return y


def input_gradient(K: Any, g: Any, w: Any, size: Pair, geometry: Geometry, groups: int) -> Any:
    """The gradient of the input, of height and width ``size``."""
    n, o, *counts = g.shape
    _, inner, kh, kw = w.shape
    c = inner * groups
    g, w = K.dense(g), K.dense(w)
    dx = K.empty((n, c, *size), g.dtype)
    slides = _slides(size, counts, (kh, kw), geometry)
    if inner == 1 and groups > 1:
        K.elementwise("depthwise_input_gradient", g.dtype, dx.size, g, w, dx, n, o, o // c, *slides)
        return dx
    flat, weight = g.reshape(n, o, -1), _weight(w, groups).swapaxes(-1, -2)
    if _is_product((kh, kw), geometry):
        out = dx.reshape(n, c, -1)
        product_of(K.xp)(weight, _grouped(flat, groups), out=_grouped(out, groups))
        return dx
    rows, pixels = c * kh * kw, counts[0] * counts[1]
    for block in _blocks(n, rows * pixels * g.itemsize):
        part = flat[block]
        columns = K.empty((len(part), rows, pixels), g.dtype)
        product_of(K.xp)(weight, _grouped(part, groups), out=_grouped(columns, groups))
        images = dx[block]
        K.elementwise(
            "columns_to_image", g.dtype, images.size, columns, images, len(part) * c, *slides
        )
    return dx


def weight_gradient(K: Any, x: Any, g: Any, kernel: Pair, geometry: Geometry, groups: int) -> Any:
    """The gradient of the weight."""
    n, c, *size = x.shape
    o, *counts = g.shape[1:]
    x, g = K.dense(x), K.dense(g)
    dw = K.empty((o, c // groups, *kernel), x.dtype)
    if c == groups and groups > 1:
        K.launch(
            "depthwise_weight_gradient", x.dtype, (min(dw.size, 1 << 16),), (256,), x, g, dw, n, o,
            o // c, *_slides(size, counts, kernel, geometry),
        )  # fmt: skip
        return dw
    flat = _grouped(g.reshape(n, o, -1), groups)
    dw_sum: Any = None
    extra = dw.size * x.itemsize
    for block, columns in _columns(K, x, kernel, geometry, (counts[0], counts[1]), extra):
        products = product_of(K.xp)(flat[block], _grouped(columns, groups).swapaxes(-1, -2))
        part = products.sum(0, dtype=K.acc(x.dtype))
        dw_sum = part if dw_sum is None else dw_sum + part
    dw[...] = dw_sum.reshape(dw.shape)
    return dw


def channel_sums(K: Any, x: Any) -> Any:
    """The sums over all dimensions but the second."""
    n, c, *size = x.shape
    inner, dtype = math.prod(size), x.dtype
    partials = K.empty((1, n, c), K.acc(dtype))
    K.rows("planes_parts", dtype, n * c, inner, K.dense(x), partials, n * c, inner)
    out = K.empty((c,), dtype)
    total(K, dtype, partials, out)
    return out
