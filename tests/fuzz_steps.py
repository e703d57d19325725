"""Random steps, captured and as they are: the lines of random programs inside of a function.

A program of `tests/fuzz_writers.py` becomes a step: some of its leaves are parameters with
optimizers, some are inputs that are others at every call, some are what the call before has left,
some lie where the caller puts others for every call, and the rest are made in the step.
"""

from __future__ import annotations

import random
import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import gradlite
from gradlite import optim
from tests.fuzz_pool import AmbiguousError, DifferenceError, Pool, add_hook, array_of, values
from tests.fuzz_writers import WRITERS, leaf, unary
from tests.oracle import torch

CALLS = 9
LARGE = 1e3
KINDS = [
    *("leaf", "unary", "unary", "binary", "binary", "reduction", "view", "view", "update"),
    *("update", "assignment", "matmul", "join", "gathered", "backward", "backward", "gradient"),
    *("second_gradient", "retain_grad", "hook", "alias", "update_without_grad"),
    *("value_without_grad", "view_without_grad", "island_without_grad", "grad_of_leaf"),
    *("reshape_in_place", "detach_in_place", "conversion", "leaf_of_another_dtype"),
    *("random", "branch", "sized", "optimizer", "optimizer", "zero"),
]
# What is of other sizes for other values, and what stays of it.
SIZED = [
    "{x} * 2 + {y}[{y} > 0.3].sin().sum().to({x}.dtype)",
    "{x} * 2 + T.masked_select({y}, {y} > 0.3).sin().sum().to({x}.dtype)",
    "{x} * 2 + {y}[({y} > 0.3).nonzero(as_tuple=True)].sin().sum().to({x}.dtype)",
    "{x} * 2 + T.unique({y}.detach().round()).sum().sin().to({x}.dtype)",
    "{x} * int(({y} > 0.3).sum() % 3 + 1)",
    "{x} * (len(({y} > 0.3).nonzero()) % 3 + 1)",
    "{x} * 2 + ({y} * 1).index_put(({y} > 0.3,), T.ones_like({y}.sum())).sum().to({x}.dtype)",
]
LEAF = re.compile(r"(t\d+) = (values\(.*\))$")
ASSIGNED = re.compile(r"(?:^|: )(t\d+) = ")
# What the step leaves for the next call, where it has found {x}; {y} is something else.
LEFT = [
    "{x}.detach() * 0.5 + 0.25",
    "{x}.detach().clone()",
    "{x}.detach()",
    "({x}.detach() * 0.5 + {y}.detach().mean(dtype=T.float64).tanh()).to({x}.dtype)",
    "{x}.detach().flip(0).flip(0)[...]",
    "T.stack([{x}.detach() * 0.5, {x}.detach()], -1)[..., 0]",
    "{x}.detach().movedim(0, -1).contiguous().movedim(-1, 0)",
]
NARROW = ("float32", "float16", "half()", "float()", "long()", "int32", "int64")


@dataclass
class Program:
    """Lines, and for each what becomes of a leaf: param, input, carried, given or made."""

    lines: list[str]
    roles: list[str]
    names: list[str]

    def without(self, start: int, size: int) -> Program:
        lines = ["" if start <= i < start + size else x for i, x in enumerate(self.lines)]
        made = {name for line in lines for name in ASSIGNED.findall(line)}
        return Program(lines, self.roles, [n for n in self.names if n in made])


def written(seed: int) -> Program | None:
    """A random program whose lines run in PyTorch; None where the libraries do not agree."""
    numbers = random.Random(seed)
    pool = Pool(torch, gradlite)

    def add(kind: str, line: str | None) -> None:
        if line is not None:
            pool.run(kind, line)
            if "  # " in pool.lines[-1]:  # it has raised an error
                pool.lines[-1] = ""

    def pretend(line: str, instead: str) -> None:
        """A line that other values would make another one; the program goes on with one way."""
        name = pool.new()
        pool.lines.append(f"{name} = {line}")
        for space in pool.spaces:
            exec(f"{name} = {instead}", space)
        pool.names.append(name)
        pool.versions[name] = [0, 0]

    try:
        for number in range(3):
            first = leaf(pool, numbers.randrange(10), numbers.randrange(7), 1 + number, 0)
            add("leaf", first)
            add("unary", unary(pool, 0, number, 0, 0))
        for _ in range(numbers.randrange(8, 30)):
            kind, given = numbers.choice(KINDS), [numbers.randrange(64) for _ in range(4)]
            if not pool.names:
                break
            x, other = pool.pick(given[0]), pool.pick(given[1])
            if kind == "random":
                draw = f"T.rand({tuple(pool.shape(x))}, dtype=T.float64)"
                drops = f"T.nn.functional.dropout({x} * 1.0, 0.5)"
                pretend(f"{x} * {draw}" if given[1] % 2 else drops, f"{x} * 0.5")
            elif kind == "branch":
                pretend(f"{x} * 2 if {other}.sum() > 0.3 else {x} - 1", f"{x} * 2")
            elif kind == "sized":
                pretend(SIZED[given[2] % len(SIZED)].format(x=x, y=other), f"{x} * 2")
            elif kind in ("optimizer", "zero"):
                method = "step" if kind == "optimizer" else "zero_grad"
                pool.lines.append(f"optimizers[{given[0] % 2}].{method}()")
            else:
                add(kind, WRITERS[kind](pool, *given))
        add("backward", f"{pool.pick_root(0)}.sin().sum().backward(retain_graph=True)")
    except (AmbiguousError, DifferenceError, RuntimeError):
        return None
    kinds = ["param", "input", "made", *["carried"] * (seed % 2), *["given"] * (seed % 3 == 1)]
    roles = [numbers.choice(kinds) for _ in pool.lines]
    return Program(pool.lines, roles, list(pool.names))


class Twin:
    """The step of a program, with parameters, optimizers and inputs of its own."""

    def __init__(self, program: Program) -> None:
        self.space: dict[str, Any] = {"T": gradlite, "values": values, "add_hook": add_hook}
        self.params: dict[str, Any] = {}
        self.inputs: list[tuple[str, str]] = []
        self.state: dict[str, Any] = {}
        self.data: dict[str, Any] = {}
        self.specs: dict[str, str] = {}  # of the data
        body, left = [], []
        for number, (line, role) in enumerate(zip(program.lines, program.roles)):
            made = LEAF.match(line)
            if made and role == "param":
                self.params[made[1]] = eval(made[2], self.space)
                line = f"{made[1]} = params[{made[1]!r}]"
            elif made and role == "input":
                self.inputs.append((made[1], made[2]))
                own = "" if number % 2 else ".clone()"  # or the given tensor itself
                line = f"{made[1]} = {made[1]}{own}.requires_grad_()" if "True" in made[2] else ""
            elif made and role == "carried":
                name, shaped = made[1], "()" not in made[2]
                self.state[name] = eval(made[2], self.space).detach()
                own = ".clone().requires_grad_()" if "True" in made[2] else ""
                line = f"{name} = state[{name!r}]{own}"
                form = LEFT[number % (len(LEFT) if shaped else 4)]
                left.append((name, form))
            elif made and role == "given":
                self.specs[made[1]] = made[2]
                own = "" if number % 2 else ".clone()"
                own += ".clone().requires_grad_()" if "True" in made[2] else ""
                line = f"{made[1]} = data[{made[1]!r}]{own}"
            body.append(line)
        learned = [p for p in self.params.values() if p.requires_grad]
        if learned:
            half = len(learned) // 2
            first = optim.SGD(learned[half:], lr=0.01, momentum=0.5)
            second = optim.Adam(learned[:half] or learned, lr=0.01)
            self.space["optimizers"] = [first, second]
        else:
            body = [line for line in body if not line.startswith("optimizers")]
        self.space.update(params=self.params, state=self.state, data=self.data)
        text = "\n".join(f"    {line}" for line in body if line)
        made_here = dict.fromkeys(n for line in body for n in ASSIGNED.findall(line))
        self.names = [n for n in made_here if n in program.names and n not in self.params]
        results = ", ".join(f"{n}.detach()" for n in self.names)
        arguments = ", ".join(n for n, _ in self.inputs)
        others = dict.fromkeys([*self.names, *self.params, *self.state])
        for n, (name, form) in enumerate(left):
            other = list(others)[-1 - n % len(others)]
            text += f"\n    state[{name!r}] = {form.format(x=name, y=other)}"
        self.text = f"def step({arguments}):\n{text}\n    return [{results}]\n"
        exec(compile(self.text, "<step>", "exec"), self.space)
        self.step: Callable[..., Any] = self.space["step"]

    def call(self, step: Callable[..., Any], number: int) -> dict[str, Any] | Exception:
        """All that can be seen after a call; or its error."""
        gradlite.manual_seed(number)
        given = [self._input(spec, number) for _, spec in self.inputs]
        if number % 4 == 3:
            self.state.update((name, t * 0.5) for name, t in list(self.state.items())[::2])
        if number % 5 == 4:
            for t in self.state.values():
                t.add_(0.25) if t.is_floating_point() else t.add_(1)
        self.data.update((name, self._input(spec, number)) for name, spec in self.specs.items())
        before = {f"{name} before": t for name, t in self.state.items()}
        try:
            results = step(*given)
        except gradlite.CaptureError:
            raise
        except Exception as error:
            return error
        seen = dict(zip(self.names, results, strict=True))
        seen.update(zip([n for n, _ in self.inputs], given, strict=True))
        seen.update(self.params)
        seen.update(before)
        seen.update((f"{name} left", t) for name, t in self.state.items())
        seen.update((f"{name} given", t) for name, t in self.data.items())
        for name, tensor in list(seen.items()):
            if tensor.is_leaf:
                seen[f"{name}.requires_grad"] = tensor.requires_grad
                seen[f"{name}.grad"] = tensor.grad
        return {n: array_of(v) if isinstance(v, gradlite.Tensor) else v for n, v in seen.items()}

    def _input(self, spec: str, number: int) -> Any:
        """Now and then other values, so that branches mostly go the same way."""
        t = eval(spec, self.space).detach()
        shift = (0, 0, 0, 1, 0, 2, 0, 3)[number % 8]
        return (t + gradlite.cos(t * 3) * (0.37 * shift)).to(t.dtype)


def equal(a: Any, b: Any, tolerance: float) -> bool:
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return type(a) is type(b) and a == b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if tolerance == 0:
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return np.allclose(a.astype(float), b.astype(float), tolerance, tolerance, equal_nan=True)


def difference(program: Program, native: bool, counts: Counter[str]) -> str | None:
    """What is another after a captured step; None: nothing, or the step was refused.

    Array calls give the very bits; compiled code rounds differently.
    """
    narrow = any(word in line for line in program.lines for word in NARROW)
    tolerance = (2e-4 if narrow else 1e-9) if native else 0
    try:
        one, other = Twin(program), Twin(program)
    except (NameError, SyntaxError, ValueError):  # of a program that has lost lines
        return None
    captured = gradlite.capture(other.step, native=native)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(CALLS):
            expected = one.call(one.step, number)
            try:
                seen = other.call(captured, number)
            except gradlite.CaptureError:
                counts["refused"] += 1
                return None
            if isinstance(expected, Exception) or isinstance(seen, Exception):
                if type(expected) is type(seen):
                    counts["failed"] += 1
                    return None
                return f"call {number} ends with {seen!r}, not {expected!r}\n{one.text}"
            found = [v for v in expected.values() if isinstance(v, np.ndarray)]
            if any(v.size and not np.abs(v.astype(float)).max() < LARGE for v in found):
                counts["large"] += 1
                return None
            for name, value in expected.items():
                if not equal(value, seen[name], tolerance):
                    return f"call {number}, {name}:\n{seen[name]!r}\nnot\n{value!r}\n{one.text}"
    counts["replays"] += captured.replays
    counts["steps"] += 1
    return None


def reduced(program: Program, native: bool, found: str) -> str:
    """The difference of the shortest step that leaving out lines leads to."""
    size = len(program.lines)
    while size > 0:
        for start in range(0, len(program.lines), size):
            shorter = program.without(start, size)
            if shorter.lines != program.lines:
                now = difference(shorter, native, Counter())
                if now is not None and "NameError" not in now:
                    program, found = shorter, now
        size //= 2
    return found
