"""The launchers that the tests of kernels run on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gradlite.backends import cuda, kernels, native
from gradlite.ops import natively
from gradlite.ops.namespaces import NAMESPACES
from tests.cuda_on_cpu import compiler
from tests.kernels.support import ThreadsLauncher


@pytest.fixture(autouse=True)
def rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """An op's forward and its rule, which kernels are compared with, run without any."""
    monkeypatch.delitem(natively.LAUNCHERS, np, raising=False)


@pytest.fixture(params=["cpu_threads", "native", pytest.param("cuda", marks=pytest.mark.cuda)])
def launcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A launcher: on fibers, on the CPU, on a GPU. Every launch is checked with its declaration."""
    monkeypatch.setattr(kernels, "check_all", True)
    if request.param == "cuda":
        return kernels.CudaLauncher(cuda.module())
    if request.param == "native":
        found = native.launcher()
        if found is None:
            pytest.skip("kernels cannot be compiled natively here")
        return found
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    return ThreadsLauncher()


@pytest.fixture
def wanted(launcher: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The launcher, which ops use even where their rules are faster."""
    monkeypatch.setattr(launcher, "serial", False)
    return launcher


@pytest.fixture(params=[1 << 30, 2], ids=["all blocks", "two blocks"])
def threads(request: pytest.FixtureRequest) -> ThreadsLauncher:
    """A launcher on fibers, whose ``check`` and ``seed`` the test sets."""
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    return ThreadsLauncher(blocks=request.param)


@pytest.fixture
def native_kernels() -> Iterator[None]:
    """NumPy's arrays run with kernels."""
    found = native.launcher()
    if found is None:
        pytest.skip("kernels cannot be compiled natively here")
    before = NAMESPACES[np.ndarray].launcher
    NAMESPACES[np.ndarray].use(found)
    yield
    NAMESPACES[np.ndarray].use(before)
