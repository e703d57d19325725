"""What values lead to: the items of containers, objects with their classes, layers, tensors."""

from __future__ import annotations

import array
import contextvars
import functools
import io
import operator
import types
import weakref
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Container, Iterator
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlite.amp import GradScaler
from gradlite.capturing.code_names import is_library_class
from gradlite.capturing.watched import (
    ABSENT,
    SIMPLE,
    Cached,
    Current,
    Elements,
    Filling,
    Items,
    Layout,
    Memory,
    Numbers,
    Referent,
    Slots,
    has_memory,
    is_shown,
    item_name,
    place_of,
    read,
)
from gradlite.nn import Module
from gradlite.optim.lr_scheduler import LRScheduler
from gradlite.optim.optimizer import Optimizer
from gradlite.tensor import Tensor

if TYPE_CHECKING:
    from gradlite.capturing.reachable import Reachable

GENERATORS = (np.random.Generator, np.random.RandomState, Random)
DESCRIPTORS = (
    staticmethod, classmethod, property, functools.cached_property, functools.partialmethod,
    functools.singledispatchmethod,
)  # fmt: skip
MAPPINGS = (dict, types.MappingProxyType, contextvars.Context)
WEAK: tuple[Any, ...] = (
    weakref.WeakKeyDictionary, weakref.WeakSet, weakref.WeakValueDictionary,
)  # fmt: skip
# Modules of Python's with classes whose methods read what others may change.
STATEFUL = frozenset(
    (
        "concurrent.futures._base", "configparser", "contextlib", "multiprocessing.shared_memory",
        "multiprocessing.sharedctypes", "queue",
    )
)  # fmt: skip
OF_LIBRARY = (Module, Tensor, Optimizer, LRScheduler, GradScaler)
TEXTS = (io.StringIO, io.BytesIO)
VIEWS: tuple[type, ...] = ({}.keys().__class__, {}.values().__class__, {}.items().__class__)
GETTERS = (operator.attrgetter, operator.methodcaller)
DEPTH = 30  # of values that lead to others; what lies deeper is looked into afterwards


class Values(ABC):
    """Goes through values; what is found of use is put into a `Reachable`.

    Args:
        found: where to put it.
        without: places that are not looked into; see `place_of`.

    Attributes:
        placed: the places that are known, by the ids of their containers.
        objects: those of classes of the program's own, with their attributes.
        instances: objects of libraries.
        held: layers with the names of attributes that are no tensors.
        classes: those of the program's own, with their attributes.
        exposed: those whose objects not only their methods have.
        made_of: those that the step can make objects of.
    """

    def __init__(self, found: Reachable, without: Container[tuple[int, Any]]) -> None:
        self.found, self.named, self._without = found, found.named, without
        self.placed: set[tuple[int, Any]] = set()
        self.objects: list[Any] = []
        self.instances: list[Any] = []
        self.held: list[tuple[Module, str]] = []
        self.classes: dict[type, Any] = {}
        self.exposed: set[type] = set()
        self.made_of: set[type] = set()
        self._weakly: list[Any] = []  # for as long as it lasts, so that their ids stay their own
        self._depth = 0
        self._deeper: list[Any] = []  # what is still to be looked into
        self._passed: set[int] = set()  # functions and modules of Python's that were looked at

    @abstractmethod
    def function(self, function: Any) -> None:
        """Look into what can be called."""

    @abstractmethod
    def code(self, function: types.FunctionType, owner: type | None = None) -> None:
        """Look into a function's code, with the class of its first argument."""

    @abstractmethod
    def module_of_python(self, module: types.ModuleType) -> None:
        """Look into a module of Python's."""

    @abstractmethod
    def given(self, value: Any) -> None:
        """Look into what an object of the library's has been given to call."""

    def place(self, container: Any, key: Any, name: str) -> None:
        """Take up a place, whose value is to stay the same, and look into that."""
        try:
            value = read(container, key)
        except ValueError:  # a cell that is not filled yet, or not any more
            self.found.places.append((Filling(container), None, name))
            return
        if isinstance(value, types.ModuleType):
            self.module_of_python(value)
        if (id(container), key) in self.placed or place_of(container, key) in self._without:
            return
        self.placed.add((id(container), key))
        self.found.places.append((container, key, name))
        if is_shown(value) and isinstance(container, (dict, types.CellType)):
            self._shown_array(container, key, value)
        elif _is_iterator(value) and isinstance(container, (dict, types.CellType, Slots)):
            self.found.iterators.append((container, key))
        elif value is not ABSENT and not isinstance(value, DESCRIPTORS):
            self.look(value)

    def _shown_array(self, container: Any, key: Any, array: Any) -> None:
        self.found.arrays.append((container, key))
        if (id(array), Layout) not in self.placed:
            self.placed.add((id(array), Layout))
            self.found.kept.append(array)
            self.found.places.append((Layout(array), None, "the shape of an array of NumPy's"))

    def look(self, value: Any) -> None:
        """Look into a value, and into all that it leads to."""
        if self._depth == DEPTH:
            self._deeper.append(value)
            return
        self._depth += 1
        try:
            self._look(value)
        finally:
            self._depth -= 1
        while self._deeper and not self._depth:
            self.look(self._deeper.pop())

    def _look(self, value: Any) -> None:
        if type(value) in weakref.ProxyTypes:
            self._referent(weakref.ref(value.__init__.__self__))
            return
        if value.__class__ in SIMPLE or id(value) in self.found.seen or id(value) in self._passed:
            return
        self.found.kept.append(value)  # so that its id stays its own
        if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            self.function(value)
            self._passed.add(id(value))
            return
        if isinstance(value, types.ModuleType):
            self.module_of_python(value)
            self._passed.add(id(value))
            return
        self.found.seen.add(id(value))
        if isinstance(value, type):
            self._class(value)
            self.made_of.update(kind for kind in value.__mro__ if kind in self.classes)
        elif isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            if owner is not None and not isinstance(owner, types.ModuleType):
                self.look(owner)
        elif value.__class__ is types.MethodWrapperType:
            self.look(value.__self__)
        elif isinstance(value, Module):
            for module in value.modules():
                self._module(module)
        elif isinstance(value, Tensor):
            self.found.tensors[id(value)] = value
            if value.__dict__ or not is_library_class(type(value)):
                self.instances.append(value)
            if not is_library_class(type(value)):
                self.found.kinds.append((value, type(value)))
        elif isinstance(value, (Optimizer, LRScheduler, GradScaler)):
            self.instances.append(value)
            self.found.lent.add(type(value))
            if not is_library_class(type(value)):
                self.found.kinds.append((value, type(value)))
            if isinstance(value, Optimizer):
                self.found.options.optimizers[id(value)] = value
            elif isinstance(value, LRScheduler):
                self.look(value.optimizer)
        elif isinstance(value, GENERATORS):
            if not isinstance(value, SystemRandom):  # of which `Watch` tells
                self.found.generators.append(value)
        elif isinstance(value, np.ndarray) or value.__class__ is memoryview:
            if isinstance(value, np.ndarray) and value.dtype.hasobject:
                self.found.places.append((Items(Elements(value)), None, "an array of objects"))
                for item in Elements(value):
                    self.look(item)
            elif value.nbytes:
                self.found.places.append((Numbers(value), None, "an array of NumPy's"))
        elif isinstance(value, VIEWS):
            self.look(value.mapping)  # type: ignore[attr-defined]
        elif isinstance(value, weakref.ref):
            self._referent(value)
        elif isinstance(value, WEAK):
            self.look(value.data)
        elif isinstance(value, contextvars.ContextVar):
            self.place(Current(value), None, f"the context variable {value.name}")
        elif isinstance(value, GETTERS):
            for part in value.__reduce__()[1]:
                if isinstance(part, str):
                    self.named.everywhere.update(part.split("."))
                self.look(part)
        elif isinstance(value, MAPPINGS):
            self.found.places.append((Items(value), None, f"a key of a {type(value).__name__}"))
            for key in list(value):
                self.place(value, key, item_name(key))
                self.look(key)
            if isinstance(value, defaultdict):
                self.look(value.default_factory)
            self._extended(value)
        elif isinstance(value, (list, tuple, set, frozenset, deque, bytearray, array.array)):
            self._sequence(value)
        else:
            if _is_iterator(value):
                self.found.loose.append(value)
            if not isinstance(value, np.generic) and has_memory(value):
                name = f"the contents of a {type(value).__name__}"
                self.found.places.append((Memory(value), None, name))
            self.object(value)

    def _referent(self, reference: Any) -> None:
        """What a weak reference refers to: a recording does not hold on to the program's own."""
        self.found.places.append((Referent(reference), None, "what a weak reference refers to"))
        value = reference()
        owner = value.__self__ if isinstance(value, types.MethodType) else value
        if isinstance(owner, OF_LIBRARY) or not hasattr(owner, "__dict__"):
            self.look(value)
            return
        if owner is not value:
            self.code(value.__func__, type(owner))
        if id(owner) not in self.found.seen:
            self.found.seen.add(id(owner))
            self._weakly.append(owner)
            self.object(owner, held=False)

    def _sequence(self, values: Any) -> None:
        if (id(values), Items) in self._without:
            return
        if not isinstance(values, (tuple, frozenset)):
            kind = type(values).__name__
            numbers = all(v.__class__ in SIMPLE for v in values)
            self.found.places.append((Items(values), None, f"a {kind}{' of numbers' * numbers}"))
        for number, item in enumerate(list(values)):
            if is_shown(item) and isinstance(values, list):
                self._shown_array(values, number, item)
            elif isinstance(values, list) and _is_iterator(item):
                self.found.iterators.append((values, number))
            else:
                self.look(item)
        self._extended(values)

    def _extended(self, container: Any) -> None:
        """The methods and attributes of a container of a class of its own."""
        if not is_library_class(type(container)):
            self.object(container)

    def object(self, value: Any, exposed: bool = True, held: bool = True) -> None:
        """An object of a class of its own, or of one that only holds attributes.

        Args:
            value: the object.
            exposed: whether others than its methods have it.
            held: whether a recording may hold on to it.
        """
        kind = type(value)
        if is_library_class(kind) and not kind.__module__.startswith(("types", "argparse")):
            if kind.__module__ == "collections" or kind.__module__ in STATEFUL:
                self.look(getattr(value, "__dict__", None))
            if isinstance(value, functools._lru_cache_wrapper):
                self.found.places.append((Cached(value), None, f"what {_name_of(value)} has kept"))
            # functools.cache() and the like lead to a function.
            self.look(getattr(value, "__dict__", {}).get("__wrapped__"))
            if kind.__module__.startswith("gradlite.distributions"):
                self._distribution(value)
            if kind.__module__.startswith("gradlite.utils.data"):
                for name, item in list(vars(value).items()):  # what the program has it call
                    if not name.startswith("_"):  # as of counts of its own
                        self.found.places.append((vars(value), name, f"{kind.__name__}.{name}"))
                    self.given(item)
            self.instances.append(value)
            return
        self._class(kind, exposed)
        attributes = getattr(value, "__dict__", None)
        if held:
            self.found.kinds.append((value, kind))
            if attributes is not None and attributes is value.__dict__:
                self.found.spaces.append((value, attributes))
        self.objects.append((value, attributes, Slots(value), exposed))

    def _distribution(self, value: Any) -> None:
        """A distribution, or a transform: but for what that keeps of its last result."""
        for name, item in list(vars(value).items()):
            own = type(item).__module__.startswith("gradlite.distributions") and name != "_inv"
            if own or isinstance(item, (Tensor, list)) or item.__class__ in SIMPLE:
                self.place(vars(value), name, f"{type(value).__name__}.{name}")

    def _module(self, module: Module) -> None:
        self.found.modules[id(module)] = module
        self.found.seen.add(id(module))
        kind = type(module)
        self._class(kind)
        self.found.lent.add(kind, "forward")
        for key, item in list(module.__dict__.items()):
            if key.endswith("_hooks"):
                for hook in item.values():
                    for part in hook if isinstance(hook, tuple) else (hook,):
                        self.look(part)
            elif is_shown(item):
                self._shown_array(module.__dict__, key, item)
            elif _is_iterator(item):
                self.found.iterators.append((module.__dict__, key))
            elif not isinstance(item, (Module, Tensor)):
                if not key.startswith(("_parameter_", "_buffer_", "_module_")):
                    if not is_library_class(kind) or not isinstance(item, (*SIMPLE, tuple)):
                        self.held.append((module, key))

    def _class(self, cls: type, exposed: bool = True) -> None:
        """A class and those it derives from, as far as they are not of libraries."""
        for kind in cls.__mro__:
            if not is_library_class(kind):
                if len(kind.__mro__) > 2 and kind not in self.classes:  # it may get other bases
                    self.found.orders.append((kind, kind.__mro__))
                self.classes.setdefault(kind, kind.__dict__)
                if exposed:
                    self.exposed.add(kind)
        if not is_library_class(type(cls)):
            self._class(type(cls))


def _name_of(cached: Any) -> str:
    return f"{getattr(cached, '__name__', 'a function')}()"


def _is_iterator(value: Any) -> bool:
    """Whether a value hands out items that code of no class of the program's own computes."""
    kind = type(value)
    if kind in weakref.ProxyTypes or isinstance(value, TEXTS):
        return False  # of the latter `Memory` tells
    return isinstance(value, Iterator) and is_library_class(kind)
