"""The variables, items and attributes that a step reads, as they have to stay."""

from __future__ import annotations

import types
from collections.abc import Container, Iterable, Iterator
from typing import Any

from gradlite.capturing.conditions import Conditions
from gradlite.capturing.watched import ABSENT, Numbers, alike, read


class Places:
    """Places of plain values and other objects, as they were when a step was recorded.

    Args:
        places: containers, keys and names for people.
    """

    def __init__(self, places: Iterable[tuple[Any, Any, str]]) -> None:
        self._entries = [(place, read(*place[:2])) for place in places]

    def __iter__(self) -> Iterator[tuple[tuple[Any, Any, str], Any]]:
        """The places, each with the value that was there."""
        return iter(self._entries)

    def add_numbers(self, read: Iterable[Numbers]) -> None:
        """Take numbers of NumPy's arrays, as the step has read them, into what must stay."""
        for numbers in read:
            self._entries.append(((numbers, None, "an array of NumPy's"), numbers.known))

    def add_absent(self, places: Iterable[tuple[Any, Any, str]]) -> None:
        """Take places into what must stay in which the step has found nothing."""
        self._entries += [(place, ABSENT) for place in places]

    def leave_out(self, taken: Container[tuple[int, Any]]) -> None:
        """Do without some places, which are told by the ids of containers, and keys."""
        self._entries = [e for e in self._entries if (id(e[0][0]), e[0][1]) not in taken]

    def conditions(self, conditions: Conditions) -> None:
        """What `changed` asks, as far as objects are the very same."""
        for (container, key, _), value in self._entries:
            if container.__class__ is types.CellType:
                conditions.add("{}.cell_contents is {}", container, value)
            elif container.__class__ is dict and value is not ABSENT:
                conditions.add("{}[{}] is {}", container, key, value)
            else:
                conditions.add("{}({}, {}) is {}", container.get, key, ABSENT, value)

    def changed(self, but_for: Container[int] = ()) -> str | None:
        """The name of a variable, or of an item, that is another one.

        Args:
            but_for: the ids of containers that are not looked at.
        """
        for (container, key, name), value in self._entries:
            if id(container) in but_for:
                continue
            try:
                now = read(container, key)
            except ValueError:
                return name
            if now is not value and not alike(now, value):
                return name
        return None
