"""Gradients that captured steps find when they begin, drop, and leave to the next call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from tests.capture_support import CALLS, close, replays

__all__ = ["replays"]  # which is used by every test

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "SGD": lambda params: optim.SGD(params, lr=0.01, momentum=0.5),
    "Adam": lambda params: optim.Adam(params, lr=0.01),
    "RMSprop": lambda params: optim.RMSprop(params, lr=0.01),
}


class Wave:
    """A parameter, a large intermediate result beside it, and an optimizer."""

    def __init__(self, name: str, *more: Any) -> None:
        self.weight = nn.Parameter(gradlite.tensor([[0.5, -1.2, 0.3], [2.0, 0.1, -0.7]]))
        self.optimizer = OPTIMIZERS[name]([self.weight, *more])

    def learn(self, x: Any) -> Any:
        hidden = ((self.weight * x).sin() * 2).tanh()
        loss = (hidden * hidden).sum()
        loss.backward()
        return loss


def same(make: Callable[[], tuple[Wave, Callable[..., Any]]], least: int = 3) -> None:
    """A step and the captured one go the same way, and the gradients are the same in between."""
    one, step = make()
    other, inner = make()
    captured = gradlite.capture(inner)
    for i in range(CALLS):
        x = gradlite.tensor(np.float32(0.2 * i) + 1)
        close(captured(x).tolist(), step(x).tolist())
        close(other.weight.tolist(), one.weight.tolist())
        assert (one.weight.grad is None) == (other.weight.grad is None)
        if one.weight.grad is not None:
            close(other.weight.grad.tolist(), one.weight.grad.tolist())
    assert captured.replays >= least


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_that_finds_no_gradients_does_nothing(name: str) -> None:
    def make() -> tuple[Wave, Callable[..., Any]]:
        wave = Wave(name)

        def step(x: Any) -> Any:
            wave.optimizer.zero_grad()
            wave.optimizer.step()
            return wave.learn(x)

        return wave, step

    same(make)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_gradients_of_the_call_before_are_those_of_the_update_that_comes_first(
    name: str,
) -> None:
    def make() -> tuple[Wave, Callable[..., Any]]:
        wave = Wave(name)

        def step(x: Any) -> Any:
            wave.optimizer.step()
            wave.optimizer.zero_grad()
            return wave.learn(x)

        return wave, step

    same(make)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_work_before_the_update_does_not_write_over_the_gradients_of_the_call_before(
    name: str,
) -> None:
    def make() -> tuple[Wave, Callable[..., Any]]:
        wave = Wave(name)

        def step(x: Any) -> Any:
            before = ((wave.weight.detach() * x).exp() * 2 - x).tanh() + 1
            wave.optimizer.step()
            wave.optimizer.zero_grad()
            return wave.learn(x * before.mean())

        return wave, step

    same(make)


def test_gradients_of_the_call_before_are_read_by_ops() -> None:
    def make() -> tuple[Wave, Callable[..., Any]]:
        wave = Wave("SGD")
        wave.weight.grad = gradlite.ones(2, 3)

        def step(x: Any) -> Any:
            largest = wave.weight.grad.abs().max()
            nn.utils.clip_grad_norm_([wave.weight], 0.1)
            wave.optimizer.step()
            wave.optimizer.zero_grad()
            return wave.learn(x) + largest

        return wave, step

    same(make)


def test_a_gradient_dropped_between_calls_is_no_gradient() -> None:
    one, other = Wave("SGD"), Wave("SGD")

    def step_of(wave: Wave) -> Callable[..., Any]:
        def step(x: Any) -> Any:
            wave.optimizer.step()
            wave.optimizer.zero_grad()
            return wave.learn(x)

        return step

    step, captured = step_of(one), gradlite.capture(step_of(other))
    for i in range(2 * CALLS):
        if i % 5 == 4:
            one.weight.grad = other.weight.grad = None
        elif i % 5 == 2:
            one.weight.grad, other.weight.grad = gradlite.ones(2, 3), gradlite.ones(2, 3)
        x = gradlite.tensor(np.float32(0.2 * i) + 1)
        close(captured(x).item(), step(x).item())
        close(other.weight.tolist(), one.weight.tolist())
    assert captured.replays >= 3


def test_a_parameter_without_a_gradient_that_gets_one_between_calls_is_updated() -> None:
    waves, idle = [], []
    for _ in range(2):
        idle.append(nn.Parameter(gradlite.ones(2)))
        waves.append(Wave("SGD", idle[-1]))

    def step_of(wave: Wave) -> Callable[..., Any]:
        def step(x: Any) -> Any:
            wave.weight.grad = None
            loss = wave.learn(x)
            wave.optimizer.step()
            return loss

        return step

    step, captured = step_of(waves[0]), gradlite.capture(step_of(waves[1]))
    for i in range(2 * CALLS):
        if i == 6:
            idle[0].grad, idle[1].grad = gradlite.ones(2), gradlite.ones(2)
        x = gradlite.tensor(np.float32(0.2 * i) + 1)
        close(captured(x).item(), step(x).item())
        close(idle[1].tolist(), idle[0].tolist())
    assert idle[1].tolist() != [1, 1]
    assert captured.replays >= 3


@pytest.mark.parametrize("begins", [False, True])
def test_gradients_that_a_step_adds_to_may_be_dropped(begins: bool) -> None:
    """Of a linear layer, into whose gradient the product itself goes on a GPU."""
    layers = []
    for _ in range(2):
        gradlite.manual_seed(0)
        layers.append(nn.Linear(6, 3))
        if begins:
            layers[-1].weight.grad = gradlite.ones(3, 6)

    def step_of(layer: Any) -> Callable[..., Any]:
        def step(x: Any) -> Any:
            loss = (layer(x) ** 2).mean()
            loss.backward()
            return loss

        return step

    step, captured = step_of(layers[0]), gradlite.capture(step_of(layers[1]))
    for i in range(2 * CALLS):
        if i in (5, 11):
            layers[0].weight.grad = layers[1].weight.grad = None
        x = gradlite.full((5, 6), 0.1 * i)
        close(captured(x).item(), step(x).item())
        close(layers[1].weight.grad.tolist(), layers[0].weight.grad.tolist())
    assert captured.replays >= 3


def test_whether_there_is_a_gradient_decides() -> None:
    def make() -> tuple[Wave, Callable[..., Any]]:
        wave = Wave("SGD")

        def step(x: Any) -> Any:
            factor = 1 if wave.weight.grad is None else 2
            wave.optimizer.zero_grad()
            return wave.learn(x * factor)

        return wave, step

    (one, step), (other, inner) = make(), make()
    captured = gradlite.capture(inner)
    for i in range(2 * CALLS):
        if i % 4 == 3:
            one.weight.grad = other.weight.grad = None
        x = gradlite.tensor(np.float32(0.2 * i) + 1)
        close(captured(x).item(), step(x).item())
    assert captured.replays >= 3


def test_a_gradient_that_was_not_there_is_clipped_once_it_is() -> None:
    pairs = [(nn.Parameter(gradlite.ones(2)), Wave("SGD")) for _ in range(2)]

    def step_of(idle: Any, wave: Wave) -> Callable[..., Any]:
        def step(x: Any) -> Any:
            wave.weight.grad = None
            loss = wave.learn(x)
            return loss, nn.utils.clip_grad_norm_([idle, wave.weight], 0.1)

        return step

    step, captured = step_of(*pairs[0]), gradlite.capture(step_of(*pairs[1]))
    for i in range(2 * CALLS):
        if i == 6:
            for idle, _ in pairs:
                idle.grad = gradlite.ones(2) * 5
        x = gradlite.tensor(np.float32(0.2 * i) + 1)
        for ours, expected in zip(captured(x), step(x), strict=True):
            close(ours.item(), expected.item())
    assert captured.replays >= 3


@pytest.mark.parametrize("to_none", [False, True])
@pytest.mark.parametrize("together", [2, 3])
def test_gradients_accumulate_over_calls_and_are_cleared_outside(
    to_none: bool, together: int
) -> None:
    models, calls = [], 30
    for _ in range(2):
        gradlite.manual_seed(0)
        layers = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
        models.append((layers, optim.Adam(layers.parameters(), lr=0.01)))

    def step_of(model: Any) -> Callable[..., Any]:
        def step(x: Any) -> Any:
            loss = (model(x) ** 2).mean()
            loss.backward()
            return loss

        return step

    step, captured = step_of(models[0][0]), gradlite.capture(step_of(models[1][0]))
    for i in range(calls):
        x = gradlite.full((5, 6), 0.1 * (i % 7))
        close(captured(x).item(), step(x).item())
        if i % together == together - 1:
            for _, optimizer in models:
                optimizer.step()
                optimizer.zero_grad(set_to_none=to_none)
    for ours, expected in zip(models[1][0].parameters(), models[0][0].parameters()):
        close(ours.tolist(), expected.tolist())
    assert captured.replays >= calls - 14


def test_a_diagonal_is_edited_in_place() -> None:
    def step(x: Any) -> Any:
        y = x + 0.5
        y.diagonal().mul_(0.5)
        y.diagonal()[1:] = 4
        return y

    captured = gradlite.capture(step)
    for i in range(CALLS):
        x = gradlite.full((2, 3), float(i))
        close(captured(x).tolist(), step(x).tolist())
    assert captured.replays >= 3


def test_a_gradient_that_a_scalar_has_scaled_before_it_is_repeated() -> None:
    """As a temperature does that is learnt beside a policy."""

    def make() -> tuple[Any, Any]:
        weight, scale = nn.Parameter(gradlite.ones(5, 2)), gradlite.tensor(1.0)

        def step(x: Any) -> Any:
            weight.grad = None
            loss = (scale * (weight * 2.0).sum(1)).mean() + x.sum()
            loss.backward()
            scale.add_(0.1)
            return loss

        return weight, step

    (a, eager), (b, plain) = make(), make()
    captured = gradlite.capture(plain)
    for i in range(CALLS):
        x = gradlite.full((2,), 1.0 + i)
        close(captured(x).item(), eager(x).item())
        close(b.grad.tolist(), a.grad.tolist())
    assert captured.replays >= 3


@pytest.mark.parametrize(
    "clear",
    [
        lambda layer, weight, optimizer: layer.zero_grad(),
        lambda layer, weight, optimizer: optimizer.zero_grad(),
        lambda layer, weight, optimizer: optimizer.zero_grad(set_to_none=False),
        lambda layer, weight, optimizer: layer.zero_grad(set_to_none=False),
        lambda layer, weight, optimizer: setattr(weight, "grad", None),
        lambda layer, weight, optimizer: delattr(weight, "grad"),
    ],
)
def test_gradients_of_others_are_cleared(clear: Any) -> None:
    """The step has seen none before: they come of another one that shares the model."""
    layer = nn.Linear(2, 2)
    weight, optimizer = layer.weight, optim.SGD(layer.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        clear(layer, weight, optimizer)
        return x * 2

    captured = gradlite.capture(step)
    for i in range(12):
        if i % 4 == 3:
            weight.grad = gradlite.ones(2, 2)
        captured(gradlite.ones(2))
        assert weight.grad is None or not weight.grad.any()
        weight.grad = None
    assert captured.replays >= 4
