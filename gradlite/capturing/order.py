"""The order of recorded calls: another one where it needs less memory at its highest point.

A call may be made sooner when nothing in between has to do with what it reads and writes. That
pays where something large dies with it: the gradient of a layer's weights is the last to read the
layer's input, and goes before the input's gradient, which is as large; the slope of an activation
takes the place of the values that it comes from when it is made with them in forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gradlite.capturing.calls import MADE, AnyCall, Buffer, Call, Guard, HostCall, Ref, written_by
from gradlite.ops import products

PRODUCTS = (np.dot, np.ndarray.dot, products.multiplied)
MOVES = 200  # at most
TOGETHER = 12  # calls, the most that move at once
CANDIDATES = 24  # the largest of the buffers that are in use at the highest point
ALONE = 0  # the number of the loop of calls that are part of none


def ordered(
    calls: list[AnyCall],
    pinned: set[Buffer],
    refs_of: Callable[[AnyCall], Iterable[Ref]],
    loop_of: Callable[[AnyCall], Any] = lambda call: None,
) -> list[AnyCall]:
    """The calls in an order whose highest point is lower, if one is found.

    Args:
        calls: the calls.
        pinned: buffers that stay in use to the end.
        refs_of: all arrays that a call mentions.
        loop_of: the same for calls that become one loop if they follow each other, None for those
            that become none. What is made and read in one loop alone takes no memory.
    """
    order = _Order(calls, pinned, refs_of, loop_of)
    for _ in range(MOVES):
        if not order.improve():
            break
    return order.calls


class _Order:
    """Calls, the buffers that each mentions and writes, and the bytes in use at each."""

    def __init__(
        self,
        calls: list[AnyCall],
        pinned: set[Buffer],
        refs_of: Callable[[AnyCall], Iterable[Ref]],
        loop_of: Callable[[AnyCall], Any],
    ) -> None:
        self.calls, self._pinned = list(calls), pinned
        self._mentions = [{ref.buffer.origin for ref in refs_of(call)} for call in calls]
        self._writes = [{b.origin for b in written_by(call)} for call in calls]
        numbers: dict[Any, int] = {None: ALONE}
        loops = [numbers.setdefault(loop_of(call), len(numbers)) for call in calls]
        self._loops = np.array(loops, np.int64)
        self._uses: dict[Buffer, list[int]] = {}
        for position, buffers in enumerate(self._mentions):
            for buffer in buffers:
                if buffer.kind == MADE:
                    self._uses.setdefault(buffer, []).append(position)
        self._sizes = dict.fromkeys(self._uses, 0)
        self._change = np.zeros(len(calls) + 1, np.int64)
        self._count(self._uses)

    def _count(self, buffers: Iterable[Buffer]) -> None:
        """Count in some buffers, which were not."""
        ends = (self._loops[:-1] != self._loops[1:]) | (self._loops[:-1] == ALONE)
        before = np.concatenate(([0], np.cumsum(ends)))  # ends of loops before each call
        for buffer in buffers:
            first, last = self._uses[buffer][0], self._uses[buffer][-1]
            alone = before[first] == before[last] and self._loops[first] != ALONE
            size = 0 if alone and buffer not in self._pinned else buffer.stop - buffer.start
            self._sizes[buffer] = size
            self._change[first] += size
            self._change[self._end(buffer, last) + 1] -= size
        self.used = np.cumsum(self._change)[:-1]

    def _discount(self, buffers: Iterable[Buffer]) -> None:
        for buffer in buffers:
            uses, size = self._uses[buffer], self._sizes[buffer]
            self._change[uses[0]] -= size
            self._change[self._end(buffer, uses[-1]) + 1] += size

    def _end(self, buffer: Buffer, last: int) -> int:
        return len(self.calls) - 1 if buffer in self._pinned else last

    def improve(self) -> bool:
        """Lower the highest point by one move; whether that was possible."""
        if not len(self.used):
            return False
        peak = int(self.used.argmax())
        there = [
            (self._sizes[buffer], uses[-1])
            for buffer, uses in self._uses.items()
            if uses[0] <= peak <= uses[-1] and buffer not in self._pinned
        ]
        there.sort(reverse=True)
        for last in dict.fromkeys(last for _, last in there[:CANDIDATES]):
            found = self._slice(last, peak)
            if found is None:
                continue
            moved, earliest = found
            for place in dict.fromkeys((earliest, min(peak, moved[0]))):
                if self._pays(moved, place, peak):
                    self._move(moved, place)
                    return True
        return False

    def _slice(self, last: int, peak: int) -> tuple[list[int], int] | None:
        """What has to move with a call to get before the highest one, and how far it could go."""
        moved: list[int] = []
        mentions: set[Buffer] = set()
        writes: set[Buffer] = set()
        for position in range(last, -1, -1):
            tied = position == last or self._tied(position, mentions, writes)
            if not tied:
                continue
            if position < peak and moved:
                return moved[::-1], position + 1
            if len(moved) == TOGETHER or not self._is_movable(position):
                return None
            moved.append(position)
            mentions |= self._mentions[position]
            writes |= self._writes[position]
        return moved[::-1], 0

    def _tied(self, position: int, mentions: set[Buffer], writes: set[Buffer]) -> bool:
        """Whether calls that mention and write some buffers have to stay behind another one."""
        call = self.calls[position]
        if isinstance(call, HostCall):
            return True
        if not writes.isdisjoint(self._mentions[position]):
            return True
        if isinstance(call, Guard):  # what a replay leaves stays when it does not hold
            return call.keeps and not writes.isdisjoint(self._pinned)
        return not mentions.isdisjoint(self._writes[position])

    def _is_movable(self, position: int) -> bool:
        call = self.calls[position]
        return (
            isinstance(call, Call)
            and (isinstance(call.function, np.ufunc) or call.function in PRODUCTS)
            and all(buffer.kind == MADE for buffer in self._writes[position])
        )

    def _pays(self, moved: list[int], place: int, peak: int) -> bool:
        """Whether the highest point is lower, and no other as high, with calls at a place."""
        most, stop = self.used[peak], moved[-1]
        change = np.zeros(stop - place + 2, np.int64)  # of what is in use at the calls passed
        own = set(moved)
        born = 0
        for buffer in set().union(*(self._mentions[position] for position in moved)):
            uses = self._uses.get(buffer)
            if uses is None:
                continue
            size, rest = self._sizes[buffer], [use for use in uses if use not in own]
            first, last = uses[0], self._end(buffer, uses[-1])
            if first >= place:  # is there from the new place on
                born += size
                change[: first - place] += size
            if last <= stop:  # and no longer than till its last use elsewhere
                end = max(rest[-1] if rest else -1, place - 1)
                change[end + 1 - place : last + 1 - place] -= size
        if born + (self.used[place - 1] if place else 0) >= most:
            return False
        after = self.used[place : stop + 1] + change[: stop + 1 - place]
        stay = np.ones(len(after), bool)
        stay[[position - place for position in moved]] = False
        raised = stay & (change[: stop + 1 - place] > 0)
        lower = peak in own or after[peak - place] < most
        return bool(lower and (after[raised] < most).all())

    def _move(self, moved: list[int], place: int) -> None:
        # Only what the calls from the place on to the last of them mention is used elsewhere now: a
        # loop that others reach over these calls is parted by them in any order, or in none.
        own, stop = set(moved), moved[-1] + 1
        order = [*moved, *(i for i in range(place, stop) if i not in own)]
        touched = set().union(*self._mentions[place:stop]) & self._uses.keys()
        self._discount(touched)
        self.calls[place:stop] = [self.calls[i] for i in order]
        self._mentions[place:stop] = [self._mentions[i] for i in order]
        self._writes[place:stop] = [self._writes[i] for i in order]
        self._loops[place:stop] = self._loops[order]
        now = {was: place + at for at, was in enumerate(order)}
        for buffer in touched:
            self._uses[buffer] = sorted(now.get(use, use) for use in self._uses[buffer])
        self._count(touched)
