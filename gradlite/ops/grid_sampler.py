"""What `grid_sample` is made of: an image's values at points, and the gradients of both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import determinism
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op

# The neighbours of a point along one direction, counted from the last pixel before it.
TAPS = {"nearest": (0,), "bilinear": (0, 1), "bicubic": (-1, 0, 1, 2)}
PADDINGS = ("zeros", "border", "reflection")
# What a GPU's thread finds its pixels once for.
CHANNELS = 8
MOST = 1 << 31  # elements that are told apart by 32-bit numbers


# ------------------------------------------------------------------------------ the rule
def _inside(xp: Any, x: Any, slope: Any, n: int, padding: str, align: bool) -> tuple[Any, Any]:
    """Places brought to pixels that exist, and by how much they move with the coordinates.

    They do not where they are held at an end. What is not a number, or mirrored without end, is
    at pixel 0.
    """
    if padding == "zeros":
        return x, slope
    if padding == "reflection":
        low, span = (0.0, n - 1) if align else (-0.5, n)
        if not span:
            return xp.zeros_like(x), xp.zeros_like(x)
        away = xp.abs(x - low)
        extra = away - xp.floor(away / (2 * span)) * (2 * span)
        mirrored = 2 * span - extra
        turned = (x < low) != (extra > mirrored)
        x = xp.minimum(extra, mirrored) + low
        slope = xp.where(turned, -slope, slope)
    slope = xp.where((x > 0) & (x < n - 1), slope, xp.zeros_like(x))
    return xp.minimum(xp.where(x > 0, x, xp.zeros_like(x)), n - 1), slope


def _far(t: Any) -> Any:
    """The weight of a neighbour between 1 and 2 away, a = -0.75 (Keys, 1981)."""
    return ((-0.75 * t + 3.75) * t - 6) * t + 3


def _near(t: Any) -> Any:
    return (1.25 * t - 2.25) * t * t + 1


def _far_slope(t: Any) -> Any:
    return (-2.25 * t + 7.5) * t - 6


def _near_slope(t: Any) -> Any:
    return (3.75 * t - 4.5) * t


class _Taps:
    """The pixels along one direction between which every point lies.

    Attributes:
        places: for each tap, the pixels; where there is none, 0.
        exists: for each tap, whether there is one.
        slope: of the points' places, by their coordinates.
        part: how far each point is from the first pixel (bicubic: the second) on to the next.
    """

    def __init__(self, xp: Any, g: Any, n: int, mode: str, padding: str, align: bool) -> None:
        x = (g + 1) * ((n - 1) / 2) if align else (g + 1) * (n / 2) - 0.5
        slope = xp.full_like(x, (n - 1) / 2 if align else n / 2)
        if mode != "bicubic":
            x, slope = _inside(xp, x, slope, n, padding, align)
        low = xp.rint(x) if mode == "nearest" else xp.floor(x)
        pixels = [low + k for k in {"nearest": (0,), "bilinear": (0, 1)}.get(mode, range(-1, 3))]
        if mode == "bicubic":
            pixels = [_inside(xp, p, slope, n, padding, align)[0] for p in pixels]
        self.exists = [(p >= 0) & (p <= n - 1) for p in pixels]
        self.places = [
            xp.where(e, p, xp.zeros_like(p)).astype(np.int64) for p, e in zip(pixels, self.exists)
        ]
        self.slope, self.part, self.mode = slope, x - low, mode

    def weights(self, t: Any) -> list[Any]:
        """Those of the pixels, from `part`."""
        if self.mode == "nearest":
            return [1]
        if self.mode == "bilinear":
            return [1 - t, t]
        return [_far(t + 1), _near(t), _near(1 - t), _far(2 - t)]

    def steepness(self, t: Any) -> list[Any]:
        """How the weights change with `part`."""
        if self.mode == "bilinear":
            return [-1, 1]
        return [_far_slope(t + 1), _near_slope(t), -_near_slope(1 - t), -_far_slope(2 - t)]


def _along(xp: Any, grid: Any, sizes: Any, *attrs: Any) -> list[_Taps]:
    """The taps of each direction, outermost first: coordinates come the other way round."""
    flat = grid.reshape(grid.shape[0], math.prod(grid.shape[1:-1]), len(sizes))
    last = len(sizes) - 1
    return [_Taps(xp, flat[..., last - d], n, *attrs) for d, n in enumerate(sizes)]


def _places(xp: Any, axes: list[_Taps], sizes: Any, channels: int) -> Any:
    """For each pixel around a point: the number of its tap in each direction, place and existence.

    The places are for ``(N, C, points)`` of flat images.
    """
    for number in np.ndindex(*(len(taps.places) for taps in axes)):
        place: Any = 0
        exists: Any = True
        for k, taps, size in zip(number, axes, sizes):
            place = place * size + taps.places[k]
            exists = taps.exists[k] & exists
        shape = (place.shape[0], channels, place.shape[1])
        yield number, xp.broadcast_to(place[:, None], shape), exists[:, None]


def _outside(xp: Any, terms: Any, exists: Any, zero: Any, sizes: Any) -> Any:
    """Terms of pixels that do not exist: in volumes 0, but in images NaN where a weight is."""
    return terms if len(sizes) == 2 else xp.where(exists, terms, zero)


def _product(factors: list[Any]) -> Any:
    return math.prod(factors[1:], start=factors[0])


class GridSampler2D(Op):
    """Images (N, C, H, W) at points (N, OH, OW, 2)."""

    fname = "grid_sampler_2d"
    reads = ((0, 1), (0, 1))
    native_from = native_backward_from = 1 << 11

    def forward(xp: Any, x: Any, grid: Any, mode: str, padding: str, align: bool) -> Any:
        n, channels, *sizes = x.shape
        source = x.reshape(n, channels, math.prod(sizes))
        F = NAMESPACES[x.__class__]
        axes = _along(xp, grid, sizes, mode, padding, align)
        weights = [taps.weights(taps.part) for taps in axes]
        total: Any = 0
        zero = xp.zeros((), x.dtype)
        for number, place, exists in _places(xp, axes, sizes, channels):
            values = xp.where(exists, F.gather(source, place, 2), zero)
            if mode != "nearest":
                values = values * _product([w[k] for w, k in zip(weights, number)])[:, None]
                values = _outside(xp, values, exists, zero, sizes)
            total = total + values
        return total.reshape(n, channels, *grid.shape[1:-1])

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, grid = ctx.saved
        raw = F.array(grid)
        mode, padding, align = ctx.attrs
        n, channels, *sizes = ctx.shapes[0]
        dims, points = len(sizes), math.prod(raw.shape[1:-1])
        xp = NAMESPACES[raw.__class__].xp
        axes = _along(xp, raw, sizes, mode, padding, align)
        parts = [taps.part for taps in axes]
        if F.tensors and mode != "nearest":
            # Nothing is added to the parts but what they move by as the coordinates do.
            flat = F.nan_to_num(grid.reshape(n, points, dims), 0.0, 0.0, 0.0)
            for d, taps in enumerate(axes):
                moved = flat[..., dims - 1 - d] * taps.slope
                parts[d] = moved - F.detach(moved) + taps.part
        g, source = grad.reshape(n, channels, points), x.reshape(n, channels, math.prod(sizes))
        weights = [taps.weights(t) for taps, t in zip(axes, parts)]
        steep = [taps.steepness(t) for taps, t in zip(axes, parts)] if mode != "nearest" else []
        zero = F.zero_beside(grad)
        dx = F.zeros((n, channels, math.prod(sizes)), grad) if ctx.edges[0] is not None else None
        toward: list[Any] = [0] * dims
        for number, place, exists in _places(xp, axes, sizes, channels):
            if dx is not None:
                weight = _product([w[k] for w, k in zip(weights, number)])
                sent = g if mode == "nearest" else g * weight[:, None]
                dx = F.scatter_add(dx, place, F.where(exists, sent, zero), 2)
            if ctx.edges[1] is None or mode == "nearest":
                continue
            values = F.where(exists, F.gather(source, place, 2), zero)
            seen = (g * values).sum(1)
            for d in range(dims):
                factors = [w[k] for w, k in zip(weights, number)]
                factors[d] = steep[d][number[d]]
                moved = seen * _product(factors)
                toward[d] = toward[d] + _outside(F, moved, exists[:, 0], zero, sizes)
        dgrid = None
        if ctx.edges[1] is not None and mode == "nearest":
            dgrid = F.zeros(tuple(ctx.shapes[1]), grad)
        elif ctx.edges[1] is not None:
            moves = [t * taps.slope for t, taps in zip(toward, axes)]
            dgrid = F.stack(moves[::-1], 2).reshape(ctx.shapes[1])
        return None if dx is None else dx.reshape(ctx.shapes[0]), dgrid

    def fused_forward(K: Any, x: Any, grid: Any, mode: str, padding: str, align: bool) -> Any:
        n, channels, *sizes = x.shape
        out = (n, channels, *grid.shape[1:-1])
        if not K.takes(x, grid) or not _fits(sizes, out):
            return NotImplemented
        result, points = K.empty(out, x.dtype), math.prod(out[2:])
        group = channels if K.serial else min(channels, CHANNELS)
        K.elementwise(
            _name(sizes, mode), x.dtype, n * -(-channels // group) * points, K.dense(x),
            K.dense(grid), result, n, channels, group, points, *sizes, PADDINGS.index(padding),
            int(align),
        )  # fmt: skip
        return result

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, grid = ctx.saved
        mode, padding, align = ctx.attrs
        n, channels, *sizes = ctx.shapes[0]
        if not K.takes(grad, x, grid) or not _fits(sizes, grad.shape):
            return NotImplemented
        dtype, points = grad.dtype, math.prod(grad.shape[2:])
        dx = dgrid = None
        if ctx.edges[0] is not None:
            dx = K.zeros(x.shape, K.acc(dtype))
        if ctx.edges[1] is not None:
            dgrid = K.empty(grid.shape, dtype)
        passes = [(dx, dgrid, 0, n * points)]
        if dx is not None and determinism.are_deterministic_algorithms_enabled() and not K.serial:
            passes = [(dx, None, 1, n * channels)]
            if dgrid is not None:
                passes.append((None, dgrid, 0, n * points))
        arrays = K.dense(grad), K.dense(x), K.dense(grid)
        for sums, moves, ordered, threads in passes:
            K.elementwise(
                f"{_name(sizes, mode)}_backward", dtype, threads, *arrays, sums, moves, n, channels,
                ordered, points, *sizes, PADDINGS.index(padding), int(align),
            )  # fmt: skip
        return None if dx is None else dx.astype(dtype, copy=False), dgrid


class GridSampler3D(GridSampler2D):
    """Volumes (N, C, D, H, W) at points (N, OD, OH, OW, 3)."""

    fname = "grid_sampler_3d"


def _name(sizes: Any, mode: str) -> str:
    name = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic"}[mode]
    return f"grid_sample_{name}" if len(sizes) == 2 else f"grid_sample_volume_{name}"


def _fits(sizes: Any, out: Any) -> bool:
    """Whether the kernels' numbers hold an image's pixels and the places of the result."""
    return math.prod(sizes) < MOST and math.prod(out) < MOST
