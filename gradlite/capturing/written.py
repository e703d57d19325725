"""What a step writes into its surroundings: items, attributes, variables that replays set anew.

Of places whose tensors the step has looked at before see `Carried`.
"""

from __future__ import annotations

import operator
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Sequence
from typing import Any

from gradlite.capturing.calls import Ref
from gradlite.capturing.recorder import Recorder
from gradlite.capturing.results import kinds, nesting
from gradlite.capturing.watched import Items, Slots, alike, read, spelled, write
from gradlite.tensor import Tensor, wrap
from gradlite.utils._pytree import tree_flatten, tree_unflatten


class Written:
    """A place that a step has filled.

    Args:
        container, key: the place; an `Items` stands for all items of a list.
        name: its name for people.
        old, new: what was there, and what is there now.
        carries: whether the step has looked at the tensors that were there.

    Attributes:
        before: what must be there before a replay; see `form`.
        before_leaves, leaves: the leaves of what was there, and of what is there now.
        spec: how these are nested.
        only_read: whether there is what was there: others replace it.
    """

    def __init__(
        self, container: Any, key: Any, name: str, old: Any, new: Any, carries: bool
    ) -> None:
        self.container, self.key, self.name, self.carries = container, key, name, carries
        self.before = form(old)
        self.before_leaves = tree_flatten(old)[0] if carries else []
        self.leaves, self.spec = tree_flatten(new)
        self.only_read = carries and same_objects(self.before_leaves, self.leaves)
        self._kinds: list[tuple[str, Any]] = []

    @property
    def found(self) -> list[Tensor]:
        """The tensors that were there."""
        return [leaf for leaf in self.before_leaves if isinstance(leaf, Tensor)]

    def leave(self, inputs: Sequence[Any], leaves: Sequence[Any]) -> None:
        """Put values there that belong to no recording.

        What the next call may look at is there with its graph, as without capture.

        Args:
            inputs: the recorded inputs.
            leaves: those that were given.
        """
        given = {id(t): leaf for t, leaf in zip(inputs, leaves) if isinstance(t, Tensor)}
        found = []
        for leaf in self.leaves:
            own = isinstance(leaf, Tensor) and id(leaf) not in given
            found.append(leaf.detach() if own and not self.carries else given.get(id(leaf), leaf))
        if any(a is not b for a, b in zip(found, self.leaves)):
            self.write(found)

    def note(self, recorder: Recorder, inputs: Sequence[Any]) -> None:
        """Take note of the values.

        Args:
            recorder: what has recorded the step.
            inputs: the recorded inputs.
        """
        self._kinds = [
            # What lasts from call to call is to be seen in it.
            ("lasting", v) if k == "tensor" and recorder.lasts(v.buffer) else (k, v)
            for k, v in kinds(recorder, inputs, self.leaves)
        ]
        recorder.left.append((self.name, nesting(self.spec)))
        recorder.left += [(k, spelled(v) if k == "value" else v) for k, v in self._kinds]
        self.leaves = []

    @property
    def kept(self) -> list[Ref]:
        """The arrays of the plan that are read when it has run."""
        return [value for _, value in self._kinds if isinstance(value, Ref)]

    def bind(self, place_of: Callable[[Ref], Any]) -> None:
        """Find the arrays where a plan has them."""
        self._kinds = [(k, place_of(v) if isinstance(v, Ref) else v) for k, v in self._kinds]

    def put(self, leaves: Sequence[Any]) -> None:
        """Do in a replay what the step does; the tensors are whoever's finds them."""
        made: list[Any] = []
        for kind, value in self._kinds:
            if kind == "input":
                made.append(leaves[value])
            elif kind == "tensor" or kind == "lasting":
                made.append(wrap(value.copy() if kind == "tensor" else value))
            else:
                made.append(value)
        self.write(made)

    def write(self, values: list[Any]) -> None:
        """Put leaves there, nested as those of the recording."""
        value = values[0] if self.spec.kind is None else tree_unflatten(values, self.spec)
        if isinstance(self.container, Items):
            items = self.container.container
            items.clear()
            items.extend(value)
        else:
            write(self.container, self.key, value)

    def current(self) -> list[Tensor] | None:
        """The tensors that are there now; None where there is something else."""
        try:
            value = read(self.container, self.key)
        except ValueError:  # an empty cell
            return None
        return self.tensors(value)

    def tensors(self, value: Any) -> list[Tensor] | None:
        """The tensors of what is there; None where it is something else."""
        kind, before = value.__class__, self.before
        if kind is Tensor:
            return [value] if before is Tensor else None
        if kind is tuple and before.__class__ is tuple and before[0] is tuple:
            # The usual nesting is told quickly.
            if len(value) == len(before[1]) and all(
                v.__class__ is Tensor is part for v, part in zip(value, before[1])
            ):
                return list(value)
        if form(value) != before:
            return None
        return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]

    def holds(self) -> bool:
        """Whether there is what a replay may replace."""
        return self.current() is not None


def same_objects(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two sequences hold the very same objects."""
    return len(some) == len(others) and all(map(operator.is_, some, others))


def form(value: Any) -> Any:
    """Something that is equal for values that a step which does not look at tensors may meet."""
    if isinstance(value, Tensor):
        return Tensor
    kind = value.__class__
    if kind is tuple or kind is list or (isinstance(value, tuple) and hasattr(kind, "_fields")):
        return kind, tuple(map(form, value))
    if kind is dict or kind is OrderedDict:
        keys = (id(key) if isinstance(key, Tensor) else key for key in value)
        return kind, tuple(zip(keys, map(form, value.values())))
    return spelled(value) or id(value)


def written(
    recorder: Recorder,
    place: tuple[Any, Any, str],
    old: Any,
    new: Any,
    inputs: Sequence[Any],
    looked: Container[int],
    there: Container[int] = (),
) -> Written | None:
    """The `Written` of a place with another value than before, or None where it is none.

    Args:
        recorder: what has recorded the step.
        place: the container, the key, and its name.
        old, new: what was there before the step, and after it.
        inputs: the recorded inputs.
        looked: the ids of the tensors that the step has looked at.
        there: the ids of those that were in places with other values than before.
    """
    if isinstance(place[0], Items):
        items = place[0].container
        if items.__class__ not in (list, deque) or getattr(items, "maxlen", None) is not None:
            return None
        appended = not {id(v) for v in old if isinstance(v, Tensor)}.isdisjoint(map(id, new))
        if appended and len(old) != len(new):
            return None
        new = list(new)
    elif not isinstance(place[0], (dict, types.CellType, Slots)):
        return None
    leaves, _ = tree_flatten(new)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    own = {id(t) for t in inputs if isinstance(t, Tensor)}
    if not tensors or not all(
        id(t) in recorder.born or id(t) in own or id(t) in there for t in tensors
    ):
        return None
    before, _ = tree_flatten(old)
    carries = any(isinstance(v, Tensor) and id(v) in looked for v in before)
    if carries and form(old) != form(tuple(new) if isinstance(place[0], Items) else new):
        return None
    numbers = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
    if any(spelled(v) is None for v in numbers):
        return None
    if numbers and any(isinstance(v, Tensor) for v in before):
        others = [leaf for leaf in before if not isinstance(leaf, Tensor)]
        if len(others) != len(numbers) or not all(map(alike, numbers, others)):
            return None  # it counts
    return Written(*place, old, new, carries)
