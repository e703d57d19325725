"""Convolutions on a GPU: the kernels of kernels/conv.cu and volumes.cu, and products of matrices.

The arguments are those of `gradlite.ops.grouped` and `gradlite.ops.volumes`. Each function gives
NotImplemented where it cannot serve. On the CPU the loops of `grouped` and `columns` are better,
whose columns stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from gradlite.ops.column_sums import total
from gradlite.ops.conv_arguments import lift, shaped, size_of
from gradlite.ops.products import product_of
from gradlite.ops.volumes import Volume
from gradlite.ops.windows import Geometry, Pair

# As much memory as the columns of a batch, or of a part of it, may take.
WORKSPACE = 1 << 27
MOST = 1 << 31  # what the kernels count in 32-bit numbers
UNFOLD = {2: "image_to_columns", 3: "volume_to_columns"}


def _directions(geometry: Any) -> Any:
    """Strides, padding and dilations, a number for each direction of images or volumes."""
    if isinstance(geometry, Geometry):
        return geometry
    return tuple((own, *others) for own, others in zip(geometry[:3], geometry.plane))


def _counts(size: Any, kernel: Any, geometry: Any) -> tuple[int, ...]:
    """How many windows fit in each direction."""
    if isinstance(geometry, Geometry):
        return geometry.counts(size, kernel)
    plane = geometry.plane.counts(size[1:], kernel[1:])
    return (geometry.windows(size[0], kernel[0]), *plane)


def _slides(size: Any, counts: Any, kernel: Any, geometry: Any) -> tuple[int, ...]:
    stride, pads, dilation = _directions(geometry)
    return tuple(
        n
        for i in range(len(size))
        for n in (size[i], counts[i], kernel[i], stride[i], pads[i][0], dilation[i])
    )


def _serves(K: Any, *arrays: Any, shape: tuple[int, ...] = ()) -> bool:
    """Whether this module is for it: on a GPU, and no array has 2**31 elements.

    ``shape``: that of an array to be made.
    """
    arrays = tuple(array for array in arrays if array is not None)
    if K.serial or not K.takes(*arrays):
        return False
    return max(math.prod(shape), *(array.size for array in arrays)) < MOST


# ---------------------------------------------------------------------- as the ops call them
def forward(K: Any, x: Any, w: Any, b: Any, geometry: Any, groups: int) -> Any:
    """A convolution of sequences, images or volumes."""
    if not _serves(K, x, w, b):
        return NotImplemented
    if _is_depthwise(w.shape[1], size_of(x.shape), groups):  # the others multiply part by part
        counts = _counts(size_of(x.shape), size_of(w.shape), geometry)
        if len(x) * len(w) * math.prod(counts) >= MOST:
            return NotImplemented
    y = convolve(K, lift(x), lift(w), b, geometry, groups)
    return y.reshape((*y.shape[:2], y.shape[3])) if x.ndim == 3 else y


def for_input(K: Any, g: Any, w: Any, shape: Any, geometry: Any, groups: int) -> Any:
    """The gradient of the input."""
    if not _serves(K, g, w, shape=shape):
        return NotImplemented
    return shaped(input_gradient(K, lift(g), lift(w), size_of(shape), geometry, groups), shape)


def for_weight(K: Any, x: Any, g: Any, shape: Any, geometry: Any, groups: int) -> Any:
    """The gradient of the weight."""
    if not _serves(K, x, g):
        return NotImplemented
    return shaped(weight_gradient(K, lift(x), lift(g), size_of(shape), geometry, groups), shape)


def backward(K: Any, ctx: Any, grad: Any) -> Any:
    """The gradients of input, weight and bias of a convolution."""
    (x, w), attrs = ctx.saved, ctx.attrs
    if not _serves(K, grad, x, w, shape=() if w is None else tuple(ctx.shapes[0])):
        return NotImplemented
    return (
        None if w is None else for_input(K, grad, w, tuple(ctx.shapes[0]), *attrs),
        None if x is None else for_weight(K, x, grad, tuple(ctx.shapes[1]), *attrs),
        None if ctx.edges[2] is None else channel_sums(K, grad),
    )


def transposed_backward(K: Any, ctx: Any, grad: Any) -> Any:
    """The gradients of input, weight and bias of a transposed convolution."""
    (x, w), attrs = ctx.saved, ctx.attrs[1:]
    if not _serves(K, grad, x, w):
        return NotImplemented
    dx = dw = None
    if x is not None and w is not None:
        kernel = size_of(w.shape)
        dx, dw = convolve_both(K, lift(grad), lift(w), lift(x), kernel, *attrs)
        dx, dw = shaped(dx, x.shape), shaped(dw, w.shape)
    elif w is not None:
        dx = forward(K, grad, w, None, *attrs)
    elif x is not None:
        dw = for_weight(K, grad, x, tuple(ctx.shapes[1]), *attrs)
    return dx, dw, None if ctx.edges[2] is None else channel_sums(K, grad)


def unfolded(K: Any, x: Any, kernel: Pair, geometry: Geometry) -> Any:
    """The windows of images (..., C, H, W) as columns (..., C * KH * KW, windows)."""
    *images, c, h, w = x.shape
    counts, n = geometry.counts((h, w), kernel), math.prod(images)
    rows, pixels = c * kernel[0] * kernel[1], counts[0] * counts[1]
    if not _serves(K, x) or n * rows * pixels >= MOST:
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
    if not _serves(K, x) or math.prod(shape) >= MOST:
        return NotImplemented
    out = K.empty(shape, x.dtype)
    K.elementwise(
        "columns_to_image", x.dtype, out.size, K.dense(x), out, math.prod(shape[:-2]),
        *_slides(size, geometry.counts(size, kernel), kernel, geometry),
    )  # fmt: skip
    return out


def _is_product(kernel: Any, geometry: Any) -> bool:
    """Whether the columns are the image."""
    stride, pads, _ = _directions(geometry)
    return math.prod(kernel) == 1 and set(stride) == {1} and set(pads) == {(0, 0)}


class Part(NamedTuple):
    """What is multiplied at a time.

    Attributes:
        images: of the batch.
        windows: of each image, as a part of all; many images are taken whole.
        pixels: how many windows these are.
        slides: where they are, as kernels want it.
    """

    images: slice
    windows: slice
    pixels: int
    slides: tuple[int, ...]


def _parts(
    n: int, size: Any, counts: Any, kernel: Any, geometry: Any, image_bytes: int
) -> Iterator[Part]:
    """A batch in parts for which there is room: images, and of a large volume some frames."""
    step = max(1, min(n, WORKSPACE // max(1, image_bytes)))
    slides = _slides(size, counts, kernel, geometry)
    frames, frame = counts[0], math.prod(counts[1:])
    if isinstance(geometry, Volume):
        frames = min(frames, max(1, WORKSPACE * frames // max(1, image_bytes)))
    for first in range(0, n, step):
        images = slice(first, min(first + step, n))
        for start in range(0, counts[0], frames):
            stop = min(start + frames, counts[0])
            size_along, _, taps, stride, before, *others = slides
            there = (size_along, stop - start, taps, stride, before - start * stride, *others)
            windows = slice(start * frame, stop * frame)
            yield Part(images, windows, (stop - start) * frame, there)


def _columns(
    K: Any, x: Any, kernel: Any, geometry: Any, counts: Any, extra: int = 0
) -> Iterator[tuple[slice, slice, Any]]:
    """Images of a row-major batch, windows of theirs, and the columns of these.

    Columns are (images, C * the kernel's elements, windows). ``extra`` is how many bytes more each
    image takes meanwhile.
    """
    n, c, *size = x.shape
    pixels = math.prod(counts)
    if _is_product(kernel, geometry):
        yield slice(0, n), slice(0, pixels), x.reshape(n, c, pixels)
        return
    rows = c * math.prod(kernel)
    room = rows * pixels * x.itemsize + extra
    for part in _parts(n, size, counts, kernel, geometry, room):
        images = x[part.images]
        columns = K.empty((len(images), rows, part.pixels), x.dtype)
        K.rows(
            UNFOLD[len(size)], x.dtype, len(images) * rows, part.pixels, images, columns,
            len(images) * c, *part.slides,
        )  # fmt: skip
        yield part.images, part.windows, columns


def _grouped(matrices: Any, groups: int) -> Any:
    """(images, rows, columns) as (images, groups, rows / groups, columns)."""
    if groups == 1:
        return matrices
    n, rows, columns = matrices.shape
    return matrices.reshape(n, groups, rows // groups, columns)


def _weight(w: Any, groups: int) -> Any:
    """Kernels as matrices: (O, K), or (groups, O / groups, K)."""
    return w.reshape((len(w), -1) if groups == 1 else (groups, len(w) // groups, -1))


def _is_depthwise(inner: int, size: Any, groups: int) -> bool:
    """Whether kernels of their own serve: each group of channels is one channel of images."""
    return inner == 1 and groups > 1 and len(size) == 2


def convolve(K: Any, x: Any, w: Any, bias: Any, geometry: Any, groups: int) -> Any:
    """The cross-correlation of x (N, C, ...) with w (O, C / groups, ...)."""
    n, c, *size = x.shape
    o, inner, *kernel = w.shape
    counts = _counts(size, kernel, geometry)
    x, w = K.dense(x), K.dense(w)
    y = K.empty((n, o, *counts), x.dtype)
    if _is_depthwise(inner, size, groups):
        K.elementwise(
            "depthwise_forward", x.dtype, y.size, x, w, None if bias is None else K.dense(bias), y,
            n, o, o // c, *_slides(size, counts, kernel, geometry),
        )  # fmt: skip
        return y
    flat, weight = y.reshape(n, o, -1), _weight(w, groups)
    for images, windows, columns in _columns(K, x, kernel, geometry, counts):
        out = _grouped(flat[images, :, windows], groups)
        product_of(K.xp)(weight, _grouped(columns, groups), out=out)
    if bias is not None:
        y += bias.reshape(o, *(1,) * len(size))
    return y


def input_gradient(K: Any, g: Any, w: Any, size: Any, geometry: Any, groups: int) -> Any:
    """The gradient of the input, of height and width, or depth, height and width ``size``."""
    n, o, *counts = g.shape
    _, inner, *kernel = w.shape
    c = inner * groups
    g, w = K.dense(g), K.dense(w)
    dx = K.empty((n, c, *size), g.dtype)
    if _is_depthwise(inner, size, groups):
        K.elementwise(
            "depthwise_input_gradient", g.dtype, dx.size, g, w, dx, n, o, o // c,
            *_slides(size, counts, kernel, geometry),
        )  # fmt: skip
        return dx
    flat, weight = g.reshape(n, o, -1), _weight(w, groups).swapaxes(-1, -2)
    if _is_product(kernel, geometry):
        out = dx.reshape(n, c, -1)
        product_of(K.xp)(weight, _grouped(flat, groups), out=_grouped(out, groups))
        return dx
    rows = c * math.prod(kernel)
    room = rows * math.prod(counts) * g.itemsize
    for part in _parts(n, size, counts, kernel, geometry, room):
        grads, images = flat[part.images, :, part.windows], dx[part.images]
        columns = K.empty((len(images), rows, part.pixels), g.dtype)
        product_of(K.xp)(weight, _grouped(grads, groups), out=_grouped(columns, groups))
        _fold(K, columns, images, len(images) * c, part.slides, part.windows.start > 0)
    return dx


def _fold(
    K: Any, columns: Any, out: Any, planes: int, slides: tuple[int, ...], add: bool = False
) -> None:
    """Columns added up to images or volumes; to what is there of volumes, if ``add``."""
    if len(slides) == 12:
        K.elementwise("columns_to_image", out.dtype, out.size, columns, out, planes, *slides)
    else:
        K.elementwise(
            "columns_to_volume", out.dtype, out.size, columns, out, int(add), planes, *slides
        )


def weight_gradient(K: Any, x: Any, g: Any, kernel: Any, geometry: Any, groups: int) -> Any:
    """The gradient of the weight."""
    n, c, *size = x.shape
    o, *counts = g.shape[1:]
    x, g = K.dense(x), K.dense(g)
    dw = K.empty((o, c // groups, *kernel), x.dtype)
    if _is_depthwise(c // groups, size, groups):
        K.launch(
            "depthwise_weight_gradient", x.dtype, (min(dw.size, 1 << 16),), (256,), x, g, dw, n, o,
            o // c, *_slides(size, counts, kernel, geometry),
        )  # fmt: skip
        return dw
    sums = _sums_for(K, dw)
    extra = dw.size * x.itemsize
    for images, windows, columns in _columns(K, x, kernel, geometry, counts, extra):
        grads = _grouped(g.reshape(n, o, -1)[images, :, windows], groups)
        _add(K, sums, grads, _grouped(columns, groups), images.start == windows.start == 0)
    if sums is not dw:
        dw[...] = sums
    return dw


def _sums_for(K: Any, dw: Any) -> Any:
    """Where a weight's gradient is added up: itself, or numbers that are wider."""
    wide = K.acc(dw.dtype)
    return dw if wide == dw.dtype else K.empty(dw.shape, wide)


def _add(K: Any, sums: Any, grads: Any, columns: Any, first: bool) -> None:
    """Write what images make of a weight's gradient, or add it."""
    products = product_of(K.xp)(grads, columns.swapaxes(-1, -2))
    sums = sums.reshape(products.shape[1:])
    if first:
        products.sum(0, dtype=sums.dtype, out=sums)
    else:
        sums += products.sum(0, dtype=sums.dtype)


def convolve_both(
    K: Any, x: Any, w: Any, g: Any, kernel: Any, geometry: Any, groups: int
) -> tuple[Any, Any]:
    """`convolve` without a bias and `weight_gradient`, from the same columns."""
    n, c, *size = x.shape
    o, inner, *_ = w.shape
    if _is_depthwise(inner, size, groups):
        y = convolve(K, x, w, None, geometry, groups)
        return y, weight_gradient(K, x, g, kernel, geometry, groups)
    counts = _counts(size, kernel, geometry)
    x, w, g = K.dense(x), K.dense(w), K.dense(g).reshape(n, o, -1)
    y, dw = K.empty((n, o, *counts), x.dtype), K.empty(w.shape, x.dtype)
    flat, weight = y.reshape(n, o, -1), _weight(w, groups)
    sums = _sums_for(K, dw)
    extra = dw.size * x.itemsize
    for images, windows, columns in _columns(K, x, kernel, geometry, counts, extra):
        columns = _grouped(columns, groups)
        product_of(K.xp)(weight, columns, out=_grouped(flat[images, :, windows], groups))
        grads = _grouped(g[images, :, windows], groups)
        _add(K, sums, grads, columns, images.start == windows.start == 0)
    if sums is not dw:
        dw[...] = sums
    return y, dw


def channel_sums(K: Any, x: Any) -> Any:
    """The sums over all dimensions but the second."""
    n, c, *size = x.shape
    inner, dtype = math.prod(size), x.dtype
    partials = K.empty((1, n, c), K.acc(dtype))
    K.rows("planes_parts", dtype, n * c, inner, K.dense(x), partials, n * c, inner)
    out = K.empty((c,), dtype)
    total(K, dtype, partials, out)
    return out
