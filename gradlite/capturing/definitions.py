"""The functions and classes of a step, which a program may define anew."""

from __future__ import annotations

from gradlite.capturing.conditions import Conditions
from gradlite.capturing.reachable import Reachable


class Definitions:
    """Functions with their code, objects with their classes, names that something could hide.

    Args:
        found: what a step can reach.

    Attributes:
        outdated: whether `conditions` would say something else by now.
    """

    def __init__(self, found: Reachable) -> None:
        self._functions, self._lent = found.functions, found.lent
        # Where there are none all arguments are given, and those to come would not be taken.
        self._defaults = [(f, *rest) for f, _, *rest in self._functions if any(rest)]
        self._kinds, self._spaces, self._orders = found.kinds, found.spaces, found.orders
        self._shadows = [*found.shadows.values()]
        self._sizes = [len(attributes) for attributes, _, _ in self._shadows]
        self._lent.remember()
        self.outdated = False

    def conditions(self, conditions: Conditions) -> None:
        """What `changed` asks, quicker."""
        add = conditions.add
        for function, code, *_ in self._functions:
            add("{}.__code__ is {}", function, code)
        self._lent.conditions(conditions)
        for function, defaults, named in self._defaults:
            add("{}.__defaults__ is {}", function, defaults)
            add("{}.__kwdefaults__ is {}", function, named)
        for value, kind in self._kinds:
            add("{}.__class__ is {}", value, kind)
        for value, attributes in self._spaces:
            add("{}.__dict__ is {}", value, attributes)
        for kind, order in self._orders:
            add("{}.__mro__ is {}", kind, order)
        for (variables, _, _), size in zip(self._shadows, self._sizes):
            add("len({}) == {}", variables, size)
        self.outdated = False

    def changed(self) -> str | None:
        """Which function, or class of an object, is another one."""
        for function, *known in self._functions:
            now = (function.__code__, function.__defaults__, function.__kwdefaults__)
            if any(a is not b for a, b in zip(now, known)):
                return f"the code or the defaults of {function.__name__}()"
        method = self._lent.changed()
        if method is not None:
            return method
        for value, kind in self._kinds:
            if value.__class__ is not kind:
                return f"the class of a {kind.__name__}"
        for value, attributes in self._spaces:
            if value.__dict__ is not attributes:
                return f"the attributes of a {type(value).__name__}"
        for kind, order in self._orders:
            if kind.__mro__ is not order:
                return f"what {kind.__name__} derives from"
        for number, (variables, names, title) in enumerate(self._shadows):
            if len(variables) != self._sizes[number]:
                found = next((name for name in sorted(names) if name in variables), None)
                if found is not None:
                    return f"{title}.{found}"
                self._sizes[number] = len(variables)
                self.outdated = True
        return None
