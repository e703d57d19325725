"""Packing: places in one piece of memory for what is not needed all the time."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Spans = list[tuple[int, int]]  # the first and the last time of each, in order
Piece = tuple[int, Spans]  # how many bytes, and when
Key = TypeVar("Key")
GOOD = 1.002  # times the least that there can be
MANY = 600  # pieces, of which one order takes a tenth of a second


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
    placed: list[tuple[int, int, int, int, Spans]] = []  # start, stop, from when to when, when
    places: dict[Key, int] = {}
    total = 0
    for key in sorted(pieces, key=lambda k: order(pieces[k])):
        size, spans = pieces[key]
        first, last, at = spans[0][0], spans[-1][1], 0
        several = len(spans) > 1
        for start, stop, earliest, latest, others in placed:
            if start >= at + size:
                break
            if at < stop and first <= latest and earliest <= last:
                if not (several or len(others) > 1) or _meet(spans, others):
                    at = stop
        places[key] = at
        bisect.insort(placed, (at, at + size, first, last, spans))
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
