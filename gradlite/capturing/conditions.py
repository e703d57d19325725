"""What has to hold before a replay, as one function: each comparison is a line of its code.

A replay of a small step takes less time than loops over all that its surroundings have to be
compared with, so that the comparisons are written out, for Python to compile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Conditions:
    """Comparisons that are collected, and made into a function.

    >>> values = [1, 2]
    >>> conditions = Conditions()
    >>> conditions.add("len({}) == {}", values, 2)
    >>> holds = conditions.function()
    >>> holds()
    True
    >>> values.append(3)
    >>> holds()
    False
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._objects: dict[str, Any] = {}

    def add(self, comparison: str, *objects: Any) -> None:
        """An expression, in which braces stand for objects."""
        names = [f"_{len(self._objects) + n}" for n in range(len(objects))]
        self._objects.update(zip(names, objects))
        self._lines.append(comparison.format(*names))

    def function(self) -> Callable[[], bool]:
        """Whether all hold; none does that cannot be asked any more, as of an empty cell."""
        lines = [f"  if not ({line}): return False" for line in self._lines]
        failed = " except (AttributeError, KeyError, ValueError):\n  return False"
        text = "\n".join(["def holds():", " try:", *lines, "  return True", failed])
        exec(compile(text, "<conditions>", "exec"), self._objects)
        return self._objects.pop("holds")  # type: ignore[no-any-return]
