"""What a step can reach: modules, optimizers and tensors, and the places of plain values."""

from __future__ import annotations

import types
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

from gradlite.capturing import code_names
from gradlite.capturing.lent import Lent
from gradlite.capturing.named import Named
from gradlite.capturing.options import Options
from gradlite.capturing.search import Search
from gradlite.capturing.watching import Findings, Watch
from gradlite.nn import Module
from gradlite.tensor import Tensor


class Reachable:
    """What the variables that a step's code can read lead to, as `Search` finds it.

    Args:
        function: the step.
        declared: other objects that it uses.
        findings: what its recordings have met.
        without: places that are not looked into; see `place_of`.

    Attributes:
        modules: every module, with its children.
        options: every optimizer, and what the code reads of it.
        tensors: every tensor outside of modules.
        places: containers, keys and names of what has to stay the same.
        arrays: containers and keys of NumPy's arrays.
        iterators: containers and keys of others' iterators.
        loose: other iterators, which are told by what they have handed out.
        generators: of Python's and NumPy's random numbers.
        functions: functions with their code and defaults.
        kinds: objects with their classes.
        spaces: objects with the dictionaries of their attributes.
        orders: classes with the order in which attributes are looked for in them and their bases.
        shadows: dictionaries, with the names in which others' attributes could come to be hidden.
        named: the attributes that the code has the names of.
        lent: the library's classes that it looks something up in.
        variables: of the environment.
        seen: the ids of what was looked at.
        kept: what has to live for these to stay its own.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        declared: Iterable[Any],
        findings: Findings,
        without: Container[tuple[int, Any]] = (),
    ) -> None:
        self.modules: dict[int, Module] = {}
        self.options = Options()
        self.tensors: dict[int, Tensor] = {}
        self.places: list[tuple[Any, Any, str]] = []
        self.arrays: list[tuple[Any, Any]] = []
        self.iterators: list[tuple[Any, Any]] = []
        self.loose: list[Iterator[Any]] = []
        self.generators: list[Any] = []
        self.functions: list[tuple[types.FunctionType, Any, Any, Any]] = []
        self.kinds: list[tuple[Any, type]] = []
        self.spaces: list[tuple[Any, Any]] = []
        self.orders: list[tuple[type, tuple[type, ...]]] = []
        self.shadows: dict[int, tuple[Any, set[str], str]] = {}
        self.named = Named()
        self.lent = Lent()
        self.variables: set[str] = set()
        self.seen: set[int] = set()
        self.kept: list[Any] = []
        self._without = without
        Search(self, findings, without).run(function, declared)

    def shadow(self, variables: Any, names: Iterable[str], title: str) -> None:
        """Take up names that could come to be looked up in a dictionary before others' are.

        Args:
            variables: the dictionary.
            names: those that are not in it.
            title: whose variables or attributes they are, for people.
        """
        self.shadows.setdefault(id(variables), (variables, set(), title))[1].update(names)

    def looks_which(self) -> bool:
        """Whether some code may ask which object another one is."""
        return any(code_names.looks_which(code) for _, code, _, _ in self.functions)

    def watch(self, findings: Findings, paused: Callable[[], bool]) -> Watch:
        """What looks at the step's calls for all that is not found here."""
        codes = [code for _, code, _, _ in self.functions]
        return Watch(findings, codes, self.seen, self.variables, paused)

    def parameters(self) -> Iterator[Tensor]:
        """Every tensor that can have a gradient: of modules, optimizers, and by itself."""
        seen: set[int] = set()
        groups: list[Iterable[Tensor]] = [self.tensors.values()]
        groups += [
            [v for k, v in space.items() if (id(space), k) not in self._without]
            for space in [module.__dict__ for module in self.modules.values()]
        ]
        groups += [g["params"] for o in self.options.optimizers.values() for g in o.param_groups]
        for group in groups:
            for value in group:
                if isinstance(value, Tensor) and id(value) not in seen:
                    seen.add(id(value))
                    yield value
