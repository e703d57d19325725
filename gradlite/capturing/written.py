"""What a step writes into its surroundings: items, attributes, variables that replays set anew."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Container, Sequence
from typing import Any

from gradlite.capturing.calls import Ref
from gradlite.capturing.recorder import Recorder
from gradlite.capturing.results import kinds
from gradlite.capturing.watched import Items, Slots, alike, read, spelled, write
from gradlite.tensor import Tensor, wrap
from gradlite.utils._pytree import tree_flatten, tree_unflatten


class Written:
    """A place that a step has filled without a look at the tensors that were there.

    Args:
        container, key: the place; an `Items` stands for all items of a list.
        name: its name for people.
        old, new: what was there, and what is there now.

    Attributes:
        before: what must be there before a replay; see `form`.
    """

    def __init__(self, container: Any, key: Any, name: str, old: Any, new: Any) -> None:
        self.container, self.key, self.name = container, key, name
        self.before = form(old)
        self._leaves, self._spec = tree_flatten(new)
        self._kinds: list[tuple[str, Any]] = []

    def note(self, recorder: Recorder, inputs: Sequence[Any], leaves: Sequence[Any]) -> None:
        """Take note of the values, and put those there that belong to no recording.

        Args:
            recorder: what has recorded the step.
            inputs: the recorded inputs.
            leaves: those that were given.
        """
        self._kinds = kinds(recorder, inputs, self._leaves)
        recorder.left.append((self.name, repr(self._spec)))
        recorder.left += [(k, spelled(v) if k == "value" else v) for k, v in self._kinds]
        found = [v.detach() if isinstance(v, Tensor) else v for v in self._leaves]
        for number, (kind, value) in enumerate(self._kinds):
            if kind == "input":
                found[number] = leaves[value]
        self._leaves = []
        self._write(found)

    @property
    def kept(self) -> list[Ref]:
        """The arrays of the plan that are read when it has run."""
        return [value for kind, value in self._kinds if kind == "tensor"]

    def bind(self, place_of: Callable[[Ref], Any]) -> None:
        """Find the arrays where a plan has them."""
        self._kinds = [(k, place_of(v) if k == "tensor" else v) for k, v in self._kinds]

    def put(self, leaves: Sequence[Any]) -> None:
        """Do in a replay what the step does; the tensors are whoever's finds them."""
        made: list[Any] = []
        for kind, value in self._kinds:
            made.append(leaves[value] if kind == "input" else value)
            if kind == "tensor":
                made[-1] = wrap(value.copy())
        self._write(made)

    def _write(self, values: list[Any]) -> None:
        value = values[0] if self._spec.kind is None else tree_unflatten(values, self._spec)
        if isinstance(self.container, Items):
            items = self.container.container
            items.clear()
            items.extend(value)
        else:
            write(self.container, self.key, value)

    def holds(self) -> bool:
        """Whether there is what a replay may replace."""
        try:
            return form(read(self.container, self.key)) == self.before
        except ValueError:  # an empty cell
            return False


def form(value: Any) -> Any:
    """Something that is equal for values that a step which does not look at tensors may meet."""
    if isinstance(value, Tensor):
        return Tensor
    if value.__class__ is tuple or value.__class__ is list:
        return value.__class__, tuple(map(form, value))
    if value.__class__ is dict:
        return dict, tuple([(key, form(item)) for key, item in value.items()])
    return spelled(value) or id(value)


def written(
    recorder: Recorder,
    place: tuple[Any, Any, str],
    old: Any,
    new: Any,
    inputs: Sequence[Any],
    looked: Container[int],
) -> Written | None:
    """The `Written` of a place with another value than before, or None where it is none.

    Args:
        recorder: what has recorded the step.
        place: the container, the key, and its name.
        old, new: what was there before the step, and after it.
        inputs: the recorded inputs.
        looked: the ids of the tensors that the step has looked at.
    """
    if isinstance(place[0], Items):
        items = place[0].container
        if items.__class__ not in (list, deque) or getattr(items, "maxlen", None) is not None:
            return None
        if not {id(v) for v in old if isinstance(v, Tensor)}.isdisjoint(map(id, new)):
            return None  # appended to
        new = list(new)
    elif not isinstance(place[0], (dict, types.CellType, Slots)):
        return None
    leaves, _ = tree_flatten(new)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    own = {id(t) for t in inputs if isinstance(t, Tensor)}
    if not tensors or not all(id(t) in recorder.born or id(t) in own for t in tensors):
        return None
    before, _ = tree_flatten(list(old) if isinstance(place[0], Items) else old)
    if any(isinstance(v, Tensor) and id(v) in looked for v in before):
        return None
    numbers = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
    if any(spelled(v) is None for v in numbers):
        return None
    if numbers and any(isinstance(v, Tensor) for v in before):
        others = [leaf for leaf in before if not isinstance(leaf, Tensor)]
        if len(others) != len(numbers) or not all(map(alike, numbers, others)):
            return None  # it counts
    return Written(*place, old, new)
