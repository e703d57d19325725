"""Kernels with a planted bug, run through the tests of kernels: which of them notice?

A mutant is caught when a test of its file fails: a wrong result, a fault that the runner finds, or
arguments that do not fit. A test counts that takes no fixtures but ``monkeypatch``, ``launcher``,
``threads`` or ``K`` (the launcher, installed for NumPy's arrays). It runs thread by thread, with
``launcher`` under every check; with ``K`` memory is not checked, because no such test says where
the pointers in tables lead, and with ``threads`` the test decides.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest

from gradlite.backends import kernel_source, kernels
from gradlite.backends.kernel_source import Kernel
from gradlite.ops.namespaces import NAMESPACES
from tests.cuda_on_cpu import KernelError, load
from tests.kernels.support import ThreadsLauncher

FIXTURES = {"launcher", "threads", "K", "monkeypatch"}
# Runs of a test: the launcher's seed and blocks.
SCHEDULES = [(0, 1 << 30), (1, 2), (2, 2)]


class Launch(NamedTuple):
    """How a kernel is launched."""

    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Any, ...]
    shared: int


class Mutant(NamedTuple):
    """A planted bug.

    Attributes:
        bug: what is wrong.
        file: the kernel file, or the name of a kernel that is launched wrongly.
        old: the text that is replaced; it stands in the file once.
        new: what it is replaced with.
        tests: names of test files, or of tests as ``file::test``, when they are not those of the
            kernel file: for what is shared, and where only a late test can notice.
        launch: in the place of a text, what the launch is replaced with.
    """

    bug: str
    file: str
    old: str = ""
    new: str = ""
    tests: tuple[str, ...] = ()
    launch: Callable[[Launch], Launch] | None = None


class MutantLauncher(ThreadsLauncher):
    """A launcher that launches one kernel in another way."""

    def __init__(self, mutant: Mutant, seed: int, blocks: int) -> None:
        super().__init__(seed=seed, blocks=blocks)
        self.mutant = mutant

    def _function(self, declared: Kernel, suffix: str) -> Any:
        name = f"{declared.name}_{suffix}"
        return load(declared.file, suffix, check=self.check, only=name).get_function(name)

    def _load(self, declared: Kernel, dtype: Any) -> Any:
        run, change = super()._load(declared, dtype), self.mutant.launch
        if change is None or declared.name != self.mutant.file:
            return run
        return lambda *launch: run(*change(Launch(*launch)))


def caught(mutant: Mutant) -> str | None:
    """What the first test that notices says, or None when none does.

    Raises:
        ValueError: the text is not in the file, or not once.
        RuntimeError: the mutant does not compile.
    """
    with _planted(mutant), mock.patch.object(kernels, "check_all", True):
        for name, run in _runs(mutant):
            try:
                run()
            except (AssertionError, TypeError, ValueError, KernelError) as error:
                return f"{name}: {_brief(error)}"
    return None


@contextmanager
def _planted(mutant: Mutant) -> Iterator[None]:
    """Every reader of the mutant's file sees the bug."""
    if mutant.launch is not None:
        yield
        return
    text_of = kernel_source.text_of
    if text_of(mutant.file).count(mutant.old) != 1:
        raise ValueError(f"not once in {mutant.file}: {mutant.old}")

    def planted(file: str) -> str:
        text = text_of(file)
        return text.replace(mutant.old, mutant.new) if file == mutant.file else text

    _forget()
    try:
        with mock.patch.object(kernel_source, "text_of", planted):
            yield
    finally:
        _forget()


def _forget() -> None:
    for function in (kernel_source.source, kernel_source.index, load):
        function.cache_clear()


def _runs(mutant: Mutant) -> Iterator[tuple[str, Callable[[], None]]]:
    """The tests of the mutant's file, with all their parameters: quick ones first."""
    tests = [
        (function.__name__, function)
        for file, _, test in (t.partition("::") for t in mutant.tests or (_tests_of(mutant),))
        for function in vars(import_module(f"tests.kernels.{file}")).values()
        if inspect.isfunction(function) and function.__name__.startswith(test or "test_")
    ]
    tests.sort(key=lambda test: "no_race" not in test[0])
    for name, function in tests:
        needs = set(inspect.signature(function).parameters)
        marks = [m for m in getattr(function, "pytestmark", ()) if m.name == "parametrize"]
        if needs - FIXTURES - {n for m in marks for n in _names(m)}:
            continue
        for given in itertools.product(*(_values(m) for m in marks)):
            parameters = {n: v for part in given for n, v in part.items()}
            seeds = {parameters["seed"]} if "seed" in needs else {s for s, _ in SCHEDULES}
            for seed, blocks in SCHEDULES:
                if seed in seeds:
                    K = MutantLauncher(mutant, seed, blocks)
                    yield name, partial(_run, function, needs & FIXTURES, K, parameters)


def _run(function: Any, fixtures: set[str], K: Any, parameters: dict[str, Any]) -> None:
    K.check = "launcher" in fixtures
    with pytest.MonkeyPatch.context() as monkeypatch:
        if "K" in fixtures:
            monkeypatch.setattr(NAMESPACES[np.ndarray], "launcher", K)
        given = {name: monkeypatch if name == "monkeypatch" else K for name in fixtures}
        function(**given, **parameters)


def _tests_of(mutant: Mutant) -> str:
    file = mutant.file if mutant.launch is None else kernel_source.kernel(mutant.file).file
    return f"test_{Path(file).stem}"


def _names(mark: Any) -> list[str]:
    names = mark.args[0]
    return names.replace(" ", "").split(",") if isinstance(names, str) else list(names)


def _values(mark: Any) -> list[dict[str, Any]]:
    names = _names(mark)
    values = [getattr(value, "values", value) for value in mark.args[1]]
    return [dict(zip(names, v if len(names) > 1 else [v])) for v in values]


def _brief(error: Exception) -> str:
    if not isinstance(error, KernelError):
        return "wrong result" if isinstance(error, AssertionError) else str(error)
    message = str(error).split("\n")[0]
    return re.sub(r"^\w+: | \(block [^)]*\)$|thread \d+ of ", "", message)


def table(mutants: list[Mutant]) -> str:
    """Every mutant and what caught it, in Markdown."""
    rows = ["| file | bug | caught by |", "| --- | --- | --- |"]
    for mutant in mutants:
        rows.append(f"| {mutant.file} | {mutant.bug} | {caught(mutant) or 'nothing'} |")
    return "\n".join(rows)
