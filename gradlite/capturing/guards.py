"""The order of guards: a replay that does not hold has to find out before it changes anything."""

from __future__ import annotations

from collections.abc import Iterable

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
    refs_of,
    written_by,
)

FEW = 4  # calls, the most that one guard takes with it to the front


def _has_effect(call: AnyCall) -> bool:
    """Whether a call changes what outlives the replay."""
    if isinstance(call, Call):
        return any(ref.buffer.kind != MADE for ref in (*call.outs, *call.writes))
    return isinstance(call, HostCall) and not call.undoable


def hoisted(calls: list[AnyCall]) -> list[AnyCall]:
    """The calls with every guard before the first effect, so that a failed one leaves no trace.

    Raises:
        CaptureError: a guard depends on something that the step itself has changed.
    """
    first = next((i for i, call in enumerate(calls) if _has_effect(call)), len(calls))
    late = [i for i in range(first, len(calls)) if isinstance(calls[i], Guard)]
    early: set[int] = set()
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
                raise error(
                    "the step branches on a value that it has itself changed before: a replay "
                    "could not go back. Branch first, or use where()"
                )
            needed |= used[position]
            moved |= written[position]
            draws = draws or isinstance(call, HostCall)
            early.add(position)
    early.update(range(first))
    return [calls[i] for i in sorted(early)] + [
        call for i, call in enumerate(calls) if i not in early
    ]


def guards_first(
    calls: list[AnyCall],
) -> list[AnyCall]:
    """The calls with those guards in front that ask for the inputs' values alone.

    The sooner it is known that a replay holds, the more memory of the last one can be used anew.
    """
    first: set[int] = set()
    for place, guard in enumerate(calls):
        if not isinstance(guard, Guard):
            continue
        needed, moved = {guard.ref.buffer}, {place}
        for position in range(place - 1, -1, -1):
            if not needed.isdisjoint(written_by(calls[position])):
                needed.update(ref.buffer for ref in refs_of(calls[position]))
                moved.add(position)
        written = set().union(*(written_by(calls[i]) for i in moved))
        passed = [calls[i] for i in range(place) if i not in moved and i not in first]
        if len(moved) <= FEW and all(isinstance(calls[i], (Call, Guard)) for i in moved):
            if written.isdisjoint(ref.buffer for call in passed for ref in refs_of(call)):
                first |= moved
    return [calls[i] for i in sorted(first)] + [c for i, c in enumerate(calls) if i not in first]


def _changes(call: Call | HostCall, buffers: Iterable[Buffer]) -> bool:
    """Whether Python code may write to one of some buffers."""
    if not isinstance(call, HostCall) or not call.changes:
        return False
    places = [bounds(array) for array in call.changes if array.size]
    return any(
        b.kind == STATE and any(b.start < stop and start < b.stop for start, stop in places)
        for b in buffers
    )
