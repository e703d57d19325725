"""What a step reads of its optimizers beside their updates, and what it sets there itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gradlite.capturing.watched import spelled
from gradlite.optim.optimizer import Optimizer
from gradlite.tensor import Tensor

# With these names code may read any option of a group.
WHOLE = frozenset(("items", "values", "keys", "copy", "deepcopy", "update"))


class Options:
    """The options and the state of optimizers that code mentions.

    Attributes:
        optimizers: every optimizer that a step can reach.
        every: whether code may read all options and the whole state.
    """

    def __init__(self) -> None:
        self.optimizers: dict[int, Optimizer] = {}
        self._keys: set[str] = set()
        self.every = self._every_option = False
        self._of_state: set[str] = set()
        self._reads_state = self._whole_state = False

    def note(self, names: set[str], strings: set[str]) -> None:
        """Take up what a function's code may ask for.

        Args:
            names: of globals and attributes.
            strings: the code's own, among them the keys of options.
        """
        if "param_groups" in names:
            self._keys |= strings
            self._every_option = self._every_option or not names.isdisjoint(WHOLE)
        if "state" in names:
            self._reads_state = True
            self._of_state |= strings
            self._whole_state = self._whole_state or not names.isdisjoint(WHOLE)

    def read(self) -> list[tuple[dict[Any, Any], str, Any]]:
        """``(group, key, value)`` of every option that is mentioned, as it is now."""
        every = self.every or self._every_option
        if not (self._keys or every):
            return []
        found: list[tuple[dict[Any, Any], str, Any]] = []
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                keys = group.keys() if every else group.keys() & self._keys
                found += [(group, key, group[key]) for key in sorted(keys - {"params"})]
        return found

    def states(self) -> list[Any]:
        """The dictionaries of optimizers' state, with what code may read of them."""
        found: list[Any] = []
        whole = self.every or self._whole_state
        for optimizer in self._with_state():
            found.append(optimizer.state)
            for entries in optimizer.state.values():
                found.append(entries)
                for key, value in entries.items():
                    if whole or key in self._of_state or isinstance(value, Tensor):
                        found.append(value)
        return found

    def edits(self) -> list[tuple[Optimizer, Any, list[int] | None]]:
        """The optimizers with their states, and what counts the edits of these, if they do."""
        return [(o, o.state, getattr(o.state, "changes", None)) for o in self._with_state()]

    def _with_state(self) -> Iterable[Optimizer]:
        return self.optimizers.values() if self.every or self._reads_state else ()

    def settings(self) -> list[Any]:
        """Every option of every group, in a form that is equal as long as nobody sets one.

        The state of optimizers as well, of which the edits are counted.
        """
        found: list[Any] = [
            (key, spelled(value) or id(value))
            for optimizer in self.optimizers.values()
            for group in optimizer.param_groups
            for key, value in group.items()
            if key != "params"
        ]
        states = [o.state for o in self.optimizers.values()]
        return found + [(id(s), *getattr(s, "changes", (len(s),))) for s in states]
