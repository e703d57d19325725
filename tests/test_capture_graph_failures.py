"""What captured steps as CUDA graphs refuse, and errors that leave everything as it was.

On the stand-ins for CuPy and cuBLASLt, and on a GPU where there is one.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import optim
from tests import cupy_stand_in
from tests.capture_support import Trainer, where
from tests.cupy_stand_in import runtime
from tests.graph_support import Dropped, cupy, images, repeated

__all__ = ["cupy", "where"]  # fixtures


def state_of(model: Any, optimizer: Any) -> list[Any]:
    values = [p.detach().cpu().numpy() for p in model.parameters()]
    for p in model.parameters():
        values += [v.cpu().numpy().copy() for v in optimizer.state[p].values()]
    return [*values, gradlite.get_rng_state().numpy()]


class Training(Trainer):
    """A small model with dropout, and its captured step."""

    def __init__(self) -> None:
        gradlite.manual_seed(2)
        self.model = Dropped()
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.01)
        self.captured = gradlite.capture(self.step)


@pytest.mark.parametrize("at", [0, 3, -1])
def test_a_failure_during_capture_leaves_everything_as_it_was(
    where: str, cupy: Any, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    if where == "gpu":
        pytest.skip("the stand-in lets a launch fail")
    training = Training()
    x, y = images(np.random.default_rng(0))
    for _ in range(3):
        training.captured(x, y)
    before = state_of(training.model, training.optimizer)
    grads = [p.grad for p in training.model.parameters()]
    (recording,) = (r for kept in training.captured._kept.values() for r in kept)
    positions = [i for piece in recording.plan.pieces for i in piece if len(piece) > 1]
    call = recording.plan.calls[positions[at]]

    def fail(*args: Any, **kwargs: Any) -> None:
        cupy.cuda.get_current_stream().synchronize()  # which no capture outlives

    whole, call.function = call.function, fail
    for _ in range(2):
        with pytest.raises(gradlite.CaptureError, match="cannot be part of a CUDA graph: cudaErr"):
            training.captured(x, y)
    for a, b in zip(state_of(training.model, training.optimizer), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(p.grad is g for p, g in zip(training.model.parameters(), grads))
    assert gc.isenabled()
    home = recording.plan._home
    assert not home.stream.is_capturing()
    home.stream.synchronize()
    assert cupy.cuda.get_current_stream() is runtime.Stream.null
    call.function = whole
    expected = Training()
    for _ in range(3):
        expected.step(x, y)
    gradlite.set_rng_state(gradlite.tensor(before[-1], device="cpu"))
    losses = [expected.step(x, y).item() for _ in range(3)]
    gradlite.set_rng_state(gradlite.tensor(before[-1], device="cpu"))
    assert [training.captured(x, y).item() for _ in range(3)] == losses
    assert training.captured.replays == 3


def test_products_of_cupy_cannot_be_captured(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "gpu":
        pytest.skip("cuBLASLt is there")
    monkeypatch.setitem(sys.modules, "nvmath.bindings", None)
    captured = gradlite.capture(lambda x: x @ x)
    with pytest.raises(gradlite.CaptureError, match="matmul, cannot be part.*cuBLAS"):
        repeated(captured, gradlite.ones(2, 2))


def test_a_copy_to_the_host_is_refused() -> None:
    captured = gradlite.capture(lambda x: (x * 2).cpu())
    with pytest.raises(gradlite.CaptureError, match="a copy to the CPU reads a tensor's value"):
        repeated(captured, gradlite.ones(2))


def test_arrays_given_to_other_code_are_refused(cupy: Any) -> None:
    captured = gradlite.capture(lambda x: gradlite.asarray(np.ones(2)) + other(x.array))

    def other(array: Any) -> Any:
        return array.__cuda_array_interface__ and 1

    with pytest.raises(gradlite.CaptureError, match="code that is not gradlite's"):
        repeated(captured, gradlite.ones(2))


def test_a_step_that_uses_two_gpus_is_refused(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "gpu":
        pytest.skip("needs two GPUs")
    cupy_stand_in.install(monkeypatch, devices=2)
    x = gradlite.ones(2, device="cuda:0")
    captured = gradlite.capture(lambda x: x.to("cuda:1") + 1)
    with pytest.raises(gradlite.CaptureError, match="runs on one GPU, the current one: cuda:0"):
        repeated(captured, x)


def test_an_error_of_the_optimizer_between_graphs_leaves_the_stream_usable(cupy: Any) -> None:
    training = Training()
    x, y = images(np.random.default_rng(0))
    for _ in range(5):
        training.captured(x, y)
    before = state_of(training.model, training.optimizer)[:-1]
    training.optimizer.param_groups[0]["lr"] = "fast"
    with pytest.raises((TypeError, ValueError)):
        training.captured(x, y)
    training.optimizer.param_groups[0]["lr"] = 0.01
    for a, b in zip(state_of(training.model, training.optimizer), before):
        np.testing.assert_array_equal(a, b)
    assert training.captured(x, y).item() > 0
