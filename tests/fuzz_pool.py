"""The tensors of one random program, in both libraries, and how they are compared."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import reject

from tests.oracle import facts, torch
from tests.oracle import prefix as exact_prefix

LARGE = 50.0
# By the least precise dtype that has come up in the program; integers become float32.
TOLERANCES = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-10}
# PyTorch refuses saved tensors that were cut off since; ours still know their place, so from
# there on the graphs differ. And it refuses to add to a .grad that it made itself, of zeros.
UNSUPPORTED = "detached in-place|moved into the graph interior|INTERNAL ASSERT|ZeroTensors"


class DifferenceError(AssertionError):
    """The libraries disagree."""


class AmbiguousError(Exception):
    """The program means nothing definite: it is left out."""


class Pool:
    """The tensors of one program in both libraries, and the lines that made them."""

    def __init__(self, reference: Any, library: Any) -> None:
        self.products: set[str] = set()
        self.spaces = [
            {"T": T, "np": np, "values": values, "add_hook": add_hook} for T in (reference, library)
        ]
        self.names: list[str] = []
        self.lines: list[str] = []
        self.leaves: list[str] = []
        self.versions: dict[str, list[int]] = {}
        self.counts: Counter[str] = Counter()
        self.tolerance = TOLERANCES["float64"]

    # ------------------------------------------------------------ choices

    def pick(self, number: int) -> str:
        """A name, the latest first."""
        return self.names[-1 - number % len(self.names)]

    def pick_where(self, number: int, fits: Callable[[tuple[int, ...]], bool]) -> str | None:
        names = [name for name in self.names if fits(self.shape(name))]
        return names[-1 - number % len(names)] if names else None

    def look(self, name: str, attribute: str) -> Any:
        """An attribute in PyTorch, None where it raises.

        Looking makes the grad_fn of a changed view anew, so both libraries must look alike.
        """
        found = []
        for space in self.spaces:
            try:
                found.append(getattr(space[name], attribute))
            except RuntimeError:
                found.append(None)
        return found[0]

    def pick_non_leaf(self, number: int) -> str:
        """Mostly a name that in-place ops may change: not a leaf that requires grad."""
        names = [
            name
            for name in self.names
            # Looked at in any case: PyTorch takes a view of a constant whose base came into a
            # graph for a leaf, and refuses to edit it, until its grad_fn is looked at.
            if not (self.look(name, "is_leaf") and self.look(name, "requires_grad"))
            and not self.is_expanded(name)
        ]
        if number % 8 == 7:
            return self.pick(number // 8)
        return names[-1 - number % len(names)] if names else self.pick(number)

    def is_expanded(self, name: str) -> bool:
        """Some in-place ops of PyTorch write expanded memory, most refuse: leave that out."""
        t = self.spaces[0][name]
        return any(s == 0 and n > 1 for s, n in zip(t.stride(), t.shape))

    def pick_root(self, number: int) -> str:
        """Mostly a name that backward can start from."""
        names = [name for name in self.names if self.look(name, "grad_fn") is not None]
        return names[-1 - number % len(names)] if names and number % 8 else self.pick(number)

    def pick_below(self, root: str, number: int) -> str:
        """Mostly the name of a leaf that the graph of `root` leads to."""
        leaves, seen, todo = [], set(), [self.look(root, "grad_fn")]
        while todo:
            node = todo.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if hasattr(node, "variable"):
                leaves.append(node.variable)
            todo.extend(child for child, _ in node.next_functions)
        names = [n for n in self.leaves if any(self.spaces[0][n] is leaf for leaf in leaves)]
        return names[number % len(names)] if names and number % 8 else self.pick(number)

    def is_inference(self, name: str) -> bool:
        """Its aliases and some copies are half inference tensors in PyTorch."""
        return bool(self.spaces[0][name].is_inference())

    def apart(self, source: str, target: str) -> str:
        """What to copy from `source`: where memory overlaps, PyTorch may read what it wrote."""
        one, other = (
            self.spaces[0][name].untyped_storage().data_ptr() for name in (source, target)
        )
        return source if source == target or one != other else f"{source}.clone()"

    def may_take(self, target: str, source: str) -> bool:
        """Whether `source` may be written into `target`: where an integer tensor takes elements
        from a graph, PyTorch makes one that requires grad."""
        target, source = self.spaces[0][target], self.spaces[0][source]
        return bool(target.is_floating_point() or not source.requires_grad)

    def has_views(self, name: str) -> bool:
        t = self.spaces[0][name]
        return any(self.spaces[0][other]._base is t for other in self.names)

    def has_views_without_grad(self, name: str) -> bool:
        """Whether there are views that may not be edited, or used after an edit of their base."""
        t, creation = self.spaces[0][name], torch._C._autograd._get_creation_meta
        views = [v for v in (self.spaces[0][other] for other in self.names) if v._base is t]
        return any(creation(v).name != "DEFAULT" for v in views)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.spaces[0][name].shape)

    def new(self) -> str:
        """The name of what the next line makes."""
        return f"t{len(self.lines)}"

    # ------------------------------------------------------------ execution

    def run(self, kind: str, line: str) -> None:
        """Executes `line` in both libraries and compares how it ends."""
        self.lines.append(line)
        code = compile(line, "<program>", "exec")
        expected, actual = [self.execute(code, space) for space in self.spaces]
        self.counts[f"{kind} {'runs' if expected is None else 'fails'}"] += 1
        if is_ambiguous(line, expected, actual):
            raise AmbiguousError
        if type(expected).__name__ != type(actual).__name__:
            raise self.difference(f"ends with {actual!r}\nPyTorch: {expected!r}")
        if expected is not None:
            self.lines[-1] += f"  # {type(expected).__name__}"
            if is_about_autograd(str(expected)) and prefix(str(expected)) != prefix(str(actual)):
                raise self.difference(f"says {actual}\nPyTorch: {expected}")
            self.forget_what_failed(line, str(expected))
            return
        made = re.match(r"(?:with [^:]*: )?(t\d+) = ([^;]*)", line)
        if made is not None and hasattr(self.spaces[0][made[1]], "shape"):
            self.names.append(made[1])
            if " @ " in made[2]:
                self.products.add(made[1])
            if made[2].startswith("values("):
                self.leaves.append(made[1])
            dtype = array_of(self.spaces[0][made[1]]).dtype.name
            self.tolerance = max(self.tolerance, TOLERANCES.get(dtype, TOLERANCES["float32"]))
            self.versions[made[1]] = [version_of(space[made[1]]) for space in self.spaces]
            self.compare(made[1])
        self.drop_large_values()

    @staticmethod
    def execute(code: Any, space: dict[str, Any]) -> Exception | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                exec(code, space)
            except Exception as error:
                return error.with_traceback(None)
        return None

    def forget_what_failed(self, line: str, message: str) -> None:
        """A failing backward of PyTorch may have filled some leaves, and a refused update of an
        inference tensor has written it all the same: neither is compared."""
        if "backward" in line:
            for name in {*self.leaves, *self.names}:
                for space in self.spaces:
                    space[name].grad = None
        if "Inplace update to inference tensor" in message:
            for name in [n for n in self.names if self.spaces[0][n].is_inference()]:
                self.names.remove(name)

    def drop_large_values(self) -> None:
        """Rounding differences grow with the values: what is large is not used or compared."""
        for name in list(self.names):
            values = array_of(self.spaces[0][name]).astype(np.float64)
            if values.size and not np.abs(values).max() < LARGE:
                self.names.remove(name)

    # ------------------------------------------------------------ comparison

    def difference(self, text: str) -> DifferenceError:
        return DifferenceError(f"{text}\n\n" + "\n".join(self.lines))

    def compare(self, name: str) -> None:
        expected, actual = (space[name] for space in self.spaces)
        # Counted from when it was made: PyTorch computes some results in place.
        first = self.versions[name]
        one, other = observed(actual, first[1]), observed(expected, first[0])
        if name in self.products:  # named by how PyTorch folds the dimensions of a batched product
            for fact in ("grad_fn", "is_view"):
                one[fact] = other[fact] = None
        if one != other:
            different = {
                key: (one.get(key), other[key]) for key in other if one.get(key) != other[key]
            }
            raise self.difference(f"{name}: (ours, PyTorch's) {different}")
        self.compare_values(name, array_of(actual), array_of(expected))

    def compare_values(self, what: str, actual: np.ndarray, expected: np.ndarray) -> None:
        if not close(actual, expected, self.tolerance):
            raise self.difference(f"{what}:\n{actual!r}\nPyTorch:\n{expected!r}")

    def grads_share_memory(self, space: dict[str, Any]) -> bool:
        """PyTorch hands several leaves views of one element (x and y in stack([x, y]).sum()) and
        then adds the next gradients to all of them: nothing to compare with."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            grads = [space[name].grad for name in self.leaves]
        places = [g.data_ptr() for g in grads if g is not None and g.numel()]
        return len(set(places)) < len(places)

    def compare_everything(self) -> None:
        if self.grads_share_memory(self.spaces[0]):
            reject()
        for name in self.names:
            self.compare(name)
        # PyTorch retains the gradient of a view only until its grad_fn is made anew.
        retained = [n for n in self.names if not self.look(n, "_is_view")()]
        for name in dict.fromkeys([*self.leaves, *retained]):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected, actual = (space[name].grad for space in self.spaces)
            if (expected is None) != (actual is None):
                raise self.difference(f"{name}.grad is {actual}, PyTorch's {expected}")
            if expected is not None:
                self.counts["leaf gradients"] += 1
                self.counts["leaf gradients that are not zero"] += bool((expected != 0).any())
                self.compare_values(f"{name}.grad", array_of(actual), array_of(expected))
                if actual.requires_grad != expected.requires_grad:
                    raise self.difference(f"{name}.grad.requires_grad is {actual.requires_grad}")
                if name in self.leaves and strides(actual) != strides(expected):
                    raise self.difference(
                        f"{name}.grad has the strides {actual.stride()}, PyTorch's "
                        f"{expected.stride()}"
                    )


def strides(t: Any) -> list[int]:
    """Those that say where elements are: not of dimensions with one, nor of nothing."""
    return [step for n, step in zip(t.shape, t.stride()) if n > 1] if t.numel() else []


def is_ambiguous(line: str, expected: Exception | None, actual: Exception | None) -> bool:
    """Whether either outcome is fine, so that the rest of the program means nothing definite."""
    outcomes = f"{expected} {actual}"
    if re.search(UNSUPPORTED, str(expected)):
        return True
    if "view size is not compatible" in outcomes and "modified inplace" in outcomes:
        # Of a view that can neither be used nor be viewed like that, either may be said.
        return True
    if "second time" in outcomes and "modified by an inplace" in outcomes:
        # Which comes first depends on the order of the nodes in a gradient's own graph.
        return True
    if expected is None and "refers to a single memory location" in str(actual):
        # Some in-place ops of PyTorch write expanded memory, most refuse.
        return True
    if (expected is None) == (actual is None):
        return False
    # Whether a gradient that is 0 everywhere requires grad depends on how it was computed.
    second_gradient = line.endswith(".backward()") and "create_graph" in line
    return second_gradient and "does not require grad" in outcomes


def values(
    T: Any, shape: tuple[int, ...], seed: int, requires_grad: bool, dtype: str = "float64"
) -> Any:
    """A leaf of irregular values between -1.5 and 1.5, none of them 0; integers are rounded."""
    array = np.sin(np.arange(math.prod(shape)) * 1.7 + seed * 0.9 + 0.3) * 1.5
    if not dtype.startswith("float"):
        array = np.rint(array)
    return T.tensor(array.reshape(shape).astype(dtype), requires_grad=requires_grad)


def add_hook(t: Any, hook: Callable[[Any], Any]) -> None:
    """Not to a view that requires grad by its base alone: PyTorch crashes."""
    if t.is_inference() or not (t._is_view() and t.grad_fn is None):
        t.register_hook(hook)


def array_of(t: Any) -> np.ndarray:
    """The elements; forced, since PyTorch has zeros in gradients that are not in memory."""
    return t.numpy(force=True)  # type: ignore[no-any-return]


def version_of(t: Any) -> int:
    return 0 if t.is_inference() else t._version


def observed(t: Any, first_version: int) -> dict[str, Any]:
    """All that a user can see of a tensor but for its values."""
    found = facts(t)
    for name, fact in found.items():
        if isinstance(fact, tuple) and fact[:1] == ("RuntimeError",):
            found[name] = (fact[0], prefix(fact[1]))
    if found["grad_fn"] == "CloneBackward0":  # how PyTorch folds a batched product, or a clone
        found["grad_fn"] = "UnsafeViewBackward0"
    for name, look in {
        "version": lambda: version_of(t) - first_version,
        "is_view": lambda: not t.is_inference() and t._is_view(),
        "is_inference": lambda: t.is_inference(),
        # PyTorch keeps this of a view only until its grad_fn is made anew.
        "retains_grad": lambda: not t._is_view() and t.retains_grad,
    }.items():
        try:
            found[name] = look()
        except RuntimeError as error:
            found[name] = prefix(str(error))
    return found


def prefix(message: str) -> str:
    """The start of a message; every refusal to edit a view, or to use one whose base was edited,
    is the same: which of several reasons comes first is not compared."""
    reasons = (
        "modified inplace",
        "modified by an inplace",
        "single memory location",
        "used in an in-place operation",
        "Inplace update to inference tensor",
    )
    if any(reason in message for reason in reasons):
        return "edited in place"
    return exact_prefix(message)


def is_about_autograd(message: str) -> bool:
    words = (
        "inplace",
        "in-place",
        "leaf",
        "second time",
        "requires_grad",
        "grad_fn",
        "view ",
        "Inference",
    )
    return any(word in message for word in words)


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return False
    finite = np.isfinite(expected)
    if not finite.all() or not expected.size:
        return bool((np.isfinite(actual) == finite).all())
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    return bool(np.abs(a - b).max() <= tolerance * max(1.0, float(np.abs(b).max())))
