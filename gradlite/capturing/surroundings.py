"""Surroundings: everything that decides what a step does, compared before every replay.

A recording is right as long as all that the step can reach stays the same, so `Surroundings`
remembers what was there, compares it quickly before every replay, and says what has changed.
"""

from __future__ import annotations

import operator
import pickle
import random
import types
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradlite import changes, determinism, graph
from gradlite.capturing import code_names
from gradlite.capturing.calls import STATE
from gradlite.capturing.carried import Carried, UnsettledError, are_data, kind_of
from gradlite.capturing.conditions import Conditions
from gradlite.capturing.reachable import DEPTH, Reachable
from gradlite.capturing.recorder import Recorder
from gradlite.capturing.watched import (
    ABSENT,
    SIMPLE,
    Items,
    Numbers,
    Untaken,
    alike,
    described,
    distributions,
    is_shown,
    item_name,
    place_of,
    progress,
    read,
    write,
)
from gradlite.capturing.watching import Findings
from gradlite.capturing.written import Written, written
from gradlite.device import get_default_device
from gradlite.graph_hooks import saved_hooks
from gradlite.nn import Module, Parameter, global_hooks
from gradlite.optim.optimizer import global_step_hooks, step_hooks
from gradlite.tensor import Tensor
from gradlite.utils._pytree import tree_flatten


class Surroundings(Reachable):
    """What a step can reach, as it was when it was recorded."""

    def __init__(
        self, function: Callable[..., Any], declared: Iterable[Any], findings: Findings
    ) -> None:
        declared = tuple(declared)
        super().__init__(function, declared, findings)
        self._source = function, declared, findings
        self._values = [read(container, key) for container, key, _ in self._places]
        found = [(place, value) for (*place, _), value in zip(self._places, self._values)]
        # The same, as they are read the fastest.
        self._cells = [(c, value) for (c, _), value in found if c.__class__ is types.CellType]
        self._others = [
            (c.get, key, value) for (c, key), value in found if c.__class__ is not types.CellType
        ]
        # Where there are none all arguments are given, and those to come would not be taken.
        self._defaults = [(f, *rest) for f, _, *rest in self._functions if any(rest)]
        self._sizes = [(attributes, len(attributes)) for attributes, _, _ in self._shadows.values()]
        self._lent.remember()
        self._options = self.options.read()
        self._count = [changes.count[0]]  # a list, which the function below reads
        self._unchanged: Callable[[], bool] | None = None  # of `unchanged`, once it is asked
        self._measurings = changes.measurings[0]
        self._progress = [progress(iterator) for iterator in self._loose]
        # Tensors that are plain attributes of modules; those that a step makes anew do not count.
        self._attached = {
            (number, key): value
            for number, module in self.modules.items()
            for key, value in module.__dict__.items()
            if isinstance(value, Tensor)
        }
        # And all attributes with tensors in them.
        self._holding = [
            (number, key, value)
            for number, module in self.modules.items()
            for key, value in module.__dict__.items()
            if _tensors(value)
        ]
        self._buffers = [entry for entry in self._holding if not isinstance(entry[2], Parameter)]
        held = [t for _, _, value in self._holding for t in _tensors(value)]
        self._kinds_before = {id(t): kind_of(t) for t in (*self.parameters(), *held)}
        self.carried: Carried | None = None
        self._made: set[tuple[int, str]] = set()
        self._rewritten: list[Written] = []
        self._filled: set[int] = set()  # containers that the step puts something into
        self._grown: set[int] = set()  # dictionaries, by their `Items`, with keys of the step's
        self._fresh: set[tuple[int, Any]] = set()  # these
        self._state = self._describe()
        self._read_by_layers = self._attributes_read()
        self._note_groups()
        self.old_grads = [(p, p._grad) for p in self.parameters()]
        self._memory: list[tuple[Tensor, Any]] = []

    def add_numbers(self, arrays: Iterable[Any]) -> None:
        """Take the values of arrays of NumPy's into what must stay the same."""
        for numbers in arrays:
            read = Numbers(numbers)
            self._places.append((read, None, "an array of NumPy's"))
            self._values.append(read.get(None))
            self._others.append((read.get, None, self._values[-1]))
        self._note_groups()

    def tensor_ids(self) -> frozenset[int]:
        """The ids of all tensors."""
        return frozenset(map(id, self.parameters()))

    def random_numbers(self) -> bytes:
        """Where Python's and NumPy's random numbers are."""
        states = [random.getstate(), np.random.get_state(legacy=False)]
        for generator in self._generators:
            if isinstance(generator, random.Random):
                states.append(generator.getstate())
            elif isinstance(generator, np.random.RandomState):
                states.append(generator.get_state(legacy=False))
            else:
                states.append(generator.bit_generator.state)
        return pickle.dumps(states)

    @contextmanager
    def arrays_as(self, face: Callable[[Any], Any]) -> Iterator[None]:
        """Show the step others in place of NumPy's arrays that it can reach.

        So that what it does with them is recorded, and a replay sees how they have been edited.
        Iterators say that they are asked for an item.
        """
        shown: list[tuple[Any, Any, Any, Any]] = []
        try:
            for container, key in self._arrays:
                value = read(container, key)
                if is_shown(value) and value.size:
                    shown.append((container, key, value, face(value)))
                    write(container, key, shown[-1][3])
            for container, key in self._iterators:
                value = read(container, key)
                if isinstance(value, Iterator):
                    shown.append((container, key, value, Untaken(value)))
                    write(container, key, shown[-1][3])
            yield
        finally:
            for container, key, value, other in shown:
                if read(container, key) is other:
                    write(container, key, value)

    def taken(self) -> str | None:
        """The class of an iterator of which the step has taken an item."""
        for iterator, before in zip(self._loose, self._progress):
            if progress(iterator) != before:
                return type(iterator).__name__
        return None

    def rewritten(
        self, recorder: Recorder, inputs: Sequence[Any], looked: Container[int]
    ) -> list[Written]:
        """The places that the step has filled without a look at what was there.

        From now on these may hold what the last call has put there.
        """
        changed = self._replaced()
        there = {id(t) for place, old, _ in changed for t in _tensors(old)}
        new = {id(t) for *_, now in changed for t in _tensors(now)}
        looked = {i for i in there if i in looked or i in new}
        found: list[Written] = []
        for place, old, now in changed:
            if isinstance(place[0], Items) and isinstance(place[0].container, dict):
                added = self._added(recorder, place[0], old, now, inputs)
            else:
                added = [written(recorder, place, old, now, inputs, looked, there)]
            given = now is old and place_of(*place[:2]) in self._source[2].given
            found += [w for w in added if w is not None and (w.carries or not given)]
        taken = {(id(w.container), w.key) for w in found}
        self._rewritten = [
            w for w in found if (id(w.container), w.key) not in self._fresh and not w.carries
        ]
        kept = [n for n, (c, key, _) in enumerate(self._places) if (id(c), key) not in taken]
        self._places = [self._places[n] for n in kept]
        self._values = [self._values[n] for n in kept]
        self._cells = [(c, value) for c, value in self._cells if (id(c), None) not in taken]
        self._others = [
            entry for entry in self._others if (id(entry[0].__self__), entry[1]) not in taken
        ]
        self._filled = {id(getattr(w.container, "container", w.container)) for w in found}
        for number, key, value in self._holding:
            space = self.modules[number].__dict__
            if (id(space), key) in taken or _leads_to(space.get(key, value), self._filled):
                self._made.add((number, key))
        self._forget_made()
        self._holding.clear()
        self._note_groups()
        return found

    def lasting(self) -> tuple[list[Tensor], set[int]]:
        """The tensors that the step has found around itself and left there; ids of the others."""
        changed = self._replaced()
        places = {(id(place[0]), place[1]) for place, _, _ in changed}
        values = [now for *_, now in changed]
        values += [v for p, v in zip(self._places, self._values) if (id(p[0]), p[1]) not in places]
        there = {id(t) for value in values for t in _tensors(value)}
        gone = {id(t) for _, old, _ in changed for t in _tensors(old)} - there
        return [t for t in self.parameters() if id(t) not in gone], gone

    def given_anew(self) -> None:
        """Have the next recordings take tensors for inputs that others put there for every call."""
        findings = self._source[2]
        places = [(c, key, old) for (c, key, _), old in zip(self._places, self._values)]
        places += [(self.modules[n].__dict__, key, old) for n, key, old in self._buffers]
        for container, key, old in places:
            place = place_of(container, key)
            try:
                now = read(container, key)
            except ValueError:
                continue
            if now is old or place in findings.kept or _leads_to(old, self._filled):
                continue
            if are_data(old, now):
                findings.carried[place] = container
                findings.given.add(place)

    def keep_given(self, places: Sequence[Written]) -> bool:
        """Take none of these for inputs any more; whether one was."""
        findings = self._source[2]
        own = {place_of(w.container, w.key) for w in places if w.only_read} & findings.given
        findings.given -= own
        findings.kept |= own
        findings.carried = {k: c for k, c in findings.carried.items() if k not in own}
        return bool(own)

    def _replaced(self) -> list[tuple[tuple[Any, Any, str], Any, Any]]:
        """The places with another value than before, and those that other recordings carry on.

        Each with the value that was there, and the one that is there now.
        """
        known, found = self._source[2].carried, []
        for place, old in zip(self._places, self._values):
            try:
                now = read(*place[:2])
            except ValueError:
                continue
            if now is old or alike(now, old):
                if place_of(*place[:2]) not in known or not _tensors(old):
                    continue
            found.append((place, old, now))
        for number, key, old in self._holding:
            module = self.modules[number]
            now = module.__dict__.get(key, ABSENT)
            if (number, key) in self._made or isinstance(old, Parameter):
                continue
            if now is not old or place_of(module.__dict__, key) in known:
                found.append(((module.__dict__, key, f"{type(module).__name__}.{key}"), old, now))
        return found

    def _forget_made(self) -> None:
        """What a step puts into modules anew does not count."""
        attributes = [part for part in self._state[0] if part[:2] not in self._made]
        self._state = (tuple(attributes), *self._state[1:])
        made = {(id(self.modules[number].__dict__), key) for number, key in self._made}
        self._read_by_layers = [
            part for part in self._read_by_layers if (id(part[0]), part[1]) not in made
        ]

    def carry(
        self, recorder: Recorder, places: Sequence[Written], identity: bool
    ) -> Carried | None:
        """What the step reads where it puts something else; from now on it may be another one.

        Args:
            recorder: what has recorded the step.
            places: the places that it has filled.
            identity: whether it may look which tensor one is.

        Raises:
            CaptureError: a replay could not do the same.
        """
        carrying = [w for w in places if w.carries]
        if not carrying:
            self._kinds_before.clear()
            return None
        spots = {place_of(w.container, w.key): w.container for w in places}
        others = Reachable(*self._source, without=spots)
        elsewhere = {id(t) for t in others.parameters()}
        for w in carrying:
            if any(id(t) in elsewhere for t in w.found):
                raise UnsettledError(
                    f"the step itself replaces {w.name}, which is also to be found elsewhere: put "
                    "a clone() of it there, or change it in place (copy_, add_)"
                )
        own = {id(t) for w in carrying for t in w.found}
        known = self.tensor_ids() - own if identity else frozenset[int]()
        grads = [old for _, old in self.old_grads if old is not None]
        carried = Carried(carrying, recorder, self._kinds_before, grads, known)
        flags = [part for i, part in zip(self.tensors, self._state[1]) if i not in own]
        self._state = (self._state[0], tuple(flags), *self._state[2:])
        self.tensors = {i: t for i, t in self.tensors.items() if i not in own}
        self.old_grads = [(p, grad) for p, grad in self.old_grads if id(p) not in own]
        own.update(id(v) for v in self._keep if _tensors(v) and not own.isdisjoint(_ids(v)))
        self._keep = [v for v in self._keep if id(v) not in own]
        self._kinds_before.clear()
        present = {place_of(c, key) for c, key, _ in self._places} | spots.keys()
        findings = self._source[2]
        findings.carried = {k: c for k, c in findings.carried.items() if k in present}
        findings.carried.update((place_of(w.container, w.key), w.container) for w in carrying)
        self.carried = carried
        return carried

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
        self._grown.add(id(keys))
        self._fresh.update((id(space), key) for key in now[len(old) :])
        return list(added)

    def made_anew(
        self, recorder: Recorder, touched: Container[int]
    ) -> list[tuple[dict[str, Any], str]]:
        """The attributes of modules that the step has replaced without a look at the old values.

        As the hooks of weight normalisation do. From now on they are none of the surroundings.
        """
        found = []
        for (number, key), old in self._attached.items():
            attributes = self.modules[number].__dict__
            new = attributes.get(key)
            if new is not old and isinstance(new, Tensor) and id(old) not in touched:
                buffer = recorder.find(new.array) if id(new) in recorder.born else None
                if buffer is not None and buffer.kind != STATE:
                    self._made.add((number, key))
                    found.append((attributes, key))
        if found:
            self._forget_made()
        self._attached.clear()
        return found

    # ------------------------------------------------------------------------ comparing
    def _describe(self) -> tuple[Any, ...]:
        """Everything about the modules and tensors that decides what a step does."""
        return (
            tuple(
                [
                    (number, key, described(value))
                    for number, module in self.modules.items()
                    for key, value in list(module.__dict__.items())
                    if (number, key) not in self._made
                    and not (self._unread(module, key) and not isinstance(value, (Module, Tensor)))
                ]
            ),
            tuple([described(t) for t in self.tensors.values()]),
            tuple(map(type, self.modules.values())),
            tuple([tuple(table) for table in global_hooks.TABLES]),
            (
                described(saved_hooks.get()),
                graph.anomaly_enabled,
                getattr(distributions(), "_validate_args", __debug__),
                get_default_device(),
                determinism.are_deterministic_algorithms_enabled(),
                changes.replaced[0],
            ),
            tuple([tuple(table) for table in global_step_hooks()]),
            tuple(
                [
                    (
                        [id(p) for group in optimizer.param_groups for p in group["params"]],
                        [tuple(table) for table in step_hooks(optimizer)],
                    )
                    for optimizer in self.options.optimizers.values()
                ]
            ),
        )

    def _attributes_read(self) -> list[tuple[dict[str, Any], str, Any]]:
        """The numbers that the code of layers reads of them: their ``__dict__`` may be edited.

        Where somebody sets an attribute the library counts that, see `changes`. Tensors are not
        among these, for the time that it would take: small layers have little else.
        """
        kinds = {type(module) for module in self.modules.values()}
        names = {kind: code_names.names_in_methods(kind, Module) for kind in kinds}
        return [
            (space, key, space[key])
            for number, module in self.modules.items()
            for space in [module.__dict__]
            for key in sorted(names[type(module)] & space.keys())
            if space[key].__class__ in SIMPLE
            and (number, key) not in self._made
            and not self._unread(module, key)
        ]

    def _note_groups(self) -> None:
        """Remember optimizers' groups, and lists of their parameters, as they are told quickly."""
        every = [optimizer.param_groups for optimizer in self.options.optimizers.values()]
        self._grouped = lists = [
            (group.get, "params", group["params"]) for groups in every for group in groups
        ]
        options = [(space.get, key, value) for space, key, value in self.options.read()]
        self._entries = [*self._others, *lists, *options]
        counted: list[list[Any]] = [*every, *(params for _, _, params in lists)]
        self._lengths = [(values, len(values)) for values in counted]
        self._unchanged = None

    def unchanged(self) -> bool:
        """Whether everything is the very same: a quicker answer than that of `changed`."""
        if self._unchanged is None:
            self._unchanged = self._conditions()
        return self._unchanged()

    def _conditions(self) -> Callable[[], bool]:
        conditions = Conditions()
        add = conditions.add
        add("{}[0] == {}[0]", changes.count, self._count)
        for values, count in self._lengths:
            add("len({}) == {}", values, count)
        for get, key, value in self._entries:
            if get.__self__.__class__ is dict and value is not ABSENT:
                add("{}[{}] is {}", get.__self__, key, value)
            else:
                add("{}({}, {}) is {}", get, key, ABSENT, value)
        for function, code, *_ in self._functions:
            add("{}.__code__ is {}", function, code)
        for tensor, array in self._memory:
            add("{}.array is {}", tensor, array)
        self._measurings = changes.measurings[0]
        self._lent.conditions(conditions)
        for function, defaults, named in self._defaults:
            add("{}.__defaults__ is {}", function, defaults)
            add("{}.__kwdefaults__ is {}", function, named)
        for value, kind in self._kinds:
            add("{}.__class__ is {}", value, kind)
        for value, attributes in self._spaces:
            add("{}.__dict__ is {}", value, attributes)
        for attributes, size in self._sizes:
            add("len({}) == {}", attributes, size)
        for attributes, key, value in self._read_by_layers:
            add("{}[{}] is {}", attributes, key, value)
        for place in self._rewritten:
            add("{}()", place.holds)
        for cell, value in self._cells:
            add("{}.cell_contents is {}", cell, value)
        return conditions.function()

    def note_memory(self, recorder: Recorder) -> None:
        """Remember the arrays of the tensors that the step reads or changes, and that last."""
        touched = recorder.touched
        found = [touched[id(p)] for p in self.parameters() if id(p) in touched]
        self._unchanged = None
        self._memory = [(p, array) for p, array in found if _lasts(recorder.find(array))]

    def _has_memory(self) -> bool:
        """Whether ``tensor.array = ...`` has given no tensor another array."""
        return all(tensor.array is array for tensor, array in self._memory)

    @property
    def puts(self) -> bool:
        """Whether a replay puts something into modules."""
        return bool(self._made)

    def tell_others(self) -> None:
        """Have other recordings look whether they read what a replay has put into modules."""
        known = self._count[0] == changes.count[0]
        changes.count[0] += 1
        if known:
            self._count[0] += 1

    def changed(self) -> str | None:
        """The name of what has changed since, or None."""
        found = self._of_places() or self._of_functions() or self._of_options()
        if found is None and self._measurings != changes.measurings[0]:
            self._unchanged = None
        if found is None and (
            changes.count[0] != self._count[0]
            or self._regrouped()
            or not self._has_memory()
            or any(
                space.get(key, ABSENT) is not value for space, key, value in self._read_by_layers
            )
        ):
            state = self._describe()
            if state != self._state:
                return self._difference(state)
            self._count[0] = changes.count[0]
            if self._unchanged is None or not self._unchanged():
                self._read_by_layers = self._attributes_read()
                self._note_groups()
        return found

    def left(self) -> tuple[str | None, list[tuple[Any, str, bool]]]:
        """What the step itself has changed: what no replay does, and the flags that each sets."""
        grown, places = self._grown, [*zip(self._places, self._values)]
        if grown:
            places = [(place, value) for place, value in places if id(place[0]) not in grown]
        found = self._of_places(places) or self._of_functions() or self._of_options()
        if found is None and changes.count[0] != self._count[0]:
            state = self._describe()
            if state != self._state:
                switched = self._switched(state)
                return self._difference(state) if switched is None else None, switched or []
        return found, []

    def _switched(self, state: tuple[Any, ...]) -> list[tuple[Any, str, bool]] | None:
        """The modes of modules and the flags of tensors that are others; None: so is more."""
        if state[2:] != self._state[2:] or any(
            map(operator.ne, map(len, state), map(len, self._state))
        ):
            return None
        found: list[tuple[Any, str, bool]] = []
        for (number, key, old), (n, k, new) in zip(self._state[0], state[0]):
            if (number, key) != (n, k):
                return None
            if old == new:
                continue
            module = self.modules[number]
            if key == "training":
                found.append((module, key, module.training))
            else:
                tensor = module.__dict__[key]
                if not _of_another_flag(tensor, old, new):
                    return None
                found.append((tensor, "requires_grad", tensor._requires_grad))
        for tensor, old, new in zip(self.tensors.values(), self._state[1], state[1]):
            if old != new:
                if not _of_another_flag(tensor, old, new):
                    return None
                found.append((tensor, "requires_grad", tensor._requires_grad))
        return found

    def _of_places(self, places: Iterable[Any] | None = None) -> str | None:
        """The name of a variable, or of an item, that is another one."""
        if places is None:
            places = zip(self._places, self._values)
            changed = next((place.name for place in self._rewritten if not place.holds()), None)
            if changed is None and self.carried is not None:
                changed = self.carried.changed()
            if changed is not None:
                return changed
        for (container, key, name), value in places:
            try:
                now = read(container, key)
            except ValueError:
                return name
            if now is not value and not alike(now, value):
                return name
        return None

    def _of_functions(self) -> str | None:
        """Which function, or class of an object, is another one."""
        for function, *known in self._functions:
            now = (function.__code__, function.__defaults__, function.__kwdefaults__)
            if any(a is not b for a, b in zip(now, known)):
                return f"the code or the defaults of {function.__name__}()"
        method = self._lent.changed()
        if method is not None:
            return method
        for value, kind in self._kinds:
            if value.__class__ is not kind:
                return f"the class of a {kind.__name__}"
        for value, attributes in self._spaces:
            if value.__dict__ is not attributes:
                return f"the attributes of a {type(value).__name__}"
        for number, (attributes, names, title) in enumerate(self._shadows.values()):
            if len(attributes) != self._sizes[number][1]:
                found = next((name for name in sorted(names) if name in attributes), None)
                if found is not None:
                    return f"{title}.{found}"
                self._sizes[number] = attributes, len(attributes)
                self._unchanged = None
        return None

    def _of_options(self) -> str | None:
        """Which number of an optimizer, that the step reads itself, is another one."""
        now = self.options.read()
        if len(now) != len(self._options):
            return "the parameters of an optimizer"
        for (_, key, value), (_, known, other) in zip(now, self._options):
            if key != known or not (value is other or alike(value, other)):
                return f"{key!r} of an optimizer"
        return None

    def _regrouped(self) -> bool:
        """Whether an optimizer may have got other parameters."""
        return any(len(values) != count for values, count in self._lengths) or any(
            get(key) is not params for get, key, params in self._grouped
        )

    def _difference(self, state: tuple[Any, ...]) -> str:
        before = {(number, key): value for number, key, value in self._state[0]}
        for number, key, value in state[0]:
            if before.get((number, key), self) != value:
                return f"{type(self.modules[number]).__name__}.{key}"
        if state[-1] != self._state[-1]:
            return "the parameters or hooks of an optimizer"
        if state[3:] != self._state[3:]:
            return "a mode or function of the library, or hooks of all modules or optimizers"
        return "a tensor's flags, hooks or memory"


def _lasts(buffer: Any) -> bool:
    return buffer is not None and buffer.kind == STATE


def _tensors(value: Any) -> list[Tensor]:
    """The tensors of a value that is one, or nests some in tuples, lists and dictionaries."""
    if value.__class__ in SIMPLE:
        return []
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]


def _ids(value: Any) -> list[int]:
    return [id(t) for t in _tensors(value)]


def _leads_to(value: Any, containers: Container[int], depth: int = DEPTH) -> bool:
    """Whether a list or dictionary is one of some, or holds one of them."""
    if id(value) in containers:
        return True
    parts = value.values() if isinstance(value, dict) else value
    return (
        depth > 0
        and isinstance(value, (dict, list, tuple, deque))
        and any(_leads_to(part, containers, depth - 1) for part in parts)
    )


def _of_another_flag(value: Any, before: Any, now: Any) -> bool:
    """Whether a tensor that is a leaf differs in nothing but whether it requires grad."""
    return (
        isinstance(value, Tensor)
        and value.grad_fn is None
        and (before[0], *before[2:]) == (now[0], *now[2:])
    )
