"""Two recordings of one step compared: what differs between them, no replay can repeat."""

from __future__ import annotations

import functools
import types
from typing import Any

import numpy as np

from gradlite.capturing.arrays import content
from gradlite.capturing.calls import CONSTANT, STATE, AnyCall, Buffer, Guard, HostCall, Ref
from gradlite.capturing.plan import is_launch
from gradlite.capturing.recorder import Recorder


def difference(first: Recorder, second: Recorder) -> str | None:
    """What differs between two recordings, in words; None when they are the same."""
    if len(first.calls) != len(second.calls):
        return f"it made {len(first.calls)} array calls, and then {len(second.calls)}"
    pairs: dict[Buffer, Buffer] = {}
    for number, (a, b) in enumerate(zip(first.calls, second.calls)):
        reason = _calls(a, b, pairs)
        if reason is not None:
            return f"call {number} ({name_of(b)}) {reason}"
    reason = _values(first.left, second.left, pairs)
    if reason is not None:
        return f"what it returned, or left as gradients, {reason}"
    for one, other in pairs.items():
        if one.kind == STATE:
            name = first.own.get(one)
            if name != second.own.get(other) or (name is None and one.start != other.start):
                return "it used another tensor from before than the first time: what chose it?"
    return None


def name_of(call: AnyCall) -> str:
    """A call's name for people."""
    if isinstance(call, Guard):
        return "a branch on a value"
    if isinstance(call, HostCall):
        return getattr(call.function, "__qualname__", "a call of Python code")
    function = call.function
    if is_launch(call):
        return str(call.args[0])
    owner: Any = getattr(function, "__self__", None)
    name = getattr(function, "__name__", str(function))
    return f"{owner.__name__}.{name}" if hasattr(owner, "nin") else name


def _calls(a: Any, b: Any, pairs: dict[Buffer, Buffer]) -> str | None:
    if a.__class__ is not b.__class__:
        return f"took the place of {name_of(a)}"
    if isinstance(a, Guard):
        same = (a.value, a.detail) == (b.value, b.detail)
        return None if same else "took another branch"
    if isinstance(a, HostCall):
        return _host_calls(a.function, b.function, pairs)
    if a.function != b.function:
        return f"took the place of {name_of(a)}"
    return _values(
        (a.args, a.kwargs, a.outs, a.writes), (b.args, b.kwargs, b.outs, b.writes), pairs
    )


def _host_calls(a: Any, b: Any, pairs: dict[Buffer, Buffer]) -> str | None:
    """Whether Python code that replays call is another function, or has other arguments."""
    if not isinstance(a, functools.partial) or not isinstance(b, functools.partial):
        return None
    if not isinstance(a.func, types.FunctionType):
        return None
    if a.func is not b.func:
        return f"took the place of {getattr(a.func, '__qualname__', a.func)}"
    return _values((a.args, a.keywords), (b.args, b.keywords), pairs)


def _values(a: Any, b: Any, pairs: dict[Buffer, Buffer]) -> str | None:
    if a.__class__ is not b.__class__:
        return f"had the argument {_told(b)} instead of {_told(a)}"
    if isinstance(a, Ref):
        return _refs(a, b, pairs)
    if isinstance(a, (tuple, list)):
        if len(a) != len(b):
            return "had another number of arguments"
        return next((r for x, y in zip(a, b) if (r := _values(x, y, pairs)) is not None), None)
    if isinstance(a, dict):
        return _values(tuple(a.items()), tuple(b.items()), pairs)
    if isinstance(a, np.ndarray) or hasattr(a, "__cuda_array_interface__"):
        return None if _same(a, b) else "had other values as an argument"
    if a is b or a == b or (a != a and b != b):
        return None
    return f"had the argument {_told(b)} instead of {_told(a)}"


def _told(value: Any) -> str:
    if isinstance(value, Ref):
        return f"of shape {value.shape} and type {value.dtype}"
    return repr(value)


def _refs(a: Ref, b: Ref, pairs: dict[Buffer, Buffer]) -> str | None:
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return f"had an array of shape {b.shape} and type {b.dtype}, not {a.shape} and {a.dtype}"
    if a.buffer.kind != b.buffer.kind:
        return "had an array of another origin"
    if (a.strides, a.offset) != (b.strides, b.offset):
        return "had another part of an array: what chose it (a random number, a counter)?"
    known = pairs.setdefault(a.buffer, b.buffer)
    if known is not b.buffer:
        return "used another array"
    if a.buffer.kind == CONSTANT and not _same(a.buffer.root, b.buffer.root):
        return (
            "used values that Python or NumPy had computed and that were others than before (a "
            "random number, a counter): make them an input of the step"
        )
    return None


def _same(a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape and a.dtype == b.dtype and (a is b or content(a) == content(b)))


__all__ = ["STATE", "difference", "name_of"]
