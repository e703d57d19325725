"""Packing: places in one piece of memory for what is not needed all the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

Spans = list[tuple[int, int]]  # the first and the last time of each, in order
Piece = tuple[int, Spans]  # how many bytes, and when
Key = TypeVar("Key")
GOOD = 1.002  # times the least that there can be
MANY = 3000  # pieces, of which one order takes a tenth of a second


def packed(pieces: Mapping[Key, Piece]) -> tuple[dict[Key, int], int]:
    """Where each piece lies, none at the place of another at the same time, and the bytes in all.

    Piece by piece, each takes the lowest place that is free. No order of the pieces is the best for
    all; some are tried until one comes close to what is needed at the highest point.
    """
    least = _highest(pieces)
    best: tuple[dict[Key, int], int] | None = None
    for order in ORDERS if len(pieces) <= MANY else ORDERS[:1]:
        found = _first_fit(pieces, order)
        if best is None or found[1] < best[1]:
            best = found
        if best[1] <= least * GOOD:
            break
    assert best is not None
    return best


def _length(piece: Piece) -> int:
    return sum(last - first + 1 for first, last in piece[1])


ORDERS: tuple[Callable[[Piece], Any], ...] = (
    lambda piece: -piece[0],
    lambda piece: (-piece[0].bit_length(), -_length(piece)),
    lambda piece: -piece[0] * _length(piece),
    lambda piece: (piece[1][0][0], -piece[0]),
    lambda piece: (-_length(piece), -piece[0]),
)


def _first_fit(
    pieces: Mapping[Key, Piece], order: Callable[[Piece], Any]
) -> tuple[dict[Key, int], int]:
    # Of what has been placed, from the lowest start on: start, stop, from when, to when, and which.
    placed = np.empty((5, len(pieces)), np.int64)
    keys = sorted(pieces, key=lambda k: order(pieces[k]))
    several = np.array([len(pieces[key][1]) > 1 for key in keys], bool)
    places: dict[Key, int] = {}
    total = 0
    for number, key in enumerate(keys):
        size, spans = pieces[key]
        first, last = spans[0][0], spans[-1][1]
        starts, stops, earliest, latest, which = placed[:, :number]
        beside = (earliest <= last) & (latest >= first)
        doubtful = beside if several[number] else beside & several[which]
        for i in doubtful.nonzero()[0]:
            beside[i] = _meet(spans, pieces[keys[which[i]]][1])
        beside = beside.nonzero()[0]
        at = 0
        if len(beside) and starts[beside[0]] < size:
            free = np.maximum.accumulate(stops[beside])  # nothing is there until the next start
            fits = (starts[beside][1:] - free[:-1] >= size).nonzero()[0]
            at = int(free[fits[0] if len(fits) else -1])
        places[key] = at
        behind = int(starts.searchsorted(at))
        placed[:, behind + 1 : number + 1] = placed[:, behind:number]
        placed[:, behind] = at, at + size, first, last, number
        total = max(total, at + size)
    return places, total


def _meet(some: Spans, others: Spans) -> bool:
    return any(a <= d and c <= b for a, b in some for c, d in others)


def _highest(pieces: Mapping[Key, Piece]) -> int:
    """The bytes that are needed at once at the highest point."""
    changes: dict[int, int] = {}
    for size, spans in pieces.values():
        for first, last in spans:
            changes[first] = changes.get(first, 0) + size
            changes[last + 1] = changes.get(last + 1, 0) - size
    used = most = 0
    for time in sorted(changes):
        used += changes[time]
        most = max(most, used)
    return most
