"""Integrals and derivatives of sampled functions: trapezoid, cumulative_trapezoid, gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.cumulative import cumsum
from gradlite.ops.dims import wrap_dim
from gradlite.ops.gather import index_select
from gradlite.ops.guard import on_its_device
from gradlite.ops.joining import cat, narrow
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.samples import S, constant, normal, positive
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["cumulative_trapezoid", "gradient", "trapezoid", "trapz"]


def _areas(y: Any, x: Any, dx: Any, dim: int) -> Any:
    """The areas of the trapezoids between neighbours along a dimension, up to a factor.

    Returns:
        The areas, the dimension, and the factor, which PyTorch applies to sums of areas.
    """
    d = wrap_dim(dim, y.array.ndim)
    n = y.array.shape[d]
    if n == 0:
        return y, d, 1.0
    sums = narrow(y, d, 1, n - 1) + narrow(y, d, 0, n - 1)  # type: ignore[operator]
    if x is None:
        return sums, d, (1 if dx is None else dx) / 2.0
    if x.array.ndim == 1:
        if x.array.size != n:
            raise RuntimeError("trapezoid: There must be one `x` value for each sample point")
        steps = (x[1:] - x[:-1]).reshape(-1, *(1,) * (y.array.ndim - 1 - d))
    else:
        k = wrap_dim(dim, x.array.ndim)
        m = x.array.shape[k]
        steps = narrow(x, k, 1, m - 1) - narrow(x, k, 0, m - 1)  # type: ignore[operator]
    return sums * steps, d, 0.5


def _samples() -> list[Any]:
    return [
        S(normal(5)),
        S(normal(3, 4), dx=0.5),
        S(normal(3, 4), dim=0),
        S(normal(3, 4), normal(4)),
        S(normal(3, 4), normal(3, 4)),
        S(normal(3, 4), normal(3), dim=0),
        S(normal(1)),
    ]


@public(samples=_samples, errors=lambda: [S(normal(4), normal(3))])
def trapezoid(
    y: Tensor, x: Tensor | None = None, *, dx: float | None = None, dim: int = -1
) -> Tensor:
    """The integral along a dimension by the trapezoidal rule, at points ``x`` or ``dx`` apart.

    >>> import gradlite
    >>> gradlite.trapezoid(gradlite.tensor([1.0, 2.0, 4.0]))
    tensor(4.5000)
    """
    if x is None and y.array.shape[wrap_dim(dim, y.array.ndim)]:
        values: Any = y
        ends = values.select(dim, 0) + values.select(dim, -1)
        return (values.sum(dim) - ends * 0.5) * (1.0 if dx is None else dx)  # type: ignore[no-any-return]
    areas, d, factor = _areas(y, x, dx, dim)
    return areas.sum(d) * factor  # type: ignore[no-any-return]


trapz = trapezoid


@public(samples=_samples, errors=lambda: [S(normal(4), normal(3))])
def cumulative_trapezoid(
    y: Tensor, x: Tensor | None = None, *, dx: float | None = None, dim: int = -1
) -> Tensor:
    """The integrals from the first point to each other one, by the trapezoidal rule.

    >>> import gradlite
    >>> gradlite.cumulative_trapezoid(gradlite.tensor([1.0, 2.0, 4.0]))
    tensor([1.5000, 4.5000])
    """
    areas, d, factor = _areas(y, x, dx, dim)
    return cumsum(areas, d) * factor  # type: ignore[operator, no-any-return]


@on_its_device
def _weights(y: Any, d: int, edge_order: int) -> Any:
    """The neighbours of each place along a dimension, and what they count in twice its slope.

    None where slices do: a GPU launches something for every part, and the neighbours together.
    """
    K, n = NAMESPACES[y.array.__class__].launcher, y.array.shape[d]
    if K is None or K.serial or n < 3 or y.array.dtype not in dtypes.FLOATING:
        return None

    def made() -> tuple[Any, ...]:
        after, before = np.arange(1, n + 1), np.arange(-1, n - 1)
        if edge_order == 1:
            places, weights = np.stack([after, before]), np.tile([[1.0], [-1.0]], n)
            ends: Any = (1, 0), (n - 1, n - 2)
            factors: Any = (2, -2), (2, -2)
        else:  # none is 0, which would make NaN of what is infinite
            places, weights = np.stack([after, after, before]), np.tile([[0.5], [0.5], [-1.0]], n)
            ends = (2, 1, 0), (n - 3, n - 2, n - 1)
            factors = (-1, 4, -3), (1, -4, 3)
        for end in (0, -1):
            places[:, end], weights[:, end] = ends[end], factors[end]
        shape = (len(places), n, *(1,) * (y.array.ndim - 1 - d))
        return places.ravel(), weights.reshape(shape).astype(y.array.dtype)

    key = "gradient", n, y.array.ndim - d, edge_order, y.array.dtype
    return tuple(map(wrap, K.constants(key, made)))


def _slopes(y: Any, spacing: Any, d: int, edge_order: int) -> Any:
    """Derivatives along a dimension, of second order inside."""
    n = y.array.shape[d]
    known = None if isinstance(spacing, Tensor) else _weights(y, d, edge_order)
    if known is not None:
        places, weights = known
        neighbours = index_select(y, d, places).unflatten(d, (-1, n))  # type: ignore[attr-defined]
        return (neighbours * weights).sum(d) / (2 * spacing)

    def part(start: int, stop: int) -> Any:
        return narrow(y, d, start, stop - start)

    if not isinstance(spacing, Tensor):
        h = spacing
        middle = (part(2, n) - part(0, n - 2)) / (2 * h)
        if edge_order == 1:
            first, last = (part(1, 2) - part(0, 1)) / h, (part(n - 1, n) - part(n - 2, n - 1)) / h
        else:
            first = (part(0, 1) * -1.5 + part(1, 2) * 2 - part(2, 3) * 0.5) / h
            last = (part(n - 1, n) * 1.5 - part(n - 2, n - 1) * 2 + part(n - 3, n - 2) * 0.5) / h
        return cat([first, middle, last], d)
    x: Any = spacing
    shape = (-1, *(1,) * (y.array.ndim - 1 - d))
    steps = (x[1:] - x[:-1]).reshape(shape)
    a, b = steps[:-1], steps[1:]
    middle = (
        part(0, n - 2) * (-b / (a * (a + b)))
        + part(1, n - 1) * ((b - a) / (a * b))
        + part(2, n) * (a / (b * (a + b)))
    )
    if edge_order == 1:
        first = (part(1, 2) - part(0, 1)) / steps[:1]
        last = (part(n - 1, n) - part(n - 2, n - 1)) / steps[-1:]
    else:
        a, b = steps[:1], steps[1:2]
        first = (
            part(0, 1) * (-(2 * a + b) / (a * (a + b)))
            + part(1, 2) * ((a + b) / (a * b))
            - part(2, 3) * (a / (b * (a + b)))
        )
        a, b = steps[-2:-1], steps[-1:]
        last = (
            part(n - 3, n - 2) * (b / (a * (a + b)))
            - part(n - 2, n - 1) * ((a + b) / (a * b))
            + part(n - 1, n) * ((2 * b + a) / (b * (a + b)))
        )
    return cat([first, middle, last], d)


@public(
    samples=lambda: [
        S(normal(5)),
        S(normal(4, 5)),
        S(normal(4, 5), spacing=0.5, dim=1),
        S(normal(4, 5), spacing=(0.5, 2.0), edge_order=2),
        S(normal(5), spacing=(constant(positive(5).cumsum()),)),
        S(normal(4, 5), spacing=(constant(positive(5).cumsum()),), dim=-1, edge_order=2),
    ],
    errors=lambda: [
        S(normal(1)),
        S(normal(4), edge_order=3),
        S(normal(4), spacing=(1.0, 2.0)),
        S(normal(2), edge_order=2),
    ],
)
def gradient(
    input: Tensor, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1
) -> tuple[Tensor, ...]:
    """Derivatives along dimensions from samples of a function, by central differences.

    Args:
        spacing: the distance of the samples, one for all dimensions or one for each; or vectors
            of their coordinates.
        dim: the dimensions, all by default.
        edge_order: 1 or 2, the order of the one-sided differences at both ends.

    >>> import gradlite
    >>> gradlite.gradient(gradlite.tensor([1.0, 4.0, 9.0]))
    (tensor([3., 4., 5.]),)
    """
    n = input.array.ndim
    given = range(n) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    dims = [wrap_dim(d, n) for d in given]
    spacing = 1 if spacing is None else spacing
    for place, d in enumerate(dims):
        if d in dims[:place]:
            raise RuntimeError(f"dim {d} appears multiple times in the list of dims")
    several = isinstance(spacing, Sequence)
    spacings = list(spacing) if several else [spacing] * len(dims)
    if len(spacings) != len(dims):
        raise RuntimeError(
            f"gradlite.gradient expected spacing to be unspecified, a scalar or it's spacing and "
            f"dim arguments to have the same length, but got a spacing argument of length "
            f"{len(spacings)} and a dim argument of length {len(dims)}."
        )
    if edge_order not in (1, 2):
        raise RuntimeError("gradlite.gradient only supports edge_order=1 and edge_order=2.")
    for d in dims:
        if input.array.shape[d] < edge_order + 1:
            raise RuntimeError(
                "gradlite.gradient expected each dimension size to be at least edge_order+1"
            )
    return tuple(_slopes(input, step, d, edge_order) for d, step in zip(dims, spacings))
