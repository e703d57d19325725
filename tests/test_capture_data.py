"""Captured steps that assign ``tensor.data``, as they are and replayed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.nn import functional as F
from tests.capture_support import close, replays

__all__ = ["replays"]  # which is used by every test

CALLS = 9
Step = Callable[[Any], Any]


class Training:
    """A model, an average of it, and an optimizer."""

    def __init__(self) -> None:
        gradlite.manual_seed(7)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.mask = gradlite.tensor([[1.0, 0.0, 1.0]])
        self.kept: dict[Any, Any] = {}

    def update(self, x: Any) -> Any:
        self.optimizer.zero_grad()
        loss = F.mse_loss(self.model(x), x[:, :2])
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self) -> list[Any]:
        found = [*self.model.parameters(), *self.average.parameters(), *self.kept.values()]
        return [t.detach().cpu().numpy().copy() for t in found]


# Each leaves a tensor where it is.
def masked(t: Training, x: Any) -> Any:
    t.model[0].weight.data *= t.mask
    return t.update(x)


def averaged_in_place(t: Training, x: Any) -> Any:
    loss = t.update(x)
    for mean, p in zip(t.average.parameters(), t.model.parameters(), strict=True):
        mean.data = mean.data.mul_(0.9).add_(p.data, alpha=0.1)
    return loss


IN_PLACE = [masked, averaged_in_place]


def follow(step: Callable[[Training, Any], Any]) -> Training:
    """Train as it is and captured, with the same numbers; the captured training."""
    trainings = Training(), Training()
    captured = gradlite.capture(lambda x: step(trainings[1], x))
    rng = np.random.default_rng(1)
    for _ in range(CALLS):
        x = gradlite.tensor(rng.standard_normal((5, 3)).astype(np.float32))
        close(step(trainings[0], x).item(), captured(x).item())
        for ours, theirs in zip(trainings[1].state(), trainings[0].state(), strict=True):
            close(ours, theirs)
    assert captured.replays == CALLS - 3
    return trainings[1]


@pytest.mark.parametrize("step", IN_PLACE)
def test_the_same_memory_again(step: Callable[[Training, Any], Any]) -> None:
    follow(step)


def test_the_same_memory_again_needs_no_other_recording() -> None:
    weight = gradlite.ones(3)
    captured = gradlite.capture(lambda x: x * weight)
    for i in range(8):
        weight.data *= 2
        assert captured(gradlite.ones(3)).tolist() == [2 ** (i + 1)] * 3
    assert captured.replays == 5 and captured.recordings == 1
