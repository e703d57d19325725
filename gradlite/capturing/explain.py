"""A readable listing of what recordings do."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlite.capturing.calls import MADE, STATE, Buffer, Call, Guard, HostCall, Ref
from gradlite.capturing.compare import name_of
from gradlite.capturing.plan import is_launch

if TYPE_CHECKING:
    from gradlite.capturing.graphs import GraphPlan
    from gradlite.capturing.plan import Plan
    from gradlite.capturing.replaying import Recording


def explain(recordings: Sequence[Recording]) -> str:
    """Every recording: its memory, its calls, and which of them run Python code."""
    if not recordings:
        return "nothing is recorded yet"
    return "\n\n".join(_recording(number, r) for number, r in enumerate(recordings))


def _recording(number: int, recording: Recording) -> str:
    kept = recording.listing
    text = listing(recording.plan) if kept is None else zlib.decompress(kept).decode()
    head, *calls = text.split("\n")
    lines = [head, *(f"  {line}" for line in recording.carries), *calls]
    return f"recording {number}: {recording.replays} replays of " + "\n".join(lines)


def listing(plan: Plan | GraphPlan) -> str:
    """What a plan does, call by call."""
    names: dict[Buffer, str] = {}
    host = sum(isinstance(c, HostCall) for c in plan.calls) - len(plan.compiled_steps)
    guards = sum(isinstance(c, Guard) for c in plan.calls)
    head = (
        f"{len(plan.calls)} calls, {host} of them of Python code, {guards} of them checks; "
        f"{plan.summary()} of memory"
    )
    note, star = plan.notes()
    lines = [head, f"  {note}"] if note else [head]
    lines += [
        f"  {i:4d}{'*' if i in star else ' '} {_call(call, names, i in plan.compiled_steps)}"
        for i, call in enumerate(plan.calls)
    ]
    return "\n".join(lines)


def _call(call: Any, names: dict[Buffer, str], compiled: bool) -> str:
    if isinstance(call, Guard):
        return f"check that {_value(call.ref, names)} is {call.value}"
    if isinstance(call, HostCall):
        out = "" if call.out is None else f"{_value(call.out, names)} = "
        kind = "compiled" if compiled else "Python"
        return f"{out}{kind}: {name_of(call)}{call.note and f' ({call.note})'}"
    assert isinstance(call, Call)
    given = call.args[4] if is_launch(call) else call.args
    arguments = [_value(a, names) for a in given]
    arguments += [f"{k}={_value(v, names)}" for k, v in call.kwargs.items()]
    text = f"{name_of(call)}({', '.join(arguments)})"
    outs = ", ".join(_value(o, names) for o in call.outs)
    return f"{outs} = {text}" if outs else text


def _value(value: Any, names: dict[Buffer, str]) -> str:
    if isinstance(value, Ref):
        letter = {MADE: "t", STATE: "state"}.get(value.buffer.kind, "c")
        name = names.setdefault(value.buffer.origin, f"{letter}{len(names)}")
        sizes = "x".join(map(str, value.shape)) or "0-d"
        at = f"+{value.offset}" if value.offset else ""
        return f"{name}{at}[{sizes} {value.dtype.name}]"
    if isinstance(value, (tuple, list)):
        inner = ", ".join(_value(v, names) for v in value)
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, np.ndarray) or hasattr(value, "__cuda_array_interface__"):
        return f"array{value.shape}"
    if isinstance(value, (type, ModuleType)):
        return value.__name__
    return repr(value)
