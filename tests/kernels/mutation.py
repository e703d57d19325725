"""Kernels with a planted bug, run through the tests of kernels: which of them notice?

A mutant is caught when a test of its file fails: a wrong result, a fault that the runner finds, or
arguments that do not fit. Pytest itself runs the tests, thread by thread, until one fails; those
that look for races come first, and before all of them the one that noticed it the last time, which
spares compiling what other tests need. Which ones these were is in noticed.json:

    python -m tests.kernels.mutation

writes it anew, and prints every mutant with what caught it. Only time depends on it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest

from gradlite.backends import kernel_source
from gradlite.backends.kernel_source import Kernel
from tests.cuda_on_cpu import KernelError, load
from tests.kernels import conftest
from tests.kernels.support import ThreadsLauncher

HERE = Path(__file__).parent
NOTICED = HERE / "noticed.json"
CAUGHT = (AssertionError, TypeError, ValueError, KernelError, pytest.fail.Exception)
# Without what collects garbage several times at the end of each session.
OPTIONS = (
    "-x -s -p no:terminal -p no:faulthandler -p no:cacheprovider "
    "-p no:unraisableexception -p no:threadexception"
).split()


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
        old: the text that is replaced; it stands in the file once, whatever its indentation.
        new: what it is replaced with.
        tests: names of test files, or of tests as ``file::test`` or how these begin, when they are
            not those of the kernel file: for what is shared, and where only a late test can notice.
        launch: in the place of a text, what the launch is replaced with.
    """

    bug: str
    file: str
    old: str = ""
    new: str = ""
    tests: tuple[str, ...] = ()
    launch: Callable[[Launch], Launch] | None = None


def swapped(launch: Launch, i: int, j: int) -> Launch:
    """Two arguments of a launch change places."""
    arguments = list(launch.arguments)
    arguments[i], arguments[j] = arguments[j], arguments[i]
    return launch._replace(arguments=tuple(arguments))


class MutantLauncher(ThreadsLauncher):
    """A launcher that compiles one kernel at a time, and may launch it in another way."""

    mutant: Mutant

    def _function(self, declared: Kernel, suffix: str) -> Any:
        name = f"{declared.name}_{suffix}"
        module = load(declared.file, suffix, check=self.check, only=name, places=False)
        return module.get_function(name)

    def _load(self, declared: Kernel, dtype: Any) -> Any:
        run, change = super()._load(declared, dtype), self.mutant.launch
        if change is None or declared.name != self.mutant.file:
            return run
        return lambda *launch: run(*change(Launch(*launch)))


class Tests:
    """A plugin of pytest: which tests are run, on which launcher, and what the first failure says.

    Args:
        mutant: the planted bug.
        tests: the beginnings of the names of tests, "" for all, by file.

    Attributes:
        failure: the first test that failed, as in noticed.json, and what it raised.
    """

    def __init__(self, mutant: Mutant, tests: dict[str, str]) -> None:
        self.mutant, self.tests = mutant, tests
        self.check, self.ran = True, 0
        self.failure: tuple[str, BaseException] | None = None
        self.lacks_torch = False  # whether a test was skipped because PyTorch is not there

    def launcher(self, **how: Any) -> ThreadsLauncher:
        made = MutantLauncher(**{"check": self.check, "seed": 1, **how})
        made.mutant = self.mutant
        return made

    def pytest_configure(self, config: pytest.Config) -> None:
        config.option.tbstyle = "no"  # nobody reads the source of what fails

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(self, collector: pytest.Collector, name: str) -> Any:
        begins = self.tests[collector.path.stem]
        return None if name.startswith(begins.partition("[")[0]) else []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [
            item
            for item in items
            if item.name.startswith(self.tests[item.path.stem])
            and not re.search(r"\[(?:.*-)?(?:native|cuda)\b", item.name)
        ]
        items.sort(key=lambda item: "no_race" not in item.name)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: Any) -> None:
        # Elsewhere only a test itself can say where the pointers in tables lead.
        self.check = "launcher" in item.fixturenames and "K" not in item.fixturenames

    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> None:
        self.ran += call.when == "call"
        if not call.excinfo:
            return
        if call.excinfo.errisinstance(pytest.skip.Exception):
            needs = re.search("torch|oracle", str(call.excinfo.value))
            self.lacks_torch |= needs is not None and find_spec("torch") is None
        else:
            name = f"{item.path.stem}::{item.name}"
            self.failure = self.failure or (name, call.excinfo.value)


def caught(mutant: Mutant) -> str | None:
    """What the first test that notices says, or None when none does.

    Skips the test that asks where it takes a comparison with PyTorch to notice, which is not there.

    Raises:
        ValueError: the text is not in the file, or not once, or the mutant has no tests.
        RuntimeError: the mutant does not compile.
    """
    failure = first_failure(mutant)
    return None if failure is None else _said(*failure)


def first_failure(mutant: Mutant) -> tuple[str, BaseException] | None:
    """The test that notices a mutant, and what it raises: the one of the last time, or the first.

    Raises:
        as `caught`.
    """
    tests = mutant.tests or (_tests_of(mutant),)
    last = noticed().get(key_of(mutant))
    with _planted(mutant):
        plugin = _run(mutant, (last,)) if last else None
        if plugin is None or plugin.failure is None:
            plugin = _run(mutant, tests)
    if plugin.failure is None:
        if not plugin.ran:
            raise ValueError(f"no test ran of {', '.join(tests)}")
        if plugin.lacks_torch:
            pytest.skip("the tests that notice it compare with PyTorch, which is not installed")
        return None
    if isinstance(plugin.failure[1], CAUGHT):
        return plugin.failure
    raise plugin.failure[1]


def _run(mutant: Mutant, tests: tuple[str, ...]) -> Tests:
    by_file = dict(test.partition("::")[::2] for test in tests)
    plugin = Tests(mutant, by_file)
    with mock.patch.object(conftest, "ThreadsLauncher", plugin.launcher):
        pytest.main([*OPTIONS, *(f"{HERE / name}.py" for name in by_file)], plugins=[plugin])
    return plugin


@cache
def noticed() -> dict[str, str]:
    """The test that noticed each mutant the last time."""
    return json.loads(NOTICED.read_text(encoding="utf-8")) if NOTICED.exists() else {}


def key_of(mutant: Mutant) -> str:
    """Where `noticed` has a mutant."""
    return f"{mutant.file}: {mutant.bug}"


@contextmanager
def _planted(mutant: Mutant) -> Iterator[None]:
    """Every reader of the mutant's file sees the bug."""
    if mutant.launch is not None:
        yield
        return
    text_of = kernel_source.text_of
    old = re.compile(r"\s+".join(map(re.escape, mutant.old.split())))
    if len(old.findall(text_of(mutant.file))) != 1:
        raise ValueError(f"not once in {mutant.file}: {mutant.old}")

    def planted(file: str) -> str:
        text = text_of(file)
        return old.sub(lambda _: mutant.new, text) if file == mutant.file else text

    _forget()
    try:
        with mock.patch.object(kernel_source, "text_of", planted):
            yield
    finally:
        _forget()


def _forget() -> None:
    for function in (kernel_source.source, kernel_source.index, load):
        function.cache_clear()


def _tests_of(mutant: Mutant) -> str:
    file = mutant.file if mutant.launch is None else kernel_source.kernel(mutant.file).file
    return f"test_{Path(file).stem}"


def _said(test: str, error: BaseException) -> str:
    return f"{test.partition('::')[2].partition('[')[0]}: {_brief(error)}"


def _brief(error: BaseException) -> str:
    if isinstance(error, (AssertionError, pytest.fail.Exception)):
        return "wrong result"
    if not isinstance(error, KernelError):
        return str(error)
    message = str(error).split("\n")[0]
    return re.sub(r"^\w+: | \(block [^)]*\)$|thread \d+ of ", "", message)


def main() -> None:
    """Print every mutant and what caught it, in Markdown, and note the tests that did."""
    from tests.kernels.mutants import MUTANTS

    noticed().clear()
    rows, found = ["| file | bug | caught by |", "| --- | --- | --- |"], {}
    for mutant in MUTANTS:
        failure = first_failure(mutant)
        if failure is not None:
            found[key_of(mutant)] = failure[0]
        by = None if failure is None else _said(*failure)
        rows.append(f"| {mutant.file} | {mutant.bug} | {by or 'nothing'} |")
    made = NOTICED.with_suffix(".new")
    made.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(made, NOTICED)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
