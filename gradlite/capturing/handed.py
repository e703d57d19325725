"""Arrays that a step's own code has got of its tensors, by ``numpy()`` or as NumPy asks for them.

What NumPy's functions compute of them is recorded. What reads them in C is not seen: SciPy's
functions, ``table[x]`` and ``table.dot(x)`` of an array ``table``. So what was handed out, and no
recorded call has used, are values that the step may have gone on with: a replay needs the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite.capturing.recorded import Recorded, active, plain
from gradlite.capturing.sizes import Sizes

GIVEN = (
    "the step gives a tensor's values to code that is not recorded (numpy() before a function of "
    "another library, or before a method or an index of an array of NumPy's own), and they are "
    "others at every call: call it outside of the step and give its result to the step, or use "
    "functions of NumPy's or gradlite's"
)


class Handing(Sizes):
    """What a recorder knows of the arrays that the step's own code has.

    Attributes:
        handed: those that are not used yet, by the ids of the ordinary arrays: after how many
            calls they were handed out, and their values then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.handed: dict[int, tuple[int, Any, Any]] = {}

    def hand_out(self, value: Any) -> Any:
        """An array for the step's own code, or several, of which is noted what uses them."""
        if value.__class__ is tuple or value.__class__ is list:
            for part in value:
                self.hand_out(part)
        elif value.__class__ is Recorded and self.depends(value):
            array = plain(value)
            self.handed[id(array)] = len(self.calls), value, array.copy()
        return value

    def uses(self, value: Any) -> bool:
        """Note that what is recorded uses arrays; whether any of them were the step's own."""
        if value.__class__ is Recorded:
            return self.handed.pop(id(plain(value)), None) is not None
        found = False
        if value.__class__ is dict:
            value = tuple(value.values())
        if value.__class__ is tuple or value.__class__ is list:
            for part in value:
                found |= self.uses(part)
        return found

    def view_for_step(self, array: Any) -> Any:
        """Another view of an array than that of the tensor, whose own uses tell nothing."""
        if not isinstance(plain(array), np.ndarray) or not array.size:
            return array
        return self.hand_out(self.face(plain(array).view()))

    def guard_handed(self) -> None:
        """Have replays compare what was handed out and not used, each as it was then."""
        found = sorted(self.handed.values(), key=operator.itemgetter(0), reverse=True)
        self.handed = {}
        for place, face, now in found:
            end = len(self.calls)
            self.of_one_array(face, now, GIVEN)
            added = self.calls[end:]
            del self.calls[end:]
            self.calls[place:place] = added


def lending(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Tensor.__dlpack__``, whose memory goes to code that is not recorded."""

    def capsule(self: Any, **options: Any) -> Any:
        lent, recorder = original(self, **options), active()
        if recorder is not None:
            recorder.view_for_step(self.array)
        return lent

    return capsule


def handing(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Tensor.numpy``, whose result is followed."""

    def numpy(self: Any, *, force: bool = False) -> Any:
        array, recorder = original(self, force=force), active()
        return array if recorder is None else recorder.view_for_step(array)

    return numpy
