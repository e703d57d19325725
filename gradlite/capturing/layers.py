"""What layers, tensors and optimizers are like, as far as that decides what a step does."""

from __future__ import annotations

import operator
from collections.abc import Container
from typing import Any

from gradlite import changes, determinism, graph
from gradlite.backends import precision
from gradlite.capturing import code_names
from gradlite.capturing.conditions import Conditions
from gradlite.capturing.reachable import Reachable
from gradlite.capturing.watched import ABSENT, SIMPLE, alike, described, distributions, is_edited
from gradlite.device import get_default_device
from gradlite.graph_hooks import saved_hooks
from gradlite.nn import Module, global_hooks
from gradlite.optim.optimizer import global_step_hooks, step_hooks
from gradlite.tensor import Tensor

OF_MODULES = frozenset(vars(Module()))


class Layers:
    """The library's own objects that a step can reach, and its modes, as they were.

    Whoever changes these by the library's methods counts up `changes.count`, so that a replay has
    to look only where that is another one. What does not count there is compared every time.

    Args:
        found: what the step can reach.
    """

    def __init__(self, found: Reachable) -> None:
        self._modules, self._tensors = found.modules, found.tensors
        self._options, self._named = found.options, found.named
        self._made: set[tuple[int, str]] = set()
        self._count = [changes.count[0]]  # a list, which the conditions read
        self._state = self._describe()
        self._containers = [
            (module, key, value)
            for module in self._modules.values()
            if not code_names.is_library_class(type(module))
            for key, value in module.__dict__.items()
            if is_edited(value) and key not in OF_MODULES and not self._named.unread(module, key)
        ]
        self._read_by_layers = self._attributes_read()
        self._options_read, self._states = self._options.read(), self._options.states()
        self.note_groups()

    def _describe(self) -> tuple[Any, ...]:
        """Everything about the modules and tensors that decides what a step does."""
        return (
            tuple(
                [
                    (number, key, described(value))
                    for number, module in self._modules.items()
                    for key, value in list(module.__dict__.items())
                    if (number, key) not in self._made
                    and not (
                        self._named.unread(module, key) and not isinstance(value, (Module, Tensor))
                    )
                ]
            ),
            tuple([described(t) for t in self._tensors.values()]),
            tuple(map(type, self._modules.values())),
            tuple([tuple(table) for table in global_hooks.TABLES]),
            (
                described(saved_hooks.get()),
                graph.anomaly_enabled,
                getattr(distributions(), "_validate_args", __debug__),
                get_default_device(),
                determinism.are_deterministic_algorithms_enabled(),
                precision.get_float32_matmul_precision(),
                changes.replaced[0],
            ),
            tuple([tuple(table) for table in global_step_hooks()]),
            tuple(
                [
                    (
                        [id(p) for group in optimizer.param_groups for p in group["params"]],
                        [tuple(table) for table in step_hooks(optimizer)],
                    )
                    for optimizer in self._options.optimizers.values()
                ]
            ),
        )

    def _attributes_read(self) -> list[tuple[dict[str, Any], str, Any]]:
        """What the code of layers reads of them: their ``__dict__`` may be edited.

        Where somebody sets an attribute the library counts that, see `changes`. Parameters and
        buffers are not among these, for the time that it would take: small layers have little else.
        """
        kinds = {type(module) for module in self._modules.values()}
        names = {kind: code_names.names_in_methods(kind, Module) for kind in kinds}
        return [
            (space, key, space[key])
            for number, module in self._modules.items()
            for space in [module.__dict__]
            for key in sorted(names[type(module)] & space.keys())
            if (space[key].__class__ in SIMPLE or _is_loose(module, key))
            and (number, key) not in self._made
            and not self._named.unread(module, key)
        ]

    def note_groups(self) -> None:
        """Remember optimizers' groups, and lists of their parameters, as they are told quickly."""
        every = [optimizer.param_groups for optimizer in self._options.optimizers.values()]
        self._grouped = [(group, group["params"]) for groups in every for group in groups]
        counted: list[list[Any]] = [*every, *(params for _, params in self._grouped)]
        self._lengths = [(values, len(values)) for values in counted]
        self._options_now = self._options.read()
        self._edits = [(*edits, edits[-1] and edits[-1][0]) for edits in self._options.edits()]

    def make_anew(self, made: set[tuple[int, str]]) -> None:
        """Take attributes of modules, by the modules' ids, out of what has to stay the same."""
        self._made |= made
        attributes = [part for part in self._state[0] if part[:2] not in self._made]
        self._state = (tuple(attributes), *self._state[1:])
        places = {(id(self._modules[number].__dict__), key) for number, key in self._made}
        self._read_by_layers = [
            part for part in self._read_by_layers if (id(part[0]), part[1]) not in places
        ]

    def are_made(self, number: int, key: str) -> bool:
        """Whether an attribute of a module does not have to stay the same."""
        return (number, key) in self._made

    def leave_out(self, tensors: Container[int]) -> None:
        """Do without some tensors, by their ids."""
        flags = [f for number, f in zip(self._tensors, self._state[1]) if number not in tensors]
        self._state = (self._state[0], tuple(flags), *self._state[2:])
        for number in [number for number in self._tensors if number in tensors]:
            del self._tensors[number]

    # ------------------------------------------------------------------------ comparing
    def conditions(self, conditions: Conditions) -> None:
        """What `changed` asks, as far as nobody has changed anything."""
        add = conditions.add
        add("{}[0] == {}[0]", changes.count, self._count)
        for values, count in self._lengths:
            add("len({}) == {}", values, count)
        for optimizer, its_state, edits, known in self._edits:
            add("{}.state is {}", optimizer, its_state)
            if edits is None:  # a dictionary of the program's own
                add("{}()", self._has_states)
            else:
                add("{}[0] == {}", edits, known)
        entries = [(group, "params", params) for group, params in self._grouped]
        for space, key, value in entries + self._options_now:
            if space.__class__ is dict and value is not ABSENT:
                add("{}[{}] is {}", space, key, value)
            else:
                add("{}({}, {}) is {}", space.get, key, ABSENT, value)
        for attributes, key, value in self._read_by_layers:
            add("{}[{}] is {}", attributes, key, value)

    @property
    def touched(self) -> bool:
        """Whether somebody has changed something of some layer, or of some optimizer."""
        return (
            self.counted
            or any(len(values) != count for values, count in self._lengths)
            or any(edits and edits[0] != count for *_, edits, count in self._edits)
            or any(group.get("params") is not params for group, params in self._grouped)
            or any(
                space.get(key, ABSENT) is not value for space, key, value in self._read_by_layers
            )
        )

    @property
    def counted(self) -> bool:
        """Whether the library has counted a change."""
        return changes.count[0] != self._count[0]

    def changed(self) -> str | None:
        """The name of what is another one; if there is none, changes so far do not matter."""
        state = self._describe()
        if state != self._state:
            return self._difference(state)
        for module, key, value in self._containers:
            if module.__dict__.get(key) is not value:  # whose items are not looked at
                return f"{type(module).__name__}.{key}"
        self._count[0] = changes.count[0]
        return None

    def note_attributes(self) -> None:
        """Remember what layers read as it is now: it is alike."""
        self._read_by_layers = self._attributes_read()
        self.note_groups()

    def tell_others(self) -> None:
        """Have other recordings look whether they read what a replay has put into modules."""
        known = not self.counted
        changes.count[0] += 1
        if known:
            self._count[0] += 1

    def options_changed(self) -> str | None:
        """Which number of an optimizer, that the step reads itself, is another one."""
        now = self._options.read()
        if len(now) != len(self._options_read):
            return "the parameters of an optimizer"
        for (_, key, value), (_, known, other) in zip(now, self._options_read):
            if key != known or not (value is other or alike(value, other)):
                return f"{key!r} of an optimizer"
        return None if self._has_states() else "the state of an optimizer"

    def _has_states(self) -> bool:
        """Whether what the step reads of the state of optimizers is what it was."""
        states = self._options.states()
        return len(states) == len(self._states) and all(map(alike, states, self._states))

    def has_begun(self) -> bool:
        """Whether optimizers have begun to keep a state that the step reads."""
        known, now = [
            {id(value) for value in values if value.__class__ not in SIMPLE}
            for values in (self._states, self._options.states())
        ]
        return known < now

    def left(self) -> tuple[str | None, list[tuple[Any, str, bool]]]:
        """What the step itself has changed: what no replay does, and the flags that each sets."""
        # Where it puts a new one with the same items for every call, it goes by no other's.
        self._containers = [
            (module, key, value)
            for module, key, value in self._containers
            if module.__dict__.get(key) is value
        ]
        state = self._describe()
        if state == self._state:
            return None, []
        switched = self._switched(state)
        return (self._difference(state), []) if switched is None else (None, switched)

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
            module = self._modules[number]
            if key == "training":
                found.append((module, key, module.training))
            else:
                tensor = module.__dict__[key]
                if not _of_another_flag(tensor, old, new):
                    return None
                found.append((tensor, "requires_grad", tensor._requires_grad))
        for tensor, old, new in zip(self._tensors.values(), self._state[1], state[1]):
            if old != new:
                if not _of_another_flag(tensor, old, new):
                    return None
                found.append((tensor, "requires_grad", tensor._requires_grad))
        return found

    def _difference(self, state: tuple[Any, ...]) -> str:
        before = {(number, key): value for number, key, value in self._state[0]}
        for number, key, value in state[0]:
            if before.get((number, key), self) != value:
                return f"{type(self._modules[number]).__name__}.{key}"
        if state[-1] != self._state[-1]:
            return "the parameters or hooks of an optimizer"
        if state[3:] != self._state[3:]:
            return "a mode or function of the library, or hooks of all modules or optimizers"
        return "a tensor's flags, hooks or memory"


def _is_loose(module: Module, key: str) -> bool:
    """Whether an attribute is a tensor that is neither a parameter nor a buffer."""
    registered = key in module._parameter_names or key in module._buffer_names
    return isinstance(module.__dict__[key], Tensor) and not registered


def _of_another_flag(value: Any, before: Any, now: Any) -> bool:
    """Whether a tensor that is a leaf differs in nothing but whether it requires grad."""
    return (
        isinstance(value, Tensor)
        and value.grad_fn is None
        and (before[0], *before[2:]) == (now[0], *now[2:])
    )
