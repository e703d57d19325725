"""What a step can reach: the modules, optimizers and tensors in its closure, and plain values.

A recording is right as long as all of it stays the same, so `Surroundings` remembers what was
there, compares it quickly before every replay, and says what has changed.
"""

from __future__ import annotations

import dis
import functools
import operator
import pickle
import random
import types
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradlite import changes
from gradlite.amp import GradScaler
from gradlite.nn import Module
from gradlite.optim.lr_scheduler import LRScheduler
from gradlite.optim.optimizer import Optimizer
from gradlite.tensor import Tensor

SIMPLE = (bool, int, float, complex, str, bytes, type(None))
GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)
DEPTH = 4  # of containers and plain objects that are looked into


class _Numbers:
    """A list, set or deque of numbers and strings, which may be edited: read as one value."""

    __slots__ = ("_values", "_known")

    def __init__(self, values: Any) -> None:
        self._values, self._known = values, tuple(values)

    def get(self, key: None, default: Any = None) -> tuple[Any, ...]:
        """The very same tuple as long as nothing is edited."""
        known, now = self._known, tuple(self._values)
        if len(now) == len(known):
            if all(map(operator.is_, now, known)) or _described(now) == _described(known):
                return known
        return now

    __getitem__ = get


class _Read:
    """A part of an array of NumPy's whose values the step's Python code has read."""

    __slots__ = ("_array", "_known")

    def __init__(self, array: Any) -> None:
        self._array, self._known = array, array.tobytes()

    def get(self, key: None, default: Any = None) -> bytes:
        """The very same bytes as long as nothing is edited."""
        now: bytes = self._array.tobytes()
        return self._known if now == self._known else now

    __getitem__ = get


class Surroundings:
    """The variables that a step's code can read, and what they lead to.

    Attributes:
        modules: every module, with its children.
        optimizers: every optimizer.
        tensors: every tensor outside of modules.
    """

    def __init__(self, function: Callable[..., Any], declared: Iterable[Any]) -> None:
        self.modules: dict[int, Module] = {}
        self.optimizers: dict[int, Optimizer] = {}
        self.tensors: dict[int, Tensor] = {}
        self._places: list[tuple[Any, Any, str]] = []  # container, key, name
        self._arrays: list[tuple[Any, Any]] = []  # containers and keys of NumPy's arrays
        self._generators: list[Any] = []  # of Python's and NumPy's random numbers
        self._seen: set[int] = set()
        self._keep: list[Any] = []
        # Attributes of plain objects count when the step's code has their names.
        self._names: set[str] = set()
        self._objects: list[Any] = []
        self._watched: set[tuple[int, str]] = set()
        self._owners: dict[int, set[str] | None] = {}
        self._function(function)
        for value in declared:
            self._look(value, DEPTH)
        self._attributes()
        self._values = [self._read(container, key) for container, key, _ in self._places]
        found = [(place, value) for (*place, _), value in zip(self._places, self._values)]
        # The same, as they are read the fastest.
        self._cells = [(c, value) for (c, _), value in found if c.__class__ is types.CellType]
        self._entries = [
            (c.get, key, value) for (c, key), value in found if c.__class__ is not types.CellType
        ]
        self._count = changes.count[0]
        # Tensors that are plain attributes of modules; those that a step makes anew do not count.
        self._attached = {
            (number, key): value
            for number, module in self.modules.items()
            for key, value in module.__dict__.items()
            if isinstance(value, Tensor)
        }
        self._made: set[tuple[int, str]] = set()
        self._state = self._describe()
        self.old_grads = [(p, p._grad) for p in self.parameters()]

    # ---------------------------------------------------------------------- finding out
    def _function(self, function: Any) -> None:
        while isinstance(function, functools.partial):
            self._look(list(function.args), DEPTH)
            self._look(dict(function.keywords), DEPTH)
            function = function.func
        owner = getattr(function, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType):
            self._look(owner, DEPTH)
            function = getattr(function, "__func__", function)
            if isinstance(function, types.FunctionType):
                self._method(function, owner)
                return
        if not isinstance(function, types.FunctionType):
            if not isinstance(function, type):
                self._look(function, DEPTH)
            return
        home = (function.__module__ or "").partition(".")[0]  # exec() gives no module
        if id(function) in self._seen or home == "gradlite":
            return
        self._seen.add(id(function))
        self._names.update(_names(function.__code__))
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            self._place(cell, None, name)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._look(value, DEPTH)
        for name in sorted(set(_names(function.__code__))):
            if name in function.__globals__:
                self._place(function.__globals__, name, name)

    def _place(self, container: Any, key: Any, name: str) -> None:
        try:
            value = self._read(container, key)
        except ValueError:  # a cell that is not filled yet
            return
        if isinstance(value, (types.ModuleType, type, types.BuiltinFunctionType)):
            owner = getattr(value, "__self__", None)
            if isinstance(owner, GENERATORS):
                self._generators.append(owner)
            return
        self._places.append((container, key, name))
        if value.__class__ is np.ndarray:
            self._arrays.append((container, key))
        self._look(value, DEPTH)

    def add_numbers(self, arrays: Iterable[Any]) -> None:
        """Take the values of arrays of NumPy's into what must stay the same."""
        for array in arrays:
            read = _Read(array)
            self._places.append((read, None, "an array of NumPy's"))
            self._values.append(read.get(None))
            self._entries.append((read.get, None, self._values[-1]))

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
        """
        shown = []
        try:
            for container, key in self._arrays:
                value = self._read(container, key)
                if value.__class__ is np.ndarray and value.size and value.dtype.kind in "biuf":
                    shown.append((container, key, value, face(value)))
                    _write(container, key, shown[-1][3])
            yield
        finally:
            for container, key, value, other in shown:
                if self._read(container, key) is other:
                    _write(container, key, value)

    @staticmethod
    def _read(container: Any, key: Any) -> Any:
        if container.__class__ is types.CellType:
            return container.cell_contents
        return container[key]

    def _look(self, value: Any, depth: int) -> None:
        if value.__class__ in SIMPLE or id(value) in self._seen:
            return
        self._keep.append(value)  # so that its id stays its own
        if isinstance(value, types.FunctionType) or hasattr(value, "__func__"):
            self._function(value)
            return
        self._seen.add(id(value))
        if isinstance(value, Module):
            for module in value.modules():
                self.modules[id(module)] = module
                self._seen.add(id(module))
                self._arrays += [
                    (module.__dict__, key)
                    for key, item in module.__dict__.items()
                    if item.__class__ is np.ndarray
                ]
        elif isinstance(value, Tensor):
            self.tensors[id(value)] = value
        elif isinstance(value, Optimizer):
            self.optimizers[id(value)] = value
        elif isinstance(value, LRScheduler):
            self._look(value.optimizer, depth)
        elif isinstance(value, GENERATORS):
            self._generators.append(value)
        elif isinstance(value, (GradScaler, np.ndarray)):
            pass
        elif depth and isinstance(value, dict):
            for key in value:
                self._place(value, key, f"[{key!r}]")
        elif depth and isinstance(value, (list, tuple, set, frozenset, deque)):
            if (
                isinstance(value, (list, set, deque))
                and value
                and all(v.__class__ in SIMPLE for v in value)
            ):
                self._places.append((_Numbers(value), None, f"a {type(value).__name__} of numbers"))
            for number, item in enumerate(value):
                if item.__class__ is np.ndarray and isinstance(value, list):
                    self._arrays.append((value, number))
                self._look(item, depth - 1)
        elif depth and hasattr(value, "__dict__") and not isinstance(value, type):
            if type(value).__module__.partition(".")[0] in ("gradlite", "numpy"):
                return
            self._objects.append(value)

    def _attributes(self) -> None:
        """Look into the plain objects, and on through what is found there."""
        done = -1
        while done != (done := len(self._names) + len(self._objects) + len(self._seen)):
            for value in list(self._objects):
                for name in sorted(self._names_of(value)):
                    if (id(value), name) in self._watched:
                        continue
                    self._watched.add((id(value), name))
                    if name in value.__dict__:
                        self._place(value.__dict__, name, f"{type(value).__name__}.{name}")
                    method = getattr(type(value), name, None)
                    if isinstance(method, types.FunctionType):
                        self._method(method, value)

    def _method(self, method: types.FunctionType, owner: Any) -> None:
        """A method's code reads attributes of its owner, all of them named or any."""
        own = _names_of_owner(method.__code__)
        known = self._owners.get(id(owner), set())
        self._owners[id(owner)] = None if own is None or known is None else known | own
        self._function(method)

    def _names_of(self, value: Any) -> set[str]:
        """The names of attributes of an object that the step's code may read."""
        return self._owners.get(id(value)) or self._names

    def parameters(self) -> Iterator[Tensor]:
        """Every tensor that can have a gradient: of modules, optimizers, and by itself."""
        seen: set[int] = set()
        groups: list[Iterable[Tensor]] = [self.tensors.values()]
        groups += [module.__dict__.values() for module in self.modules.values()]
        groups += [g["params"] for o in self.optimizers.values() for g in o.param_groups]
        for group in groups:
            for value in group:
                if isinstance(value, Tensor) and id(value) not in seen:
                    seen.add(id(value))
                    yield value

    def made_anew(self, touched: Container[int]) -> list[tuple[dict[str, Any], str]]:
        """The attributes of modules that the step has replaced without a look at the old values.

        As the hooks of weight normalisation do. From now on they are none of the surroundings.
        """
        found = []
        for (number, key), old in self._attached.items():
            attributes = self.modules[number].__dict__
            new = attributes.get(key)
            if new is not old and isinstance(new, Tensor) and id(old) not in touched:
                self._made.add((number, key))
                found.append((attributes, key))
        if found:
            self._state = (
                tuple([part for part in self._state[0] if part[:2] not in self._made]),
                self._state[1],
            )
        self._attached.clear()
        return found

    # ------------------------------------------------------------------------ comparing
    def _describe(self) -> tuple[Any, ...]:
        """Everything about the modules and tensors that decides what a step does."""
        return (
            tuple(
                [
                    (number, key, _described(value))
                    for number, module in self.modules.items()
                    for key, value in list(module.__dict__.items())
                    if (number, key) not in self._made
                ]
            ),
            tuple([_described(t) for t in self.tensors.values()]),
        )

    def unchanged(self) -> bool:
        """Whether everything is the very same: a quicker answer than that of `changed`."""
        if changes.count[0] != self._count:
            return False
        for get, key, value in self._entries:
            if get(key, self) is not value:
                return False
        try:
            for cell, value in self._cells:
                if cell.cell_contents is not value:
                    return False
        except ValueError:  # it is empty by now
            return False
        return True

    def changed(self) -> str | None:
        """The name of what has changed since, or None."""
        for (container, key, name), value in zip(self._places, self._values):
            try:
                now = self._read(container, key)
            except (KeyError, ValueError):
                return name
            if now is not value and not (
                now.__class__ is value.__class__ and now.__class__ in SIMPLE and _equal(now, value)
            ):
                return name
        if changes.count[0] != self._count:
            state = self._describe()
            if state != self._state:
                return self._difference(state)
            self._count = changes.count[0]
        return None

    def _difference(self, state: tuple[Any, ...]) -> str:
        before = {(number, key): value for number, key, value in self._state[0]}
        for number, key, value in state[0]:
            if before.get((number, key), self) != value:
                return f"{type(self.modules[number]).__name__}.{key}"
        return "a tensor's flags, hooks or memory"


def _write(container: Any, key: Any, value: Any) -> None:
    if container.__class__ is types.CellType:
        container.cell_contents = value
    else:
        container[key] = value


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))


def _described(value: Any) -> Any:
    if value.__class__ in SIMPLE:
        return repr(value)
    if isinstance(value, Tensor):
        extra = value._extra
        hooks = () if extra is None else (*extra.prehooks, "|", *extra.post_accumulate)
        return id(value), value._requires_grad, id(value.array), hooks
    if isinstance(value, (tuple, list)):
        return tuple(map(_described, value))
    if isinstance(value, dict):
        return tuple([(key, _described(item)) for key, item in value.items()])
    return id(value)


def _names_of_owner(code: types.CodeType) -> set[str] | None:
    """The attributes that a method takes from its first argument.

    None when it does anything else with that argument, so that any attribute may be read.
    """
    if not code.co_argcount:
        return None
    first, found = code.co_varnames[0], set()
    instructions = list(dis.get_instructions(code))
    for instruction, following in zip(instructions, [*instructions[1:], None]):
        value = instruction.argval
        if value != first and not (isinstance(value, tuple) and first in value):
            continue
        if following is None or following.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            return None
        found.add(following.argval)
    return found


def _names(code: types.CodeType) -> Iterator[str]:
    """The names of globals and attributes in a function, and in those defined inside of it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
