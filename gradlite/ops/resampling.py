"""The weights with which pixels contribute to those of a resized image, as matrices and tables.

They are the host's arrays, and constants of a captured step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
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


class Resized(NamedTuple):
    """The places of a dimension that is resized.

    Attributes:
        size: of the input.
        wanted: the size of the result.
        mode: as `interpolate` has it.
        scale: what counts in the place of the sizes' ratio, or None.
        align_corners: whether the ends' centres stay in place.
        antialias: whether all between two places is weighed.
        turned: whether it is the adjoint that is meant, from ``wanted`` places back to ``size``.
    """

    size: int
    wanted: int
    mode: str
    scale: float | None
    align_corners: bool
    antialias: bool
    turned: bool = False

    @property
    def copies(self) -> bool:
        """Whether every place is one of the input's."""
        return self.mode.startswith("nearest")

    def sources(self) -> Array:
        """Of a line that copies, the input's place for every place."""
        # Single precision, so that ties fall as they do in PyTorch.
        step = np.float32(1 / self.scale if self.scale else self.size / self.wanted)
        half = np.float32(0.5 if self.mode == "nearest-exact" else 0)
        positions = np.arange(self.wanted, dtype=np.float32) + half
        return np.minimum(np.floor(positions * step).astype(np.int64), self.size - 1)

    def copies_of_places(self) -> tuple[Array, list[tuple[Array, Array]]]:
        """The places that are copied; and of those with an i-th copy, which they are, and it."""
        places, starts, counts = np.unique(self.sources(), return_index=True, return_counts=True)
        which = [np.flatnonzero(counts > i) for i in range(counts.max())]
        return places, [(some, starts[some] + i) for i, some in enumerate(which)]

    def matrix(self) -> Array:
        """The weights ``(wanted, size)`` of the input's places in every place."""
        if self.antialias:
            return antialiased(*self[:2], self.scale, self.align_corners, self.mode)
        make = cubic if self.mode == "bicubic" else linear
        return make(*self[:2], self.scale, self.align_corners)


def terms(line: Any, dtype: Any) -> tuple[Array | None, Array, Array | None, int]:
    """Of each place: where its terms begin, their places in the input, their weights.

    No beginnings: one term each. No weights: all are 1. Last is how many terms a place has at most.
    """
    if line.copies:
        sources = line.sources()
        if not line.turned:
            return None, sources.astype(np.int32), None, 1
        places = np.argsort(sources, kind="stable")
        rows, weights = sources[places], None
    else:
        matrix = line.matrix().T if line.turned else line.matrix()
        rows, places = np.nonzero(matrix)
        weights = matrix[rows, places].astype(dtype)
    starts = np.searchsorted(rows, np.arange(result_size(line) + 1)).astype(np.int32)
    return starts, places.astype(np.int32), weights, int(np.diff(starts).max())


def result_size(line: Any) -> int:
    """How many places a line makes."""
    return line.size if line.turned else line.wanted  # type: ignore[no-any-return]
