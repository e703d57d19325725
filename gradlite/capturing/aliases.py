"""Memory that recorded calls need not have: copies that nothing tells apart, results in place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from gradlite.capturing.calls import MADE, AnyCall, Buffer, Call, Ref, refs_of


def without_copies(calls: list[AnyCall], kept: Iterable[Ref]) -> list[AnyCall]:
    """The calls without copies of arrays that nothing uses afterwards."""
    last: dict[Buffer, int] = {}
    for position, call in enumerate(calls):
        for ref in refs_of(call):
            last[ref.buffer] = position
    needed = {ref.buffer for ref in kept}
    result = []
    for position, call in enumerate(calls):
        copied = _copy_of(call)
        if copied is not None:
            source, out = copied
            if last[source.buffer] == position and source.buffer not in needed:
                out.buffer.same_as = source.buffer
                continue
        result.append(call)
    return result


def in_place(calls: Sequence[AnyCall], pinned: Iterable[Buffer]) -> None:
    """Let elementwise functions write to an operand's memory that nothing reads afterwards."""
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for position, call in enumerate(calls):
        for ref in refs_of(call):
            first.setdefault(ref.buffer, position)
            last[ref.buffer.origin] = position
    for position, call in enumerate(calls):
        if not isinstance(call, Call) or not isinstance(call.function, np.ufunc):
            continue
        if call.function.signature is not None:  # as that of matmul
            continue
        if len(call.outs) != 1 or call.kwargs or call.outs[0].buffer.kind != MADE:
            continue
        out = call.outs[0]
        if first[out.buffer] != position or out.buffer.same_as is not None or out.buffer in pinned:
            continue  # it was there before, or something outside reads it
        operands = [a for a in call.args if isinstance(a, Ref)]
        for operand in operands:
            buffer = operand.buffer.origin
            views = [a for a in operands if a.buffer.origin is buffer]
            if (
                buffer is not out.buffer
                and last[buffer] == position
                and buffer not in pinned
                and all(_whole(a, out) for a in views)
            ):
                out.buffer.same_as = buffer
                last[buffer] = last[out.buffer]
                break


def _whole(operand: Ref, out: Ref) -> bool:
    """Whether an operand is all of a made buffer, as the result is of one that is like it."""
    size = operand.dtype.itemsize * math.prod(operand.shape)
    a, b = operand.buffer.origin, out.buffer
    return (
        a.kind == MADE
        and (operand.shape, operand.strides, operand.dtype.itemsize, operand.offset)
        == (out.shape, out.strides, out.dtype.itemsize, out.offset)
        and operand.offset == 0
        and a.stop - a.start == b.stop - b.start == size
    )


def _copy_of(call: AnyCall) -> tuple[Ref, Ref] | None:
    """``(source, copy)`` when a call makes a whole new buffer a copy of a whole other one."""
    if not isinstance(call, Call) or len(call.outs) != 1:
        return None
    if call.function not in (np.array, np.ascontiguousarray, np.ndarray.copy, np.ndarray.astype):
        return None
    source, out = call.args[0], call.outs[0]
    if not isinstance(source, Ref) or source.buffer.kind != MADE or out.buffer.kind != MADE:
        return None
    same = (source.shape, source.strides, source.dtype, source.offset, 0) == (
        out.shape, out.strides, out.dtype, 0, out.offset,
    )  # fmt: skip
    whole = source.buffer.stop - source.buffer.start == out.buffer.stop - out.buffer.start
    return (source, out) if same and whole else None
