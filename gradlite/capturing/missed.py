"""Attributes and modules that a step asks for in vain: it goes on where the error is caught.

Such a step is another one as soon as somebody sets the attribute, of the object or of its class.
Errors tell of all of them, wherever they are caught; `Named` knows those of `getattr` and
`hasattr`, which tell nobody.
"""

from __future__ import annotations

import re
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gradlite.capturing.code_names import HEAP, is_library


class Missed:
    """The attributes and modules that were not there when a step asked for them."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], tuple[Callable[[], Any], type, str]] = {}
        self._modules: dict[tuple[str, str], None] = {}  # with names that they have not, or ""

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Have this thread's errors be looked at, unless a debugger does already."""
        if sys.gettrace() is not None:
            yield
            return
        sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(None)

    def _called(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_lines = False
        return None if is_library(frame.f_globals.get("__name__")) else self._happened

    def _happened(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        if event == "exception" and isinstance(argument[1], AttributeError):
            self._note(argument[1])
        elif event == "exception" and isinstance(argument[1], ImportError):
            missing = re.match(r"cannot import name '(\w+)'", argument[1].msg or "")
            self._modules[argument[1].name or "", missing[1] if missing else ""] = None
        return self._happened

    def _note(self, error: AttributeError) -> None:
        value, name = error.obj, error.name
        if isinstance(value, types.MethodType):
            value = value.__func__
        if name is None or value is None:  # it was raised by hand, and caught in the same place
            return
        try:
            reference: Any = weakref.ref(value)  # what the step has made for itself goes
        except TypeError:
            reference = lambda: value  # noqa: E731
        self._found[id(value), name] = reference, type(value), name

    def places(self) -> Iterator[tuple[Any, str, str]]:
        """Where somebody may put them: dictionaries with the name, and a title for people."""
        for module, name in self._modules:
            if name and module in sys.modules:
                yield sys.modules[module].__dict__, name, f"{module}.{name}"
            elif module and module not in sys.modules:
                yield sys.modules, module, f"the module {module}"
        for reference, kind, name in self._found.values():
            value = reference()
            kinds = (*kind.__mro__, *(value.__mro__ if isinstance(value, type) else ()))
            spaces: list[Any] = [k.__dict__ for k in kinds if k.__flags__ & HEAP]
            if not isinstance(value, type):
                spaces.append(getattr(value, "__dict__", None))
            for space in spaces:
                if space is not None and name not in space:
                    yield space, name, f"{kind.__name__}.{name}"
