"""PyTorch as the oracle: one program, run on both libraries, must end the same way.

``same(program)`` calls ``program(torch)`` and ``program(gradlite)`` and compares what they return
(values, dtypes, shapes, requires_grad, is_leaf, grad_fn names) or raise, and their warnings.
"""

from __future__ import annotations

import re
import warnings as warnings_module
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.library import T, seed

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
torch.set_warn_always(True)

Program = Callable[[Any], Any]

# Per dtype (rtol, atol). Two correct implementations differ by rounding only.
TOLERANCES = {
    "float16": (2e-3, 2e-3),
    "bfloat16": (8e-3, 8e-3),
    "float32": (2e-6, 2e-6),
    "float64": (1e-11, 1e-11),
}

# Warnings about PyTorch's own insides: its use of NumPy and of its compiler, and of every sample
# of a Wishart distribution that is not singular.
NOISE = (
    r"torch\.jit|__array(_wrap)?__|list of numpy.ndarrays is extremely slow|"
    r"Singular sample detected"
)


def normalised(message: str) -> str:
    """A message without the library's name, addresses, and locations in PyTorch's source."""
    message = re.sub(r"\b(torch|gradlite)::autograd::", "", str(message))
    message = re.sub(r"\btorch\b", "gradlite", message)
    message = re.sub(r"\bat 0x[0-9a-f]+", "at 0x", message)
    message = re.sub(r"\(Triggered internally at .*", "", message, flags=re.DOTALL)
    message = re.sub(r"(Traceback of forward call[^\n]*\n).*", r"\1", message, flags=re.DOTALL)
    message = re.sub(r"\bException raised from .*", "", message, flags=re.DOTALL)
    return message.strip()


def prefix(message: str) -> str:
    """The first sentence: what somebody pastes into a search box."""
    first_line = normalised(message).split("\n")[0]
    return re.split(r"(?<=[a-z\])'])[.;:](?:\s|$)", first_line, maxsplit=1)[0].strip()


def dtype_name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]


def node_name(node: Any) -> str | None:
    return None if node is None else normalised(node.name())


@dataclass
class Snapshot:
    """What can be observed of a tensor."""

    values: np.ndarray
    facts: dict[str, Any]


def is_tensor(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, T.Tensor))


def facts(t: Any) -> dict[str, Any]:
    """Looking at a stale view may fail by itself: then the exception is the fact."""
    found: dict[str, Any] = {"dtype": dtype_name(t.dtype), "shape": tuple(t.shape)}
    for name in ("requires_grad", "is_leaf", "grad_fn"):
        try:
            fact = getattr(t, name)
            found[name] = node_name(fact) if name == "grad_fn" else fact
        except RuntimeError as error:
            found[name] = (type(error).__name__, prefix(str(error)))
    return found


def snapshot(value: Any) -> Any:
    """`value` in a form that is the same for both libraries."""
    if value is None or isinstance(value, (bool, str, bytes, float, int, complex)):
        return normalised(value) if isinstance(value, str) else value
    if is_tensor(value):
        plain = value.detach()
        # NumPy has no bfloat16; float32 holds its numbers as they are.
        plain = plain.float() if dtype_name(plain.dtype) == "bfloat16" else plain
        return Snapshot(np.array(plain.numpy()), facts(value))
    if isinstance(value, Mapping):
        return {snapshot(key): snapshot(item) for key, item in value.items()}
    if isinstance(value, list):
        return [snapshot(item) for item in value]
    if isinstance(value, tuple):
        return tuple(snapshot(item) for item in value)
    if isinstance(value, (np.ndarray, np.generic)):
        return Snapshot(np.array(value), {"numpy": str(value.dtype), "shape": value.shape})
    if isinstance(value, BaseException):
        return Raised(type(value).__name__, normalised(value))
    if isinstance(value, type):
        return normalised(value.__name__)
    if type(value).__name__ in ("dtype", "device", "layout"):
        return normalised(str(value))
    if callable(getattr(value, "name", None)):
        return ("node", node_name(value))
    raise TypeError(
        f"the oracle cannot compare a {type(value).__name__}: return tensors, numbers, strings, ..."
    )


@dataclass(frozen=True)
class Raised:
    type: str
    message: str


@dataclass
class Outcome:
    """How a program ended: with a value, or with an exception, and which warnings it gave."""

    value: Any = None
    error: BaseException | None = None
    warnings: list[tuple[str, str]] = field(default_factory=list)


def run(program: Program, library: Any) -> Outcome:
    outcome = Outcome()
    seed(library, 0)
    with warnings_module.catch_warnings(record=True) as caught:
        warnings_module.simplefilter("always")
        try:
            outcome.value = snapshot(program(library))
        except Exception as error:
            outcome.error = error
    outcome.warnings = [
        (item.category.__name__, normalised(item.message))
        for item in caught
        if not re.search(NOISE, str(item.message))
    ]
    return outcome


def assert_equal(
    actual: Any,
    expected: Any,
    where: str = "result",
    rtol: float | None = None,
    atol: float | None = None,
    message: str = "prefix",
) -> None:
    """Fails with a path to the first difference between two snapshots."""
    if isinstance(expected, Snapshot):
        assert isinstance(actual, Snapshot), (
            f"{where}: {actual!r} instead of a tensor {expected.values!r}"
        )
        for name, fact in expected.facts.items():
            assert actual.facts.get(name) == fact, (
                f"{where}.{name}: {actual.facts.get(name)!r}, PyTorch has {fact!r}"
            )
        default_rtol, default_atol = TOLERANCES.get(
            expected.facts.get("dtype", expected.values.dtype.name), (0, 0)
        )
        np.testing.assert_allclose(
            actual.values,
            expected.values,
            rtol=default_rtol if rtol is None else rtol,
            atol=default_atol if atol is None else atol,
            err_msg=where,
        )
    elif isinstance(expected, dict):
        assert isinstance(actual, dict), f"{where}: {actual!r} instead of a dict"
        assert list(actual) == list(expected), (
            f"{where}: keys {list(actual)}, PyTorch has {list(expected)}"
        )
        for key, item in expected.items():
            assert_equal(actual[key], item, f"{where}[{key!r}]", rtol, atol, message)
    elif isinstance(expected, (list, tuple)):
        assert type(actual) is type(expected), f"{where}: {actual!r}, PyTorch has {expected!r}"
        assert len(actual) == len(expected), (
            f"{where}: length {len(actual)}, PyTorch has {len(expected)}"
        )
        for position, (one, other) in enumerate(zip(actual, expected, strict=True)):
            assert_equal(one, other, f"{where}[{position}]", rtol, atol, message)
    elif isinstance(expected, Raised):
        assert isinstance(actual, Raised), f"{where}: {actual!r} instead of {expected!r}"
        assert actual.type == expected.type, f"{where}: {actual!r} instead of {expected!r}"
        same_text(actual.message, expected.message, message, where)
    elif isinstance(expected, float) and not isinstance(expected, bool):
        assert isinstance(actual, float), f"{where}: {actual!r} instead of the float {expected!r}"
        np.testing.assert_allclose(
            actual, expected, rtol=rtol or 1e-6, atol=atol or 1e-9, err_msg=where
        )
    else:
        assert type(actual) is type(expected), f"{where}: {actual!r}, PyTorch has {expected!r}"
        assert actual == expected, f"{where}: {actual!r}, PyTorch has {expected!r}"


def same_text(actual: str, expected: str, message: str, where: str) -> None:
    """Compares as much of two messages as `message` says: exact, details, prefix or type."""
    parts = {
        "exact": normalised,
        "details": lambda text: normalised(text).partition(" Hint:")[0],
        "prefix": prefix,
        "type": lambda text: "",
    }
    part = parts[message]
    assert part(actual) == part(expected), f"{where}\n   it is: {actual}\n PyTorch: {expected}"


def same(
    program: Program,
    *,
    raises: type[BaseException] | tuple[type[BaseException], ...] | None = None,
    match: str | None = None,
    warns: str | None = None,
    message: str = "prefix",
    rtol: float | None = None,
    atol: float | None = None,
) -> Any:
    """Runs `program` on PyTorch and on the library under test and fails where they differ.

    `raises`, `match` (a regular expression) and `warns` say what PyTorch itself must do, so that
    a test cannot pass because the program is wrong. `message` says how much of a message must
    agree: ``exact``, ``details`` (all but a hint at the end), ``prefix`` (the first sentence) or
    ``type`` (the exception's type alone). Returns PyTorch's result as a snapshot.
    """
    __tracebackhide__ = True
    expected = run(program, torch)
    if raises is None and expected.error is not None:
        raise AssertionError("PyTorch cannot run this program") from expected.error
    if raises is not None:
        assert expected.error is not None, f"PyTorch does not raise: it returns {expected.value!r}"
        assert isinstance(expected.error, raises), f"PyTorch raises {expected.error!r}"
        if match is not None:
            assert re.search(match, str(expected.error)), f"PyTorch says: {expected.error}"
    texts = [text for _, text in expected.warnings]
    if warns is None:
        assert not texts, f"PyTorch warns: {texts}"
    else:
        assert any(re.search(warns, text) for text in texts), f"PyTorch warns: {texts}"

    actual = run(program, T)
    if expected.error is not None:
        if actual.error is None:
            raise AssertionError(f"no exception; PyTorch raises {expected.error!r}")
        if type(actual.error).__name__ != type(expected.error).__name__:
            raise AssertionError(
                f"{actual.error!r}; PyTorch raises {expected.error!r}"
            ) from actual.error
        same_text(str(actual.error), str(expected.error), message, "the exception's message")
    else:
        if actual.error is not None:
            raise AssertionError(f"raises {actual.error!r}; PyTorch does not") from actual.error
        assert_equal(actual.value, expected.value, "result", rtol, atol, message)
    assert [kind for kind, _ in actual.warnings] == [kind for kind, _ in expected.warnings], (
        f"warnings: {actual.warnings}, PyTorch gives {expected.warnings}"
    )
    for (_, one), (_, other) in zip(actual.warnings, expected.warnings, strict=True):
        same_text(one, other, message, "the warning's message")
    return expected.value


def outcome_of(action: Callable[[], Any]) -> Any:
    """The value of `action()`, or its exception: for programs that go on after an error."""
    try:
        return action()
    except Exception as error:
        return error
