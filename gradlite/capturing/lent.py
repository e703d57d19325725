"""The methods of the library's classes that a step may call: a program may put its own there."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

from gradlite import changes
from gradlite.capturing import asked
from gradlite.capturing.code_names import is_library_class, is_library_code, operators
from gradlite.capturing.conditions import Conditions
from gradlite.nn import Module
from gradlite.tensor import Tensor


class Lent:
    """Classes of the library with objects that a step has, and what it looks up in them."""

    def __init__(self) -> None:
        self._names: dict[type, set[str]] = {Tensor: set()}
        self._operators: set[str] = set()
        self._known: list[tuple[type, str, Any]] = []

    def add(self, kind: type, *names: str) -> None:
        """A class, and what is looked up in it, whatever the names in the step's code."""
        self._names.setdefault(kind, set()).update(names)

    def note(self, code: types.CodeType) -> None:
        """The operators in code of the step: its names do not tell of these methods."""
        self._operators.update(operators(code))

    def programs_own(self, names: set[str]) -> Iterator[tuple[types.FunctionType, type | None]]:
        """The program's functions among the methods, each with the class of its first argument.

        Args:
            names: those in the step's code. Each is looked for where it is defined, but
                ``forward`` in every class.
        """
        for kind, found in list(self._names.items()):
            bases = [k for k in kind.__mro__ if is_library_class(k) and k is not object]
            sought = names | self._operators
            if issubclass(kind, Module):
                sought.add("__call__")
            every = found.union(*(sought & k.__dict__.keys() for k in bases))
            for name in sorted(every.difference(asked.METHODS)):  # those recordings replace
                base = next((k for k in bases if name in k.__dict__), None)
                value = None if base is None else base.__dict__[name]
                if base is None or isinstance(value, property):
                    continue
                methods = functions(value)
                if methods and name not in found:
                    self.add(base, name)
                for method in methods:
                    if isinstance(method, types.FunctionType):
                        if not is_library_code(method.__code__):
                            yield method, None if isinstance(value, staticmethod) else kind

    def remember(self) -> None:
        """Take the methods that are there for those that have to stay."""
        self._known = [
            (kind, name, changes.method(kind, name))
            for kind, names in self._names.items()
            for name in sorted(names)
            if hasattr(kind, name)
        ]

    def changed(self) -> str | None:
        """The name of a method that is another one now."""
        for kind, name, known in self._known:
            if changes.method(kind, name) != known:
                return f"{kind.__name__}.{name}"
        return None

    def conditions(self, conditions: Conditions) -> None:
        """The same comparisons, quicker."""
        for kind, name, known in self._known:
            if changes.method(kind, name) is known:  # perhaps behind what a profile has put there
                conditions.add(f"{{}}.{name} is {{}}", kind, getattr(kind, name))
            else:  # a class's own method, which is another object each time
                conditions.add(f"{{}}.{name} == {{}}", kind, known)


def functions(value: Any) -> list[Any]:
    """The functions behind an attribute of a class: none of a plain value."""
    if isinstance(value, (staticmethod, classmethod)):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget, value.fset]
    if isinstance(value, (functools.cached_property, functools.partialmethod)):
        return [value.func]
    if isinstance(value, functools.singledispatchmethod):
        return [value.func, value.dispatcher]
    return [value] if isinstance(value, types.FunctionType) else []
