"""A count of the changes that a captured step has to notice: modes, members, hooks, flags, devices.

Whatever changes how a module or a tensor takes part in a step adds one; a captured step looks at
the count alone to know that nothing has changed.
"""

from __future__ import annotations

import types
from typing import Any

count = [0]
replaced = [0]  # functions of the library, by a program's own
places: dict[tuple[str, str], types.ModuleType] = {}  # where some of those are, or were

# What a profile has put in the place of classes' functions: that, and what was there, by the class
# and the name; and how often that has been others.
measured: dict[tuple[Any, str], tuple[Any, Any]] = {}
measurings = [0]


def method(kind: type, name: str) -> Any:
    """A class's attribute as it is without a profile; None where there is none."""
    value = getattr(kind, name, None)
    for base in kind.__mro__ if measured else ():
        measuring, own = measured.get((base, name), (None, None))
        if measuring is value:
            return own
    return value


class Noticing(types.ModuleType):
    """A module of the library that counts when one of its functions is replaced by another."""

    def __setattr__(self, name: str, value: Any) -> None:
        known = self.__dict__.get(name, value)
        if known is not value and callable(known):
            replaced[0] += 1
            places[self.__name__, name] = self
            count[0] += 1
        super().__setattr__(name, value)
