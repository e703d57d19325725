"""Events: what ran, for how long, inside of what, and the bytes it read and wrote."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from time import perf_counter_ns
from typing import Any

import numpy as np

OP = "op"
BACKWARD = "backward"  # the gradient rule of an op, or the sum in a leaf
FUNCTION = "function"  # what computes without a gradient rule
KERNEL = "kernel"
RANGE = "range"  # what others run in: a whole backward pass, an optimizer's step, the user's own


class Event:
    """One thing that ran while a profile was on.

    Attributes:
        name: of the op (``"addmm"``), its gradient (``"AddmmBackward0"``), the kernel or the range.
        kind: ``"op"``, ``"backward"``, ``"function"``, ``"kernel"`` or ``"range"``.
        thread: the identifier of the thread it ran in.
        start: nanoseconds of the clock ``time.perf_counter_ns`` when it began.
        duration: nanoseconds until it ended.
        self_duration: nanoseconds of that outside of other events.
        bytes: of the arrays that were read and written; 0 for a view and for ranges.
        launches: kernels launched inside, by gradlite.
        device_time: milliseconds of the GPU, from events around those kernels.
        input_shapes: shapes of the arrays that an op was given, with ``record_shapes``.
    """

    __slots__ = (
        "name", "kind", "thread", "start", "duration", "bytes", "launches", "device_time",
        "input_shapes", "parent", "inner", "found", "marks",
    )  # fmt: skip

    def __init__(self, name: str, kind: str, thread: int, parent: Event | None) -> None:
        self.name, self.kind, self.thread, self.parent = name, kind, thread, parent
        self.start = self.duration = self.inner = self.bytes = self.launches = 0
        self.device_time = 0.0
        self.input_shapes: tuple[tuple[int, ...], ...] = ()
        self.found = False  # whether an op ran inside
        self.marks: tuple[Any, Any] | None = None

    @property
    def self_duration(self) -> int:
        return self.duration - self.inner

    def ancestors(self) -> Iterator[Event]:
        """The events it ran in, from the innermost."""
        event = self.parent
        while event is not None:
            yield event
            event = event.parent

    def __repr__(self) -> str:
        return f"<Event {self.name} ({self.kind}), {self.duration / 1000:.1f} us>"


class _Thread(threading.local):
    def __init__(self) -> None:
        self.identifier = threading.get_ident()
        self.open: list[Event] = []


_thread = _Thread()
listeners: list[list[Event]] = []  # the lists of the profiles that are on


def begin(name: str, kind: str) -> Event:
    """Open an event in this thread."""
    stack = _thread.open
    event = Event(name, kind, _thread.identifier, stack[-1] if stack else None)
    stack.append(event)
    event.start = perf_counter_ns()
    return event


def end(event: Event) -> None:
    """Close an event and hand it to the profiles that are on.

    A function that an op runs in, or that runs in an op, is part of that op: no event of its own.
    """
    event.duration = perf_counter_ns() - event.start
    stack, parent = _thread.open, event.parent
    if stack and stack[-1] is event:
        stack.pop()
    elif event in stack:  # the ranges of two tasks, one on top of the other
        stack.remove(event)
    own = event.kind != FUNCTION or not (
        event.found or (parent is not None and parent.kind in (OP, BACKWARD, FUNCTION))
    )
    if parent is not None:
        parent.inner += event.duration if own else event.inner
        parent.found |= event.found or event.kind in (OP, BACKWARD)
    if own:
        for events in tuple(listeners):
            events.append(event)


def launched(event: Event) -> None:
    """Count a kernel in all events around it."""
    event.launches = 1
    for around in event.ancestors():
        around.launches += 1


def traffic(read: Iterable[Any], written: Any) -> int:
    """Bytes of arrays read and written; what a view or a gradient handed on moves is nothing."""
    sources = {id(array): array for array in _arrays(read)}
    made = {id(a): a for a in _arrays((written,)) if not _is_view(a, sources)}
    if not made:
        return 0
    return sum(int(a.nbytes) for a in (*sources.values(), *made.values()))


def _arrays(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if value.__class__ is tuple or value.__class__ is list:
            yield from _arrays(value)
        elif hasattr(value, "nbytes") and hasattr(value, "strides"):
            yield value


def _is_view(array: Any, sources: dict[int, Any]) -> bool:
    """Whether an array lies in the memory of one of the others, or is one of them."""
    if id(array) in sources:
        return True
    if array.base is None:
        return False
    if isinstance(array, np.ndarray):
        owner = id(array.base)
        return any(id(s) == owner or id(s.base) == owner for s in sources.values())
    at = array.data.ptr
    return any(s.data.ptr <= at < s.data.ptr + s.nbytes for s in sources.values())


def shapes_of(values: Iterable[Any]) -> tuple[tuple[int, ...], ...]:
    """The shapes of the arrays among some values."""
    return tuple(tuple(array.shape) for array in _arrays(values))
