"""Tensors whose data a step replaces: ``p.data = values``.

From then on a tensor shares memory with the values. A replay finds it where it has been before and
has to leave it there, so it copies the values to that place. In what is recorded afterwards, memory
of the values means the tensor's place, and nothing may ask for what the place held before.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gradlite.backends.memory import address
from gradlite.capturing.arrays import bounds, on_gpu, part
from gradlite.capturing.calls import (
    CONSTANT,
    MADE,
    STATE,
    Buffer,
    Call,
    CaptureError,
    HostCall,
    Ref,
)
from gradlite.capturing.memory import Memory
from gradlite.capturing.watched import tensors_in
from gradlite.optim.in_graph import GraphUpdate
from gradlite.tensor import Tensor

SHARED = (
    "the step replaces a tensor's data (.data = ...), and {} shares memory with what it was "
    "before, or with a part of what it is now: use copy_()"
)


class Homes(Memory):
    """What a recorder knows of tensors that are given other memory.

    Attributes:
        moved: the tensors by their ids, with the arrays that they had before the step.
    """

    fill_anew: Callable[[Any], None]

    def __init__(self) -> None:
        super().__init__()
        self.moved: dict[int, tuple[Tensor, Any]] = {}
        # Addresses, and what they mean: where in which buffer. The latest come first.
        self._meanings: list[tuple[int, int, Buffer, int]] = []
        self._left: set[Buffer] = set()  # what has been a tensor's place, and is none any more
        self._stale: set[int] = set()  # ids of tensors that still have what was there before
        self._given: list[tuple[Any, Any]] = []  # arrays of values, and of the places

    def find(self, array: Any) -> Buffer | None:
        """The buffer in which an array lies, if it is known."""
        if self._meanings:
            at = address(array)
            for start, stop, buffer, _ in self._meanings:
                if start <= at < stop:
                    return buffer
        return super().find(array)

    def ref(self, array: Any) -> Ref:
        """The place of an array; the host has filled one that is not known yet.

        Raises:
            CaptureError: a tensor had its data there, and has others by now.
        """
        if self._meanings and array.size:
            first, last = bounds(array)
            for start, stop, buffer, offset in self._meanings:
                if first < stop and start < last:
                    if buffer in self._left or first < start or stop < last:
                        raise CaptureError(SHARED.format("what it reads or leaves"))
                    at = address(array) - start + offset
                    return Ref(buffer, at, array.shape, array.strides, array.dtype)
        return super().ref(array)

    def move(self, tensor: Tensor, old: Any, new: Any) -> bool:
        """Have replays copy a tensor's new data to its place; False where that cannot be.

        Args:
            tensor: a tensor from before the step, no input.
            old, new: its ordinary array, and the next one.
        """
        if on_gpu(new) != on_gpu(old) or not old.size:
            return False
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            return False
        if not old.flags.c_contiguous or not new.flags.c_contiguous:
            return False
        place, source = self.find(old), self.find(new) or self._enter(new, CONSTANT)
        if place is None or place.kind != STATE or self.is_shown(place):
            return False
        if source.kind == STATE or source in self._left:
            return False
        self.fill_anew(new)  # the tensor's edits are edits of it
        target, values = self.ref(old), self.ref(new)
        copyto = np.copyto if self._cupy is None or not on_gpu(old) else self._cupy.copyto
        self.calls.append(Call(copyto, (target, values), {}, (), (target,)))
        start, stop = bounds(old)
        gone = Buffer(old, start, stop, MADE, on_gpu(old))
        self._left.add(gone)
        self._meanings[:0] = [
            (*bounds(new), target.buffer, target.offset),
            (start, stop, gone, 0),
        ]
        _, home = self.moved.setdefault(id(tensor), (tensor, old))
        self._given.append((new, home))
        return True

    def return_home(
        self,
        touched: dict[int, tuple[Tensor, Any]],
        lasting: Sequence[Tensor],
        gone: set[int],
    ) -> None:
        """Leave the tensors where a replay leaves them: in their places, with what shares them.

        Args:
            touched: the step's tensors, with their arrays.
            lasting: what the step has found around itself, and left there.
            gone: ids of what it has taken away.

        Raises:
            CaptureError: one that lasts shares memory with a place, or one that the program has
                elsewhere, which would see the new data there.
        """
        own = {*touched, *map(id, lasting), *gone}
        found = (o for o in gc.get_objects() if issubclass(type(o), Tensor) and id(o) not in own)
        others = [(t, a) for t in (*lasting, *found) if (a := self._array_of(t)) is not None]
        for tensor, home in self.moved.values():
            start, stop = bounds(home)
            sizes = [bounds(array) for other, array in others if other is not tensor]
            if any(first < stop and start < last for first, last in sizes):
                raise CaptureError(SHARED.format("another tensor"))
        for tensor, home in self.moved.values():
            (start, stop), old = bounds(tensor.array), bounds(home)
            home[...] = tensor.array
            for sharing, _ in touched.values():
                array = sharing.array
                if not array.size or sharing is tensor:
                    continue
                first, last = bounds(array)
                if start <= first and last <= stop:
                    sharing.array = part(home, address(array) - start, array)
                elif (first < stop and start < last) or (first < old[1] and old[0] < last):
                    self._stale.add(id(sharing))
            tensor.array = home
            self._meanings = [m for m in self._meanings if m[0] != address(home)]
        homes = {id(array): home for array, home in self._given}
        for call in self.calls if homes else ():
            if isinstance(call, HostCall):
                call.changes = [homes.get(id(array), array) for array in call.changes]
            elif isinstance(call, Call) and isinstance(call.function, GraphUpdate):
                call.function.move(homes)

    def _array_of(self, tensor: Tensor) -> Any:
        """A tensor's array, if it has one, with elements."""
        try:
            array = tensor.array
        except (AttributeError, ValueError):  # one that is just being made, or a lazy layer's
            return None
        return array if isinstance(array, self.kinds) and array.size else None

    def check_leaves(self, leaves: Iterable[Any]) -> None:
        """CaptureError where the step leaves a tensor with what another one was before."""
        if not self._stale.isdisjoint(map(id, leaves)):
            raise CaptureError(SHARED.format("what it leaves"))


def lasting(
    changed: Sequence[tuple[tuple[Any, Any, str], Any, Any]],
    places: Iterable[tuple[tuple[Any, Any, str], Any]],
    tensors: Iterable[Tensor],
) -> tuple[list[Tensor], set[int]]:
    """The tensors that a step has found around itself and left there; ids of the others.

    Args:
        changed: places with the values that were there before, and those that are there now.
        places: all places, with the values that were there before.
        tensors: all that it has found.
    """
    others = {(id(container), key) for (container, key, _), _, _ in changed}
    values = [now for *_, now in changed]
    values += [v for (container, key, _), v in places if (id(container), key) not in others]
    there = {id(t) for value in values for t in tensors_in(value)}
    gone = {id(t) for _, old, _ in changed for t in tensors_in(old)} - there
    return [t for t in tensors if id(t) not in gone], gone


class Watched:
    """The places of moved tensors, of which others may take hold between two calls (``p.data``).

    These would see what a replay copies there, unlike what the step as it is would do to them.
    """

    __slots__ = ("_found",)

    def __init__(self, arrays: Iterable[Any]) -> None:
        self._found: list[list[Any]] = [[array, None] for array in arrays]

    def __bool__(self) -> bool:
        return bool(self._found)

    def note(self) -> None:
        """Count who holds them, now that no one else can."""
        for each in self._found:
            each[1] = sys.getrefcount(each[0])

    def held(self) -> bool:
        """Whether somebody else has taken hold of one."""
        return any(
            each[1] is not None and sys.getrefcount(each[0]) > each[1] for each in self._found
        )
