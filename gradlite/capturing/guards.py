"""The order of guards: a replay that does not hold has to find out before it changes anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from gradlite.backends import cuda
from gradlite.capturing.arrays import bounds
from gradlite.capturing.calls import (
    MADE,
    STATE,
    AnyCall,
    Buffer,
    Call,
    CaptureError,
    Guard,
    HostCall,
    LateGuardError,
    Ref,
    bound,
    refs_of,
    written_by,
)

FEW = 4  # calls, the most that one guard takes with it to the front
SMALL = 1 << 20  # bytes, the most that is copied for a call to come before a guard


def _has_effect(call: AnyCall) -> bool:
    """Whether a call changes what outlives the replay."""
    if isinstance(call, Call):
        return any(ref.buffer.kind != MADE for ref in (*call.outs, *call.writes))
    return isinstance(call, HostCall) and not call.undoable


def hoisted(calls: list[AnyCall]) -> list[AnyCall]:
    """The calls with every guard before the first effect, so that a failed one leaves no trace.

    A call that a guard needs, and that changes something beside, as a batch norm its running
    averages, changes a copy of it first.

    Raises:
        CaptureError: a guard depends on something that the step itself has changed.
    """
    first = next((i for i, call in enumerate(calls) if _has_effect(call)), len(calls))
    late = [i for i in range(first, len(calls)) if isinstance(calls[i], Guard)]
    early: set[int] = set()
    beside: dict[int, set[Buffer]] = {}
    written = [written_by(call) for call in calls] if late else []
    used = [{ref.buffer for ref in refs_of(call)} for call in calls] if late else []
    for guard in late:
        error = LateGuardError if getattr(calls[guard], "avoidable", False) else CaptureError
        needed, moved, draws = set(used[guard]), set[Buffer](), False
        early.add(guard)
        for position in range(guard - 1, first - 1, -1):
            call = calls[position]
            if isinstance(call, Guard):
                continue
            # What makes a value that is needed, reads one before a call that moves writes over it,
            # or draws random numbers before a draw that moves.
            if (
                needed.isdisjoint(written[position])
                and moved.isdisjoint(used[position])
                and not (draws and isinstance(call, HostCall) and call.undoable)
                and not _changes(call, needed)
            ):
                continue
            if _has_effect(call):
                changes = _beside(call, needed)
                if changes is None:
                    raise error(
                        "the step branches on a value that it has itself changed before: a replay "
                        "could not go back. Branch first, or use where()"
                    )
                beside[position] = changes
            needed |= used[position]
            moved |= written[position]
            draws = draws or isinstance(call, HostCall)
            early.add(position)
    early.update(range(first))
    front: list[AnyCall] = []
    last: list[AnyCall] = []
    for i in sorted(early):
        before, call, after = _on_copies(calls[i], beside.get(i, ()))
        front += [*before, call]
        last += after
    return front + last + [call for i, call in enumerate(calls) if i not in early]


def _beside(call: AnyCall, needed: set[Buffer]) -> set[Buffer] | None:
    """The small arrays of tensors that a call changes, where a guard does not go by them."""
    if not isinstance(call, Call):
        return None
    changed = {ref.buffer for ref in (*call.outs, *call.writes) if ref.buffer.kind != MADE}
    given = {ref.buffer for ref in refs_of(replace(call, writes=()))}
    fine = changed <= given and changed.isdisjoint(needed)
    if not fine or any(b.kind != STATE or b.stop - b.start > SMALL for b in changed):
        return None
    return changed if all(b.root.flags.c_contiguous for b in changed) else None


def _on_copies(call: AnyCall, changed: Iterable[Buffer]) -> tuple[list[Call], AnyCall, list[Call]]:
    """A call that changes copies, with those that make them and, later, copy them back."""
    copies = {b: Buffer(None, b.start, b.stop, MADE, b.on_gpu) for b in changed}
    if not copies:
        return [], call, []
    assert isinstance(call, Call)

    def other(ref: Ref) -> Ref:
        copy = copies.get(ref.buffer)
        return ref if copy is None else replace(ref, buffer=copy)

    before, after = [], []
    for buffer in copies:
        root = buffer.root
        own = Ref(buffer, 0, root.shape, root.strides, root.dtype)
        function = cuda.module().copyto if buffer.on_gpu else np.copyto
        before.append(Call(function, (other(own), own), {}, (), (other(own),)))
        after.append(Call(function, (own, other(own)), {}, (), (own,)))
    parts = (call.args, call.kwargs, call.outs, call.writes)
    args, kwargs, outs, writes = (bound(part, other) for part in parts)
    return before, replace(call, args=args, kwargs=kwargs, outs=outs, writes=writes), after


def guards_first(calls: list[AnyCall]) -> list[AnyCall]:
    """The calls with those guards in front that ask for the inputs' values alone.

    The sooner it is known that a replay holds, the more memory of the last one can be used anew.
    """
    first: set[int] = set()
    writers: dict[Buffer, list[int]] = {}  # the calls that write to a buffer, from first to last
    readers: dict[Buffer, list[int]] = {}  # those that mention it
    for place, call in enumerate(calls):
        if isinstance(call, Guard):
            needed = _makers(place, calls, writers)
            if needed is not None:
                written = set().union(*(written_by(calls[i]) for i in needed))
                passed = {i for buffer in written for i in readers.get(buffer, ())}
                if passed <= needed | first:
                    first |= needed
        for buffer in {ref.buffer for ref in refs_of(call)}:
            readers.setdefault(buffer, []).append(place)
        for buffer in written_by(call):
            writers.setdefault(buffer, []).append(place)
    return [calls[i] for i in sorted(first)] + [c for i, c in enumerate(calls) if i not in first]


def _makers(
    place: int, calls: list[AnyCall], writers: Mapping[Buffer, list[int]]
) -> set[int] | None:
    """A guard's position with those of all calls before it that it depends on; None: too many."""
    found, asked = {place}, [(place, ref.buffer) for ref in refs_of(calls[place])]
    while asked:
        before, buffer = asked.pop()
        for position in writers.get(buffer, ()):
            if position >= before or position in found:
                continue
            found.add(position)
            if len(found) > FEW or not isinstance(calls[position], (Call, Guard)):
                return None
            asked += [(position, ref.buffer) for ref in refs_of(calls[position])]
    return found


def _changes(call: Call | HostCall, buffers: Iterable[Buffer]) -> bool:
    """Whether Python code may write to one of some buffers."""
    if not isinstance(call, HostCall) or not call.changes:
        return False
    places = [bounds(array) for array in call.changes if array.size]
    return any(
        b.kind == STATE and any(b.start < stop and start < b.stop for start, stop in places)
        for b in buffers
    )
