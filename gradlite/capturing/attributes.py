"""The attributes of objects, classes, layers and modules that a step's code has the names of."""

from __future__ import annotations

import functools
import types
from collections.abc import Container
from typing import TYPE_CHECKING, Any

from gradlite.capturing import code_names
from gradlite.capturing.code_names import is_library_class
from gradlite.capturing.lent import functions
from gradlite.capturing.watched import ABSENT, SIMPLE
from gradlite.nn import Module
from gradlite.optim.optimizer import Optimizer
from gradlite.tensor import Tensor

if TYPE_CHECKING:
    from gradlite.capturing.search import Search

# What programs may replace in modules that come with Python, but for streams and the like.
OF_PYTHON = (*SIMPLE, list, type, types.FunctionType, types.BuiltinFunctionType)
CONSTRUCTORS = ("__init__", "__new__", "__post_init__")
# Attributes that methods of the library's objects hand out.
HANDED_OUT = {"get_last_lr": "_last_lr", "get_scale": "_scale"}


class Attributes:
    """Has a search go on through the attributes that count.

    Args:
        search: what has come to the objects, and looks into their attributes.
        without: places that are not looked into; see `place_of`.
    """

    def __init__(self, search: Search, without: Container[tuple[int, Any]]) -> None:
        self._search, self._without = search, without
        self._found, self._named = search.found, search.named
        self._spaces: dict[type, Any] = {}  # of classes that derive from the library's
        self._hooked: set[int] = set()  # tensors of which the hooks were looked into

    def look_into(self) -> None:
        """Look into the attributes until nothing else is found: what they lead to has names too."""
        done = -1
        while done != (done := self._size()):
            for tensor in list(self._found.parameters()):
                self._hooks(tensor)
            self._tried_of_tensors()
            for kind, attributes in list(self._search.classes.items()):
                names = self._named.of_class(kind, kind in self._search.exposed)
                self._members(kind, attributes, names)
            for method, kind_of_self in self._found.lent.programs_own(self._named.everywhere):
                self._search.code(method, kind_of_self)
            self._modules_of_python()
            self._layers()
            if self._named.tried:
                for function in list(self._search.with_marks):
                    self._shadow_all(function.__dict__, self._named.tried, function.__name__)
            for value in list(self._search.instances):
                self._instance(value)
            for value, attributes, slots, exposed in list(self._search.objects):
                self._object(value, attributes, slots, exposed)

    def _size(self) -> int:
        return len(self._named.everywhere) + len(self._found.kept) + len(self._found.places)

    def _tried_of_tensors(self) -> None:
        """Attributes that tensors need not have, as marks of parameters without weight decay."""
        tried = sorted(name for name in self._named.tried if not hasattr(Tensor, name))
        for tensor in list(self._found.parameters()) if tried else ():
            for name in tried:
                self._search.place(tensor.__dict__, name, f"{type(tensor).__name__}.{name}")

    def _modules_of_python(self) -> None:
        place, everywhere = self._search.place, self._named.everywhere
        for library in list(self._search.libraries):
            there = {"__getattr__", *everywhere} & library.__dict__.keys()
            for name in sorted(there | self._named.tried):
                place(library.__dict__, name, f"{library.__name__}.{name}")
            if "__getattr__" in there:
                self._shadow_all(library.__dict__, everywhere, library.__name__)
        for library in list(self._search.standard):
            for name in sorted(everywhere & library.__dict__.keys()):
                if isinstance(library.__dict__[name], OF_PYTHON):
                    place(library.__dict__, name, f"{library.__name__}.{name}")

    def _layers(self) -> None:
        for owner, key in list(self._search.held):
            space = owner.__dict__
            if key not in space or self._named.unread(owner, key):
                continue
            if is_library_class(type(owner)) and key not in self._named.everywhere:
                continue
            if (id(space), key) in self._without:
                continue
            if space[key].__class__ in SIMPLE and self._named.reads(owner, key):
                self._search.place(space, key, f"{type(owner).__name__}.{key}")
            self._search.look(space[key])

    def _object(self, value: Any, attributes: Any, slots: Any, exposed: bool) -> None:
        names = self._named.of_object(type(value), exposed)
        title = type(value).__name__
        if attributes is not None:
            if self._named.any_of(type(value), exposed):
                self._search.look(attributes)
            for name in sorted(names):
                if name in attributes or name in self._named.tried or name in self._named.caught:
                    self._search.place(attributes, name, f"{title}.{name}")
            self._shadow(attributes, names, type(value).__mro__, title)
        for kind in type(value).__mro__:
            own = kind.__dict__.get("__slots__", ())
            for name in (own,) if isinstance(own, str) else own:
                if name in names or self._named.any:
                    self._search.place(slots, name, f"{title}.{name}")

    def _instance(self, value: Any) -> None:
        """The attributes of a library's object, or of a tensor, that code has the names of."""
        for kind in type(value).__mro__:
            if not is_library_class(kind):
                self._of_instances(kind)
        attributes = getattr(value, "__dict__", None)
        if attributes.__class__ is not dict:
            return
        everywhere = self._named.everywhere
        if not is_library_class(type(value)):
            everywhere = self._named.of_object(type(value), True)
            self._shadow(attributes, everywhere, type(value).__mro__, type(value).__name__)
        handed = {HANDED_OUT[name] for name in self._named.everywhere & HANDED_OUT.keys()}
        tried = {name for name in self._named.tried if not hasattr(type(value), name)}
        for name in sorted((everywhere | handed) & attributes.keys() | tried):
            if name == "step" and isinstance(value, Optimizer) and _is_watched(value):
                # By a scheduler: the step is Python's, which replays call, as without one.
                if (id(attributes), name) not in self._search.placed:
                    self._search.placed.add((id(attributes), name))
                    self._found.places.append((attributes, name, f"{type(value).__name__}.step"))
            elif name not in ("param_groups", "state") or not isinstance(value, Optimizer):
                self._search.place(attributes, name, f"{type(value).__name__}.{name}")

    def _of_instances(self, kind: type) -> None:
        """The same of a class of the program's own that derives from such an object's."""
        attributes = self._spaces.setdefault(kind, kind.__dict__)  # another object every time
        names = self._named.of_class(kind, True)
        for name in sorted(names & attributes.keys() - {"step"}):
            for method in functions(attributes[name]):
                if isinstance(method, types.FunctionType):
                    self._search.code(method, kind)
            self._search.place(attributes, name, f"{kind.__name__}.{name}")

    def _shadow(self, attributes: Any, names: set[str], kinds: Any, title: str) -> None:
        """Note which names could be looked up in a dictionary before they are found in classes."""
        if any("__getattr__" in k.__dict__ and not is_library_class(k) for k in kinds):
            self._shadow_all(attributes, names, title)  # a method that finds them may do so
            return
        hidden = {
            name
            for name in names
            if name not in attributes
            and any(_is_hidden(kind.__dict__.get(name, ABSENT)) for kind in kinds)
        }
        if hidden:
            self._found.shadow(attributes, hidden, title)

    def _shadow_all(self, attributes: Any, names: set[str], title: str) -> None:
        if not names <= attributes.keys():
            self._found.shadow(attributes, names - attributes.keys(), title)

    def _members(self, kind: type, attributes: Any, names: set[str]) -> None:
        """The attributes of a class that code may read, and the methods that it may call."""
        exposed = kind in self._search.exposed
        base = [k for k in kind.__mro__ if is_library_class(k) and k is not object]
        for name, value in list(attributes.items()):
            implied = name.startswith("__") and name.endswith("__")
            if implied:
                makes = kind in self._search.made_of and name in CONSTRUCTORS
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
                    self._search.code(method, owner, name in CONSTRUCTORS)
            if not implied or methods:
                self._search.place(attributes, name, f"{kind.__name__}.{name}")
        for name in sorted((self._named.tried & names) - attributes.keys()):
            self._search.place(attributes, name, f"{kind.__name__}.{name}")
        if issubclass(kind, Module):
            names = names | {"__call__"}
        meta: type = type(kind)
        of_class = [k for k in meta.__mro__ if not is_library_class(k)]
        self._shadow(self._search.classes[kind], names, (*kind.__mro__, *of_class), kind.__name__)

    def _hooks(self, tensor: Tensor) -> None:
        if id(tensor) in self._hooked:
            return
        self._hooked.add(id(tensor))
        if tensor.__dict__:
            self._search.instances.append(tensor)
        extra = tensor._extra
        if extra is not None:
            for hook in (*extra.prehooks.values(), *extra.post_accumulate.values()):
                self._search.look(hook[1] if isinstance(hook, tuple) else hook)


def _is_hidden(value: Any) -> bool:
    """Whether an attribute of a class is another one where an object has one of that name."""
    return value is not ABSENT and not isinstance(value, (property, functools.cached_property))


def _is_watched(optimizer: Optimizer) -> bool:
    """Whether a scheduler is told of the steps of an optimizer, which are its class's."""
    step = optimizer.__dict__["step"]
    own = getattr(step, "__wrapped__", None) is getattr(type(optimizer), "step", ABSENT)
    return own and hasattr(step, "_wrapped_by_lr_sched")
