"""Averages of models inside CUDA graphs: a replay counts the models that there are by then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.nn import functional as F
from gradlite.optim import SGD
from gradlite.optim.swa_utils import (
    AveragedModel,
    get_ema_avg_fn,
    get_ema_multi_avg_fn,
    get_swa_avg_fn,
    get_swa_multi_avg_fn,
)
from tests.capture_support import CALLS, where
from tests.cupy_stand_in import arrays

__all__ = ["where"]  # which is used by every test

WAYS: dict[str, Callable[[], dict[str, Any]]] = {
    "mean": dict,
    "mean, all at once": lambda: {"multi_avg_fn": get_swa_multi_avg_fn()},
    "mean, one by one": lambda: {"avg_fn": get_swa_avg_fn()},
    "exponential, all at once": lambda: {"multi_avg_fn": get_ema_multi_avg_fn(0.7)},
    "exponential, one by one": lambda: {"avg_fn": get_ema_avg_fn(0.7)},
}


class Averaged:
    """A small training whose steps end with an average."""

    def __init__(self, counts_on_gpu: bool = False, **options: Any) -> None:
        gradlite.manual_seed(3)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.average = AveragedModel(self.model, **options)
        self.average.n_averaged = gradlite.tensor(0, device="cuda" if counts_on_gpu else "cpu")
        self.optimizer = SGD(self.model.parameters(), lr=0.1)

    def step(self, x: Any) -> Any:
        self.optimizer.zero_grad()
        loss = F.mse_loss(self.model(x), x[:, :2])
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.model)
        return loss

    def state(self) -> dict[str, Any]:
        return {k: v.cpu().numpy() for k, v in self.average.state_dict().items()}


def follow(
    first: Averaged, second: Averaged, between: Callable[[Averaged, int], None] | None = None
) -> Any:
    """Steps as they are and captured ones, which leave the same averages; what was captured."""
    captured = gradlite.capture(second.step)
    for i in range(CALLS):
        if between is not None:
            between(first, i)
            between(second, i)
        x = gradlite.tensor(np.random.default_rng(i).standard_normal((5, 3)).astype(np.float32))
        assert captured(x).item() == first.step(x).item()
        a, b = first.state(), second.state()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=f"{name}, call {i}")
    return captured


def is_python(captured: Any) -> bool:
    """Whether a replay calls `update_parameters`."""
    return "Python: AveragedModel.update_parameters" in captured.explain()


@pytest.mark.parametrize("counts_on_gpu", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_an_average_is_part_of_the_graph(way: str, counts_on_gpu: bool, where: str) -> None:
    first, second = (Averaged(counts_on_gpu, **WAYS[way]()) for _ in range(2))
    captured = follow(first, second)
    assert captured.replays == CALLS - 3 and not is_python(captured)
    assert len(captured._latest.plan.graphs) == 1
    assert second.average.n_averaged.item() == CALLS
    if where == "stand-in":
        x = gradlite.zeros(5, 3)
        arrays.calls, arrays.reads = calls, reads = [], []
        try:
            captured(x)
        finally:
            arrays.calls = arrays.reads = None
        # The input, the loss; no copy from the host, and nothing that waits for the device.
        assert calls == ["setitem", "copy"] and not reads


@pytest.mark.parametrize("counts_on_gpu", [False, True])
def test_a_replay_counts_from_what_the_program_has_set(counts_on_gpu: bool) -> None:
    def between(trained: Averaged, call: int) -> None:
        if call == 4:
            trained.average.n_averaged.fill_(1)
        if call == 6:
            state = trained.average.state_dict()
            state["n_averaged"] = gradlite.tensor(9)
            trained.average.load_state_dict(state)

    first, second = Averaged(counts_on_gpu), Averaged(counts_on_gpu)
    captured = follow(first, second, between)
    assert captured.replays == CALLS - 3 and second.average.n_averaged.item() == 9 + CALLS - 6


@pytest.mark.parametrize("counts_on_gpu", [False, True])
def test_an_average_that_starts_anew_copies_the_model(counts_on_gpu: bool) -> None:
    def between(trained: Averaged, call: int) -> None:
        if call == 5:
            trained.average.n_averaged.zero_()

    first, second = Averaged(counts_on_gpu), Averaged(counts_on_gpu)
    captured = follow(first, second, between)
    assert second.average.n_averaged.item() == CALLS - 5 and captured.replays >= 2


def test_another_averaging_function_is_seen() -> None:
    def between(trained: Averaged, call: int) -> None:
        if call == 5:
            trained.average.multi_avg_fn = get_ema_multi_avg_fn(0.2)

    follow(Averaged(), Averaged(), between)


def test_what_a_graph_cannot_hold_is_python() -> None:
    def options() -> dict[str, Any]:
        weights = iter([1.0, 0.5] * 3 * CALLS)  # of which a graph would know one

        def own(averaged: Any, current: Any, count: Any) -> Any:
            return averaged + (current - averaged) * next(weights)

        return {"avg_fn": own}

    captured = follow(Averaged(**options()), Averaged(**options()))
    assert is_python(captured) and "its averaging function may do anything" in captured.explain()
    captured = follow(Averaged(use_buffers=True), Averaged(use_buffers=True))
    assert is_python(captured) and "it averages integers" in captured.explain()
