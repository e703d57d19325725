"""A convolution with the relu and the max-pooling behind it, on raw arrays.

A convolution's result that only a relu and pooling by windows of 2 x 2 read is four times what
comes out of them. Compiled code makes and pools it in registers and never writes it; going back,
the gradient is spread over the windows while a convolution's gradients copy it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops import columns, conv_compiled, pooling
from gradlite.ops.windows import Geometry, Pair

WINDOW = (2, 2)
WINDOWS = Geometry(WINDOW)


def convolve_and_pool(
    xp: Any, x: Any, w: Any, geometry: Geometry, bias: Any, relu: bool, out: Any = None
) -> tuple[Any, Any]:
    """The maxima of windows of 2 x 2 of a convolution, perhaps after relu, and the winners.

    ``out`` has row-major places for both, which may be used.
    """
    made = conv_compiled.maxima(x, w, geometry, bias, out) if relu else None
    if made is not None:
        high, winners = made
        return high, winners
    y = columns.convolve(xp, x, w, geometry, bias)
    high, winners = pooling.maxima(xp, y, WINDOW, WINDOWS)
    return xp.clip(high, 0, np.inf) if relu else high, winners


def spread_gradients(
    xp: Any,
    x: Any,
    g: Any,
    w: Any,
    geometry: Geometry,
    winners: Any,
    size: Pair,
    out: Any = (None, None),
) -> tuple[Any, Any]:
    """The gradients of a convolution's input and kernels from the gradient of its maxima.

    ``out`` has row-major places for both, which may be used.
    """
    made = conv_compiled.spread_gradients(x, g, w.shape, w, geometry, winners, out)
    if made is not None:
        return made[0], made[1]
    return columns.gradients(xp, x, spread(xp, g, winners, size), w, geometry)


def spread_weight_gradient(
    xp: Any, x: Any, g: Any, kernel: Pair, geometry: Geometry, winners: Any, size: Pair
) -> Any:
    """The gradient of a convolution's kernels from the gradient of its maxima."""
    shape = (g.shape[1], x.shape[1], *kernel)
    made = conv_compiled.spread_gradients(x, g, shape, None, geometry, winners)
    if made is not None:
        return made[1]
    return columns.weight_gradient(xp, x, spread(xp, g, winners, size), kernel, geometry)


def channel_sums(xp: Any, g: Any) -> Any:
    """The sums over all dimensions but the second: the gradient of a bias."""
    n, c = g.shape[:2]
    rows = xp.ascontiguousarray(g).reshape(n * c, -1)
    return xp.dot(rows, xp.ones(rows.shape[1], g.dtype)).reshape(n, c).sum(0)


def spread(xp: Any, g: Any, winners: Any, size: Pair) -> Any:
    """Zeros of a height and width with a gradient added where the winners are."""
    winners = xp.ascontiguousarray(winners)
    return pooling.scatter(xp, g, winners, (*g.shape[:2], *size), WINDOW, WINDOWS)
