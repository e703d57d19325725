"""The places that a step fills itself, so that they need not stay as they were."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence
from typing import Any

from gradlite.capturing.calls import STATE
from gradlite.capturing.carried import Carried, UnsettledError, are_data, kind_of
from gradlite.capturing.conditions import Conditions
from gradlite.capturing.layers import Layers
from gradlite.capturing.places import Places
from gradlite.capturing.reachable import Reachable
from gradlite.capturing.recorder import Recorder
from gradlite.capturing.watched import (
    ABSENT,
    Items,
    alike,
    item_name,
    place_of,
    read,
    tensors_in,
)
from gradlite.capturing.watching import Findings
from gradlite.capturing.written import Written, written
from gradlite.nn import Parameter
from gradlite.tensor import Tensor

Place = tuple[Any, Any, str]


class Filled:
    """Which places a step has filled, and which of these it reads first.

    Args:
        found: what it can reach.
        places: variables, items and attributes, as they were.
        layers: layers and tensors, as they were.
        findings: what its recordings have met.

    Attributes:
        grown: dictionaries, by the ids of their `Items`, to which the step adds keys.
        puts: whether a replay puts something into modules.
    """

    def __init__(
        self, found: Reachable, places: Places, layers: Layers, findings: Findings
    ) -> None:
        self._modules, self._places, self._layers = found.modules, places, layers
        self._findings = findings
        # All attributes of modules with tensors in them.
        self._holding = [
            (number, key, value)
            for number, module in found.modules.items()
            for key, value in module.__dict__.items()
            if tensors_in(value)
        ]
        # Of these the tensors themselves; those that a step makes anew do not count.
        self._attached = {(n, key): v for n, key, v in self._holding if isinstance(v, Tensor)}
        self._buffers = [entry for entry in self._holding if not isinstance(entry[2], Parameter)]
        held = [t for _, _, value in self._holding for t in tensors_in(value)]
        self._kinds_before = {id(t): kind_of(t) for t in (*found.parameters(), *held)}
        self._carried: Carried | None = None
        self._rewritten: list[Written] = []
        self._containers: set[int] = set()  # that the step puts something into
        self._fresh: set[tuple[int, Any]] = set()  # keys that it adds to dictionaries
        self.grown: set[int] = set()
        self.puts = False

    def conditions(self, conditions: Conditions) -> None:
        """A part of what `changed` asks: what is carried on is found anew at every call."""
        for place in self._rewritten:
            conditions.add("{}()", place.holds)

    def changed(self) -> str | None:
        """The name of a place in which there is something else than the step puts there."""
        changed = next((place.name for place in self._rewritten if not place.holds()), None)
        if changed is None and self._carried is not None:
            changed = self._carried.changed()
        return changed

    def replaced(self) -> list[tuple[Place, Any, Any]]:
        """The places with another value than before, and those that other recordings carry on.

        Each with the value that was there, and the one that is there now.
        """
        known = self._findings.carried
        found: list[tuple[Place, Any, Any]] = []
        for place, old in self._places:
            try:
                now = read(*place[:2])
            except ValueError:
                continue
            if now is old or alike(now, old):
                if place_of(*place[:2]) not in known or not tensors_in(old):
                    continue
            found.append((place, old, now))
        for number, key, old in self._holding:
            module = self._modules[number]
            now = module.__dict__.get(key, ABSENT)
            if self._layers.are_made(number, key) or isinstance(old, Parameter):
                continue
            if now is not old or place_of(module.__dict__, key) in known:
                found.append(((module.__dict__, key, f"{type(module).__name__}.{key}"), old, now))
        return found

    def rewritten(
        self, recorder: Recorder, inputs: Sequence[Any], looked: Container[int]
    ) -> list[Written]:
        """The places that the step has filled without a look at what was there.

        From now on these may hold what the last call has put there.
        """
        changed = self.replaced()
        there = {id(t) for place, old, _ in changed for t in tensors_in(old)}
        new = {id(t) for *_, now in changed for t in tensors_in(now)}
        looked = {i for i in there if i in looked or i in new}
        found: list[Written] = []
        for place, old, now in changed:
            if isinstance(place[0], Items) and isinstance(place[0].container, dict):
                added = self._added(recorder, place[0], old, now, inputs)
            else:
                added = [written(recorder, place, old, now, inputs, looked, there)]
            given = now is old and place_of(*place[:2]) in self._findings.given
            found += [w for w in added if w is not None and (w.carries or not given)]
        taken = {(id(w.container), w.key) for w in found}
        self._rewritten = [
            w for w in found if (id(w.container), w.key) not in self._fresh and not w.carries
        ]
        self._places.leave_out(taken)
        self._containers = {id(getattr(w.container, "container", w.container)) for w in found}
        made = set()
        for number, key, value in self._holding:
            space = self._modules[number].__dict__
            if (id(space), key) in taken or _leads_to(space.get(key, value), self._containers):
                made.add((number, key))
        self._make_anew(made)
        self._holding.clear()
        return found

    def _added(
        self, recorder: Recorder, keys: Items, old: Any, now: Any, inputs: Sequence[Any]
    ) -> list[Written | None]:
        """What the step has put under new keys of a dictionary."""
        space = keys.container
        added = [
            written(recorder, (space, key, item_name(key)), ABSENT, space[key], inputs, ())
            for key in now[len(old) :]
        ]
        if now[: len(old)] != old or None in added:
            return []
        self.grown.add(id(keys))
        self._fresh.update((id(space), key) for key in now[len(old) :])
        return list(added)

    def made_anew(
        self, recorder: Recorder, touched: Container[int]
    ) -> list[tuple[dict[str, Any], str]]:
        """The attributes of modules that the step has replaced without a look at the old values.

        As the hooks of weight normalisation do. From now on they are none of the surroundings.
        """
        made, found = set(), []
        for (number, key), old in self._attached.items():
            attributes = self._modules[number].__dict__
            new = attributes.get(key)
            if new is not old and isinstance(new, Tensor) and id(old) not in touched:
                buffer = recorder.find(new.array) if id(new) in recorder.born else None
                if buffer is not None and buffer.kind != STATE:
                    made.add((number, key))
                    found.append((attributes, key))
        self._make_anew(made)
        self._attached.clear()
        return found

    def _make_anew(self, made: set[tuple[int, str]]) -> None:
        self.puts = self.puts or bool(made)
        self._layers.make_anew(made)

    # --------------------------------------------------- what goes on from call to call
    def given_anew(self) -> None:
        """Have the next recordings take tensors for inputs that others put there for every call."""
        findings = self._findings
        places = [(*place[:2], old) for place, old in self._places]
        places += [(self._modules[n].__dict__, key, old) for n, key, old in self._buffers]
        for container, key, old in places:
            place = place_of(container, key)
            try:
                now = read(container, key)
            except ValueError:
                continue
            if now is old or place in findings.kept or _leads_to(old, self._containers):
                continue
            if are_data(old, now):
                findings.carried[place] = container
                findings.given.add(place)

    def keep_given(self, places: Sequence[Written]) -> bool:
        """Take none of these for inputs any more; whether one was."""
        findings = self._findings
        own = {place_of(w.container, w.key) for w in places if w.only_read} & findings.given
        findings.given -= own
        findings.kept |= own
        findings.carried = {k: c for k, c in findings.carried.items() if k not in own}
        return bool(own)

    def carry(
        self,
        recorder: Recorder,
        places: Sequence[Written],
        elsewhere: Container[int],
        known: frozenset[int],
        grads: Sequence[Tensor],
    ) -> Carried:
        """What the step reads where it puts something else; from now on it may be another one.

        Args:
            recorder: what has recorded the step.
            places: the places that it has filled.
            elsewhere: the ids of the tensors that it can reach without these.
            known: those of its other tensors, if it may look which one is which.
            grads: the gradients from before the step.

        Raises:
            CaptureError: a replay could not do the same.
        """
        carrying = [w for w in places if w.carries]
        for w in carrying:
            if any(id(t) in elsewhere for t in w.found):
                raise UnsettledError(
                    f"the step itself replaces {w.name}, which is also to be found elsewhere: put "
                    "a clone() of it there, or change it in place (copy_, add_)"
                )
        self._carried = Carried(carrying, recorder, self._kinds_before, grads, known)
        findings = self._findings
        present = {place_of(*place[:2]) for place, _ in self._places}
        present.update(place_of(w.container, w.key) for w in places)
        findings.carried = {k: c for k, c in findings.carried.items() if k in present}
        findings.carried.update((place_of(w.container, w.key), w.container) for w in carrying)
        return self._carried

    def forget_before(self) -> None:
        """Let go of what nobody asks for any more, as the tensors are settled."""
        self._kinds_before.clear()


def _leads_to(value: Any, containers: Container[int]) -> bool:
    """Whether a list or dictionary is one of some, or holds one of them."""
    stack, seen = [value], set[int]()
    while stack:
        value = stack.pop()
        if id(value) in containers:
            return True
        if isinstance(value, (dict, list, tuple, deque)) and id(value) not in seen:
            seen.add(id(value))
            stack += value.values() if isinstance(value, dict) else value
    return False
