"""The public names: every op is in the table, and PyTorch's names take PyTorch's arguments."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from typing import Any

import pytest

import gradlite
from gradlite.ops.table import TABLE

# Public functions of ops that are no ops of tensors, so that no samples can drive them.
NO_OPS = {
    "creation": "factories: tests/test_interop.py and the tests of each dtype",
    "like": "factories: tests/test_interop.py and the tests of each dtype",
    "chances": "random numbers: tests/test_random.py",
    "random": "random numbers: tests/test_random.py",
    "older_linalg": "qr is deprecated, and warns: tests/ops/test_older_linalg.py",
    "renamed": "deprecated names: tests/test_old_names.py",
    "variates": "random numbers: tests/ops/test_variates.py",
    "activation_inplace": "entries of their own functions, in place: tests/ops/test_activation.py",
    "buffers": "memory of others: tests/test_rare_arguments.py",
    "interop": "conversions from and to other libraries: tests/test_interop.py",
}
# Where fewer or other parameters are meant.
OTHER_PARAMETERS = {
    "load": "there is no pickle, hence no pickle_module",
    "swapaxes": "the same function as transpose",
    **dict.fromkeys(("cholesky", "det", "inverse", "slogdet"), "the same function as linalg's"),
    # PyTorch takes the same parameters, but documents others.
    **dict.fromkeys(("broadcast_to", "concatenate", "one_hot"), "documented otherwise"),
    **dict.fromkeys(("searchsorted", "true_divide"), "documented otherwise"),
}
# Parameters that gradlite leaves out on purpose.
LEFT_OUT = {"out", "_stacklevel", "layout", "pin_memory"}


def ops_modules() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(gradlite.ops.__path__)]


@pytest.mark.parametrize("name", [m for m in ops_modules() if m not in NO_OPS])
def test_every_op_is_in_the_table(name: str) -> None:
    module = importlib.import_module(f"gradlite.ops.{name}")
    entered = {entry.function for entry in TABLE.values()}
    functions = {n: getattr(module, n) for n in getattr(module, "__all__", ())}
    missing = [n for n, f in functions.items() if inspect.isfunction(f) and f not in entered]
    assert not missing, f"without @public: {missing}"


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_entry_has_samples_and_a_docstring(name: str) -> None:
    entry = TABLE[name]
    assert list(entry.samples())
    assert (entry.function.__doc__ or "").strip()


def documented(function: Any) -> list[str] | None:
    """The positional parameters that PyTorch documents, None where it does not say."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        first = (function.__doc__ or "").strip().split("\n")[0]
        match = re.match(rf"\w*\.?{function.__name__}\(([^()]*(?:\([^()]*\)[^()]*)*)\)", first)
        if match is None:
            return None
        names = [part.split("=")[0].split(":")[0].strip() for part in match[1].split(",")]
        names = [n.split(" ")[-1] for n in names]
        names = names[: names.index("*")] if "*" in names else names
        return names if all(n.isidentifier() for n in names) else None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None  # a dispatcher
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def shared_names() -> list[tuple[str, str]]:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    result = []
    for space in ("", "nn.functional"):
        ours, theirs = gradlite, torch
        for part in filter(None, space.split(".")):
            ours, theirs = getattr(ours, part), getattr(theirs, part)
        result += [
            (space, name)
            for name, value in sorted(vars(ours).items())
            if not name.startswith("_") and hasattr(theirs, name) and not inspect.ismodule(value)
        ]
    return result


def both(space: str, name: str) -> tuple[Any, Any]:
    ours: Any = gradlite
    theirs: Any = importlib.import_module("torch")
    for part in [*filter(None, space.split(".")), name]:
        ours, theirs = getattr(ours, part), getattr(theirs, part)
    return ours, theirs


def test_what_pytorch_can_call_we_can() -> None:
    names = shared_names()
    assert len(names) > 300
    wrong = [n for s, n in names if callable(both(s, n)[1]) and not callable(both(s, n)[0])]
    assert not wrong


def test_parameters_have_pytorchs_names() -> None:
    wrong, compared = [], 0
    for space, name in shared_names():
        ours, theirs = both(space, name)
        if not inspect.isfunction(ours) or name in OTHER_PARAMETERS:
            continue
        expected = documented(theirs)
        if expected is None:
            continue
        parameters = inspect.signature(ours).parameters.values()
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            continue
        compared += 1
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        expected = [n for n in expected if n not in LEFT_OUT]
        common = min(len(positional), len(expected))
        if positional[:common] != expected[:common]:
            wrong.append(f"{name}({', '.join(positional)}), PyTorch: ({', '.join(expected)})")
    assert compared > 150
    assert not wrong, "\n" + "\n".join(wrong)
