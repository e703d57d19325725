"""Pooling of raw arrays (..., H, W): maxima and their places, means, and their gradients.

Maxima remember, for every window, which of its elements won, as one small number. The fold
over a window's elements runs in blocks of images that stay in the second-level cache, each
element copied to contiguous memory first, where comparisons are vectorised. Windows of many
elements are laid side by side instead, and the place of the winner kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from gradlite.ops import pool_compiled, shortcuts
from gradlite.ops.windows import Geometry, Pair, block_size, blocks, padded_buffer, sliding

MANY_TAPS = 64
# Without padding, only what is copied per element of a window needs room in the cache.
UNPADDED_BYTES = 4_000_000


def _images(x: Any) -> Any:
    """Leading dimensions joined: (N, 1, H, W)."""
    n = 1
    for size in x.shape[:-2]:
        n *= size
    return x.reshape((n, 1, *x.shape[-2:]))


def _bits(x: Any) -> Any:
    """Floating numbers as integers of the same bits: 0 or 1 times them is exact, even for inf."""
    return x.view(f"i{x.itemsize}") if x.dtype.kind == "f" else x


def _lowest(dtype: Any) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _taps(kernel: Pair) -> list[Pair]:
    return [(i, j) for i in range(kernel[0]) for j in range(kernel[1])]


def _disjoint(kernel: Pair, geometry: Geometry) -> bool:
    """Whether no element belongs to two windows."""
    return all(s >= d * (k - 1) + 1 for s, d, k in zip(geometry.stride, geometry.dilation, kernel))


def _step(xp: Any, x: Any, geometry: Geometry) -> int:
    """How many images go through the cache together."""
    n, _, h, w = x.shape
    image_bytes = h * w * x.itemsize
    if geometry.padded:
        return block_size(xp, n, 1, image_bytes)[0]
    step: int = n if xp is not np else max(1, UNPADDED_BYTES // max(1, image_bytes))
    return step


def _padded_parts(xp: Any, x: Any, geometry: Geometry, fill: Any, *outs: Any) -> Any:
    """Padded images that go through the cache together, with the parts of results for them."""
    if not geometry.padded and (xp is not np or x.nbytes <= UNPADDED_BYTES):
        yield x, *outs
        return
    images, *results = map(_images, (x, *outs))
    step = _step(xp, images, geometry)
    if geometry.padded:
        buffer, inner, source = padded_buffer(xp, step, images, geometry.pads, fill=fill)
    for block in blocks(images.shape[0], step):
        part = images[block]
        if geometry.padded:
            part = buffer[: block.stop - block.start]
            inner[: block.stop - block.start] = source[block]
        yield part, *[result[block] for result in results]


# --------------------------------------------------------------------------------- maxima
def maximum_values(xp: Any, x: Any, kernel: Pair, geometry: Geometry) -> Any:
    """The maximum of every window."""
    return _folded(xp, xp.maximum, x, kernel, geometry, _lowest(x.dtype))


def _folded(xp: Any, fold: Any, x: Any, kernel: Pair, geometry: Geometry, fill: Any) -> Any:
    """A ufunc over the elements of every window: over the rows of windows, then along them."""
    height, width = geometry.counts(x.shape[-2:], kernel)
    out = xp.empty((*x.shape[:-2], height, width), x.dtype)
    for part, target in _padded_parts(xp, x, geometry, fill, out):
        rows = part[..., geometry.rows(0, height), :]
        for i in range(1, kernel[0]):
            row = part[..., geometry.rows(i, height), :]
            rows = fold(rows, row, out=None if i == 1 else rows)
        folded = rows[..., geometry.columns(0, width)]
        if kernel[1] == 1:
            target[...] = folded
        for j in range(1, kernel[1]):
            folded = fold(folded, rows[..., geometry.columns(j, width)], out=target)
    return out


def maxima(xp: Any, x: Any, kernel: Pair, geometry: Geometry) -> tuple[Any, Any]:
    """The maximum of every window, and the number of the element that it is.

    Elements are numbered in row-major order; the first of equal ones wins, and the last NaN.
    """
    made = pool_compiled.maxima(x, kernel, geometry)
    if made is not None:
        return made
    counts = geometry.counts(x.shape[-2:], kernel)
    taps = _taps(kernel)
    out = xp.empty((*x.shape[:-2], *counts), x.dtype)
    winners = xp.empty(out.shape, np.uint8 if len(taps) <= 256 else np.int32)
    first: Any = 0
    if geometry.padded:
        first = xp.asarray(_first_inside(kernel, geometry, counts), winners.dtype)
    if len(taps) > MANY_TAPS:
        return _maxima_of_columns(xp, x, kernel, geometry, out, winners, first)
    for part, high, which in _padded_parts(xp, x, geometry, _lowest(x.dtype), out, winners):
        _fold(xp, part, taps, geometry, high, which, first, xp is not np)
        if xp is np and high.size and high.dtype.kind == "f" and np.isnan(high.max()):
            _fold(xp, part, taps, geometry, high, which, first, True)
    return out, winners


def _fold(
    xp: Any,
    part: Any,
    taps: list[Pair],
    geometry: Geometry,
    high: Any,
    which: Any,
    first: Any,
    nans: bool,
) -> None:
    """Fold the elements of the windows into the running maxima and winners."""
    counts = high.shape[-2:]
    down, along = geometry.tap(0, 0, counts)
    high[...] = part[..., down, along]
    which[...] = first
    values, beats = xp.empty(high.shape, high.dtype), xp.empty(high.shape, which.dtype)
    for number, tap in enumerate(taps[1:], start=1):
        down, along = geometry.tap(*tap, counts)
        values[...] = part[..., down, along]
        wins = xp.greater(values, high)
        if nans:
            wins |= values != values  # noqa: PLR0124
        # Later elements have higher numbers, so the maximum keeps the last winner.
        xp.multiply(wins, which.dtype.type(number), out=beats)
        xp.maximum(which, beats, out=which)
        xp.maximum(high, values, out=high)


def _first_inside(kernel: Pair, geometry: Geometry, counts: Pair) -> Any:
    """The number of each window's first element that is not padding: it wins over -inf alone."""
    firsts = []
    for i in (0, 1):
        before = geometry.pads[i][0] - np.arange(counts[i]) * geometry.stride[i]
        firsts.append(np.maximum(-(-before // geometry.dilation[i]), 0))
    return firsts[0][:, None] * kernel[1] + firsts[1]


def _maxima_of_columns(
    xp: Any, x: Any, kernel: Pair, geometry: Geometry, out: Any, winners: Any, first: Any
) -> tuple[Any, Any]:
    counts = out.shape[-2:]
    for part, high, which in _padded_parts(
        xp, x, geometry, _lowest(x.dtype), _images(out), _images(winners)
    ):
        part = _images(xp.ascontiguousarray(part))
        windows = sliding(xp, part, kernel, counts, geometry).transpose(0, 1, 4, 5, 2, 3)
        windows = windows.reshape((*windows.shape[:4], kernel[0] * kernel[1]))
        high[...], best = _best(xp, windows)
        which[...] = xp.maximum(best, first)
    return out, winners


def _best(xp: Any, rows: Any) -> tuple[Any, Any]:
    """The maximum of each row and where it is: the first of equal ones, the last NaN."""
    best = rows.argmax(-1)
    high = xp.take_along_axis(rows, best[..., None], -1)[..., 0]
    if high.dtype.kind == "f":
        nans = xp.isnan(high)
        if xp is not np or not shortcuts.allowed(~nans.any()):
            last = rows.shape[-1] - 1 - xp.isnan(rows[..., ::-1]).argmax(-1)
            best = xp.where(nans, last, best)
    return high, best


def positions(xp: Any, winners: Any, size: Pair, kernel: Pair, geometry: Geometry) -> Any:
    """The place in its image, row * width + column, of each window's winner."""
    counts = winners.shape[-2:]
    number = winners.astype(np.int64)
    i, j = number // kernel[1], number % kernel[1]
    top = xp.arange(counts[0]) * geometry.stride[0] - geometry.pads[0][0]
    left = xp.arange(counts[1]) * geometry.stride[1] - geometry.pads[1][0]
    rows = i * geometry.dilation[0] + top[:, None]
    places = rows * size[1] + (j * geometry.dilation[1] + left)
    # With a dilation, a window can miss the image altogether.
    return xp.minimum(places, size[0] * size[1] - 1)


def scatter(
    xp: Any, g: Any, winners: Any, shape: Any, kernel: Pair | None, geometry: Geometry | None
) -> Any:
    """Zeros with a value per window added at its winner.

    Without a geometry, winners are places in the image.
    """
    made = pool_compiled.scatter(g, winners, shape, kernel, geometry)
    if made is not None:
        return made
    if kernel is None or geometry is None or kernel[0] * kernel[1] > MANY_TAPS:
        if kernel is not None and geometry is not None:
            winners = positions(xp, winners, shape[-2:], kernel, geometry)
        places = winners.reshape((-1, winners.shape[-2] * winners.shape[-1]))
        out = xp.zeros(shape, g.dtype)
        images = xp.arange(places.shape[0])[:, None]
        rows = out.reshape((places.shape[0], shape[-2] * shape[-1]))
        xp.add.at(rows, (images, places), g.reshape(places.shape))
        return out
    out = xp.zeros(shape, g.dtype)
    result, values, winners = _images(out), _images(xp.ascontiguousarray(g)), _images(winners)
    counts, disjoint = values.shape[2:], _disjoint(kernel, geometry)
    step = _step(xp, result, geometry)
    if geometry.padded:
        buffer, inner, target = padded_buffer(xp, step, result, geometry.pads)
    for block in blocks(result.shape[0], step):
        part = buffer[: block.stop - block.start] if geometry.padded else result[block]
        if geometry.padded:
            part[...] = 0
        bits, which = _bits(values[block]), winners[block]
        for number, tap in enumerate(_taps(kernel)):
            down, along = geometry.tap(*tap, counts)
            if disjoint:
                xp.multiply(bits, which == number, out=_bits(part)[:, :, down, along])
            else:
                part[:, :, down, along] += xp.multiply(bits, which == number).view(g.dtype)
        if geometry.padded:
            target[block] = inner[: part.shape[0]]
    return out


def gather(xp: Any, x: Any, winners: Any, kernel: Pair | None, geometry: Geometry | None) -> Any:
    """The value at each window's winner, the transpose of `scatter`."""
    if kernel is not None and geometry is not None:
        winners = positions(xp, winners, x.shape[-2:], kernel, geometry)
    places = winners.reshape((-1, winners.shape[-2] * winners.shape[-1]))
    rows = x.reshape((places.shape[0], x.shape[-2] * x.shape[-1]))
    return xp.take_along_axis(rows, places, -1).reshape(winners.shape)


# ---------------------------------------------------------------------------------- means
@lru_cache(256)
def window_areas(
    size: Pair, kernel: Pair, geometry: Geometry, padding: Pair, include_pad: bool
) -> Any:
    """How many elements each window averages over."""
    counts = geometry.counts(size, kernel)
    sides = []
    for n, k, s, p, count in zip(size, kernel, geometry.stride, padding, counts):
        start = np.arange(count) * s - p
        end = np.minimum(start + k, n + p)
        if not include_pad:
            start, end = np.maximum(start, 0), np.minimum(end, n)
        sides.append(end - start)
    return sides[0][:, None] * sides[1]


def _divided(xp: Any, sums: Any, divisor: Any) -> Any:
    if sums.dtype.kind == "f":
        sums /= xp.asarray(divisor, sums.dtype)
        return sums
    divisor = xp.asarray(divisor)
    # Integers are divided towards zero.
    return xp.sign(sums) * xp.sign(divisor) * (xp.abs(sums) // xp.abs(divisor))


def means(xp: Any, x: Any, kernel: Pair, geometry: Geometry, divisor: Any) -> Any:
    """The sum of every window over a divisor."""
    sums = _folded(xp, xp.add, x, kernel, geometry, 0)
    return _divided(xp, sums, divisor).astype(x.dtype, copy=False)


def spread_means(
    xp: Any, g: Any, shape: Any, kernel: Pair, geometry: Geometry, divisor: Any
) -> Any:
    """The gradient of `means`: each window's share on all its elements."""
    out = xp.zeros(shape, g.dtype)
    result = _images(out)
    shares = _images(g) / xp.asarray(divisor, result.dtype)
    counts, disjoint = shares.shape[2:], _disjoint(kernel, geometry)
    n, _, _, width = result.shape
    step = max(min(_step(xp, result, geometry), n), 1)
    if geometry.padded:
        buffer, inner, target = padded_buffer(xp, step, result, geometry.pads)
        width = buffer.shape[3]
    rows = xp.zeros((step, 1, counts[0], width), result.dtype)
    for block in blocks(n, step):
        count = block.stop - block.start
        part, row = (buffer[:count] if geometry.padded else result[block]), rows[:count]
        if not disjoint:
            row[...] = 0
        for j in range(kernel[1]):
            along = geometry.tap(0, j, counts)[1]
            if disjoint:
                row[..., along] = shares[block]
            else:
                row[..., along] += shares[block]
        if geometry.padded:
            part[...] = 0
        for i in range(kernel[0]):
            down = geometry.tap(i, 0, counts)[0]
            if disjoint:
                part[:, :, down] = row
            else:
                part[:, :, down] += row
        if geometry.padded:
            target[block] = inner[:count]
    return out


# -------------------------------------------------------------------------------- adaptive
def _bounds(size: int, parts: int) -> list[Pair]:
    """Where each of the parts that divide a size evenly starts and stops."""
    return [(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]


def _even(shape: Any, size: Pair) -> Pair | None:
    """The size of windows that are all alike and do not overlap."""
    if min(size) > 0 and shape[-2] % size[0] == 0 and shape[-1] % size[1] == 0:
        return shape[-2] // size[0], shape[-1] // size[1]
    return None


def adaptive_means(xp: Any, x: Any, size: Pair) -> Any:
    h, w = x.shape[-2:]
    window = _even(x.shape, size)
    if window is not None:
        return means(xp, x, window, Geometry(window), window[0] * window[1])
    rows = xp.empty((*x.shape[:-2], size[0], w), x.dtype)
    for i, (start, stop) in enumerate(_bounds(h, size[0])):
        rows[..., i, :] = x[..., start:stop, :].sum(-2) / (stop - start)
    out = xp.empty((*x.shape[:-2], *size), x.dtype)
    for j, (start, stop) in enumerate(_bounds(w, size[1])):
        out[..., j] = rows[..., start:stop].sum(-1) / (stop - start)
    return out


def spread_adaptive_means(xp: Any, g: Any, shape: Any) -> Any:
    window = _even(shape, g.shape[-2:])
    if window is not None:
        return spread_means(xp, g, shape, window, Geometry(window), window[0] * window[1])
    rows = xp.zeros((*g.shape[:-1], shape[-1]), g.dtype)
    for j, (start, stop) in enumerate(_bounds(shape[-1], g.shape[-1])):
        rows[..., start:stop] += g[..., j : j + 1] / (stop - start)
    out = xp.zeros(shape, g.dtype)
    for i, (start, stop) in enumerate(_bounds(shape[-2], g.shape[-2])):
        out[..., start:stop, :] += rows[..., i : i + 1, :] / (stop - start)
    return out


def adaptive_maxima(xp: Any, x: Any, size: Pair) -> tuple[Any, Any]:
    """The maxima, and their places in the images."""
    h, w = x.shape[-2:]
    out = xp.empty((*x.shape[:-2], *size), x.dtype)
    places = xp.empty(out.shape, np.int64)
    for i, (top, bottom) in enumerate(_bounds(h, size[0])):
        for j, (left, right) in enumerate(_bounds(w, size[1])):
            window = x[..., top:bottom, left:right]
            window = window.reshape((*x.shape[:-2], (bottom - top) * (right - left)))
            out[..., i, j], best = _best(xp, window)
            places[..., i, j] = (best // (right - left) + top) * w + best % (right - left) + left
    return out, places
