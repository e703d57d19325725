"""The examples in the docstrings and in the README run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradlite

README = Path(__file__).resolve().parent.parent / "README.md"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = sorted(
    ["gradlite"] + [m.name for m in pkgutil.walk_packages(gradlite.__path__, "gradlite.")]
)


@pytest.fixture(autouse=True)
def numpy_generator_kept() -> Iterator[None]:
    state = np.random.get_state()
    yield
    np.random.set_state(state)


def run(tests: list[doctest.DocTest]) -> tuple[int, str]:
    """The number of failures and their report."""
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    for test in tests:
        gradlite.manual_seed(0)
        runner.run(test, out=report.append)
    return runner.summarize(verbose=False).failed, "".join(report)


def is_written_in(module: Any, name: str) -> bool:
    """Whether what a test is of is no function of another module, wrapped."""
    found: Any = module
    for part in name.removeprefix(module.__name__).strip(".").split("."):
        found = getattr(found, part, found)
    return not inspect.isfunction(found) or inspect.unwrap(found).__module__ == found.__module__


@pytest.mark.parametrize("name", [m for m in MODULES if not m.endswith("__main__")])
def test_docstring_examples(name: str) -> None:
    module = importlib.import_module(name)
    found = doctest.DocTestFinder().find(module, name)
    failed, report = run([t for t in found if t.examples and is_written_in(module, t.name)])
    assert not failed, report


def test_readme_tour() -> None:
    text = README.read_text(encoding="utf-8")
    code = "\n".join(part.split("```", 1)[0] for part in text.split("```python\n")[1:])
    test = doctest.DocTestParser().get_doctest(code, {}, "README.md", str(README), 0)
    assert len(test.examples) > 20
    failed, report = run([test])
    assert not failed, report


def test_wrong_examples_are_noticed() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert run([test])[0] == 1
