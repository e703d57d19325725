"""What a step's code leads to: its variables, and those of the functions that it can call."""

from __future__ import annotations

import builtins
import dataclasses
import functools
import os
import sys
import types
from abc import ABCMeta, get_cache_token
from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING, Any

from gradlite import changes
from gradlite.capturing import code_names, interpreter
from gradlite.capturing.attributes import Attributes
from gradlite.capturing.code_names import is_library, is_library_class, is_library_code
from gradlite.capturing.values import Values
from gradlite.capturing.watching import Asked, Findings
from gradlite.nn import Module, global_hooks
from gradlite.optim.replayed import is_replayed
from gradlite.tensor import Tensor

if TYPE_CHECKING:
    from gradlite.capturing.reachable import Reachable


class Search(Values):
    """Goes from functions to values and, where these can be called, on to functions.

    Args:
        found: where to put what is found.
        findings: what recordings of the step have met.
        without: places that are not looked into; see `place_of`.

    Attributes:
        libraries: modules of Python's that are the program's own, or installed.
        standard: those that come with Python.
        with_marks: functions, of which attributes may be asked for that they need not have.
    """

    def __init__(
        self, found: Reachable, findings: Findings, without: Container[tuple[int, Any]]
    ) -> None:
        super().__init__(found, without)
        self._findings = findings
        self.libraries: list[types.ModuleType] = []
        self.standard: list[types.ModuleType] = []
        self.with_marks: list[types.FunctionType] = []

    def run(self, function: Callable[..., Any], declared: Iterable[Any]) -> None:
        """Find what a step can reach.

        Args:
            function: the step.
            declared: other objects that it uses.
        """
        self.function(function)
        for value in declared:
            self.look(value)
        self._met()
        for table in global_hooks.TABLES:
            for hook in table.values():
                for part in hook if isinstance(hook, tuple) else (hook,):
                    self.look(part)
        for (_, name), module in changes.places.items():
            self.look(module.__dict__.get(name))
        Attributes(self, self._without).look_into()
        for name, ask in interpreter.asked(self.named.everywhere).items():
            self.found.places.append((Asked(ask), None, name))
        if any(isinstance(kind, ABCMeta) for kind in self.classes):
            if not self.named.everywhere.isdisjoint(("isinstance", "issubclass")):
                ask, name = get_cache_token, "which classes are registered with an abstract one"
                self.found.places.append((Asked(ask), None, name))

    def _met(self) -> None:
        """What earlier recordings of the step have met."""
        findings = self._findings
        for function, owner in findings.functions:
            self.code(function, owner)
        for kind in findings.whole:
            names = {field.name for field in dataclasses.fields(kind)}
            self.named.add(kind, names)
        for name in findings.variables:
            self._variable(name)
        for name in findings.modules:
            self._module_called(name)
        for ask, name in findings.asked.values():
            self.found.places.append((Asked(ask), None, name))
        self.found.options.every = self.found.options.every or findings.options

    def function(self, function: Any) -> None:
        """What a function, a method or a partial one leads to."""
        while isinstance(function, functools.partial):
            for value in (*function.args, function.keywords):
                self.look(value)
            function = function.func
        owner = getattr(function, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType):
            method = getattr(function, "__func__", None)
            code = getattr(method, "__code__", None)
            own = code and code_names.names_of_owner(code)
            if own is None or isinstance(owner, (Module, type)) or not hasattr(owner, "__dict__"):
                self.look(owner)
            elif id(owner) not in self.found.seen:  # nothing but its methods has it
                self.found.kept.append(owner)
                self.object(owner, exposed=False)
            if isinstance(method, types.FunctionType):
                self.code(method, None if isinstance(owner, type) else type(owner))
        elif isinstance(function, types.FunctionType):
            self.code(function)
        elif not isinstance(function, types.BuiltinFunctionType):
            self.look(function)

    def code(
        self, function: types.FunctionType, owner: type | None = None, makes: bool = False
    ) -> None:
        """What a function's code may read.

        Args:
            function: the function.
            owner: the class of its first argument.
            makes: whether it makes an object of that class, which it finds without attributes.
        """
        code = function.__code__
        if id(function) in self.found.seen:
            return
        if is_library_code(code):
            self._behind(function, owner)
            return
        met = self._findings.blind or code in self._findings.codes
        if code_names.is_installed(code) and not met:
            return  # a package leads to thousands of functions: `Watch` tells which ones run
        self.found.seen.add(id(function))
        self.found.kept.append(function)
        kept = (code, function.__defaults__, function.__kwdefaults__)
        self.found.functions.append((function, *kept))
        self.named.note(code, owner, makes)
        self.found.lent.note(code)
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            self.place(cell, None, name)
        for value in function.__defaults__ or ():
            self.look(value)
        if function.__kwdefaults__:
            self.look(function.__kwdefaults__)
        variables = set(code_names.names_of_globals(code))
        for name in sorted(variables & function.__globals__.keys()):
            self.place(function.__globals__, name, name)
        others = variables - function.__globals__.keys()  # functions of Python's, for now
        if others:
            self.found.shadow(function.__globals__, others, "the variable")
        for name in sorted(others & builtins.__dict__.keys()):
            self.place(builtins.__dict__, name, f"{name}()")
        self._elsewhere(code, set(code_names.names(code)), function.__globals__)
        if function.__dict__:
            self.look(function.__dict__)  # functools.wraps() leaves the function there
        self.with_marks.append(function)

    def _elsewhere(self, code: types.CodeType, found: set[str], variables: dict[str, Any]) -> None:
        """What code finds without a variable: modules, variables of the process, options."""
        for name in code_names.imports(code, variables):
            if name in sys.modules:  # others come there when the step runs
                self._module_called(name)
        strings = set(code_names.strings(code))
        if not found.isdisjoint(("modules", "import_module", "__import__")):
            looked_up = "sys" in found and "modules" in found  # which may not be there
            for name in sorted(strings):
                if looked_up or name in sys.modules:
                    self._module_called(name)
        if not found.isdisjoint(("environ", "getenv")):
            for name in sorted(strings):
                self._variable(name)
        self.found.options.note(found, strings)

    def _variable(self, name: Any) -> None:
        name = os.fsdecode(name)  # `os.environb` has the same ones
        self.found.variables.add(name)
        self.place(os.environ, name, f"the variable {name} of the environment")

    def _module_called(self, name: str) -> None:
        """A module that code finds by its name: the program may put another one there."""
        if not is_library(name):
            self.place(sys.modules, name, f"the module {name}")
        elif name in sys.modules:
            self.module_of_python(sys.modules[name])

    def module_of_python(self, module: types.ModuleType) -> None:
        """A module of Python's: the program's own are looked into."""
        if id(module) in self.found.seen:
            return
        self.found.seen.add(id(module))
        if not is_library(module.__name__):
            self.libraries.append(module)
        elif module.__name__.partition(".")[0] in sys.stdlib_module_names:
            self.standard.append(module)

    def _behind(self, function: types.FunctionType, owner: type | None) -> None:
        """What a library's function has been given to call, as those that decorators make have."""
        if function.__closure__ is None or is_replayed(function):  # which replays call anew
            return
        self.found.seen.add(id(function))
        self.found.kept.append(function)
        self.look(function.__dict__.get("registry"))  # of functools.singledispatch()
        for cell in function.__closure__:
            try:
                self.given(cell.cell_contents, owner)
            except ValueError:  # it is not filled yet
                continue

    def given(self, value: Any, owner: type | None = None) -> None:
        """What a library's function holds, as far as it is none of the library's own."""
        if isinstance(value, types.FunctionType):
            self.code(value, owner)
        elif isinstance(value, (types.MethodType, functools.partial)):
            self.function(value)
        elif value.__class__ is dict or value.__class__ is tuple or value.__class__ is list:
            if id(value) not in self.found.seen:
                self.found.seen.add(id(value))
                self.found.kept.append(value)
                for item in value.values() if value.__class__ is dict else value:
                    self.given(item)
        elif isinstance(value, (Module, Tensor)):
            self.look(value)
        elif not is_library_class(value if isinstance(value, type) else type(value)):
            self.look(value)
        elif type(value).__module__.startswith("gradlite.utils.data"):
            self.look(value)
