"""Fixtures that every test runs under: seeds, no leaked global state, CUDA tests only with CUDA."""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gradlite.backends import kernels
from tests.known_differences import KNOWN
from tests.library import T, seed

SEED = 20240229
PASSED = pytest.StashKey[bool]()
SOME = 200  # tests
_ended = itertools.count(1)
_sessions: list[pytest.Config] = []  # the first, and those that are within its tests


def pytest_configure(config: pytest.Config) -> None:
    _sessions.append(config)
    config.addinivalue_line("markers", "cuda: needs a CUDA GPU")
    # Every launch, not the first of each kind: an array of another dtype would be memory overrun.
    kernels.check_all = True


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Any:
    """Collects tens of thousands of tests, and keeps the garbage collector from going over them.

    They live as long as the process: each collection in the tests would take a third of a second.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        return (yield)
    finally:
        if enabled:
            gc.enable()
        if len(_sessions) == 1:  # one within a test would freeze what is garbage after it
            gc.collect()
            gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    _sessions.remove(config)


def pytest_runtest_logfinish() -> None:
    """Keep the collector from going over the reports of all tests so far, which pytest keeps.

    A captured CUDA graph collects garbage: in the end that would take a third of a second.
    """
    if len(_sessions) == 1 and next(_ended) % SOME == 0:
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        reason = KNOWN.get(item.nodeid.removeprefix("tests/"))
        if reason is not None and T.__name__ == "gradlite":
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def cuda_is_available() -> bool:
    cuda = getattr(T, "cuda", None)
    return bool(cuda is not None and cuda.is_available())


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") is not None and not cuda_is_available():
        pytest.skip("needs a CUDA GPU: cuda.is_available() is False")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


def libraries() -> list[Any]:
    """The library under test, and PyTorch when a test has loaded it as the oracle."""
    torch = sys.modules.get("torch")
    return [T] if torch is None or torch is T else [T, torch]


def global_state(library: Any) -> dict[str, Any]:
    """Everything a test could leave behind that changes the result of a later one."""
    state = {
        "grad mode": library.is_grad_enabled(),
        "inference mode": library.is_inference_mode_enabled(),
        "default dtype": library.get_default_dtype(),
        "anomaly mode": library.is_anomaly_enabled(),
        "determinism": library.are_deterministic_algorithms_enabled(),
        "printing": printing(library),
    }
    if hasattr(library, "get_default_device"):
        state["default device"] = str(library.get_default_device())
    return state


def printing(library: Any) -> str:
    """How tensors are printed: the text of one, or PyTorch's options, which is much faster."""
    if library.__name__ == "torch":
        return repr(vars(library._tensor_str.PRINT_OPTS))
    return repr(library.tensor([1 / 3, 1e6]))


def restore(library: Any) -> None:
    if library.is_inference_mode_enabled():
        library.inference_mode(False).__enter__()
    library.set_grad_enabled(True)
    library.set_default_dtype(library.float32)
    library.set_anomaly_enabled(False)
    library.use_deterministic_algorithms(False)
    library.set_printoptions(profile="default")
    if hasattr(library, "set_default_device"):
        library.set_default_device(None)


@pytest.fixture(autouse=True)
def clean_global_state() -> Iterator[None]:
    """Seeds every generator, and fails the test that leaves a mode or a default behind."""
    for library in libraries():
        seed(library, SEED)
    numpy_state = np.random.get_state()[1].tobytes()
    before = {library.__name__: global_state(library) for library in libraries()}
    yield
    leaks = []
    for library in libraries():
        after = global_state(library)
        for name, value in before.get(library.__name__, after).items():
            if value != after[name]:
                leaks.append(f"{library.__name__}: {name} was {value!r}, is now {after[name]!r}")
                restore(library)
    if np.random.get_state()[1].tobytes() != numpy_state:
        leaks.append(
            "NumPy's global generator was used or seeded: draw from numpy.random.default_rng(seed)"
        )
    if not gc.isenabled():
        gc.enable()
        leaks.append("the garbage collector was left disabled")
    assert not leaks, "this test leaks global state: " + "; ".join(leaks)


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Garbage collection off: what dies in the test dies by reference counting."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
