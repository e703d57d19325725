"""Launches of the kernels that pool images: kernels/pool.cu.

Each function gives NotImplemented where the kernels cannot serve, and on the CPU, where the rules
are faster: NumPy's loops over the elements of windows are vectorised, a loop over windows is not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite.ops.windows import Geometry, Pair

TAPS = 256  # the number of a window's element is kept in a byte
DIVISORS_KEPT = 64


def _slides(size: Any, counts: Any, kernel: Pair, geometry: Geometry) -> list[tuple[int, ...]]:
    """For each direction: size, windows, kernel, stride, padding before and dilation."""
    return [
        (size[i], counts[i], kernel[i], geometry.stride[i], geometry.pads[i][0],
         geometry.dilation[i])
        for i in (0, 1)
    ]  # fmt: skip


def _serves(K: Any, x: Any, *shapes: Any) -> bool:
    """Whether the kernels take an array, and their 32-bit numbers the places of these shapes."""
    return not K.serial and K.takes(x) and all(math.prod(shape) < 1 << 31 for shape in shapes)


def max_pool(K: Any, x: Any, kernel: Pair, geometry: Geometry, winners: bool, places: bool) -> Any:
    """Maxima, the numbers of the winning elements and their places in the images, on demand."""
    size = x.shape[-2:]
    counts = geometry.counts(size, kernel)
    shape = (*x.shape[:-2], *counts)
    if not _serves(K, x, shape, size) or kernel[0] * kernel[1] > TAPS:
        return NotImplemented
    out = K.empty(shape, x.dtype)
    which = K.empty(shape, np.uint8) if winners else None
    where = K.empty(shape, np.int64) if places else None
    down, along = _slides(size, counts, kernel, geometry)
    K.elementwise(
        "max_pool_forward", x.dtype, out.size, K.dense(x), out, which, where,
        math.prod(x.shape[:-2]), *down, *along,
    )  # fmt: skip
    return out, which, where


def box_places(K: Any, inner: Any, outer: Any, row: int, plane: int) -> Any:
    """Where in its volume each maximum was, from the places in its frame and along the depth.

    Args:
        inner: (volumes, depth, ...), ``row`` places in each frame of ``plane`` elements.
        outer: (volumes, ...), places in (depth, row).
    """
    if K.serial or not outer.size or max(inner.size, outer.size) >= 1 << 31:
        return NotImplemented
    places, volumes = K.empty(outer.shape, np.int64), len(outer)
    K.elementwise(
        "box_places", np.float32, outer.size, K.dense(inner), K.dense(outer), places,
        volumes, inner.size // volumes, outer.size // volumes, row, plane,
    )  # fmt: skip
    return places


def max_pool_scatter(
    K: Any, g: Any, winners: Any, shape: Any, kernel: Pair, geometry: Geometry
) -> Any:
    """Zeros with a value per window added at its winner."""
    if not _serves(K, g, shape) or winners.dtype != np.uint8:
        return NotImplemented
    dx = K.empty(shape, g.dtype)
    down, along = _slides(shape[-2:], g.shape[-2:], kernel, geometry)
    K.elementwise(
        "max_pool_backward", g.dtype, dx.size, K.dense(g), K.dense(winners), dx,
        math.prod(shape[:-2]), *down, *along,
    )  # fmt: skip
    return dx


def _divisors(K: Any, divisor: Any, dtype: Any) -> tuple[Any, float]:
    """The divisor as kernels take it: an array on the device and a number, one of which counts."""
    if not isinstance(divisor, np.ndarray):
        return None, float(divisor)
    acc = K.acc(dtype)
    place: Any = 0
    if K.xp is not np:  # another stream may come to them before they do
        place = K.xp.cuda.runtime.getDevice(), K.xp.cuda.get_current_stream().ptr
    key = ("divisors", id(divisor), acc, place)
    found = K.tables.get(key)
    if found is None or found[0] is not divisor:
        if len(K.tables) >= DIVISORS_KEPT:
            K.tables.clear()
        found = K.tables[key] = (divisor, K.xp.asarray(divisor.astype(acc)))
    return found[1], 1.0


def avg_pool(
    K: Any, name: str, x: Any, shape: Any, size: Any, counts: Any, kernel: Pair,
    geometry: Geometry, divisor: Any,
) -> Any:  # fmt: skip
    """Means of windows, or their gradient: the kernel's name says which."""
    if not _serves(K, x, shape, size):
        return NotImplemented
    out = K.empty(shape, x.dtype)
    down, along = _slides(size, counts, kernel, geometry)
    K.elementwise(
        name, x.dtype, out.size, K.dense(x), out, *_divisors(K, divisor, x.dtype),
        math.prod(shape[:-2]), *down[:5], *along[:5],
    )  # fmt: skip
    return out


def _divides(size: Any, parts: Any) -> bool:
    """Whether the kernels' numbers hold the places where parts begin and end."""
    return min(parts) > 0 and all((m + 1) * (n + 1) < 1 << 31 for n, m in zip(size, parts))


def adaptive_avg_pool(K: Any, x: Any, size: Pair) -> Any:
    """Means of windows that divide the images evenly."""
    shape = (*x.shape[:-2], *size)
    if not _serves(K, x, shape) or not _divides(x.shape[-2:], size):
        return NotImplemented
    (h, w), images = x.shape[-2:], math.prod(x.shape[:-2])
    out = K.empty(shape, x.dtype)
    window = -(-h // size[0]) * -(-w // size[1])
    K.rows(
        "adaptive_avg_pool_forward", x.dtype, out.size, window, K.dense(x), out, images, h, size[0],
        w, size[1],
    )  # fmt: skip
    return out


def adaptive_avg_pool_grad(K: Any, g: Any, shape: Any) -> Any:
    """The gradient of `adaptive_avg_pool`."""
    if not _serves(K, g, shape) or not _divides(shape[-2:], g.shape[-2:]):
        return NotImplemented
    dx = K.empty(shape, g.dtype)
    (h, w), (oh, ow) = shape[-2:], g.shape[-2:]
    images = math.prod(shape[:-2])
    K.elementwise(
        "adaptive_avg_pool_backward", g.dtype, dx.size, K.dense(g), dx, images, h, oh, w, ow
    )
    return dx


def adaptive_max_pool(K: Any, x: Any, size: Pair) -> Any:
    """Maxima of windows that divide the images evenly, and their places."""
    shape = (*x.shape[:-2], *size)
    if not _serves(K, x, shape) or not _divides(x.shape[-2:], size):
        return NotImplemented
    (h, w), images = x.shape[-2:], math.prod(x.shape[:-2])
    out = K.empty(shape, x.dtype)
    places = K.empty(out.shape, np.int64)
    K.elementwise(
        "adaptive_max_pool_forward", x.dtype, out.size, K.dense(x), out, places, images, h, size[0],
        w, size[1],
    )  # fmt: skip
    return out, places


def adaptive_max_pool_scatter(K: Any, g: Any, places: Any, shape: Any) -> Any:
    """The gradient of `adaptive_max_pool`."""
    if not _serves(K, g, shape) or not _divides(shape[-2:], g.shape[-2:]):
        return NotImplemented
    dx = K.empty(shape, g.dtype)
    (h, w), (oh, ow) = shape[-2:], g.shape[-2:]
    K.elementwise(
        "adaptive_max_pool_backward", g.dtype, dx.size, K.dense(g), K.dense(places), dx,
        math.prod(shape[:-2]), h, oh, w, ow,
    )  # fmt: skip
    return dx
