"""Convolution of raw arrays (N, C, D, H, W): frames stacked as channels of flat images.

A kernel that sees KD frames of a volume at once is one of an image with KD times the channels:
what slides along the depth are copies of frames, laid side by side as `gradlite.ops.columns`
lays the windows of an image. The functions are those of `gradlite.ops.grouped`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gradlite.ops import grouped
from gradlite.ops.windows import Geometry, Pair


class Volume(NamedTuple):
    """How windows slide through volumes: along the depth, and over the plane of a frame."""

    stride: int
    pads: Pair
    dilation: int
    plane: Geometry

    def windows(self, depth: int, kernel: int) -> int:
        """How many windows fit along the depth."""
        return (depth + sum(self.pads) - self.dilation * (kernel - 1) - 1) // self.stride + 1

    def tap(self, k: int, count: int) -> slice:
        """Where element k of every window lies along the padded depth."""
        first = k * self.dilation
        return slice(first, first + (count - 1) * self.stride + 1, self.stride)


def _around(n: int, pads: Pair) -> tuple[slice, slice]:
    """Which frames of a volume go where in a padded one; negative padding cuts some off."""
    before, after = pads
    return slice(max(-before, 0), n - max(-after, 0)), slice(max(before, 0), n + before)


def _frames(xp: Any, x: Any, kernel: int, volume: Volume) -> Any:
    """The frames that each window sees, (N * OD, C * KD, H, W)."""
    n, c, depth, *plane = x.shape
    kept, place = _around(depth, volume.pads)
    if volume.pads != (0, 0):
        padded = xp.zeros((n, c, depth + sum(volume.pads), *plane), x.dtype)
        padded[:, :, place][:, :, : kept.stop - kept.start] = x[:, :, kept]
        x = padded
    count = volume.windows(depth, kernel)
    out = xp.empty((n, count, c, kernel, *plane), x.dtype)
    for k in range(kernel):
        out[:, :, :, k] = x[:, :, volume.tap(k, count)].swapaxes(1, 2)
    return out.reshape((n * count, c * kernel, *plane))


def _stacked(x: Any) -> Any:
    """Volumes as a batch of frames, (N * D, C, H, W)."""
    n, c, depth, *plane = x.shape
    return x.swapaxes(1, 2).reshape((n * depth, c, *plane))


def _unstacked(xp: Any, frames: Any, n: int) -> Any:
    """A batch of frames as volumes again."""
    total, c, *plane = frames.shape
    volumes = frames.reshape((n, total // n if n else 0, c, *plane))
    return xp.ascontiguousarray(volumes.swapaxes(1, 2))


def _flat(w: Any) -> Any:
    """Kernels with their depth as channels."""
    return w.reshape((w.shape[0], w.shape[1] * w.shape[2], *w.shape[3:]))


def convolve(xp: Any, x: Any, w: Any, bias: Any, volume: Volume, groups: int) -> Any:
    """The cross-correlation of x (N, C, D, H, W) with w (O, C / groups, KD, KH, KW)."""
    if x.shape[0] == 0:
        counts = volume.plane.counts(x.shape[3:], w.shape[3:])
        return xp.zeros((0, w.shape[0], volume.windows(x.shape[2], w.shape[2]), *counts), x.dtype)
    frames = _frames(xp, x, w.shape[2], volume)
    y = grouped.convolve(xp, frames, _flat(w), bias, volume.plane, groups)
    return _unstacked(xp, y, x.shape[0])


def input_gradient(xp: Any, g: Any, w: Any, size: Any, volume: Volume, groups: int) -> Any:
    """The gradient of the input, of depth, height and width ``size``."""
    n, _, count = g.shape[:3]
    kernel, channels, (depth, *plane) = w.shape[2], w.shape[1] * groups, size
    frames = grouped.input_gradient(xp, _stacked(g), _flat(w), plane, volume.plane, groups)
    frames = frames.reshape((n, count, channels, kernel, *plane))
    sums = xp.zeros((n, channels, depth + sum(volume.pads), *plane), g.dtype)
    for k in range(kernel):
        sums[:, :, volume.tap(k, count)] += frames[:, :, :, k].swapaxes(1, 2)
    if volume.pads == (0, 0):
        return sums
    kept, place = _around(depth, volume.pads)
    result = xp.zeros((n, channels, *size), g.dtype)
    result[:, :, kept] = sums[:, :, place][:, :, : kept.stop - kept.start]
    return result


def weight_gradient(xp: Any, x: Any, g: Any, kernel: Any, volume: Volume, groups: int) -> Any:
    """The gradient of the weight."""
    frames = _frames(xp, x, kernel[0], volume)
    result = grouped.weight_gradient(xp, frames, _stacked(g), kernel[1:], volume.plane, groups)
    return result.reshape((g.shape[1], x.shape[1] // groups, *kernel))


def gradients(xp: Any, x: Any, g: Any, w: Any, volume: Volume, groups: int) -> tuple[Any, Any]:
    """The gradients of the input and of the weight."""
    return (
        input_gradient(xp, g, w, x.shape[2:], volume, groups),
        weight_gradient(xp, x, g, w.shape[2:], volume, groups),
    )
