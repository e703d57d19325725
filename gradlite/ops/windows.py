"""Windows that slide over padded images: what convolutions, pooling and unfold share."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

VECTOR = 64  # bytes of the widest vectors
Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

BLOCK_BYTES = 600_000


class Geometry(NamedTuple):
    """How windows slide, as (height, width) each.

    Attributes:
        stride: the steps from window to window.
        pads: ((top, bottom), (left, right)); a negative number cuts rows or columns off.
        dilation: the steps within a window.
    """

    stride: Pair = (1, 1)
    pads: Pads = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    def counts(self, size: Pair, kernel: Pair) -> Pair:
        """How many windows fit in both directions (0 or less when none does)."""
        (down, along), ((top, bottom), (left, right)), (far_down, far_along) = self
        height = size[0] + top + bottom - far_down * (kernel[0] - 1) - 1
        width = size[1] + left + right - far_along * (kernel[1] - 1) - 1
        return height // down + 1, width // along + 1

    def numbers(self, x: tuple[int, ...], w: tuple[int, ...], counts: Pair) -> tuple[int, ...]:
        """What a Slide of images.hpp holds: images x, kernels w, and what slides over what."""
        (top, _), (left, _) = self.pads
        return (*x, w[0], *w[2:], *counts, top, left, *self.stride, *self.dilation)

    def tap(self, i: int, j: int, counts: Pair) -> tuple[slice, slice]:
        """Where element (i, j) of every window lies in the padded image."""
        return self.rows(i, counts[0]), self.columns(j, counts[1])

    def rows(self, i: int, count: int) -> slice:
        """The rows where row i of so many windows lies."""
        step, top = self.stride[0], i * self.dilation[0]
        return slice(top, top + (count - 1) * step + 1, step)

    def columns(self, j: int, count: int) -> slice:
        """The columns where column j of so many windows lies."""
        step, left = self.stride[1], j * self.dilation[1]
        return slice(left, left + (count - 1) * step + 1, step)

    @property
    def padded(self) -> bool:
        """Whether the images get or lose rows or columns."""
        return self.pads != ((0, 0), (0, 0))


def turned_back(geometry: Geometry, kernel: Pair) -> Geometry:
    """How the turned kernel slides over a gradient: with stride 1, this is a convolution too."""
    _, ((top, bottom), (left, right)), dilation = geometry
    down, along = dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1)
    return Geometry((1, 1), ((down - top, down - bottom), (along - left, along - right)), dilation)


class Phase(NamedTuple):
    """Every ``stride``-th row and column of an input, and the taps that reach them.

    Attributes:
        rows, columns: where these elements of the input are.
        taps: which rows and columns of the kernels reach them, as (first, step, how many).
        geometry: how those taps, turned by 180 degrees, slide over the result's gradient.
    """

    rows: slice
    columns: slice
    taps: tuple[tuple[int, int, int], tuple[int, int, int]]
    geometry: Geometry


def phases(geometry: Geometry, kernel: Pair, size: Pair, counts: Pair) -> list[Phase]:
    """A convolution's input gradient as convolutions of the gradient that slide by one step.

    An element of the input meets one tap in ``stride``. Where the kernels are so small that some
    elements meet none, there is no phase for them.

    Args:
        size: height and width of the input.
        counts: height and width of the result.
    """
    down, along = (
        _phases_of(geometry.stride[i], geometry.pads[i][0], geometry.dilation[i], *sizes)
        for i, sizes in enumerate(zip(kernel, size, counts))
    )
    return [
        Phase(rows, columns, (above, left), Geometry((1, 1), (high, wide), (far, out)))
        for rows, above, high, far in down
        for columns, left, wide, out in along
    ]


def _phases_of(
    stride: int, pad: int, dilation: int, taps: int, size: int, count: int
) -> list[tuple[slice, tuple[int, int, int], Pair, int]]:
    """Along one dimension: elements, taps (first, step, how many), padding and dilation."""
    common = math.gcd(stride, dilation)
    step, far = stride // common, dilation // common
    found = []
    for start in range(min(stride, size)):
        met = [k for k in range(taps) if (start + pad - k * dilation) % stride == 0]
        if not met:
            continue
        reach = far * (len(met) - 1)
        before = reach - (start + pad - met[0] * dilation) // stride
        elements = -(-(size - start) // stride)
        pads = (before, elements - count - before + reach)
        found.append((slice(start, None, stride), (met[0], step, len(met)), pads, far))
    return found


def block_size(xp: Any, images: int, rows: int, row_bytes: int) -> Pair:
    """How many images, and rows of each, go through the cache together; all of them on a GPU."""
    if xp is not np:
        return images, rows
    image_bytes = max(1, row_bytes * rows)
    if image_bytes > 2 * BLOCK_BYTES:
        return 1, max(1, BLOCK_BYTES // row_bytes)
    return max(1, min(images, BLOCK_BYTES // image_bytes)), rows


def blocks(images: int, step: int) -> list[slice]:
    """The slices of a batch that go through the cache one by one."""
    return [slice(first, min(first + step, images)) for first in range(0, images, max(1, step))]


def padded_buffer(
    xp: Any, images: int, x: Any, pads: Pads, *, last: bool = False, fill: Any = 0
) -> tuple[Any, Any, Any]:
    """Room for some padded images, with the channels last or not.

    Returns the buffer, filled where the padding is, the part of it that images fill, and the
    part of the images (N, C, H, W) that goes there.
    """
    _, c, h, w = x.shape
    (top, bottom), (left, right) = pads
    height, width = h + top + bottom, w + left + right
    shape = (images, height, width, c) if last else (images, c, height, width)
    buffer = xp.empty(shape, x.dtype)
    if max(top, bottom, left, right) > 0:
        buffer[...] = fill
    down = slice(max(top, 0), height - max(bottom, 0))
    along = slice(max(left, 0), width - max(right, 0))
    if min(top, bottom, left, right) < 0:
        rows = slice(max(-top, 0), h - max(-bottom, 0))
        x = x[:, :, rows, max(-left, 0) : w - max(-right, 0)]
    if last:
        return buffer, buffer[:, down, along], x.transpose(0, 2, 3, 1)
    return buffer, buffer[:, :, down, along], x


def sliding(
    xp: Any, buffer: Any, kernel: Pair, counts: Pair, geometry: Geometry, *, last: bool = False
) -> Any:
    """All windows of padded images as a view.

    From (N, C, H, W) it is (N, C, KH, KW, OH, OW); with the channels last, from (N, H, W, C),
    it is (N, OH, OW, KH, KW, C), the last two dimensions joined when they are contiguous.
    """
    (step_down, step_along), (far_down, far_along) = geometry.stride, geometry.dilation
    s = buffer.strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    if last:
        n, _, _, c = buffer.shape
        shape, strides = (n, *counts, *kernel, c), (s[0], s[1] * step_down, s[2] * step_along)
        if far_along == 1:
            shape = (*shape[:4], kernel[1] * c)
            strides += (s[1] * far_down, s[3])
        else:
            strides += (s[1] * far_down, s[2] * far_along, s[3])
    else:
        shape = (*buffer.shape[:2], *kernel, *counts)
        strides = (s[0], s[1], s[2] * far_down, s[3] * far_along)
        strides += (s[2] * step_down, s[3] * step_along)
    if buffer.__class__ is np.ndarray:
        return np.ndarray(shape, buffer.dtype, buffer, 0, strides)
    return xp.lib.stride_tricks.as_strided(buffer, shape, strides)


def rows_of_copies(
    channels: int, counts: Pair, kernel: Pair, geometry: Geometry, more: int, most: int
) -> int:
    """How many rows of a result, an even number, compiled code makes from one copy of its images.

    Args:
        counts: height and width of the result.
        more: bytes beside, for each row of the result.
        most: how many bytes the copies, of a vector's `VECTOR` bytes for each pixel, may take.
    """
    pixels = (counts[1] - 1) * geometry.stride[1] + geometry.dilation[1] * (kernel[1] - 1) + 1
    row = channels * pixels * VECTOR
    beyond = row * (geometry.dilation[0] * (kernel[0] - 1) + 1)
    rows = max((most - beyond) // (row * geometry.stride[0] + more), 2)
    return min(rows - rows % 2, counts[0] + counts[0] % 2)
