"""A `GradScaler` inside CUDA graphs: the device unscales, skips, counts and adapts the scale."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.backends import kernels
from gradlite.nn import functional as F
from tests.capture_support import CALLS, Trainer, assert_same, batch, where
from tests.cupy_stand_in import arrays

__all__ = ["where"]  # which is used by every test

OPTIMIZERS: dict[str, Any] = {
    "fused": lambda params, lr: optim.AdamW(params, lr, fused=True),
    "capturable": lambda params, lr: optim.Adam(params, lr, capturable=True),
    "adam": optim.Adam,
    "nadam": optim.NAdam,
    "asgd": optim.ASGD,
    "sgd": optim.SGD,
    "momentum": lambda params, lr: optim.SGD(params, lr, momentum=0.9, dampening=0.5),
}


class Scaled(Trainer):
    """A training with a scaler, perhaps with clipping."""

    def __init__(self, make: Any = optim.Adam, clip: bool = False, **options: Any) -> None:
        super().__init__(make=make)
        options = {"init_scale": 8.0, "growth_interval": 3, **options}
        self.scaler = gradlite.amp.GradScaler("cuda", **options)
        self.clip = clip

    def step(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        self.scaler.scale(loss).backward()
        if self.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.3)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def steps(self) -> list[float]:
        state = self.optimizer.state_dict()["state"].values()
        return [float(entry["step"]) for entry in state if "step" in entry]


def scaled(*args: Any, **kwargs: Any) -> tuple[Scaled, Scaled, Any]:
    a, b = Scaled(*args, **kwargs), Scaled(*args, **kwargs)
    return a, b, gradlite.capture(b.step)


def data(i: int, overflows: bool, rows: int = 6) -> tuple[Any, Any]:
    x, y = batch(i, rows)
    return (x * float("inf") if overflows else x), y


def run(a: Scaled, b: Any, captured: Any, calls: int = CALLS, at: tuple[int, ...] = (5,)) -> None:
    for i in range(calls):
        x, y = data(i, i in at)
        np.testing.assert_array_equal(captured(x, y).item(), a.step(x, y).item())
    assert_same(a, b)
    assert a.scaler.state_dict() == b.scaler.state_dict()


def is_one_graph(captured: Any) -> bool:
    text = captured.explain()
    return len(captured._latest.plan.graphs) == 1 and "Python: GradScaler" not in text


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_scaled_step_is_one_graph(name: str, clip: bool) -> None:
    a, b, captured = scaled(OPTIMIZERS[name], clip)
    run(a, b, captured, calls=14, at=(5, 9, 10))
    assert captured.replays == 11 and is_one_graph(captured)
    assert a.steps() == b.steps() == [11.0] * len(a.steps())
    run(a, b, captured)
    assert captured.recordings == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_host_looks_at_nothing_and_sends_nothing(where: str, name: str) -> None:
    if where == "gpu":
        pytest.skip("the stand-in counts the calls of CuPy")
    a, b, captured = scaled(OPTIMIZERS[name], True)
    run(a, b, captured)
    x, y = batch(0)
    arrays.calls, arrays.reads = calls, reads = [], []
    try:
        with kernels.record() as launched:
            for _ in range(3):
                captured(x, y)
    finally:
        arrays.calls = arrays.reads = None
    assert launched == reads == []
    assert sorted(calls) == ["copy"] * 3 + ["setitem"] * 6


@pytest.mark.parametrize("name", ["adam", "nadam", "momentum"])
def test_the_state_is_what_the_device_has_counted(name: str) -> None:
    a, b, captured = scaled(OPTIMIZERS[name])
    for i in range(24):
        x, y = data(i, i in (5, 6, 11, 17))
        own = b.step if i % 7 == 6 else captured
        np.testing.assert_array_equal(own(x, y).item(), a.step(x, y).item())
        if i % 3 == 2:
            assert a.steps() == b.steps()
        if i % 5 == 4:
            other = copy.deepcopy(b.optimizer)
            states = other.state_dict()["state"], a.optimizer.state_dict()["state"]
            assert str(states[0]) == str(states[1])
    assert_same(a, b)
    assert captured.replays >= 16


def test_a_count_that_the_user_sets() -> None:
    a, b, captured = scaled()
    run(a, b, captured)
    for trainer in (a, b):
        trainer.optimizer.state[trainer.model[0].weight]["step"].fill_(1)
    # Held since before, while the device counts on.
    held = [t.optimizer.state[t.model[2].weight]["step"] for t in (a, b)]
    run(a, b, captured)
    for step in held:
        step.fill_(3)
    run(a, b, captured)
    assert a.steps() == b.steps() and captured.recordings == 1


def test_a_state_that_is_loaded() -> None:
    a, b, captured = scaled()
    run(a, b, captured)
    saved = [copy.deepcopy((t.optimizer.state_dict(), t.scaler.state_dict())) for t in (a, b)]
    run(a, b, captured)
    for trainer, (state, scaling) in zip((a, b), saved):
        trainer.optimizer.load_state_dict(state)
        trainer.scaler.load_state_dict(scaling)
    assert a.steps() == b.steps() == [CALLS - 1.0] * 4
    run(a, b, captured)
    assert a.steps() == b.steps() == [2 * CALLS - 2.0] * 4


def test_two_recordings_share_the_counts() -> None:
    a, b, captured = scaled(optim.NAdam)
    for i in range(30):
        x, y = data(i, i % 7 == 6, 4 + i // 2 % 2)
        np.testing.assert_array_equal(captured(x, y).item(), a.step(x, y).item())
    assert_same(a, b)
    assert captured.recordings == 2 and captured.replays == 24 and a.steps() == b.steps()


def test_settings_of_the_scaler_count() -> None:
    a, b, captured = scaled()
    run(a, b, captured)
    for trainer in (a, b):
        trainer.scaler.set_growth_factor(3.0)
        trainer.scaler.set_growth_interval(2)
    run(a, b, captured)
    for trainer in (a, b):
        trainer.scaler.update(1024.0)
    run(a, b, captured)
    assert captured.recordings == 2


def test_a_disabled_scaler_leaves_the_graph_whole() -> None:
    a, b, captured = scaled(enabled=False)
    run(a, b, captured, at=())
    assert is_one_graph(captured) and captured.replays == CALLS - 3


def test_two_optimizers_and_one_scaler() -> None:
    def make() -> tuple[Scaled, Callable[..., Any]]:
        trainer = Scaled()
        layers = trainer.model[0], trainer.model[2]
        optimizers = [OPTIMIZERS[n](m.parameters(), 0.1) for n, m in zip(("adam", "fused"), layers)]

        def step(x: Any, y: Any) -> Any:
            trainer.model.zero_grad()
            loss = F.cross_entropy(trainer.model(x), y)
            trainer.scaler.scale(loss).backward()
            for optimizer in optimizers:
                trainer.scaler.step(optimizer)
            trainer.scaler.update()
            return loss

        return trainer, step

    (a, eager), (b, plain) = make(), make()
    captured = gradlite.capture(plain)
    for i in range(12):
        x, y = data(i, i in (5, 8))
        np.testing.assert_array_equal(captured(x, y).item(), eager(x, y).item())
    assert_same(a, b)
    assert is_one_graph(captured) and captured.replays == 9


# ------------------------------------------------------------------------ between the graphs
def test_a_scale_that_is_updated_outside_of_the_step() -> None:
    def make() -> tuple[Scaled, Callable[..., Any]]:
        trainer = Scaled()

        def step(x: Any, y: Any) -> Any:
            trainer.optimizer.zero_grad()
            loss = F.cross_entropy(trainer.model(x), y)
            trainer.scaler.scale(loss).backward()
            trainer.scaler.step(trainer.optimizer)
            return loss

        return trainer, step

    (a, eager), (b, plain) = make(), make()
    captured = gradlite.capture(plain)
    for i in range(12):
        x, y = data(i, i in (5, 8))
        np.testing.assert_array_equal(captured(x, y).item(), eager(x, y).item())
        for trainer in (a, b):
            trainer.scaler.update()
    assert_same(a, b)
    assert captured.replays == 8 and a.scaler.state_dict() == b.scaler.state_dict()
    assert "GradScaler.step (between graphs, because update() is not" in captured.explain()


def test_an_optimizer_with_hooks_is_stepped_by_the_host() -> None:
    a, b, captured = scaled()
    called: list[Any] = []
    b.optimizer.register_step_post_hook(lambda *_: called.append(1))
    run(a, b, captured)
    assert len(called) == CALLS - 1 and captured.replays == CALLS - 4
    assert "its optimizer does not step in a graph: it has hooks" in captured.explain()


def test_hooks_that_come_later() -> None:
    a, b, captured = scaled()
    run(a, b, captured)
    called: list[Any] = []
    handle = b.optimizer.register_step_post_hook(lambda *_: called.append(1))
    run(a, b, captured)
    assert len(called) == CALLS - 1 and a.steps() == b.steps()
    handle.remove()
    run(a, b, captured)
    assert len(called) == CALLS - 1 and a.steps() == b.steps()
