"""Calls that copy arrays to parts of another: what goes where."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite.capturing.calls import Call, Ref

Pairs = list[tuple[Ref, Ref]]


def view(ref: Ref, key: Any) -> Ref | None:
    """The part of an array that a basic index means."""
    keys = key if key.__class__ is tuple else (key,)
    if not all(
        k is None or k is Ellipsis or k.__class__ is slice or k.__class__ is int for k in keys
    ):
        return None
    base = np.lib.stride_tricks.as_strided(np.empty(1, ref.dtype), ref.shape, ref.strides)
    found = base[(*keys, ...) if Ellipsis not in keys else keys]
    move = found.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    if found.size == 0:
        move = 0
    return Ref(ref.buffer, ref.offset + move, found.shape, found.strides, ref.dtype)


def _part(ref: Ref, key: tuple[Any, ...]) -> Ref:
    found = view(ref, key)
    assert found is not None
    return found


def stacked(call: Call) -> Pairs | None:
    """`numpy.stack`: the parts of the result, and the arrays that are copied there."""
    arrays, *more = call.args
    axis = more[0] if more else call.kwargs.get("axis", 0)
    if call.kwargs.keys() - {"axis"} or axis.__class__ is not int:
        return None
    out = call.outs[0]
    before = (slice(None),) * (axis % len(out.shape))
    if not all(isinstance(array, Ref) for array in arrays):
        return None
    return [(_part(out, (*before, number)), array) for number, array in enumerate(arrays)]


def concatenated(call: Call) -> Pairs | None:
    """`numpy.concatenate`."""
    arrays, *more = call.args
    axis = more[0] if more else call.kwargs.get("axis", 0)
    if call.kwargs.keys() - {"axis"} or axis.__class__ is not int:
        return None
    out, at = call.outs[0], 0
    axis %= len(out.shape)
    pairs: Pairs = []
    for array in arrays:
        if isinstance(array, np.ndarray) and array.size == 0:
            continue
        if not isinstance(array, Ref):
            return None
        stop = at + array.shape[axis]
        pairs.append((_part(out, (*(slice(None),) * axis, slice(at, stop))), array))
        at = stop
    return pairs


def rolled(call: Call) -> Pairs | None:
    """`numpy.roll` along dimensions."""
    x, shifts, *more = call.args
    axes = more[0] if more else call.kwargs.get("axis")
    out = call.outs[0]
    if call.kwargs.keys() - {"axis"} or not isinstance(x, Ref) or 0 in out.shape:
        return None
    if axes is None and len(x.shape) == 1:
        axes = 0
    pairs = list(zip(*(v if isinstance(v, tuple) else (v,) for v in (shifts, axes))))
    if any(n.__class__ is not int for pair in pairs for n in pair):
        return None
    by = [sum(s for s, a in pairs if a % len(x.shape) == d) for d in range(len(x.shape))]
    # Along each dimension the elements that come first, and those that come to the front.
    parts = [
        [(slice(s % n, None), slice(None, n - s % n))]
        + [(slice(None, s % n), slice(n - s % n, None))] * bool(s % n)
        for s, n in zip(by, x.shape)
    ]
    return [
        (_part(out, tuple(k for k, _ in keys)), _part(x, tuple(k for _, k in keys)))
        for keys in itertools.product(*parts)
    ]


def tiled(call: Call) -> Pairs | None:
    """`numpy.tile`: every dimension of the result as two, which copy it is and where in it."""
    x, counts = call.args if len(call.args) == 2 else (None, None)
    out = call.outs[0]
    if call.kwargs or not isinstance(x, Ref) or not isinstance(counts, tuple):
        return None
    if len(counts) < len(x.shape) or 0 in out.shape or not out.shape:
        return None
    shape: list[int] = []
    strides: list[int] = []
    given: list[int] = []
    missing = len(counts) - len(x.shape)
    for d, count in enumerate(counts):
        n, step = (x.shape[d - missing], x.strides[d - missing]) if d >= missing else (1, 0)
        shape += count, n
        strides += out.strides[d] * n, out.strides[d]
        given += 0, step
    apart = Ref(out.buffer, out.offset, tuple(shape), tuple(strides), out.dtype)
    return [(apart, Ref(x.buffer, x.offset, tuple(shape), tuple(given), x.dtype))]


PARTS: dict[Any, Callable[[Call], Pairs | None]] = {
    np.stack: stacked, np.concatenate: concatenated, np.roll: rolled, np.tile: tiled,
}  # fmt: skip
