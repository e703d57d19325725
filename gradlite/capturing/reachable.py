"""What a step can reach: the modules, optimizers and tensors in its closure, and plain values.

A recording is right as long as all of it stays the same, so `Surroundings` remembers what was
there, compares it quickly before every replay, and says what has changed.
"""

from __future__ import annotations

import array
import functools
import pickle
import random
import types
import weakref
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradlite import changes
from gradlite.amp import GradScaler
from gradlite.capturing import code_names
from gradlite.capturing.code_names import is_library, is_library_class, is_library_code
from gradlite.capturing.watched import (
    ABSENT,
    SIMPLE,
    Items,
    Numbers,
    Slots,
    alike,
    described,
)
from gradlite.graph_hooks import saved_hooks
from gradlite.nn import Module, global_hooks
from gradlite.optim.lr_scheduler import LRScheduler
from gradlite.optim.optimizer import Optimizer
from gradlite.tensor import Tensor

GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)
DESCRIPTORS = (staticmethod, classmethod, property, functools.cached_property)
DEPTH = 12  # of containers that are looked into


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
        self._placed: set[tuple[int, Any]] = set()
        # Attributes of plain objects, classes and modules of Python's count when the step's code
        # has their names: anywhere, or in the methods of a class as attributes of their owner.
        self._names: set[str] = set()
        self._own: dict[type, set[str]] = {}
        self._tried: set[str] = set()  # names of attributes that need not be there
        self._any = False  # whether attributes are looked up by names that are values
        self._objects: list[Any] = []
        self._held: list[tuple[Module, str]] = []  # attributes that are no tensors
        self._classes: dict[type, Any] = {}
        self._exposed: set[type] = set()  # those whose objects not only their methods have
        self._libraries: list[types.ModuleType] = []
        self._function(function)
        for value in declared:
            self._look(value, DEPTH)
        for tensor in list(self.parameters()):
            self._hooks(tensor)
        for table in global_hooks.TABLES:
            for hook in table.values():
                for part in hook if isinstance(hook, tuple) else (hook,):
                    self._look(part, DEPTH)
        self._attributes()
        self._values = [self._read(container, key) for container, key, _ in self._places]
        found = [(place, value) for (*place, _), value in zip(self._places, self._values)]
        # The same, as they are read the fastest.
        self._cells = [(c, value) for (c, _), value in found if c.__class__ is types.CellType]
        self._others = [
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
        self._note_groups()
        self.old_grads = [(p, p._grad) for p in self.parameters()]

    # ---------------------------------------------------------------------- finding out
    def _function(self, function: Any) -> None:
        while isinstance(function, functools.partial):
            for value in (*function.args, *function.keywords.values()):
                self._look(value, DEPTH)
            function = function.func
        owner = getattr(function, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType):
            method = getattr(function, "__func__", None)
            code = getattr(method, "__code__", None)
            own = code and code_names.names_of_owner(code)
            if own is None or isinstance(owner, (Module, type)) or not hasattr(owner, "__dict__"):
                self._look(owner, DEPTH)
            elif id(owner) not in self._seen:  # nothing but its methods has it
                self._keep.append(owner)
                self._object(owner, exposed=False)
            if isinstance(method, types.FunctionType):
                self._code(method, None if isinstance(owner, type) else type(owner))
        elif isinstance(function, types.FunctionType):
            self._code(function)
        elif not isinstance(function, types.BuiltinFunctionType):
            self._look(function, DEPTH)

    def _code(self, function: types.FunctionType, owner: type | None = None) -> None:
        """What a function's code may read; ``owner`` is the class of its first argument."""
        code = function.__code__
        if id(function) in self._seen or is_library_code(code):
            return
        self._seen.add(id(function))
        self._keep.append(function)
        own = None if owner is None else code_names.names_of_owner(code)
        if owner is None or own is None:
            self._names.update(code_names.names(code))
        else:
            self._own.setdefault(owner, set()).update(own)
            self._names.update(code_names.names_of_others(code))
        self._tried.update(code_names.names_by_value(code))
        self._any = self._any or code_names.reads_any(code)
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            self._place(cell, None, name)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._look(value, DEPTH)
        for name in sorted(set(code_names.names(code))):
            if name in function.__globals__:
                self._place(function.__globals__, name, name)
        if function.__dict__:
            self._look(function.__dict__, DEPTH)  # functools.wraps() leaves the function there

    def _place(self, container: Any, key: Any, name: str) -> None:
        try:
            value = self._read(container, key)
        except ValueError:  # a cell that is not filled yet
            return
        if isinstance(value, types.ModuleType):
            if not is_library(value.__name__) and id(value) not in self._seen:
                self._seen.add(id(value))
                self._libraries.append(value)
            return
        if (id(container), key) in self._placed:
            return
        self._placed.add((id(container), key))
        self._places.append((container, key, name))
        if value.__class__ is np.ndarray and isinstance(container, (dict, types.CellType)):
            self._arrays.append((container, key))
        elif value is not ABSENT and not isinstance(value, DESCRIPTORS):
            self._look(value, DEPTH)

    def add_numbers(self, arrays: Iterable[Any]) -> None:
        """Take the values of arrays of NumPy's into what must stay the same."""
        for numbers in arrays:
            read = Numbers(numbers)
            self._places.append((read, None, "an array of NumPy's"))
            self._values.append(read.get(None))
            self._others.append((read.get, None, self._values[-1]))
        self._note_groups()

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
        if isinstance(container, list):
            return container[key] if key < len(container) else ABSENT
        return container.get(key, ABSENT)

    def _look(self, value: Any, depth: int) -> None:
        if value.__class__ in SIMPLE or id(value) in self._seen:
            return
        self._keep.append(value)  # so that its id stays its own
        if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            self._function(value)
            return
        self._seen.add(id(value))
        if isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            if owner is not None and not isinstance(owner, types.ModuleType):
                self._look(owner, depth)
        elif isinstance(value, Module):
            for module in value.modules():
                self._module(module)
        elif isinstance(value, Tensor):
            self.tensors[id(value)] = value
        elif isinstance(value, Optimizer):
            self.optimizers[id(value)] = value
        elif isinstance(value, LRScheduler):
            self._look(value.optimizer, depth)
        elif isinstance(value, GENERATORS):
            self._generators.append(value)
        elif isinstance(value, np.ndarray):
            if value.nbytes and not value.dtype.hasobject:
                self._places.append((Numbers(value), None, "an array of NumPy's"))
        elif isinstance(value, weakref.ref):
            self._look(value(), depth)
        elif isinstance(value, GradScaler) or not depth:
            pass
        elif isinstance(value, (dict, types.MappingProxyType)):
            self._places.append((Items(value), None, f"a key of a {type(value).__name__}"))
            for key in list(value):
                self._place(value, key, f"[{key!r}]")
        elif isinstance(value, (list, tuple, set, frozenset, deque, bytearray, array.array)):
            self._sequence(value, depth)
        else:
            self._object(value)

    def _sequence(self, values: Any, depth: int) -> None:
        if not isinstance(values, (tuple, frozenset)):
            kind = type(values).__name__
            numbers = all(v.__class__ in SIMPLE for v in values)
            self._places.append((Items(values), None, f"a {kind}{' of numbers' * numbers}"))
        for number, item in enumerate(list(values)):
            if item.__class__ is np.ndarray and isinstance(values, list):
                self._arrays.append((values, number))
            else:
                self._look(item, depth - 1)

    def _object(self, value: Any, exposed: bool = True) -> None:
        """An object of a class of its own, or of one that only holds attributes."""
        kind = type(value)
        if is_library_class(kind) and not kind.__module__.startswith(("types", "argparse")):
            if kind.__module__ == "collections":  # containers around others
                self._look(vars(value), DEPTH)
            # functools.cache() and the like lead to a function.
            self._look(getattr(value, "__wrapped__", None), DEPTH)
            return
        self._class(kind, exposed)
        self._objects.append((value, getattr(value, "__dict__", None), Slots(value), exposed))

    def _module(self, module: Module) -> None:
        self.modules[id(module)] = module
        self._seen.add(id(module))
        kind = type(module)
        self._class(kind)
        for key, item in list(module.__dict__.items()):
            if key.endswith("_hooks"):
                for hook in item.values():
                    for part in hook if isinstance(hook, tuple) else (hook,):
                        self._look(part, DEPTH)
            elif item.__class__ is np.ndarray:
                self._arrays.append((module.__dict__, key))
            elif not is_library_class(kind) and not isinstance(item, (Module, Tensor)):
                if not key.startswith(("_parameter_", "_buffer_", "_module_")):
                    self._held.append((module, key))

    def _hooks(self, tensor: Tensor) -> None:
        extra = tensor._extra
        if extra is not None:
            for hook in (*extra.prehooks.values(), *extra.post_accumulate.values()):
                self._look(hook[1] if isinstance(hook, tuple) else hook, DEPTH)

    def _class(self, cls: type, exposed: bool = True) -> None:
        """A class and those it derives from, as far as they are not of libraries."""
        for kind in cls.__mro__:
            if not is_library_class(kind):
                self._classes.setdefault(kind, kind.__dict__)
                if exposed:
                    self._exposed.add(kind)

    def _attributes(self) -> None:
        """Look into plain objects, classes and modules, and on through what is found there."""
        done = -1
        while done != (done := len(self._names) + len(self._keep) + len(self._places)):
            for kind, attributes in list(self._classes.items()):
                names = set(self._names if kind in self._exposed else ())
                for other, own in self._own.items():
                    if issubclass(other, kind) or issubclass(kind, other):
                        names |= own
                self._members(kind, attributes, names)
            for library in list(self._libraries):
                for name in sorted(self._names & library.__dict__.keys()):
                    self._place(library.__dict__, name, f"{library.__name__}.{name}")
            for owner, key in list(self._held):
                if key in owner.__dict__ and not self._unread(owner, key):
                    self._look(owner.__dict__[key], DEPTH)
            for value, attributes, slots, exposed in list(self._objects):
                names = self._names if exposed else set[str]()
                names = names.union(*(self._own.get(k, ()) for k in type(value).__mro__))
                title = type(value).__name__
                if attributes is not None:
                    if self._any and exposed:
                        self._look(attributes, DEPTH)
                    for name in sorted(names):
                        if (
                            name in attributes
                            or name in self._tried
                            or self._default(type(value), name)
                        ):
                            self._place(attributes, name, f"{title}.{name}")
                for kind in type(value).__mro__:
                    own = kind.__dict__.get("__slots__", ())
                    for name in (own,) if isinstance(own, str) else own:
                        if name in names or self._any:
                            self._place(slots, name, f"{title}.{name}")

    def _members(self, kind: type, attributes: Any, names: set[str]) -> None:
        """The attributes of a class that code may read, and the methods that it may call."""
        exposed = kind in self._exposed
        base = [k for k in kind.__mro__ if is_library_class(k) and k is not object]
        for name, value in list(attributes.items()):
            implied = name.startswith("__") and name.endswith("__")
            if implied:
                implied = exposed and name not in code_names.OF_OBJECTS
                if not implied:
                    continue
            elif name not in names:
                implied = any(hasattr(k, name) for k in base)
            if not implied and name not in names:
                continue
            methods = _methods(value)
            for method in methods:
                if isinstance(method, types.FunctionType):
                    self._code(method, None if isinstance(value, staticmethod) else kind)
            if not implied or methods:
                self._place(attributes, name, f"{kind.__name__}.{name}")

    @staticmethod
    def _default(kind: type, name: str) -> bool:
        """Whether a class has a value for an attribute that an object may get."""
        found = getattr(kind, name, None)
        return found is not None and not _methods(found) and not hasattr(found, "__get__")

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
                *self._state[1:],
            )
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
            described(saved_hooks.get()),
            tuple(
                [
                    [id(p) for group in optimizer.param_groups for p in group["params"]]
                    for optimizer in self.optimizers.values()
                ]
            ),
        )

    def _note_groups(self) -> None:
        """Remember optimizers' groups, and lists of their parameters, as they are told quickly."""
        every = [optimizer.param_groups for optimizer in self.optimizers.values()]
        self._grouped = lists = [
            (group.get, "params", group["params"]) for groups in every for group in groups
        ]
        self._entries = [*self._others, *lists]
        counted: list[list[Any]] = [*every, *(params for _, _, params in lists)]
        self._lengths = [(values, len(values)) for values in counted]

    def _unread(self, module: Module, key: str) -> bool:
        """Whether no code reads an attribute of a module, as of a count of steps beside it."""
        kind = type(module)
        if self._any or key in self._names or key.startswith("_") or key == "training":
            return False
        if hasattr(kind, key) or any(
            is_library_class(k) and k not in Module.__mro__ for k in kind.__mro__
        ):  # which reads attributes of its own
            return False
        own = (names for other, names in self._own.items() if other in kind.__mro__)
        return kind in self._classes and not any(key in names for names in own)

    def unchanged(self) -> bool:
        """Whether everything is the very same: a quicker answer than that of `changed`."""
        if changes.count[0] != self._count:
            return False
        for values, count in self._lengths:
            if len(values) != count:
                return False
        for get, key, value in self._entries:
            if get(key, ABSENT) is not value:
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
            except ValueError:
                return name
            if now is not value and not alike(now, value):
                return name
        if changes.count[0] != self._count or self._regrouped():
            state = self._describe()
            if state != self._state:
                return self._difference(state)
            self._count = changes.count[0]
            self._note_groups()
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
            return "the parameters of an optimizer"
        return "a tensor's flags, hooks or memory"


def _write(container: Any, key: Any, value: Any) -> None:
    if container.__class__ is types.CellType:
        container.cell_contents = value
    else:
        container[key] = value


def _methods(value: Any) -> list[Any]:
    """The functions behind an attribute of a class: none of a plain value."""
    if isinstance(value, (staticmethod, classmethod)):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget, value.fset]
    if isinstance(value, functools.cached_property):
        return [value.func]
    return [value] if isinstance(value, types.FunctionType) else []
