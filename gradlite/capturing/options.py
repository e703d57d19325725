"""What a step reads of its optimizers beside their updates, and what it sets there itself."""

from __future__ import annotations

from typing import Any

from gradlite.capturing.watched import spelled
from gradlite.optim.optimizer import Optimizer

# With these names code may read any option of a group.
WHOLE = frozenset(("items", "values", "keys", "copy", "deepcopy", "update"))


class Options:
    """The options and the state of optimizers that code mentions.

    Attributes:
        optimizers: every optimizer that a step can reach.
        every: whether code may read all options.
    """

    def __init__(self) -> None:
        self.optimizers: dict[int, Optimizer] = {}
        self._keys: set[str] = set()
        self.every = False
        self._of_state: set[str] = set()

    def note(self, names: set[str], strings: set[str]) -> None:
        """Take up what a function's code may ask for.

        Args:
            names: of globals and attributes.
            strings: the code's own, among them the keys of options.
        """
        if "param_groups" in names:
            self._keys |= strings
            self.every = self.every or not names.isdisjoint(WHOLE)
        if "state" in names:
            self._of_state |= strings

    def read(self) -> list[tuple[dict[Any, Any], str, Any]]:
        """``(dictionary, key, value)`` of everything that is mentioned, as it is now."""
        if not (self._keys or self.every or self._of_state):
            return []
        found: list[tuple[dict[Any, Any], str, Any]] = []
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                keys = group.keys() if self.every else group.keys() & self._keys
                found += [(group, key, group[key]) for key in sorted(keys - {"params"})]
            for state in optimizer.state.values() if self._of_state else ():
                found += [(state, key, state[key]) for key in sorted(state.keys() & self._of_state)]
        return found

    def settings(self) -> list[Any]:
        """Every option of every group, in a form that is equal as long as nobody sets one."""
        return [
            (key, spelled(value) or id(value))
            for optimizer in self.optimizers.values()
            for group in optimizer.param_groups
            for key, value in group.items()
            if key != "params"
        ]
