"""What a step can reach: the modules, optimizers and tensors in its closure, and plain values."""

from __future__ import annotations

import array
import contextvars
import dataclasses
import functools
import operator
import os
import random
import sys
import types
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

import numpy as np

from gradlite import changes
from gradlite.amp import GradScaler
from gradlite.capturing import code_names
from gradlite.capturing.code_names import is_library, is_library_class, is_library_code
from gradlite.capturing.lent import Lent, functions
from gradlite.capturing.options import Options
from gradlite.capturing.watched import (
    ABSENT,
    SIMPLE,
    Cached,
    Current,
    Elements,
    Items,
    Layout,
    Numbers,
    Slots,
    distributions,
    is_shown,
    item_name,
    place_of,
    read,
)
from gradlite.capturing.watching import Asked, Findings, Watch
from gradlite.nn import Module, global_hooks
from gradlite.optim.lr_scheduler import LRScheduler
from gradlite.optim.optimizer import Optimizer
from gradlite.optim.replayed import is_replayed
from gradlite.tensor import Tensor

GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)
DESCRIPTORS = (
    staticmethod, classmethod, property, functools.cached_property, functools.partialmethod,
    functools.singledispatchmethod,
)  # fmt: skip
MAPPINGS = (
    dict, types.MappingProxyType, weakref.WeakKeyDictionary, weakref.WeakValueDictionary,
)  # fmt: skip
VIEWS: tuple[type, ...] = ({}.keys().__class__, {}.values().__class__, {}.items().__class__)
GETTERS = (operator.attrgetter, operator.methodcaller)
CONSTRUCTORS = ("__init__", "__new__", "__post_init__")
# Attributes that methods of the library's objects hand out.
HANDED_OUT = {"get_last_lr": "_last_lr", "get_scale": "_scale"}
DEPTH = 12  # of containers that are looked into


class Reachable:
    """The variables that a step's code can read, and what they lead to.

    Args:
        function: the step.
        declared: other objects that it uses.
        findings: what its recordings have met.
        without: places that are not looked into; see `place_of`.

    Attributes:
        modules: every module, with its children.
        options: every optimizer, and what the code reads of it.
        tensors: every tensor outside of modules.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        declared: Iterable[Any],
        findings: Findings,
        without: Container[tuple[int, Any]] = (),
    ) -> None:
        self._without, self._findings = without, findings
        self.modules: dict[int, Module] = {}
        self.options = Options()
        self.tensors: dict[int, Tensor] = {}
        self._places: list[tuple[Any, Any, str]] = []  # container, key, name
        self._arrays: list[tuple[Any, Any]] = []  # containers and keys of NumPy's arrays
        self._iterators: list[tuple[Any, Any]] = []  # containers and keys of others' iterators
        self._loose: list[Iterator[Any]] = []  # others, which are told by what they have handed out
        self._generators: list[Any] = []  # of Python's and NumPy's random numbers
        # Functions with their code and defaults, and objects with their classes.
        self._functions: list[tuple[types.FunctionType, Any, Any, Any]] = []
        self._kinds: list[tuple[Any, type]] = []
        self._spaces: list[
            tuple[Any, Any]
        ] = []  # objects with the dictionaries of their attributes
        # Dictionaries, with the names in which others' attributes could come to be hidden.
        self._shadows: dict[int, tuple[Any, set[str], str]] = {}
        self._seen: set[int] = set()
        self._passed: set[int] = set()  # functions and modules of Python's that were looked at
        self._hooked: set[int] = set()  # tensors of which the hooks were looked into
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
        self._made_of: set[type] = set()  # those that the step can make objects of
        self._instances: list[Any] = []  # objects of libraries
        self._variables: set[str] = set()  # of the environment
        self._libraries: list[types.ModuleType] = []
        self._lent = Lent()
        self._asks_python = False  # whether it reads sys.argv or the like
        self._function(function)
        for value in declared:
            self._look(value, DEPTH)
        self._found(findings)
        for table in global_hooks.TABLES:
            for hook in table.values():
                for part in hook if isinstance(hook, tuple) else (hook,):
                    self._look(part, DEPTH)
        for (_, name), module in changes.places.items():
            self._look(module.__dict__.get(name), DEPTH)
        self._attributes()

    def looks_which(self) -> bool:
        """Whether some code may ask which object another one is."""
        return any(code_names.looks_which(code) for _, code, _, _ in self._functions)

    def watch(self, findings: Findings, paused: Callable[[], bool]) -> Watch:
        """What looks at the step's calls for all that is not found here."""
        codes = [code for _, code, _, _ in self._functions]
        return Watch(findings, codes, self._seen, self._variables, paused)

    # ---------------------------------------------------------------------- finding out
    def _found(self, findings: Findings) -> None:
        """What earlier recordings of the step have met."""
        for function, owner in findings.functions:
            self._code(function, owner)
        for kind in findings.whole:
            names = {field.name for field in dataclasses.fields(kind)}
            self._own.setdefault(kind, set()).update(names)
        for name in findings.variables:
            self._variable(name)
        for ask, name in findings.asked.values():
            self._places.append((Asked(ask), None, name))
        self.options.every = self.options.every or findings.options

    def _function(self, function: Any) -> None:
        while isinstance(function, functools.partial):
            for value in (*function.args, function.keywords):
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

    def _code(
        self, function: types.FunctionType, owner: type | None = None, makes: bool = False
    ) -> None:
        """What a function's code may read.

        Args:
            function: the function.
            owner: the class of its first argument.
            makes: whether it makes an object of that class, which it finds without attributes.
        """
        code = function.__code__
        if id(function) in self._seen:
            return
        if is_library_code(code):
            self._behind(function, owner)
            return
        met = self._findings.blind or code in self._findings.codes
        if code_names.is_installed(code) and not met:
            return  # a package leads to thousands of functions: `Watch` tells which ones run
        self._seen.add(id(function))
        self._keep.append(function)
        kept = (code, function.__defaults__, function.__kwdefaults__)
        self._functions.append((function, *kept))
        own = None if owner is None else code_names.names_of_owner(code)
        if owner is not None and makes:
            self._names.update(code_names.names_of_others(code))
        elif own is None:
            self._names.update(code_names.names(code))
        else:
            self._own.setdefault(owner, set()).update(own)  # type: ignore[arg-type]
            self._names.update(code_names.names_of_others(code))
        self._lent.note(code)
        self._tried.update(code_names.names_by_value(code))
        self._any = self._any or (not makes and code_names.reads_any(code))
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            self._place(cell, None, name)
        for value in function.__defaults__ or ():
            self._look(value, DEPTH)
        if function.__kwdefaults__:
            self._look(function.__kwdefaults__, DEPTH)
        variables = set(code_names.names_of_globals(code))
        for name in sorted(variables & function.__globals__.keys()):
            self._place(function.__globals__, name, name)
        others = variables - function.__globals__.keys()  # functions of Python's, for now
        if others:
            self._shadowed(function.__globals__, others, "the variable")
        self._elsewhere(code, set(code_names.names(code)), function.__globals__)
        if function.__dict__:
            self._look(function.__dict__, DEPTH)  # functools.wraps() leaves the function there

    def _elsewhere(self, code: types.CodeType, found: set[str], variables: dict[str, Any]) -> None:
        """What code finds without a variable: modules, variables of the process, options."""
        for module in code_names.imports(code, variables):
            self._module_of_python(module)
        strings = set(code_names.strings(code))
        if not found.isdisjoint(("modules", "import_module", "__import__")):
            for name in sorted(strings & sys.modules.keys()):
                self._module_of_python(sys.modules[name])
        if not found.isdisjoint(("environ", "getenv")):
            for name in sorted(strings):
                self._variable(name)
        self.options.note(found, strings)

    def _variable(self, name: str) -> None:
        self._variables.add(name)
        self._place(os.environ, name, f"the variable {name} of the environment")

    def _module_of_python(self, module: types.ModuleType) -> None:
        self._asks_python = self._asks_python or module is sys
        if not is_library(module.__name__) and id(module) not in self._seen:
            self._seen.add(id(module))
            self._libraries.append(module)

    def _behind(self, function: types.FunctionType, owner: type | None) -> None:
        """What a library's function has been given to call, as those that decorators make have."""
        if function.__closure__ is None or is_replayed(function):  # which replays call anew
            return
        self._seen.add(id(function))
        self._keep.append(function)
        self._look(function.__dict__.get("registry"), DEPTH)  # of functools.singledispatch()
        for cell in function.__closure__:
            try:
                self._given(cell.cell_contents, owner)
            except ValueError:  # it is not filled yet
                continue

    def _given(self, value: Any, owner: type | None = None) -> None:
        """What a library's function holds, as far as it is none of the library's own."""
        if isinstance(value, types.FunctionType):
            self._code(value, owner)
        elif isinstance(value, (types.MethodType, functools.partial)):
            self._function(value)
        elif value.__class__ is dict or value.__class__ is tuple or value.__class__ is list:
            if id(value) not in self._seen:
                self._seen.add(id(value))
                self._keep.append(value)
                for item in value.values() if value.__class__ is dict else value:
                    self._given(item)
        elif isinstance(value, (Module, Tensor)):
            self._look(value, DEPTH)
        elif not is_library_class(value if isinstance(value, type) else type(value)):
            self._look(value, DEPTH)
        elif type(value).__module__.startswith("gradlite.utils.data"):
            self._look(value, DEPTH)

    def _place(self, container: Any, key: Any, name: str) -> None:
        try:
            value = read(container, key)
        except ValueError:  # a cell that is not filled yet
            return
        if isinstance(value, types.ModuleType):
            self._module_of_python(value)
        if (id(container), key) in self._placed or place_of(container, key) in self._without:
            return
        self._placed.add((id(container), key))
        self._places.append((container, key, name))
        if is_shown(value) and isinstance(container, (dict, types.CellType)):
            self._shown_array(container, key, value)
        elif _is_iterator(value) and isinstance(container, (dict, types.CellType, Slots)):
            self._iterators.append((container, key))
        elif value is not ABSENT and not isinstance(value, DESCRIPTORS):
            self._look(value, DEPTH)

    def _shown_array(self, container: Any, key: Any, array: Any) -> None:
        self._arrays.append((container, key))
        if (id(array), Layout) not in self._placed:
            self._placed.add((id(array), Layout))
            self._keep.append(array)
            self._places.append((Layout(array), None, "the shape of an array of NumPy's"))

    def _look(self, value: Any, depth: int) -> None:
        if value.__class__ in SIMPLE or id(value) in self._seen or id(value) in self._passed:
            return
        self._keep.append(value)  # so that its id stays its own
        if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            self._function(value)
            self._passed.add(id(value))
            return
        if isinstance(value, types.ModuleType):
            self._module_of_python(value)
            self._passed.add(id(value))
            return
        self._seen.add(id(value))
        if isinstance(value, type):
            self._class(value)
            self._made_of.update(kind for kind in value.__mro__ if kind in self._classes)
        elif isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            if owner is not None and not isinstance(owner, types.ModuleType):
                self._look(owner, depth)
        elif value.__class__ is types.MethodWrapperType:
            self._look(value.__self__, depth)
        elif isinstance(value, Module):
            for module in value.modules():
                self._module(module)
        elif isinstance(value, Tensor):
            self.tensors[id(value)] = value
            if value.__dict__:
                self._instances.append(value)
        elif isinstance(value, (Optimizer, LRScheduler, GradScaler)):
            self._instances.append(value)
            self._lent.add(type(value))
            if isinstance(value, Optimizer):
                self.options.optimizers[id(value)] = value
            elif isinstance(value, LRScheduler):
                self._look(value.optimizer, depth)
        elif isinstance(value, GENERATORS):
            self._generators.append(value)
        elif isinstance(value, np.ndarray) or value.__class__ is memoryview:
            if isinstance(value, np.ndarray) and value.dtype.hasobject:
                self._places.append((Items(Elements(value)), None, "an array of objects"))
                for item in Elements(value):
                    self._look(item, depth - 1)
            elif value.nbytes:
                self._places.append((Numbers(value), None, "an array of NumPy's"))
        elif isinstance(value, VIEWS):
            self._look(value.mapping, depth)  # type: ignore[attr-defined]
        elif isinstance(value, weakref.ref):
            self._look(value(), depth)
        elif isinstance(value, contextvars.ContextVar):
            self._place(Current(value), None, f"the context variable {value.name}")
        elif isinstance(value, GETTERS):
            for part in value.__reduce__()[1]:
                if isinstance(part, str):
                    self._names.update(part.split("."))
                self._look(part, depth)
        elif not depth:
            pass
        elif isinstance(value, MAPPINGS):
            self._places.append((Items(value), None, f"a key of a {type(value).__name__}"))
            for key in list(value):
                self._place(value, key, item_name(key))
                if isinstance(key, Tensor):
                    self._look(key, depth)
            if isinstance(value, defaultdict):
                self._look(value.default_factory, depth)
            self._extended(value)
        elif isinstance(value, (list, tuple, set, frozenset, deque, bytearray, array.array)):
            self._sequence(value, depth)
        else:
            if _is_iterator(value):
                self._loose.append(value)
            self._object(value)

    def _sequence(self, values: Any, depth: int) -> None:
        if (id(values), Items) in self._without:
            return
        if not isinstance(values, (tuple, frozenset)):
            kind = type(values).__name__
            numbers = all(v.__class__ in SIMPLE for v in values)
            self._places.append((Items(values), None, f"a {kind}{' of numbers' * numbers}"))
        for number, item in enumerate(list(values)):
            if is_shown(item) and isinstance(values, list):
                self._shown_array(values, number, item)
            elif isinstance(values, list) and _is_iterator(item):
                self._iterators.append((values, number))
            else:
                self._look(item, depth - 1)
        self._extended(values)

    def _extended(self, container: Any) -> None:
        """The methods and attributes of a container of a class of its own."""
        if not is_library_class(type(container)):
            self._object(container)

    def _object(self, value: Any, exposed: bool = True) -> None:
        """An object of a class of its own, or of one that only holds attributes."""
        kind = type(value)
        if is_library_class(kind) and not kind.__module__.startswith(("types", "argparse")):
            if kind.__module__ == "collections":  # containers around others
                self._look(getattr(value, "__dict__", None), DEPTH)
            if isinstance(value, functools._lru_cache_wrapper):
                self._places.append((Cached(value), None, f"what {_name_of(value)} has kept"))
            # functools.cache() and the like lead to a function.
            self._look(getattr(value, "__dict__", {}).get("__wrapped__"), DEPTH)
            if isinstance(value, distributions()):
                for name, item in list(vars(value).items()):
                    if isinstance(item, (Tensor, distributions())) or item.__class__ in SIMPLE:
                        self._place(vars(value), name, f"{kind.__name__}.{name}")
            if kind.__module__.startswith("gradlite.utils.data"):
                for item in list(vars(value).values()):  # what the program has it call
                    self._given(item)
            self._instances.append(value)
            return
        self._class(kind, exposed)
        attributes = getattr(value, "__dict__", None)
        if exposed:
            self._kinds.append((value, kind))
            if attributes is not None and attributes is value.__dict__:
                self._spaces.append((value, attributes))
        self._objects.append((value, attributes, Slots(value), exposed))

    def _module(self, module: Module) -> None:
        self.modules[id(module)] = module
        self._seen.add(id(module))
        kind = type(module)
        self._class(kind)
        self._lent.add(kind, "forward")
        for key, item in list(module.__dict__.items()):
            if key.endswith("_hooks"):
                for hook in item.values():
                    for part in hook if isinstance(hook, tuple) else (hook,):
                        self._look(part, DEPTH)
            elif is_shown(item):
                self._shown_array(module.__dict__, key, item)
            elif _is_iterator(item):
                self._iterators.append((module.__dict__, key))
            elif not is_library_class(kind) and not isinstance(item, (Module, Tensor)):
                if not key.startswith(("_parameter_", "_buffer_", "_module_")):
                    self._held.append((module, key))

    def _hooks(self, tensor: Tensor) -> None:
        if id(tensor) in self._hooked:
            return
        self._hooked.add(id(tensor))
        if tensor.__dict__:
            self._instances.append(tensor)
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
        if not is_library_class(type(cls)):
            self._class(type(cls))

    def _attributes(self) -> None:
        """Look into plain objects, classes and modules, and on through what is found there."""
        done = -1
        while done != (done := len(self._names) + len(self._keep) + len(self._places)):
            for tensor in list(self.parameters()):
                self._hooks(tensor)
            for kind, attributes in list(self._classes.items()):
                meta: type = type(kind)
                names = set(self._names if kind in self._exposed else ())
                for other, own in self._own.items():
                    # Without `issubclass`, which some classes answer as they like, or refuse.
                    if kind in other.__mro__ or other in kind.__mro__:
                        names |= own
                    elif other in meta.__mro__:  # of a class of classes
                        names |= own
                self._members(kind, attributes, names)
            for method, kind_of_self in self._lent.programs_own(self._names):
                self._code(method, kind_of_self)
            for library in list(self._libraries):
                for name in sorted({"__getattr__", *self._names} & library.__dict__.keys()):
                    self._place(library.__dict__, name, f"{library.__name__}.{name}")
            for name in sorted(self._names & sys.__dict__.keys() if self._asks_python else ()):
                if sys.__dict__[name].__class__ in (*SIMPLE, list):
                    self._place(sys.__dict__, name, f"sys.{name}")
            for owner, key in list(self._held):
                if key not in owner.__dict__ or self._unread(owner, key):
                    continue
                if (id(owner.__dict__), key) in self._without:
                    continue
                if owner.__dict__[key].__class__ in SIMPLE and self._is_named(owner, key):
                    self._place(owner.__dict__, key, f"{type(owner).__name__}.{key}")
                self._look(owner.__dict__[key], DEPTH)
            for value in list(self._instances):
                self._instance(value)
            for value, attributes, slots, exposed in list(self._objects):
                names = self._names if exposed else set[str]()
                names = names.union(*(self._own.get(k, ()) for k in type(value).__mro__))
                title = type(value).__name__
                if attributes is not None:
                    if self._any and exposed:
                        self._look(attributes, DEPTH)
                    for name in sorted(names):
                        if name in attributes or name in self._tried:
                            self._place(attributes, name, f"{title}.{name}")
                    self._shadow(attributes, names, type(value).__mro__, title)
                for kind in type(value).__mro__:
                    own = kind.__dict__.get("__slots__", ())
                    for name in (own,) if isinstance(own, str) else own:
                        if name in names or self._any:
                            self._place(slots, name, f"{title}.{name}")

    def _instance(self, value: Any) -> None:
        """The attributes of a library's object, or of a tensor, that code has the names of."""
        attributes = getattr(value, "__dict__", None)
        if attributes.__class__ is not dict:
            return
        handed = {HANDED_OUT[name] for name in self._names & HANDED_OUT.keys()}
        for name in sorted((self._names | handed) & attributes.keys()):
            if name == "step" and isinstance(value, Optimizer) and _is_watched(value):
                # By a scheduler: the step is Python's, which replays call, as without one.
                if (id(attributes), name) not in self._placed:
                    self._placed.add((id(attributes), name))
                    self._places.append((attributes, name, f"{type(value).__name__}.step"))
            elif name not in ("param_groups", "state") or not isinstance(value, Optimizer):
                self._place(attributes, name, f"{type(value).__name__}.{name}")

    def _shadow(self, attributes: Any, names: Iterable[str], kinds: Any, title: str) -> None:
        """Note which names could be looked up in a dictionary before they are found in classes."""
        hidden = {
            name
            for name in names
            if name not in attributes
            and any(_is_hidden(kind.__dict__.get(name, ABSENT)) for kind in kinds)
        }
        if hidden:
            self._shadowed(attributes, hidden, title)

    def _shadowed(self, variables: Any, names: Iterable[str], title: str) -> None:
        self._shadows.setdefault(id(variables), (variables, set(), title))[1].update(names)

    def _members(self, kind: type, attributes: Any, names: set[str]) -> None:
        """The attributes of a class that code may read, and the methods that it may call."""
        exposed = kind in self._exposed
        base = [k for k in kind.__mro__ if is_library_class(k) and k is not object]
        for name, value in list(attributes.items()):
            implied = name.startswith("__") and name.endswith("__")
            if implied:
                makes = kind in self._made_of and name in CONSTRUCTORS
                implied = makes or (
                    exposed
                    and (name not in code_names.OF_OBJECTS or code_names.compares(name, value))
                )
                if not implied:
                    continue
            elif name not in names:
                implied = any(hasattr(k, name) for k in base)
            if not implied and name not in names:
                continue
            methods = functions(value)
            for method in methods:
                if isinstance(method, types.FunctionType):
                    owner = None if isinstance(value, staticmethod) else kind
                    self._code(method, owner, name in CONSTRUCTORS)
            if not implied or methods:
                self._place(attributes, name, f"{kind.__name__}.{name}")
        meta: type = type(kind)
        of_class = [k for k in meta.__mro__ if not is_library_class(k)]
        self._shadow(self._classes[kind], names, (*kind.__mro__[1:], *of_class), kind.__name__)

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

    def _is_named(self, module: Module, key: str) -> bool:
        """Whether code has the name of an attribute of a module of the program's own class."""
        kinds = type(module).__mro__
        return key != "training" and (
            key in self._names or any(key in names for k, names in self._own.items() if k in kinds)
        )

    def parameters(self) -> Iterator[Tensor]:
        """Every tensor that can have a gradient: of modules, optimizers, and by itself."""
        seen: set[int] = set()
        groups: list[Iterable[Tensor]] = [self.tensors.values()]
        groups += [
            [v for k, v in space.items() if (id(space), k) not in self._without]
            for space in [module.__dict__ for module in self.modules.values()]
        ]
        groups += [g["params"] for o in self.options.optimizers.values() for g in o.param_groups]
        for group in groups:
            for value in group:
                if isinstance(value, Tensor) and id(value) not in seen:
                    seen.add(id(value))
                    yield value


def _is_hidden(value: Any) -> bool:
    """Whether an attribute of a class is another one where an object has one of that name."""
    return value is not ABSENT and not isinstance(value, (property, functools.cached_property))


def _is_watched(optimizer: Optimizer) -> bool:
    """Whether a scheduler is told of the steps of an optimizer, which are its class's."""
    step = optimizer.__dict__["step"]
    own = getattr(step, "__wrapped__", None) is getattr(type(optimizer), "step", ABSENT)
    return own and hasattr(step, "_wrapped_by_lr_sched")


def _name_of(cached: Any) -> str:
    return f"{getattr(cached, '__name__', 'a function')}()"


def _is_iterator(value: Any) -> bool:
    """Whether a value hands out items that code of no class of the program's own computes."""
    return isinstance(value, Iterator) and is_library_class(type(value))
