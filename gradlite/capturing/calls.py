"""What a recording consists of: memory, arrays in it, and the calls that read and write them.

An array is known by its memory: a `Ref` names a `Buffer` and where in it the array lies, so that
views need no calls of their own, and an edit through one view is seen through all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradlite.tensor import Tensor


class CaptureError(RuntimeError):
    """A step does something that a recording cannot repeat."""


class LateGuardError(CaptureError):
    """A value that an op has branched on depends on what the step has changed before.

    The step can be recorded without the branch.
    """


@dataclass(eq=False, slots=True)
class Buffer:
    """A piece of memory that the recorded calls use.

    Attributes:
        root: the array that owns it, kept alive so that no other gets its address.
        start: its first address.
        stop: the address behind its last byte.
        kind: who puts values into it.
        on_gpu: whether it is a GPU's memory.
        same_as: the buffer of which it was a copy that turned out not to be needed.
    """

    root: Any
    start: int
    stop: int
    kind: str
    on_gpu: bool = False
    same_as: Buffer | None = None

    @property
    def origin(self) -> Buffer:
        """The buffer whose memory this one shares since a copy was left out; mostly itself."""
        return self if self.same_as is None else self.same_as.origin


# The kinds of buffers:
STATE = "state"  # a tensor's that was there before: a replay reads and writes the same memory
CONSTANT = "constant"  # filled by the host: a replay reads it; written to, it is filled anew first
MADE = "made"  # by the recorded calls: a replay has its own memory for it


@dataclass(eq=False, slots=True)
class Ref:
    """An array of the recording: where in which buffer it lies."""

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]


def bound(value: Any, array: Callable[[Ref], Any]) -> Any:
    """Arguments with arrays in place of their `Ref`."""
    cls = value.__class__
    if cls is Ref:
        return array(value)
    if cls is tuple or cls is list:
        return cls([bound(v, array) for v in value])
    if cls is dict:
        return {k: bound(v, array) for k, v in value.items()}
    return value


def buffers_in(value: Any) -> set[Buffer]:
    """The buffers of all `Ref` in nested tuples and lists."""
    if value.__class__ is Ref:
        return {value.buffer}
    if isinstance(value, (tuple, list)):
        return set().union(*map(buffers_in, value))
    return set()


@dataclass(eq=False, slots=True)
class Call:
    """One array call.

    Attributes:
        function: what is called; `operator.getitem` and `operator.setitem` stand for indexing.
        args, kwargs: its arguments, with a `Ref` for every array; without ``out``.
        outs: where the results go; on the CPU none when it writes to its arguments (``writes``).
        writes: the arguments that it writes to.
        fresh: which of its results are new arrays, in the order of ``outs``; None when it was
            given the places of its results.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: tuple[Ref, ...] = ()
    writes: tuple[Ref, ...] = ()
    fresh: tuple[int, ...] | None = ()
    # What `refs_of` found when ``writes`` was that; a changed copy of a call begins without.
    _mentions: tuple[Any, list[Ref]] | None = field(default=None, init=False)


@dataclass(eq=False, slots=True)
class HostCall:
    """A call of Python code that a replay makes anew, such as an optimizer's step.

    Attributes:
        function: called without arguments.
        out: where the array that it returns goes, or None.
        grads: the parameters whose gradients it reads, with these gradients; None: had none.
        undoable: whether all that it changes is the state of the random numbers.
        changes: arrays that it may write to, such as an optimizer's parameters.
        of_host: whether it neither reads nor changes what array calls do.
        note: why it is Python code, where it need not be.
        takes: the generator that it draws from, and how many blocks, where ``out`` is a place.
        generator: the generator whose state it changes, if it does.
    """

    function: Callable[[], Any]
    out: Ref | None = None
    grads: list[tuple[Tensor, Ref | None]] = field(default_factory=list)
    undoable: bool = False
    changes: list[Any] = field(default_factory=list)
    of_host: bool = False
    note: str = ""
    takes: tuple[Any, int] | None = None
    generator: Any = None


@dataclass(eq=False, slots=True)
class Guard:
    """A value that Python branched on: a replay is right only while it stays the same.

    Attributes:
        ref: where the value is.
        value: what it was.
        keeps: whether the step, run as it is when the value is another one, may still read the
            gradients that the last replay left; not when it has dropped them before.
        avoidable: whether an op of the library did, which has a way without.
        detail: where there are more ways than two, what to say of a step that always takes another
            one, and which way it went.
    """

    ref: Ref
    value: bool
    keeps: bool = True
    avoidable: bool = False
    detail: tuple[str, Any] | None = None


AnyCall = Call | HostCall | Guard


def refs_of(call: AnyCall) -> Iterable[Ref]:
    """All arrays that a call mentions."""
    if isinstance(call, Guard):
        return [call.ref]
    if isinstance(call, HostCall):
        return [*([call.out] if call.out is not None else []), *(r for _, r in call.grads if r)]
    known = call._mentions  # asked for twenty times while a plan is made
    if known is not None and known[0] is call.writes:
        return known[1]
    found: list[Ref] = [*call.outs, *call.writes]
    stack: list[Any] = [call.args, call.kwargs]
    while stack:
        value = stack.pop()
        if value.__class__ is Ref:
            found.append(value)
        elif value.__class__ in (tuple, list):
            stack.extend(value)
        elif value.__class__ is dict:
            stack.extend(value.values())
    call._mentions = call.writes, found
    return found


def written_by(call: AnyCall) -> set[Buffer]:
    """The buffers that a recorded call writes to; of Python code those that it hands over."""
    if isinstance(call, Call):
        return {ref.buffer for ref in (*call.outs, *call.writes)}
    if isinstance(call, HostCall) and call.out is not None:
        return {call.out.buffer}
    return set()
