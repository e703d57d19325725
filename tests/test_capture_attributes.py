"""Attributes of modules that a captured step makes anew, as hooks that normalise weights do."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import pytest

import gradlite
from gradlite import nn, optim
from gradlite.capturing.conditions import Conditions
from gradlite.capturing.reachable import Reachable
from tests.capture_support import CALLS, close, replays

__all__ = ["replays"]  # which is used by every test

NORMS: dict[str, Callable[[Any], Any]] = {
    "weight_norm": nn.utils.weight_norm,
    "spectral_norm": nn.utils.spectral_norm,
    "parametrized weight_norm": nn.utils.parametrizations.weight_norm,
    "parametrized spectral_norm": nn.utils.parametrizations.spectral_norm,
}


@pytest.mark.parametrize("name", NORMS)
def test_normalised_weights(name: str) -> None:
    def make() -> tuple[Any, Any]:
        gradlite.manual_seed(0)
        layers = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)
        model = nn.Sequential(NORMS[name](layers[0]), layers[1], NORMS[name](layers[2]))
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = (model(x) ** 2).mean() + model(x + 1).exp().mean()
            loss.backward()
            optimizer.step()
            return loss

        return model, step

    (a, step), (b, other) = make(), make()
    captured = gradlite.capture(other)
    for i in range(CALLS):
        x = gradlite.full((3, 4), 0.1 * i + 0.2)
        close(captured(x).item(), step(x).item())
        if "parametrized" not in name:  # those iterate at every look
            close(b[0].weight.tolist(), a[0].weight.tolist())
        if i % 3 == 2:
            a.eval(), b.eval()
            close(b(x).tolist(), a(x).tolist())
            a.train(), b.train()
        for key, value in a.state_dict().items():
            close(b.state_dict()[key].tolist(), value.tolist())
    assert captured.replays >= 3


class Keeper(nn.Module):
    """A module that remembers what it has seen last."""

    def __init__(self, looks: bool) -> None:
        super().__init__()
        self.linear, self.looks = nn.Linear(2, 2), looks
        self.last = gradlite.zeros(3, 2)

    def forward(self, x: Any) -> Any:
        if self.looks:
            x = x + self.last
        self.last = self.linear(x).detach()
        return self.last * 2


def test_what_a_module_keeps_is_that_of_the_last_call() -> None:
    keeper = Keeper(looks=False)
    captured = gradlite.capture(keeper)
    for i in range(CALLS):
        x = gradlite.full((3, 2), float(i))
        close(captured(x).tolist(), (keeper.linear(x) * 2).tolist())
        close(keeper.last.tolist(), keeper.linear(x).tolist())
    assert captured.replays >= 3


def test_what_a_module_reads_and_replaces_goes_on_from_call_to_call() -> None:
    keeper = Keeper(looks=True)
    captured = gradlite.capture(keeper, warmup=0)
    for i in range(CALLS):
        x, last = gradlite.full((3, 2), float(i)), keeper.last
        expected = keeper.linear(x + last)
        close(captured(x).tolist(), (expected * 2).tolist())
        close(keeper.last.tolist(), expected.tolist())
    assert captured.replays == CALLS - 2


def test_an_attribute_that_comes_to_be_another_thing_is_refused() -> None:
    keeper = Keeper(looks=False)

    def step(x: Any) -> Any:
        keeper.looks = not keeper.looks
        return x * 2

    captured = gradlite.capture(step, warmup=0)
    with pytest.raises(gradlite.CaptureError, match=r"replaces Keeper\.looks"):
        captured(gradlite.ones(2))


class Holding(nn.Module):
    """A module with an attribute that its forward pass reads."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.linear, self.held = nn.Linear(2, 2), held

    def forward(self, x: Any) -> Any:
        x = self.linear(x)
        return self.held(x) if callable(self.held) else self.held.neg(x)


HELD: dict[str, Callable[[], Any]] = {
    "a function of the library's": lambda: nn.functional.gelu,
    "a method of the library's": lambda: gradlite.Tensor.tanh,
    "a bound method of the library's": lambda: nn.GELU().forward,
    "a bound method of the program's": lambda: Keeper(looks=False).forward,
    "a partial": lambda: functools.partial(nn.functional.gelu, approximate="tanh"),
    "a partial of a partial": lambda: functools.partial(functools.partial(gradlite.clamp, min=0)),
    "a module of Python's": lambda: operator,
}


@pytest.mark.parametrize("name", HELD)
def test_what_a_module_holds_is_looked_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, parameters = 0, Reachable.parameters

    def counted(self: Reachable) -> Any:
        nonlocal looks
        looks += 1
        assert looks < 200, "the search for what the step reaches does not end"
        return parameters(self)

    monkeypatch.setattr(Reachable, "parameters", counted)
    layer = Holding(HELD[name]())
    captured = gradlite.capture(layer)
    for i in range(CALLS):
        x = gradlite.full((3, 2), 0.1 * i)
        close(captured(x).tolist(), layer(x).tolist())
    assert looks and captured.replays >= 3


class Factors(nn.Module):
    """A module that goes by a container of numbers."""

    def __init__(self, factors: Any) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, x: Any) -> Any:
        return x * sum(self.factors.values() if isinstance(self.factors, dict) else self.factors)


class Named(dict[str, float]):
    extra = 0.0

    def values(self) -> Any:
        return [*super().values(), self.extra]


CONTAINERS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "a list": (lambda: [2.0], lambda found: found.append(3.0)),
    "a dictionary": (lambda: {"a": 2.0}, lambda found: found.update(b=3.0)),
    "a class of its own": (Named, lambda found: setattr(found, "extra", 3.0)),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_another_container_with_the_same_items_is_looked_at_from_then_on(name: str) -> None:
    make, edit = CONTAINERS[name]
    layer = Factors(make())
    captured = gradlite.capture(layer)
    for i in range(14):
        if i == 5:
            layer.factors = make()
        if i == 9:
            edit(layer.factors)
        assert captured(gradlite.ones(2)).tolist() == layer(gradlite.ones(2)).tolist()
    assert captured.replays > 5


def test_containers_that_a_layer_makes_anew_for_every_call_make_no_other_recording() -> None:
    class Noting(nn.Module):
        def forward(self, x: Any) -> Any:
            self.shapes = [*x.shape]
            return x.sum() * len(self.shapes)

    layer = Noting()
    captured = gradlite.capture(layer)
    for i in range(12):
        x = gradlite.ones(2, 3) * i
        assert captured(x).item() == layer(x).item()
    assert captured.replays == 9


def switched(model: Any) -> None:
    model.eval()
    model.train()


def counted(model: Any) -> None:
    model.count += 1


BETWEEN: dict[str, Callable[[Any], Any]] = {
    "train()": lambda model: model.train(),
    "eval() and train()": switched,
    "a buffer in place": counted,
    "a flag": lambda model: model[0].requires_grad_(True),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_leaves_all_as_it_was_is_compared_and_no_more(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a replay compares is code, which is not written anew for that."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    model.register_buffer("count", gradlite.tensor(0))
    captured = gradlite.capture(lambda x: model(x), state=[model])
    x = gradlite.ones(1, 2)
    for _ in range(5):
        BETWEEN[name](model)
        expected = captured(x).tolist()
    written, function = 0, Conditions.function

    def noted(self: Conditions) -> Callable[[], bool]:
        nonlocal written
        written += 1
        return function(self)

    monkeypatch.setattr(Conditions, "function", noted)
    for _ in range(4):
        BETWEEN[name](model)
        assert captured(x).tolist() == expected
    assert (written, captured.replays) == (0, 6)
