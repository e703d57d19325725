"""Bags of rows of a look-up table with NumPy: their sums, means and maxima, and the gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops import positions


def bags_of(xp: Any, starts: Any, size: int, bags: int) -> Any:
    """The bag of each index; without ``starts`` all bags are of one length."""
    if starts is None:
        return xp.arange(size) // max(size // max(bags, 1), 1)
    if xp is np:
        return np.repeat(np.arange(bags), np.diff(starts, append=size))
    return xp.searchsorted(starts, xp.arange(size), side="right") - 1


def pool(
    xp: Any, weight: Any, index: Any, starts: Any, factors: Any, bags: int, padding: int, mode: str
) -> tuple[Any, ...]:
    """What becomes of each bag, (bags, columns); see `EmbeddingBag` for the arguments.

    Returns:
        The sums, means or maxima, how many rows there are in each bag, at least 1, and for maxima
        also the place among the indices of each one, -1 where there is none.
    """
    columns = weight.shape[1]
    out = xp.zeros((bags, columns), weight.dtype)
    chosen = (xp.full(out.shape, -1),) if mode == "max" else ()
    if not index.size or not out.size:
        return out, xp.ones(bags, np.int64), *chosen
    bag, size, kept = bags_of(xp, starts, index.size, bags), index.size, None
    if padding >= 0:
        kept = xp.flatnonzero(index != padding)
        bag, index = bag[kept], index[kept]
        factors = None if factors is None else factors[kept]
    counts = xp.maximum(positions.counts(xp, bag, bags), 1)
    rows = weight.take(index, axis=0)
    if chosen:
        _maxima(xp, rows, bag, xp.arange(size) if kept is None else kept, size, out, *chosen)
        return out, counts, *chosen
    if factors is not None:
        rows = rows * factors[:, None]
    if starts is None and kept is None:
        out = rows.reshape(bags, size // bags, columns).sum(1)
    else:
        positions.add_rows(xp, out, bag, rows)
    return (out if mode == "sum" else out / counts[:, None].astype(out.dtype)), counts


def _maxima(xp: Any, rows: Any, bag: Any, places: Any, size: int, out: Any, chosen: Any) -> None:
    """The maxima of the rows of each bag, a NaN being one, and the first place of each."""
    first = xp.flatnonzero(xp.diff(bag, prepend=-1))
    if first.size:
        own = bag[first]
        out[own] = xp.maximum.reduceat(rows, first, axis=0)
        reached = (rows == out[bag]) | (rows != rows)
        chosen[own] = xp.minimum.reduceat(xp.where(reached, places[:, None], size), first, axis=0)


def spread(
    xp: Any, grad: Any, starts: Any, factors: Any, counts: Any, chosen: Any, size: int, mode: str
) -> Any:
    """The gradients of the rows that the indices name, (size, columns), one by one."""
    bags, columns = grad.shape
    if not size or not grad.size:
        return xp.zeros((size, columns), grad.dtype)
    if mode == "mean":
        grad = grad / counts[:, None].astype(grad.dtype)
    bag = bags_of(xp, starts, size, bags)
    values = grad.take(bag, axis=0)
    if chosen is not None:
        values = xp.where(xp.arange(size)[:, None] == chosen[bag], values, 0)
    return values if factors is None else values * factors[:, None]


def slopes(xp: Any, grad: Any, weight: Any, index: Any, starts: Any, padding: int) -> Any:
    """The gradients of the factors of sums."""
    if not grad.size:
        return xp.zeros(index.shape, grad.dtype)
    rows = weight.take(index, axis=0)
    products = grad.take(bags_of(xp, starts, index.size, grad.shape[0]), axis=0) * rows
    return xp.where(index != padding, products.sum(1), 0).astype(grad.dtype)


def frequencies(xp: Any, index: Any, rows: int) -> Any:
    """How often each row is among the indices, at least 1, as a column."""
    return xp.maximum(positions.counts(xp, index, rows), 1)[:, None].astype(np.float32)
