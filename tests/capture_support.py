"""What the tests of captured steps share: the kinds of replays, small trainings, comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.capturing.native.build import available
from gradlite.nn import functional as F
from tests import cublaslt_stand_in, cupy_stand_in
from tests.cuda_on_cpu import compiler

Step = Callable[..., Any]
CALLS = 8


@pytest.fixture(
    params=["array calls", "compiled", "stand-in", pytest.param("gpu", marks=pytest.mark.cuda)],
    autouse=True,
)
def replays(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every test with every kind of replay; on a GPU with CUDA graphs."""
    kind: str = request.param
    if kind == "compiled" and not available():
        pytest.skip("no C++ compiler, or GRADLITE_NATIVE=0")
    monkeypatch.setenv("GRADLITE_NATIVE", "1" if kind == "compiled" else "0")
    if kind == "stand-in":
        if compiler() is None:
            pytest.skip("kernels run thread by thread on Linux with g++ alone")
        cupy_stand_in.install(monkeypatch)
        cublaslt_stand_in.install(monkeypatch)
    gradlite.set_default_device("cuda" if kind in ("stand-in", "gpu") else None)
    yield kind
    gradlite.set_default_device(None)


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.cuda)], autouse=True)
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every test with CUDA graphs: of the stand-in, and on a GPU."""
    if request.param == "stand-in":
        if compiler() is None:
            pytest.skip("kernels run thread by thread on Linux with g++ alone")
        cupy_stand_in.install(monkeypatch)
        cublaslt_stand_in.install(monkeypatch)
    gradlite.set_default_device("cuda")
    yield request.param
    gradlite.set_default_device(None)


def close(a: Any, b: Any) -> None:
    """The very same numbers, or nearly so from compiled code."""
    if available():
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    else:
        np.testing.assert_array_equal(a, b)


def batch(seed: int, rows: int = 6) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = gradlite.tensor(rng.standard_normal((rows, 4)).astype(np.float32))
    return x, gradlite.tensor(rng.integers(0, 3, rows))


def mlp(*middle: Any) -> Any:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *middle, nn.Linear(8, 3))


def norm() -> Any:
    return nn.BatchNorm1d(8)


def drop() -> Any:
    return nn.Dropout(0.5)


class Trainer:
    """A model, an optimizer and a step over them."""

    def __init__(self, *middle: Any, lr: float = 0.05, make: Any = optim.Adam) -> None:
        gradlite.manual_seed(7)
        self.model = mlp(*[layer() for layer in middle])
        self.optimizer = make(self.model.parameters(), lr=lr)

    def step(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def parameters(self) -> list[np.ndarray[Any, Any]]:
        values = [*self.model.parameters(), *self.model.buffers()]
        return [v.detach().cpu().numpy().copy() for v in values]


def assert_same(a: Trainer, b: Trainer) -> None:
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        close(x, y)


def pair(*args: Any, **kwargs: Any) -> tuple[Trainer, Trainer, Step]:
    """Two equal trainers and the captured step of the second."""
    a, b = Trainer(*args, **kwargs), Trainer(*args, **kwargs)
    return a, b, gradlite.capture(b.step)


def run(a: Trainer, b: Trainer, captured: Step, calls: int = CALLS, start: int = 0) -> None:
    for i in range(start, start + calls):
        gradlite.manual_seed(i)
        expected = a.step(*batch(i))
        gradlite.manual_seed(i)
        close(captured(*batch(i)).item(), expected.item())
    assert_same(a, b)


def assert_change_counts(step: Step, change: Callable[[], Any], calls: int = 6) -> None:
    """A captured step gives what the step gives, with replays before a change and after it."""
    captured = gradlite.capture(step, native=False)
    x = gradlite.tensor([1.5, -2.0])
    before = step(x).tolist()
    for _ in range(calls):
        assert captured(x).tolist() == before
    replays = captured.replays
    assert replays >= 3
    change()
    after = step(x).tolist()
    assert after != before
    for _ in range(calls):
        assert captured(x).tolist() == after
    assert captured.replays > replays
