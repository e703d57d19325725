"""Convolutions joined with the relu and the max-pooling behind them, forward and backward.

A convolution's result that only a relu and pooling by windows of 2 x 2 read is four times what
comes out of them: made and pooled in registers, it is never written. Going back, the gradient is
spread over the windows while a convolution's gradients copy it. The joined calls are those of
`gradlite.ops.conv_maxima`, which layers may make themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from gradlite.capturing.calls import (
    CONSTANT,
    MADE,
    AnyCall,
    Buffer,
    Call,
    Ref,
    refs_of,
)
from gradlite.ops import columns, pooling
from gradlite.ops.conv_maxima import (
    WINDOW,
    WINDOWS,
    convolve_and_pool,
    spread_gradients,
    spread_weight_gradient,
)

JOINED: dict[Any, Any] = {
    columns.gradients: spread_gradients,
    columns.weight_gradient: spread_weight_gradient,
}


def fused(calls: list[AnyCall], pinned: set[Buffer]) -> list[AnyCall]:
    """The calls with every convolution joined with what pools it, where nothing else reads it."""
    pools = [i for i, call in enumerate(calls) if _is_pool(call)]
    if not pools:
        return calls
    users: dict[Buffer, list[int]] = {}
    for position, call in enumerate(calls):
        for buffer in {ref.buffer.origin for ref in refs_of(call)}:
            users.setdefault(buffer, []).append(position)
    changed: dict[int, list[AnyCall]] = {}
    for position in pools:
        changed.update(_Chain(calls, users, pinned).changes(position) or {})
    return [c for i, call in enumerate(calls) for c in changed.get(i, (call,))]


class _Chain:
    """One convolution and what is behind it."""

    def __init__(
        self, calls: list[AnyCall], users: dict[Buffer, list[int]], pinned: set[Buffer]
    ) -> None:
        self.calls, self.users, self.pinned = calls, users, pinned

    def _call(self, position: int) -> Call | None:
        call = self.calls[position]
        return call if isinstance(call, Call) else None

    def _inner(self, ref: Any) -> Buffer | None:
        """The buffer of an array that is the whole of it and stays within the plan."""
        if not isinstance(ref, Ref) or not _whole(ref):
            return None
        buffer = ref.buffer.origin
        return buffer if buffer.kind == MADE and buffer not in self.pinned else None

    def changes(self, pool: int) -> dict[int, list[AnyCall]] | None:
        """The calls that take the places of others, or None when something does not fit."""
        call = self._call(pool)
        if call is None or call.kwargs or call.args[2:] != (WINDOW, WINDOWS):
            return None
        high, winners = call.outs
        images = self._inner(call.args[1])
        if images is None:
            return None
        first, *behind = self.users[images]
        behind.remove(pool)
        maker = self._call(first)
        relu = maker is not None and _is_clip(maker, np.inf)
        changed: dict[int, list[AnyCall]] = {pool: []}
        convolved: Buffer | None = images
        if maker is not None and relu:
            convolved = self._inner(maker.args[0])
            if convolved is None or self.users[convolved][1:] != [first]:
                return None
            changed[first] = []
        start = self.users[convolved][0] if convolved is not None else 0
        made = self._call(start)
        if made is None or made.function is not columns.convolve or made.kwargs.keys() - {"bias"}:
            return None
        xp, x, w, geometry, *more = made.args
        bias = more[0] if more else made.kwargs.get("bias")
        changed[start] = [
            Call(convolve_and_pool, (xp, x, w, geometry, bias, relu), {}, (high, winners))
        ]
        back = self._back(call, relu, behind)
        return None if back is None else {**changed, **back}

    def _back(self, pool: Call, relu: bool, behind: list[int]) -> dict[int, list[AnyCall]] | None:
        """The changes of the backward part."""
        high, winners = pool.outs
        readers = self.users[winners.buffer.origin][1:]
        if winners.buffer.origin in self.pinned or len(readers) > 1:
            return None
        if not readers:
            return {} if not behind else None
        scatter = self._call(readers[0])
        if scatter is None or scatter.function is not pooling.scatter or scatter.kwargs:
            return None
        _, g, _, shape, *how = scatter.args
        grads = self._inner(scatter.outs[0])
        if how != [WINDOW, WINDOWS] or grads is None or not isinstance(g, Ref):
            return None
        if self._written_behind(high, pool) or self._written_behind(g, scatter):
            return None
        changed: dict[int, list[AnyCall]] = {readers[0]: []}
        rest = self.users[grads][1:]
        if relu:  # the gradient of a maximum is masked instead of those of all pixels
            if len(behind) != 1 or len(rest) != 1:
                return None
            mask, times = self._call(behind[0]), self._call(rest[0])
            if mask is None or times is None or not _is_clip(mask, 1):
                return None
            word = mask.args[0].dtype
            masked = self._inner(mask.outs[0])
            if masked is None or times.function is not np.multiply or times.kwargs:
                return None
            buffers = [r.buffer.origin if isinstance(r, Ref) else None for r in times.args]
            if buffers != [masked, grads] or times.outs[0].buffer.origin is not masked:
                return None
            if not _whole(times.outs[0]) or word.kind != "i":
                return None
            rest = [p for p in self.users[masked] if p not in (behind[0], rest[0])]
            changed[behind[0]] = changed[self.users[grads][1]] = []
            new = Buffer(None, 0, int(np.prod(g.shape)) * g.dtype.itemsize, MADE)
            masks = Ref(new, 0, g.shape, _row_major(g.shape, word.itemsize), word)
            changed[readers[0]] = [
                Call(mask.function, (_seen_as(high, word), *mask.args[1:]), {}, (masks,)),
                Call(np.multiply, (masks, _seen_as(g, word)), {}, (masks,)),
            ]
            g, grads = _seen_as(masks, g.dtype), masked
        elif behind:
            return None
        for position in rest:
            new_calls = self._reader(position, grads, g, winners, shape)
            if new_calls is None:
                return None
            changed.update(new_calls)
        return changed

    def _written_behind(self, ref: Ref, reader: Call) -> bool:
        """Whether a call behind another changes an array; one from outside may always change."""
        buffer = ref.buffer.origin
        if buffer.kind != MADE:
            return True
        behind = False
        for position in self.users[buffer]:
            call = self.calls[position]
            if behind and (
                not isinstance(call, Call)
                or any(r.buffer.origin is buffer for r in (*call.outs, *call.writes))
            ):
                return True
            behind = behind or call is reader
        return False

    def _reader(
        self, position: int, grads: Buffer, g: Ref, winners: Ref, shape: Any
    ) -> dict[int, list[AnyCall]] | None:
        """What reads the gradient of the pixels: the bias's sums, or a convolution's gradients."""
        call = self._call(position)
        if call is None or call.kwargs:
            return None
        if call.function in JOINED:
            if self._inner(call.args[2]) is not grads or call.args[2].shape != tuple(shape):
                return None
            if any(r.buffer.origin is grads for r in refs_of(call) if r is not call.args[2]):
                return None
            xp, x, _, *more = call.args
            args = (xp, x, g, *more, winners, tuple(shape[2:]))
            return {position: [Call(JOINED[call.function], args, {}, call.outs)]}
        if call.function not in (np.dot, np.ndarray.dot) or len(call.args) != 2:
            return None
        rows, ones = call.args
        n, c = shape[:2]
        if not isinstance(rows, Ref) or not _whole(rows) or not _is_constant(ones, 1):
            return None
        sums = self._inner(call.outs[0])
        if rows.shape != (n * c, shape[2] * shape[3]) or sums is None or len(self.users[sums]) != 2:
            return None
        last = self._call(self.users[sums][1])
        if last is None or last.function is not np.ndarray.sum or last.kwargs:
            return None
        if last.args[1:] != (0,) or last.args[0].shape != (n, c):
            return None
        total = Call(np.ndarray.sum, (g, (0, 2, 3)), {}, last.outs)
        return {position: [], self.users[sums][1]: [total]}


def lanes(dtype: np.dtype[Any]) -> int:
    """Of how many images a batch must be a multiple: as many as a vector may have lanes."""
    return 64 // dtype.itemsize


def _is_pool(call: AnyCall) -> bool:
    """Whether a call pools a batch of a suitable size."""
    if not isinstance(call, Call) or call.function is not pooling.maxima:
        return False
    x = call.args[1]
    return (
        isinstance(x, Ref)
        and len(x.shape) == 4
        and x.dtype.name in ("float32", "float64")
        and x.shape[0] % lanes(x.dtype) == 0
    )


def _whole(ref: Ref) -> bool:
    """Whether an array is all of its buffer in row-major order."""
    size = ref.buffer.stop - ref.buffer.start
    return (
        ref.offset == 0
        and ref.strides == _row_major(ref.shape, ref.dtype.itemsize)
        and int(np.prod(ref.shape)) * ref.dtype.itemsize == size
    )


def _row_major(shape: Iterable[int], step: int) -> tuple[int, ...]:
    strides: list[int] = []
    for n in reversed(tuple(shape)):
        strides.insert(0, step)
        step *= n
    return tuple(strides)


def _seen_as(ref: Ref, dtype: Any) -> Ref:
    return Ref(ref.buffer, ref.offset, ref.shape, ref.strides, dtype)


def _is_constant(value: Any, number: float) -> bool:
    """Whether an operand is a number, or a constant array of nothing else."""
    if isinstance(value, Ref):
        if value.buffer.kind != CONSTANT:
            return False
        size = int(np.prod(value.shape)) * value.dtype.itemsize
        if not value.buffer.root.flags.c_contiguous or value.strides != _row_major(
            value.shape, value.dtype.itemsize
        ):
            return False
        raw = value.buffer.root.reshape(-1).view(np.uint8)[value.offset : value.offset + size]
        value = raw.view(value.dtype)
    elif not isinstance(value, (int, float, np.generic, np.ndarray)):
        return False
    return bool(np.all(np.asarray(value) == number))


def _is_clip(call: Call, high: float) -> bool:
    """Whether a call is ``clip(x, 0, high)`` of a whole array."""
    return (
        getattr(call.function, "__name__", "") == "clip"
        and len(call.args) == 3
        and not call.kwargs
        and len(call.outs) == 1
        and isinstance(call.args[0], Ref)
        and _whole(call.args[0])
        and _is_constant(call.args[1], 0)
        and _is_constant(call.args[2], high)
    )
