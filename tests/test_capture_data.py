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
        self.array = np.ones(3)
        self.shared = gradlite.from_numpy(self.array)

    def update(self, x: Any) -> Any:
        self.optimizer.zero_grad()
        loss = F.mse_loss(self.model(x), x[:, :2])
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self) -> list[Any]:
        found = [*self.model.parameters(), *self.average.parameters()]
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


# Each gives tensors other data.
def averaged(t: Training, x: Any) -> Any:
    loss = t.update(x)
    for mean, p in zip(t.average.parameters(), t.model.parameters(), strict=True):
        mean.data = mean.data * 0.9 + p.data * 0.1
    return loss


def sharpness_aware(t: Training, x: Any) -> Any:
    """A climb, and an update with the gradient that is there, from where the climb began."""
    t.optimizer.zero_grad()
    loss = F.mse_loss(t.model(x), x[:, :2])
    loss.backward()
    with gradlite.no_grad():
        for p in t.model.parameters():
            t.kept[p] = p.data.clone()
            p.add_(p.grad, alpha=0.05)
    t.optimizer.zero_grad()
    F.mse_loss(t.model(x), x[:, :2]).backward()
    for p in t.model.parameters():
        p.data = t.kept[p]
    t.optimizer.step()
    return loss


def evolved(t: Training, x: Any) -> Any:
    """Parameters that are parts of a vector, one after another."""
    params = list(t.model.parameters())
    start = nn.utils.parameters_to_vector(params).detach()
    losses = []
    for k in range(3):
        nn.utils.vector_to_parameters(start + 0.1 * (k - 1) * start.cos(), params)
        losses.append(F.mse_loss(t.model(x), x[:, :2]))
    nn.utils.vector_to_parameters(start * losses[0].detach().exp().clamp(max=1.5), params)
    return t.update(x) + losses[2].detach()


def edited_afterwards(t: Training, x: Any) -> Any:
    """The values and the tensor are one from then on."""
    weight, values = t.model[0].weight, t.model[0].weight.detach() * 0.5
    weight.data = values
    values[0] += x[0]
    loss = t.update(x)
    return loss + values.sum()


def constant(t: Training, x: Any) -> Any:
    t.model[0].bias.data = gradlite.full((4,), 0.25)
    return t.update(x)


def a_view_of_it_is_returned(t: Training, x: Any) -> Any:
    loss = t.update(x)
    t.average[0].weight.data = t.model[0].weight.detach() * 2
    return loss + t.average[0].weight.data.view(-1)[1:].sum()


def gradients(t: Training, x: Any) -> Any:
    """Those that are there from the last call."""
    t.optimizer.zero_grad(set_to_none=False)
    loss = F.mse_loss(t.model(x), x[:, :2])
    loss.backward()
    for p in t.model.parameters():
        p.grad.data = p.grad.data * 2
    t.optimizer.step()
    return loss


def halved(t: Training, x: Any) -> Any:
    """What follows goes by the new values, also where Python code reads them."""
    loss = t.update(x)
    for p in t.model.parameters():
        p.data = p.data.clone()
        p.data = p.data / 2
    t.kept.setdefault("average", optim.swa_utils.AveragedModel(t.model))
    t.kept["average"].update_parameters(t.model)
    return loss + sum(p.sum() for p in t.kept["average"].parameters()).detach()


OTHER_DATA = [
    gradients,
    halved,
    averaged,
    sharpness_aware,
    evolved,
    edited_afterwards,
    constant,
    a_view_of_it_is_returned,
]


def follow(step: Callable[[Training, Any], Any]) -> Training:
    """Train as it is and captured, with the same numbers; the captured training."""
    eager, t = Training(), Training()
    captured = gradlite.capture(lambda x: step(t, x))
    rng = np.random.default_rng(1)
    for _ in range(CALLS):
        x = gradlite.tensor(rng.standard_normal((5, 3)).astype(np.float32))
        close(step(eager, x).item(), captured(x).item())
        for ours, theirs in zip(t.state(), eager.state(), strict=True):
            close(ours, theirs)
    assert captured.replays == CALLS - 3
    return t


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


@pytest.mark.parametrize("step", OTHER_DATA)
def test_other_data(step: Callable[[Training, Any], Any]) -> None:
    t = follow(step)
    for p, kept in t.kept.items():
        assert p == "average" or np.shares_memory(p.array, kept.array)


def old_values(t: Training, x: Any) -> Any:
    before = t.mask.data
    t.mask.data = t.mask * 2
    return (before * x).sum()


def old_values_are_returned(t: Training, x: Any) -> Any:
    before = t.mask.detach()
    t.mask.data = t.mask * 2
    return before


def an_input(t: Training, x: Any) -> Any:
    t.mask.data = x[:1]
    return t.mask.sum()


def two_share_it(t: Training, x: Any) -> Any:
    values = t.mask * 2
    t.mask.data = values
    t.model[0].weight.data = values.expand(4, 3)
    return values.sum()


def more_than_it_takes(t: Training, x: Any) -> Any:
    values = x[:2] * 2
    t.mask.data = values[:1]
    return values.sum()


REFUSED = [
    old_values,
    old_values_are_returned,
    an_input,
    two_share_it,
    more_than_it_takes,
]


@pytest.mark.parametrize("step", REFUSED)
def test_what_a_replay_would_not_do(step: Callable[[Training, Any], Any]) -> None:
    t = Training()
    captured = gradlite.capture(lambda x: step(t, x))
    with pytest.raises(gradlite.CaptureError, match=r"other memory|replaces|shares memory"):
        for _ in range(4):
            captured(gradlite.ones(5, 3))


@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_something_else_that_shares_the_memory(kind: str) -> None:
    """And keeps what was there."""
    t = Training()
    whole = gradlite.ones(2, 3)

    def step(x: Any) -> Any:
        if kind == "array":
            t.shared.data = t.shared * 2
            return t.shared.sum() + gradlite.from_numpy(t.array * 1).sum()
        t.mask.data = t.mask * 2
        return t.mask.sum() + whole.sum()

    captured = gradlite.capture(step)
    with pytest.raises(gradlite.CaptureError, match=r"other memory|replaces|shares memory"):
        for _ in range(4):
            t.mask.data, t.shared.data = whole[:1], gradlite.from_numpy(t.array)
            captured(gradlite.ones(5, 3))


@pytest.mark.parametrize("calls", [1, 2, 6])
def test_a_program_that_keeps_what_was_there_still_has_it(calls: int) -> None:
    t = Training()

    def step(x: Any) -> Any:
        t.mask.data = t.mask * 2
        return t.mask.sum() + x.sum()

    lazy, unfinished = nn.LazyLinear(3), gradlite.Tensor.__new__(gradlite.Tensor)  # have no data
    captured = gradlite.capture(step)
    for _ in range(calls):
        captured(gradlite.ones(3))
    del lazy, unfinished
    kept = t.mask.data
    values = kept.tolist()
    with pytest.raises(gradlite.CaptureError, match="another tensor shares memory"):
        for _ in range(4):
            captured(gradlite.ones(3))
    assert kept.tolist() == values and kept is not t.mask
