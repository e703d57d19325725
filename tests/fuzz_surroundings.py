"""Random ways from a step to a number: through objects, containers, classes and functions.

A way is a few layers, each of which holds the next one and knows how to put another in its place;
the step reads the number at its end in one of several forms. Between the calls the number, or a
layer on the way, becomes another one.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import operator
import random
import types
from collections import ChainMap, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import gradlite
from gradlite import nn

CALLS = 9
NUMBERS = (2.0, 3.0, 2, 3, True, -0.0, 0.0, 2.5, 1e30)


@dataclass
class Layer:
    """What holds a value: how it is made, read (an expression), and given another value."""

    make: Callable[[Any], Any]
    read: str
    put: Callable[[Any, Any], Any]


class Plain:
    def __init__(self, v: Any) -> None:
        self.v = v

    def read(self) -> Any:
        return self.v

    def __call__(self) -> Any:
        return self.v

    def __getitem__(self, key: int) -> Any:
        return self.v

    @property
    def seen(self) -> Any:
        return self.v

    @classmethod
    def made(cls, v: Any) -> Any:
        """A class of its own, which has the value, derived from another one."""
        base = type("Base", (), {"v": None, "__module__": __name__})
        return type("Derived", (base,), {"v": v, "__module__": __name__})


class Slotted:
    __slots__ = ("v",)

    def __init__(self, v: Any) -> None:
        self.v = v


class Named(dict[str, Any]):
    def __init__(self, v: Any) -> None:
        super().__init__()
        self.v = v


class Late:
    """An object with an attribute that is not there at first."""

    def __init__(self, v: Any) -> None:
        self.first = v

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class Part(nn.Module):
    def __init__(self, v: Any) -> None:
        super().__init__()
        self.v = v

    def forward(self) -> Any:
        return self.v


def function(decorated: Callable[[Any], Any]) -> Layer:
    """A function that reads a variable of its closure, behind a decorator."""
    setters: dict[int, tuple[Any, Callable[[Any], None]]] = {}

    def make(v: Any) -> Any:
        def read() -> Any:
            return v

        def put(value: Any) -> None:
            nonlocal v
            v = value

        result = decorated(read)
        setters[id(result)] = result, put
        return result

    return Layer(make, "{}()", lambda holder, v: setters[id(holder)][1](v))


def by_manager(read: Callable[[], Any]) -> Callable[[], Any]:
    @contextlib.contextmanager
    def manager() -> Any:
        yield read()

    def call() -> Any:
        with manager() as value:
            return value

    return call


def with_default(v: Any) -> Any:
    def read(v: Any = v) -> Any:
        return v

    return read


def variable(v: Any) -> Any:
    found: contextvars.ContextVar[Any] = contextvars.ContextVar("found")
    found.set(v)
    return found


def module(v: Any) -> Any:
    made: Any = types.ModuleType("made_by_a_test")
    made.v = v
    return made


def set_v(holder: Any, v: Any) -> None:
    holder.v = v


def set_key(holder: Any, v: Any) -> None:
    holder["k"] = v


def set_default(holder: Any, v: Any) -> None:
    holder.__defaults__ = (v,)


def identity(v: Any) -> Any:
    return v


LAYERS = [
    *(Layer(make, "{}.v", set_v) for make in (Plain, Slotted, Named, Part, Plain.made, module)),
    *(Layer(Plain, read, set_v) for read in ("{}.read()", "{}()", "{}[0]", "{}.seen")),
    *(Layer(Plain, f"{by}({{}})", set_v) for by in ("operator.attrgetter('v')", "by_name")),
    *(
        Layer(make, "{}['k']", set_key)
        for make in (
            lambda v: {"k": v},
            lambda v: UserDict(k=v),
            lambda v: OrderedDict(k=v),
            lambda v: defaultdict(int, k=v),
            lambda v: ChainMap({}, {"k": v}),
        )
    ),
    Layer(lambda v: [0, v], "{}[-1]", lambda holder, v: holder.append(v)),
    Layer(lambda v: deque([v]), "{}[0]", lambda holder, v: operator.setitem(holder, 0, v)),
    Layer(Part, "{}()", set_v),
    Layer(lambda v: Part([v]), "{}.v[-1]", lambda holder, v: set_v(holder, [v])),
    Layer(lambda v: Part(([v],)), "{}.v[0][-1]", lambda holder, v: holder.v[0].append(v)),
    Layer(Late, "late({})", set_v),
    Layer(variable, "{}.get()", lambda holder, v: holder.set(v)),
    Layer(with_default, "{}()", set_default),
    Layer(
        lambda v: functools.partial(identity, v=v),
        "{}()",
        lambda holder, v: holder.keywords.update(v=v),
    ),
    *map(
        function,
        (
            identity,
            gradlite.no_grad(),
            gradlite.inference_mode(),
            by_manager,
            lambda f: functools.wraps(f)(lambda: f()),
            lambda f: types.MethodType(lambda self: f(), 0),
            lambda f: functools.partial(lambda g: g(), f),
        ),
    ),
]
FORMS = (
    "def step(x): return x * {}",
    "def helper(): return {}\ndef step(x): return x * helper()",
    "def step(x): return x * 2 if {} > 2 else x * 3",
    "def step(x, root=root): return sum([x * {} for _ in range(2)])",
    "class Step:\n def __init__(self): self.root = root\n"
    " def __call__(self, x):\n  root = self.root\n  return x * {}\nstep = Step()",
    "@gradlite.no_grad()\ndef step(x): return x * {}",
    "def part(x): return x * {}\nrows = gradlite.func.vmap(part)\ndef step(x): return rows(x)",
    "def part(root, x): return x * {}\nstep = functools.partial(part, root)",
)
BY_NAME = (
    "def by_name(holder): return getattr(holder, 'v')\n"
    "def late(holder):\n try: return holder.v\n except Exception: return holder.first\n"
)


class Way:
    """The step of a seed, and the layers that it reads."""

    def __init__(self, seed: int) -> None:
        numbers = random.Random(seed)
        self.layers = [numbers.choice(LAYERS) for _ in range(numbers.randrange(1, 4))]
        form, self.holders = numbers.choice(FORMS), [None for _ in self.layers]
        expression = "root"
        for layer in self.layers:
            expression = layer.read.format(expression)
        root = self._made(0, numbers.choice(NUMBERS))
        space: dict[str, Any] = {"root": root, "__name__": "way"}
        space.update(gradlite=gradlite, operator=operator, functools=functools)
        self.text = form.format(expression)
        exec(compile(BY_NAME + self.text, "<way>", "exec"), space)
        self.step = space["step"]

    def _made(self, first: int, value: Any) -> Any:
        for place in range(len(self.layers) - 1, first - 1, -1):
            value = self.holders[place] = self.layers[place].make(value)
        return value

    def change(self, numbers: random.Random) -> None:
        """Put another number at the end, in other layers from some place on."""
        place, number = numbers.randrange(len(self.layers)), numbers.choice(NUMBERS)
        inner = self._made(place + 1, number)
        self.layers[place].put(self.holders[place], inner)


def difference(seed: int) -> str | None:
    """What a captured step gives that is not what the step gives; None: nothing."""
    seen = []
    for captured in (False, True):
        way, numbers = Way(seed), random.Random(seed)
        step = gradlite.capture(way.step, native=False) if captured else way.step
        results = []
        for call in range(CALLS):
            if call > 2 and numbers.random() < 0.4:
                way.change(numbers)
            x = np.random.default_rng(call).standard_normal((3, 2))
            results.append(step(gradlite.tensor(x)).numpy())
        seen.append(results)
    for call, (expected, found) in enumerate(zip(*seen, strict=True)):
        if expected.tobytes() != found.tobytes():
            return f"call {call} of seed {seed}:\n{found}\nnot\n{expected}\n{way.text}"
    return None
