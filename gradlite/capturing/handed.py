"""Arrays that a step's own code has got of its variables and tensors, by ``numpy()`` or as it asks.

What NumPy's functions compute of them is recorded; see `Shown`. Code that reads memory by itself,
as SciPy's functions and ``table[x]`` and ``table.dot(x)`` of an array ``table`` do, is not seen:
what it is given are values that the step may go on with, so that a replay needs the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradlite.capturing.calls import CONSTANT
from gradlite.capturing.recorded import active, plain
from gradlite.capturing.shown import Shown
from gradlite.capturing.sizes import Sizes
from gradlite.tensor import Tensor

GIVEN = (
    "the step gives a tensor's values to code that is not recorded (numpy() before a function of "
    "another library, or before a method or an index of an array of NumPy's own), and they are "
    "others at every call: call it outside of the step and give its result to the step, or use "
    "functions of NumPy's or gradlite's"
)


class Handing(Sizes):
    """What a recorder knows of the arrays that the step's own code has."""

    paused: int

    def __init__(self) -> None:
        super().__init__()
        self._shown_faces: dict[int, Shown] = {}
        self._read_in_c: dict[int, tuple[int, Any]] = {}  # after how many calls, and the array

    def shown(self, value: Any) -> Any:
        """An array for the step's own code, or several: the same one every time."""
        if value.__class__ is tuple or value.__class__ is list:
            return value.__class__([self.shown(part) for part in value])
        if isinstance(value, tuple):
            return getattr(value, "_make", tuple)([self.shown(part) for part in value])
        array = plain(value)
        if not isinstance(array, np.ndarray):
            return value
        known = self._shown_faces.get(id(array))
        if known is None:
            known = self._shown_faces[id(array)] = Shown(array)
        return known

    def view_for_step(self, array: Any) -> Any:
        """Another view of a tensor's array than its own, for the step's own code."""
        array = plain(array)
        return self.shown(array.view()) if isinstance(array, np.ndarray) else self.face(array)

    def hidden(self, value: Any) -> Any:
        """Arguments as the library has them, in place of what the step's own code has."""
        if type(value) is Shown:
            return self.face(value.plain)
        if value.__class__ is tuple or value.__class__ is list:
            return value.__class__([self.hidden(part) for part in value])
        if value.__class__ is dict:
            return {key: self.hidden(part) for key, part in value.items()}
        return value

    def give(self, array: np.ndarray[Any, Any]) -> None:
        """Note that code which is not recorded reads an array: a replay needs the same values."""
        buffer = self.find(array)
        known, _ = self._read_in_c.get(id(array), (-1, None))
        if buffer is None or buffer.kind == CONSTANT or known == len(self.calls):
            return
        paused, self.paused = self.paused, 0
        try:
            self.of_one_value(self.face(array), GIVEN)
        finally:
            self.paused = paused
        self._read_in_c[id(array)] = len(self.calls), array

    def give_written(self, arrays: Sequence[Any]) -> None:
        """The same for arrays of the program's own, whose faces nobody has, that calls write to."""
        for array in arrays:
            if type(array) is np.ndarray:
                self.give(array)


def is_of_step(value: Any) -> bool:
    """Whether some array among arguments is one that the step's own code has."""
    if isinstance(value, (tuple, list, deque)):
        return any(map(is_of_step, value))
    return type(value) is Shown


def as_lists(value: Any) -> Any:
    """Arguments of a step's own call, with tensors as arrays and other sequences as lists."""
    if isinstance(value, Tensor):
        return value.numpy()
    if isinstance(value, (tuple, list, deque)):
        parts = [as_lists(part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return value


def lending(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Tensor.__dlpack__``, whose memory goes to code that is not recorded."""

    def capsule(self: Any, **options: Any) -> Any:
        lent, recorder = original(self, **options), active()
        array = plain(self.array)
        if recorder is not None and isinstance(array, np.ndarray):
            recorder.give(array)
        return lent

    return capsule


def handing(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Tensor.numpy``, whose result is followed."""

    def numpy(self: Any, *, force: bool = False) -> Any:
        array, recorder = original(self, force=force), active()
        return array if recorder is None else recorder.view_for_step(array)

    return numpy


def giving(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Tensor.__array__``, which NumPy asks for, to go on in C."""

    def array(self: Any, dtype: Any = None, copy: bool | None = None) -> Any:
        return (self.numpy() if active() else original(self)).__array__(dtype, copy)

    return array
