"""Inputs that array calls read where they lie, without a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gradlite.capturing.arrays import bounds
from gradlite.capturing.calls import Buffer, Call, HostCall, Ref, bound

WORTH_MOVING = 1 << 14  # bytes: from here on a copy costs more than other arguments


class MovingInputs:
    """The inputs that a plan's calls only read, and the steps that read them.

    Args:
        inputs: the recorded inputs' arrays.
        calls, steps: the plan's calls, and what it makes of them.
        refs_of: all arrays that a call mentions.
        array: the array of a `Ref` in the steps.
        pinned: the buffers that something outside of the plan reads.
        arena: the plan's own memory.

    Attributes:
        places: the numbers of the inputs that need no copy.
    """

    def __init__(
        self,
        inputs: Sequence[Any],
        calls: Sequence[Any],
        steps: Sequence[Any],
        refs_of: Callable[[Any], Iterable[Ref]],
        array: Callable[[Ref], Any],
        pinned: set[Buffer],
        arena: Any,
    ) -> None:
        numbers = {id(a): i for i, a in enumerate(inputs) if a.nbytes >= WORTH_MOVING}
        refs: dict[Buffer, list[Ref]] = {}
        written, self._taken = set(pinned), [bounds(arena)]
        for call in calls:
            if isinstance(call, Call):
                written.update(ref.buffer for ref in (*call.outs, *call.writes))
            elif isinstance(call, HostCall):
                written.update(ref.buffer for ref in refs_of(call))
                self._taken += map(bounds, call.changes)
            for ref in refs_of(call):
                if id(ref.buffer.root) in numbers:
                    refs.setdefault(ref.buffer, []).append(ref)
        self._taken += [(b.start, b.stop) for b in written if b.root is not None]
        moving = {b: found for b, found in refs.items() if b not in written}
        own = {id(array(ref)): ref for found in moving.values() for ref in found}
        self._steps: list[tuple[int, Any, Any]] = []
        seen: dict[Buffer, int] = {}
        for position, (function, args) in enumerate(steps):
            found: list[Ref] = []
            template = _with_refs(args, own, found)
            if found:
                self._steps.append((position, function, template))
            for ref in found:
                seen[ref.buffer] = seen.get(ref.buffer, 0) + 1
        # Others are hidden in what a step has made of a call.
        whole = {b for b, found in moving.items() if seen.get(b) == len(found)}
        if len(whole) < len(moving):
            whole, self._steps = set(), []
        self._numbers = {numbers[id(b.root)]: b for b in whole}
        self.places = set(self._numbers)
        for buffer in whole:
            buffer.root = None

    def point(self, values: Sequence[Any], steps: list[Any]) -> None:
        """Let the steps read the arrays of the inputs."""
        found = {b: self._readable(values[number]) for number, b in self._numbers.items()}

        def view(ref: Ref) -> Any:
            value = found[ref.buffer]
            if ref.shape == value.shape and ref.strides == value.strides:
                return value
            return np.ndarray(ref.shape, ref.dtype, value, ref.offset, ref.strides)

        for position, function, template in self._steps:
            steps[position] = function, bound(template, view)

    def _readable(self, value: Any) -> Any:
        """The array itself, or a copy of one that the step writes to or that lies otherwise."""
        start, stop = bounds(value)
        if value.flags.c_contiguous and not any(a < stop and start < b for a, b in self._taken):
            return value
        return value.copy()


def _with_refs(value: Any, own: dict[int, Ref], found: list[Ref]) -> Any:
    """Arguments with a `Ref` in place of the inputs' arrays, which are noted."""
    if value.__class__ is tuple or value.__class__ is list:
        return value.__class__([_with_refs(v, own, found) for v in value])
    ref = own.get(id(value))
    if ref is None:
        return value
    found.append(ref)
    return ref
