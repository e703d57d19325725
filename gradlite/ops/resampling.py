"""The weights with which pixels contribute to those of a resized image, as matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Matrix = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def _cubic(x: Matrix, a: float) -> Matrix:
    """Keys's cubic convolution kernel (1981) with its free parameter."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _triangle(x: Matrix) -> Matrix:
    return np.maximum(1 - np.abs(x), 0.0)


def _step(size: int, wanted: int, scale: float | None, align_corners: bool) -> float:
    if align_corners:
        return (size - 1) / (wanted - 1) if wanted > 1 else 0.0
    return 1 / scale if scale else size / wanted


def linear(size: int, wanted: int, scale: float | None, align_corners: bool) -> Matrix:
    """The matrix ``(wanted, size)`` of the two weights that make every output position."""
    step = _step(size, wanted, scale, align_corners)
    positions = np.arange(wanted, dtype=np.float64)
    source = positions * step if align_corners else np.maximum((positions + 0.5) * step - 0.5, 0)
    low = np.minimum(np.floor(source).astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    part = source - low
    weights = np.zeros((wanted, size))
    rows = np.arange(wanted)
    np.add.at(weights, (rows, low), 1 - part)
    np.add.at(weights, (rows, high), part)
    return weights


def cubic(size: int, wanted: int, scale: float | None, align_corners: bool) -> Matrix:
    """The matrix ``(wanted, size)`` of four weights each; the edge stands for what is beyond it."""
    step = _step(size, wanted, scale, align_corners)
    positions = np.arange(wanted, dtype=np.float64)
    source = positions * step if align_corners else (positions + 0.5) * step - 0.5
    low = np.floor(source).astype(np.int64)
    weights = np.zeros((wanted, size))
    for offset in range(-1, 3):
        places = np.clip(low + offset, 0, size - 1)
        np.add.at(weights, (np.arange(wanted), places), _cubic(source - low - offset, -0.75))
    return weights


def antialiased(
    size: int, wanted: int, scale: float | None, align_corners: bool, mode: str
) -> Matrix:
    """Weights of a filter as wide as the step between output positions, where that is over 1."""
    kernel: Callable[[Matrix], Matrix]
    kernel, reach = (_triangle, 1.0) if mode == "bilinear" else (lambda x: _cubic(x, -0.5), 2.0)
    step = _step(size, wanted, scale, align_corners)
    wide = max(step, 1.0)
    centre = step * (np.arange(wanted)[:, None] + 0.5)
    first = np.maximum((centre - reach * wide + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach * wide + 0.5).astype(np.int64), size)
    places = np.arange(size)
    weights = kernel((places - centre + 0.5) / wide)
    weights = np.where((places >= first) & (places < last), weights, 0.0)
    return weights / weights.sum(1, keepdims=True)


def in_fixed_point(weights: Matrix) -> tuple[Matrix, int]:
    """The weights as integers of 16 bits, and by how many bits they are too large.

    So are bytes resized: sums of products are exact, and rounded once for each dimension.
    """
    largest, bits = weights.max(), 0
    while bits < 22 and int(0.5 + largest * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    return np.trunc(weights * (1 << bits) + np.where(weights < 0, -0.5, 0.5)), bits
