"""Optimizers of captured steps that are given closures, and other parameters between the calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gradlite
from gradlite import nn, optim
from gradlite.capturing.library import Library
from tests.capture_support import CALLS, close, replays

__all__ = ["replays"]  # which is used by every test


class Scaled:
    """Weights, of which not all belong to the optimizer at first."""

    def __init__(self, make: Callable[..., Any] = optim.SGD) -> None:
        self.weight = nn.Parameter(gradlite.tensor([0.5, -1.2]))
        self.scale = nn.Parameter(gradlite.tensor([2.0, 3.0]))
        self.optimizer = make([self.weight], lr=0.1)

    def loss(self, x: Any) -> Any:
        self.optimizer.zero_grad()
        loss = ((self.weight * self.scale * x - 1) ** 2).sum()
        loss.backward()
        return loss

    def step(self, x: Any) -> Any:
        loss = self.loss(x)
        self.optimizer.step()
        return loss

    def with_closure(self, x: Any) -> Any:
        with gradlite.no_grad():
            return self.optimizer.step(lambda: self.loss(x))

    def seen(self) -> list[Any]:
        grads = [p.grad for p in (self.weight, self.scale)]
        found = [*self.weight.tolist(), *self.scale.tolist()]
        return found + [v for g in grads for v in ([0, 0] if g is None else g.tolist())]


def same(name: str, make: Callable[..., Any], change: Callable[[Any], Any], least: int) -> None:
    one, other = Scaled(make), Scaled(make)
    captured = gradlite.capture(getattr(other, name))
    for i in range(2 * CALLS):
        if i == CALLS:
            change(one), change(other)
        x = gradlite.tensor([0.1 * i, 1 - 0.05 * i])
        close(captured(x).item(), getattr(one, name)(x).item())
        close(other.seen(), one.seen())
    assert captured.replays >= least


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_a_closure_sees_every_input(make: Any) -> None:
    same("with_closure", make, lambda _: None, 2 * CALLS - 3)


def test_a_search_that_calls_a_closure_as_often_as_it_likes_is_refused() -> None:
    scaled = Scaled(optim.LBFGS)
    captured = gradlite.capture(scaled.with_closure, warmup=0)
    with pytest.raises(gradlite.CaptureError, match=r"LBFGS\.step\(\) calls a function"):
        captured(gradlite.ones(2))


def freed(scaled: Scaled) -> None:
    scaled.optimizer.param_groups[0]["params"].append(scaled.scale)


def listed(scaled: Scaled) -> None:
    scaled.optimizer.param_groups[0]["params"] = [scaled.scale]


def added(scaled: Scaled) -> None:
    scaled.optimizer.add_param_group({"params": [scaled.scale], "lr": 0.5})


def left_out(scaled: Scaled) -> None:
    added(scaled)
    del scaled.optimizer.param_groups[0]


@pytest.mark.parametrize("change", [freed, listed, added, left_out])
def test_other_parameters_of_an_optimizer(change: Any) -> None:
    same("step", optim.SGD, change, CALLS)


def test_a_state_that_is_loaded_makes_no_other_recording() -> None:
    def load(scaled: Scaled) -> None:
        scaled.optimizer.load_state_dict(scaled.optimizer.state_dict())

    same("step", lambda p, lr: optim.SGD(p, lr, momentum=0.5), load, 2 * CALLS - 6)


class Halved(optim.lr_scheduler.LRScheduler):
    """A schedule with a step of its own."""

    def step(self, epoch: Any = None) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] *= 0.5


@pytest.mark.parametrize(
    "make", [lambda o: optim.lr_scheduler.ExponentialLR(o, 0.75), lambda o: Halved(o)]
)
def test_a_schedule_goes_on_whose_step_was_looked_up_before(make: Any) -> None:
    rates = []
    for capture in (False, True):
        model = Scaled()
        after = [make(model.optimizer).step]

        def step(x: Any, model: Any = model, after: Any = after) -> Any:
            loss = model.step(x)
            for call in after:
                call()
            return loss

        run = gradlite.capture(step) if capture else step
        for _ in range(2 * CALLS):
            run(gradlite.tensor([0.5, 0.25]))
        rates.append((model.optimizer.param_groups[0]["lr"], model.seen()))
    assert run.replays >= CALLS
    close(rates[1][0], rates[0][0])
    close(rates[1][1], rates[0][1])


def test_a_scaler_goes_on_whose_methods_were_looked_up_before() -> None:
    scales = []
    for capture in (False, True):
        model = Scaled()
        scaler = gradlite.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
        update, advance = scaler.step, scaler.update

        def step(x: Any, m: Any = model, s: Any = scaler, u: Any = update, a: Any = advance) -> Any:
            m.optimizer.zero_grad()
            loss = ((m.weight * m.scale * x - 1) ** 2).sum()
            s.scale(loss).backward()
            u(m.optimizer)
            a()
            return loss

        run = gradlite.capture(step) if capture else step
        for _ in range(2 * CALLS):
            run(gradlite.tensor([0.5, 0.25]))
        scales.append((scaler.get_scale(), model.seen()[:2]))
    assert run.replays >= CALLS
    close(scales[1][0], scales[0][0])
    close(scales[1][1], scales[0][1])


def test_a_first_update_during_a_recording_is_like_those_without() -> None:
    """What an optimizer keeps of it knows the library itself, and rounds halves as ever."""

    def trained(capture: bool) -> tuple[list[Any], Any]:
        w = nn.Parameter(gradlite.tensor([1.3, -0.9, -1.0], dtype=gradlite.float16))
        optimizer = optim.SGD([w], lr=0.05, momentum=0.5)

        def step() -> None:
            optimizer.step()  # of which the first finds no gradient
            w.sin().sum().backward()

        run = gradlite.capture(step, native=False) if capture else step
        seen = []
        for _ in range(2 * CALLS):
            run()
            seen.append(w.tolist())
        return seen, optimizer

    (there, optimizer), (here, _) = trained(True), trained(False)
    assert there == here
    (plan,) = optimizer._plans.values()
    assert not any(isinstance(cohort.xp, Library) for cohort in plan.cohorts)


class Counting(gradlite.optim.Optimizer):
    """An optimizer of a program's own, which counts its steps in Python."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @gradlite.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["step"] = state.get("step", 0) + 1
                p.add_(p.grad, alpha=-group["lr"] / state["step"])


def test_an_optimizer_of_ones_own_with_a_scheduler_outside_of_the_step() -> None:
    """The scheduler puts a step before the class's, which leads to the program's code."""
    found = []
    for captures in False, True:
        weight = gradlite.ones(3, requires_grad=True)
        optimizer = Counting([weight])
        scheduler = gradlite.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

        def step(x: Any, weight: Any = weight, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = (weight * x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        run = gradlite.capture(step) if captures else step
        for i in range(8):
            run(gradlite.full((3,), i / 4))
            scheduler.step()
        found.append(weight.detach().tolist())
    close(found[1], found[0])
    assert run.replays == 5
