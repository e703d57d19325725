"""Steps of optimizers inside CUDA graphs: a replay reads what the optimizer has by then."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import optim
from gradlite.nn import functional as F
from tests.capture_support import CALLS, Trainer, assert_same, batch, pair, run, where
from tests.cupy_stand_in import arrays
from tests.test_capture_two_updates import gan

__all__ = ["where"]  # which is used by every test


def plan_of(captured: Any) -> Any:
    """The plan of the latest recording."""
    return captured._latest.plan


def in_graph(captured: Any) -> bool:
    """Whether no step of an optimizer runs as Python code."""
    return ".step(" in captured.explain() and "Python: Elementwise" not in captured.explain()


def copies(where: str, call: Callable[[], Any]) -> int:
    """How many copies from the host's memory to the stand-in's a call makes."""
    assert where == "stand-in"
    arrays.calls = calls = []
    try:
        call()
    finally:
        arrays.calls = None
    return calls.count("set")


def steps_of(trainer: Trainer) -> list[float]:
    state = trainer.optimizer.state_dict()["state"]
    return [float(entry["step"]) for entry in state.values()]


def test_two_updates_are_one_graph(where: str) -> None:
    step, captured = gan("judge first"), gradlite.capture(gan("judge first"))
    for i in range(CALLS):
        rng = np.random.default_rng(i)
        real = gradlite.tensor(rng.random((6, 1, 6, 6), np.float32))
        noise = gradlite.tensor(rng.standard_normal((6, 3)).astype(np.float32))
        expected = [loss.item() for loss in step(real, noise)]
        assert [loss.item() for loss in captured(real, noise)] == expected
    assert in_graph(captured)
    # What BCELoss checks between the updates is the host's to look at.
    assert len(plan_of(captured).updates) == 2


def alternating(schedules: bool = False) -> tuple[Trainer, Callable[..., Any]]:
    """Two optimizers that take turns within a step, with schedules of their own."""
    trainer = Trainer()
    first = optim.Adam(trainer.model[0].parameters(), lr=0.02)
    second = optim.SGD(trainer.model[2].parameters(), lr=0.1, momentum=0.9)
    decays = [optim.lr_scheduler.ExponentialLR(o, 0.9) for o in (first, second)]

    def step(x: Any, y: Any) -> list[Any]:
        losses = []
        for optimizer, decay in zip((first, second), decays):
            trainer.model.zero_grad()
            losses.append(F.cross_entropy(trainer.model(x), y))
            losses[-1].backward()
            optimizer.step()
            if schedules:
                decay.step()
        return losses

    return trainer, step


@pytest.mark.parametrize("schedules", [False, True])
def test_updates_that_take_turns_are_one_graph(schedules: bool) -> None:
    (a, eager), (b, plain) = alternating(schedules), alternating(schedules)
    captured = gradlite.capture(plain)
    for i in range(CALLS):
        expected = [loss.item() for loss in eager(*batch(i))]
        assert [loss.item() for loss in captured(*batch(i))] == expected
    assert_same(a, b)
    assert captured.replays == CALLS - 3 and len(plan_of(captured).graphs) == 1


def test_an_optimizer_that_steps_twice_counts_twice(where: str) -> None:
    def make() -> tuple[Trainer, Callable[..., Any]]:
        trainer = Trainer(make=optim.NAdam)
        return trainer, lambda x, y: [trainer.step(x, y), trainer.step(x, y)]

    (a, eager), (b, plain) = make(), make()
    captured = gradlite.capture(plain)
    for i in range(CALLS):
        expected = [loss.item() for loss in eager(*batch(i))]
        assert [loss.item() for loss in captured(*batch(i))] == expected
    assert_same(a, b)
    assert steps_of(b) == [2.0 * CALLS] * 4 and len(plan_of(captured).graphs) == 1
    if where == "stand-in":
        assert copies(where, lambda: captured(*batch(0))) == 0


def change(name: str, trainer: Trainer, value: float) -> None:
    (group,) = trainer.optimizer.param_groups
    if name == "betas":
        group["betas"] = (value, 0.999)
    else:
        group[name] = value


@pytest.mark.parametrize(
    "name, values", [("lr", (0.5, 0.01)), ("weight_decay", (0.3, 0)), ("betas", (0.5, 0.95))]
)
@pytest.mark.parametrize("make", [optim.Adam, optim.AdamW])
def test_an_option_that_changes_is_sent_once(
    where: str, make: Any, name: str, values: tuple[float, float]
) -> None:
    a, b, captured = pair(make=make)
    run(a, b, captured)
    for value in values:
        for trainer in (a, b):
            change(name, trainer, value)
        a.step(*batch(1))
        if where == "stand-in":
            assert copies(where, lambda: captured(*batch(1))) == 1
        else:
            captured(*batch(1))
        run(a, b, captured, calls=2)
        a.step(*batch(1))
        if where == "stand-in":
            assert copies(where, lambda: captured(*batch(1))) == 0
        else:
            captured(*batch(1))
    assert captured.recordings == 1 and captured.replays == CALLS - 3 + 8


def test_a_parameter_that_leaves_its_group_stays_as_it_is() -> None:
    a, b, captured = pair()
    run(a, b, captured)
    spare = [gradlite.zeros(3, requires_grad=True) for _ in range(2)]
    for trainer, p in zip((a, b), spare):
        trainer.optimizer.zero_grad()
        trainer.optimizer.param_groups[0]["params"][3] = p
    last = b.model[2].bias.tolist()
    for i in range(CALLS):
        for trainer in (a, b):
            trainer.model.zero_grad()
        assert captured(*batch(i)).item() == a.step(*batch(i)).item()
    assert_same(a, b)
    assert b.model[2].bias.tolist() == last


def test_another_rule_is_another_recording() -> None:
    a, b, captured = pair(make=optim.SGD)
    run(a, b, captured)
    for momentum in (0.9, 0):
        for trainer in (a, b):
            trainer.optimizer.param_groups[0]["momentum"] = momentum
        run(a, b, captured)
    assert captured.recordings == 2 and captured.replays == 2 * (CALLS - 3) + CALLS + 1


def test_a_schedule_of_the_step_cannot_make_another_rule() -> None:
    trainer = Trainer(make=lambda params, lr: optim.SGD(params, lr, momentum=0.5))

    class Ending(optim.lr_scheduler.LRScheduler):
        def get_lr(self) -> Any:
            for group in self.optimizer.param_groups:
                group["momentum"] = 0.5 if self.last_epoch < 5 else 0.0
            return self._present()

    schedule = Ending(trainer.optimizer)

    def step(x: Any, y: Any) -> Any:
        schedule.step()
        return trainer.step(x, y)

    captured = gradlite.capture(step)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        captured(*batch(0))
    for i in range(1, 4):
        captured(*batch(i))
    before = trainer.parameters()
    with pytest.raises(RuntimeError, match="itself changes an option of SGD"):
        captured(*batch(4))
    for x, y in zip(trainer.parameters(), before, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("make", [optim.Adam, optim.NAdam, optim.ASGD, optim.RMSprop, optim.Lion])
def test_steps_outside_of_the_graph_count(where: str, make: Any) -> None:
    a, b, captured = pair(make=make)
    for i in range(16):
        expected = a.step(*batch(i)).item()
        own = b.step if i % 5 == 4 else captured
        assert own(*batch(i)).item() == expected
        assert steps_of(b) == [i + 1] * 4
    assert_same(a, b)
    assert captured.replays == 16 - 3 - 3
    if where == "stand-in":
        b.step(*batch(0))
        assert copies(where, lambda: captured(*batch(0))) == 1
        assert copies(where, lambda: captured(*batch(0))) == 0


def test_the_saved_state_is_that_of_the_replays() -> None:
    a, b, captured = pair()
    run(a, b, captured)
    saved = [copy.deepcopy(t.optimizer.state_dict()) for t in (a, b)]
    for x, y in zip(*(s["state"].values() for s in saved), strict=True):
        for name in x:
            np.testing.assert_array_equal(x[name].cpu().numpy(), y[name].cpu().numpy())
    run(a, b, captured)
    for trainer, state in zip((a, b), saved):
        trainer.optimizer.load_state_dict(state)
    assert steps_of(b) == [CALLS] * 4
    run(a, b, captured, start=50)
    assert steps_of(b) == [2 * CALLS] * 4
    # The recording that writes to the state of before is gone.
    assert captured.recordings == 1 and captured.replays == 3 * CALLS - 3 - 2


def test_a_count_that_the_user_sets() -> None:
    a, b, captured = pair()
    run(a, b, captured)
    for trainer in (a, b):
        trainer.optimizer.state[trainer.model[0].weight]["step"].fill_(1)
    run(a, b, captured)
    assert steps_of(b) == [1 + CALLS, *[2 * CALLS] * 3]
    assert captured.recordings == 1 and captured.replays == 2 * CALLS - 3


def test_layers_frozen_in_turn() -> None:
    a, b, captured = pair()
    for i in range(4):
        for trainer in (a, b):
            trainer.optimizer.zero_grad()
            trainer.model[0].requires_grad_(i % 2 == 0)
        run(a, b, captured, start=i * CALLS)
    assert steps_of(b) == [2 * CALLS, 2 * CALLS, 4 * CALLS, 4 * CALLS]
    assert captured.recordings == 2 and in_graph(captured)


def test_a_gradient_given_to_a_frozen_parameter_counts() -> None:
    def make() -> tuple[Trainer, Callable[..., Any]]:
        trainer = Trainer()
        trainer.model[0].requires_grad_(False)

        def step(x: Any, y: Any) -> Any:
            loss = F.cross_entropy(trainer.model(x), y)
            loss.backward()
            trainer.optimizer.step()
            trainer.model[2].zero_grad()
            return loss

        return trainer, step

    (a, eager), (b, plain) = make(), make()
    captured = gradlite.capture(plain)
    for i in range(3 * CALLS):
        for trainer in (a, b):
            weight = trainer.model[0].weight
            if i in (CALLS, 2 * CALLS):
                weight.grad = gradlite.ones_like(weight) if i == CALLS else None
        assert captured(*batch(i)).item() == eager(*batch(i)).item()
    assert_same(a, b)
    assert steps_of(b) == [3 * CALLS, 3 * CALLS, CALLS]


@pytest.mark.parametrize("kind", ["plain", "capturable", "fused"])
def test_a_learning_rate_on_the_gpu(kind: str) -> None:
    def make(params: Any, lr: float) -> Any:
        given = {} if kind == "plain" else {kind: True}
        return optim.AdamW(params, lr=gradlite.tensor(lr), **given)  # type: ignore[arg-type]

    a, b = Trainer(make=make), Trainer(make=make)

    def falling(trainer: Trainer) -> Callable[..., Any]:
        def step(x: Any, y: Any) -> Any:
            loss = trainer.step(x, y)
            trainer.optimizer.param_groups[0]["lr"].mul_(0.9)
            return loss

        return step

    captured = gradlite.capture(falling(b), state=[b])
    eager = falling(a)
    for i in range(12):
        if i == 7:
            for trainer in (a, b):
                trainer.optimizer.param_groups[0]["lr"].fill_(0.1)
        assert captured(*batch(i)).item() == eager(*batch(i)).item()
        assert steps_of(b) == [i + 1] * 4
    assert_same(a, b)
    lrs = [t.optimizer.param_groups[0]["lr"].item() for t in (a, b)]
    assert lrs[0] == lrs[1] and captured.replays == 9 and in_graph(captured)


def test_a_learning_rate_in_another_tensor() -> None:
    a, b, captured = pair(make=lambda params, lr: optim.Adam(params, lr=gradlite.tensor(lr)))
    for i, device in enumerate(["cuda", "cpu", "cuda"]):
        for trainer in (a, b):
            lr = gradlite.tensor(0.1 / (i + 1), device=device)
            trainer.optimizer.param_groups[0]["lr"] = lr
        run(a, b, captured, start=i * CALLS)
    assert captured.recordings == 1


def test_groups_with_options_of_their_own() -> None:
    def make(params: Any, lr: float) -> Any:
        first, second, *rest = params
        groups = [
            {"params": [first], "lr": 0.1, "weight_decay": 0.1},
            {"params": [second], "betas": (0.5, 0.9), "maximize": True},
            {"params": rest, "amsgrad": True},
        ]
        return optim.Adam(groups, lr=lr)

    a, b, captured = pair(make=make)
    run(a, b, captured)
    for trainer in (a, b):
        trainer.optimizer.param_groups[1]["lr"] = 0.3
    run(a, b, captured)
    assert captured.recordings == 1 and in_graph(captured)


# ------------------------------------------------------------------------ between the graphs
@pytest.mark.parametrize("of_all", [False, True])
def test_hooks_are_called_from_then_on(of_all: bool) -> None:
    a, b, captured = pair()
    run(a, b, captured)
    called: list[Any] = []
    hook: Any = lambda optimizer, *_: called.append(optimizer)  # noqa: E731
    register = optim.optimizer.register_optimizer_step_post_hook
    handle = register(hook) if of_all else b.optimizer.register_step_post_hook(hook)
    try:
        run(a, b, captured)
        assert called.count(b.optimizer) == CALLS
        assert "between graphs, because it has hooks" in captured.explain()
    finally:
        handle.remove()
    replays = captured.replays
    run(a, b, captured)
    assert called.count(b.optimizer) == CALLS and captured.replays == replays + CALLS
    assert captured.recordings == 2


class Own(optim.Adam):
    """An optimizer that steps as it likes."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        super().step(closure)


class Shrunk(optim.Adam):
    """One with another rule."""

    def _shrink(self, group: Any, weight_decay: float, counters: Any) -> float:
        return 0.5


@pytest.mark.parametrize(
    "make, reason",
    [
        (Own, "its class overrides a method"),
        (Shrunk, "its class overrides a method"),
        (lambda params, lr: optim.Adam(params, lr=gradlite.tensor(lr).double()), "its learning"),
        (
            lambda params, lr: optim.Adam(
                params, lr, betas=(gradlite.tensor(0.9), gradlite.tensor(0.99))
            ),
            "an option other than lr",
        ),
    ],
)
def test_what_no_kernel_does_runs_between_graphs(make: Any, reason: str) -> None:
    a, b, captured = pair(make=make)
    run(a, b, captured)
    assert f"between graphs, because {reason}" in captured.explain()


def test_counters_of_double_precision_stay_with_the_host() -> None:
    gradlite.set_default_dtype(gradlite.float64)
    try:
        a, b = (Trainer() for _ in range(2))
        captured = gradlite.capture(b.step)
        for i in range(CALLS):
            x, y = batch(i)
            assert captured(x.double(), y).item() == a.step(x.double(), y).item()
        assert_same(a, b)
        assert "its counters are of double precision" in captured.explain()
    finally:
        gradlite.set_default_dtype(gradlite.float32)


# ----------------------------------------------------------------------------------- failures
def test_a_failure_of_one_leaves_no_count_in_another() -> None:
    (a, eager), (b, plain) = alternating(), alternating()
    captured = gradlite.capture(plain)
    for i in range(5):
        eager(*batch(i))
        captured(*batch(i))
    first, second = (update.optimizer for update in plan_of(captured).updates)
    second.param_groups[0]["lr"] = "fast"
    for _ in range(2):
        with pytest.raises((TypeError, ValueError)):
            captured(*batch(5))
    assert [float(entry["step"]) for entry in first.state.values()] == [5.0, 5.0]
    second.param_groups[0]["lr"] = 0.1
    for i in range(5, 9):
        expected = [loss.item() for loss in eager(*batch(i))]
        assert [loss.item() for loss in captured(*batch(i))] == expected
    assert_same(a, b)
