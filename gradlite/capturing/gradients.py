"""The gradients that a recorded step finds in its parameters, and those that it leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gradlite.capturing.calls import Ref
from gradlite.capturing.recorder import Recorder
from gradlite.tensor import Tensor, wrap


class Gradients:
    """What a replay must find, take over and leave in ``.grad``.

    Args:
        before: tensors with the gradients that they had before the step.
        recorder: what has recorded the step.

    Attributes:
        expected: ``(tensor, gradient or None)`` for those that must be the very same.
        present: tensors that must have a gradient, whichever.
        carried: ``(tensor, gradient)`` for those that are read, and then replaced by others.
        left: ``(tensor, gradient or None)`` for those that the step has replaced; see `bind`.
    """

    def __init__(self, before: Sequence[tuple[Tensor, Tensor | None]], recorder: Recorder) -> None:
        used, read, asked = recorder.used_grads, recorder.touched, recorder.asked_grads
        self.expected: list[tuple[Tensor, Tensor | None]] = []
        self.present: list[Tensor] = []
        self.carried: list[tuple[Tensor, Tensor]] = []
        self.left: list[tuple[Tensor, Tensor | None]] = []
        self._refs: list[tuple[Tensor, Ref | None]] = []
        for p, old in before:
            is_read = old is not None and id(old) in read
            is_used = is_read or id(p) in used
            stays = p._grad is old
            if not stays or (old is None and (is_used or id(p) in recorder.cleared)):
                ref = None if p._grad is None else recorder.ref(p._grad.array)
                self._refs.append((p, ref))
            if is_used and (stays or old is None):
                self.expected.append((p, old))
            if old is not None and not stays:
                if is_read or asked.get(id(p)) is old:
                    self.present.append(p)
                if is_read:
                    self.carried.append((p, old))

    @property
    def kept(self) -> list[Ref]:
        """The places of the gradients that the step leaves."""
        return [ref for _, ref in self._refs if ref is not None]

    def carry(self) -> None:
        """Move the gradients that will be read out of memory that the plan will use again."""
        for p, old in self.carried:
            if p._grad is not old:
                old.array[...] = p._grad.array  # type: ignore[union-attr]
                p._grad = old

    def bind(self, place_of: Callable[[Ref], Any]) -> None:
        """Take the gradients that the step leaves from where a plan has them."""
        self.left = [(p, None if r is None else wrap(place_of(r))) for p, r in self._refs]
        self._refs = []
