"""Captured steps whose course something outside chooses, and what they switch themselves."""

from __future__ import annotations

import copy
import functools
import itertools
import pickle
import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from tests.capture_support import batch, close, mlp, replays

__all__ = ["replays"]  # which is used by every test


# ------------------------------------------------------------------------ iterators
def counting() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: itertools.cycle([gradlite.ones(2) * i for i in range(5)]),
        lambda: iter([gradlite.ones(2) * i for i in range(50)]),
        itertools.count,
        counting,
        lambda: map(float, range(50)),
    ],
)
def test_the_next_item_of_an_iterator_is_refused(make: Callable[[], Any]) -> None:
    """Also where the item only decides something at every seventh call."""
    iterator = make()
    captured = gradlite.capture(lambda x: x * next(iterator))
    captured(gradlite.ones(2))
    with pytest.raises(gradlite.CaptureError, match=r"takes the next item of a \w+"):
        captured(gradlite.ones(2))


def test_what_is_taken_from_an_iterator_in_a_list_or_an_object_is_refused() -> None:
    class Holder:
        def __init__(self) -> None:
            self.numbers = itertools.count()

    holder, numbers = Holder(), [itertools.count()]
    for step in (lambda x: x * (next(holder.numbers) + 1), lambda x: x * (next(numbers[0]) + 1)):
        captured = gradlite.capture(step)
        captured(gradlite.ones(2))
        with pytest.raises(gradlite.CaptureError, match="takes the next item of a count"):
            captured(gradlite.ones(2))
    assert [next(holder.numbers), next(numbers[0])] == [1, 1]  # nobody has taken another one


@pytest.mark.parametrize(
    "make",
    [
        lambda: itertools.cycle([1.0, 2.0]),
        lambda: iter([2.0] * 50),
        lambda: iter(range(50)),
        itertools.count,
        counting,
        lambda: (2.0 for _ in range(50)),
        lambda: map(float, [2.0] * 50),
        lambda: zip([2.0] * 50, range(50)),
        lambda: enumerate([2.0] * 50),
        lambda: iter(dict.fromkeys(range(50))),
    ],
)
def test_iterators_that_nothing_can_be_put_in_place_of(make: Callable[[], Any]) -> None:
    """In tuples, defaults, arguments and methods of their own; also where the item decides little.

    Whether an item was taken shows in what the iterator says of itself.
    """
    fixed, several = make(), (make(),)

    def with_default(x: Any, numbers: Any = make()) -> Any:  # noqa: B008
        return x * 2 if next(numbers) != -1 else x

    following = make().__next__
    steps = [
        lambda x: x * 2 if next(several[0]) != -1 else x,
        lambda x: x * 2 if following() != -1 else x,
        functools.partial(lambda numbers, x: x * 2 if next(numbers) != -1 else x, make()),
        with_default,
        lambda x: x * 2 if sum(1 for _ in zip([1], several[0])) else x,
    ]
    for step in steps:
        captured = gradlite.capture(step)
        captured(gradlite.ones(2))
        with pytest.raises(gradlite.CaptureError, match=r"takes the next item of a \w+"):
            captured(gradlite.ones(2))
    captured = gradlite.capture(lambda x, numbers: x * 2 if next(numbers) != -1 else x)
    captured(gradlite.ones(2), fixed)
    with pytest.raises(gradlite.CaptureError, match=r"takes the next item of a \w+"):
        captured(gradlite.ones(2), fixed)


def test_an_iterator_that_nobody_asks_is_none_of_the_steps_business() -> None:
    several = (iter(range(50)), 2.0)
    captured = gradlite.capture(lambda x: x * several[1])
    for _ in range(6):
        captured(gradlite.ones(2))
        next(several[0])  # type: ignore[call-overload]
    assert captured.replays == 3


# ------------------------------------------------------ what hides where it comes from
def test_another_tensor_at_every_call_is_refused() -> None:
    waiting: Any = queue.SimpleQueue()
    for i in range(20):
        waiting.put(gradlite.ones(2) * i)
    captured = gradlite.capture(lambda x: x * waiting.get())
    with pytest.raises(gradlite.CaptureError, match="used another tensor from before"):
        for _ in range(8):
            captured(gradlite.ones(2))


def test_another_number_returned_is_refused() -> None:
    numbers: Any = queue.SimpleQueue()
    for i in range(8):
        numbers.put(float(i))
    captured = gradlite.capture(lambda x: (x * 2, numbers.get()))
    with pytest.raises(gradlite.CaptureError, match="what it returned, or left as gradients, had"):
        for _ in range(8):
            captured(gradlite.ones(2))


def test_another_result_or_gradient_chosen_is_refused() -> None:
    weights = [nn.Parameter(gradlite.ones(2)) for _ in range(2)]

    def returned(x: Any) -> Any:
        return (x * 2, x * 3)[time.perf_counter_ns() // 100 % 2]

    def left(x: Any) -> Any:
        weights[0].grad = weights[1].grad = None
        weights[time.perf_counter_ns() // 100 % 2].grad = x * 2
        return x

    for step in (returned, left):
        captured = gradlite.capture(step)
        with pytest.raises(gradlite.CaptureError):
            for _ in range(200):
                captured.reset()
                for _ in range(6):
                    captured(gradlite.ones(2))


def test_another_optimizer_at_every_call_is_refused() -> None:
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    waiting: Any = queue.SimpleQueue()
    for i in range(20):
        waiting.put(optim.SGD(layers[i % 2].parameters(), lr=0.1))

    def step(x: Any) -> Any:
        for layer in layers:
            layer.zero_grad()
        (layers[0](x) + layers[1](x)).square().sum().backward()
        waiting.get().step()

    captured = gradlite.capture(step)
    with pytest.raises(gradlite.CaptureError, match="another one at every call"):
        for _ in range(8):
            captured(gradlite.ones(3, 2))


# ---------------------------------------------------------------------- optimizers
@pytest.mark.parametrize("back", [False, True])
def test_setting_a_learning_rate_is_refused(back: bool) -> None:
    """Also where it is set back after the update."""
    layer = nn.Linear(2, 2)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        if back:
            optimizer.param_groups[0]["lr"] = 0.05
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 2.0 if back else 0.9

    captured = gradlite.capture(step)
    captured(gradlite.ones(3, 2))
    with pytest.raises(gradlite.CaptureError, match="the step sets an option of an optimizer"):
        captured(gradlite.ones(3, 2))


@pytest.mark.parametrize(
    "edit",
    [
        lambda o, w: o.state.clear(),
        lambda o, w: o.state[w].clear(),
        lambda o, w: o.state[w].update(momentum_buffer=gradlite.ones(2)),
        lambda o, w: o.load_state_dict(o.state_dict()),
    ],
)
@pytest.mark.parametrize("before", [False, True])
def test_editing_the_state_of_an_optimizer_is_refused(edit: Any, before: bool) -> None:
    weight = nn.Parameter(gradlite.ones(2))
    optimizer = optim.SGD([weight], lr=0.1, momentum=0.9)

    def step(x: Any) -> Any:
        if before:
            edit(optimizer, weight)
        optimizer.zero_grad()
        (weight * x).sum().backward()
        optimizer.step()
        if not before:
            edit(optimizer, weight)

    captured = gradlite.capture(step)
    captured(gradlite.ones(2))
    with pytest.raises(gradlite.CaptureError, match="its state, which a replay would not do"):
        captured(gradlite.ones(2))


def test_reading_a_learning_rate_that_a_schedule_of_the_step_changes_is_refused() -> None:
    layer = nn.Linear(2, 2)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = layer(x).square().sum() * optimizer.param_groups[0]["lr"]
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    captured = gradlite.capture(step)
    captured(gradlite.ones(3, 2))
    with pytest.raises(gradlite.CaptureError, match="the step itself replaces 'lr'"):
        captured(gradlite.ones(3, 2))


@pytest.mark.parametrize("of_all", [False, True])
def test_hooks_of_an_optimizer_count_from_the_next_step_on(of_all: bool) -> None:
    models = [mlp() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [optim.SGD(model.parameters(), lr=0.1) for model in models]

    def halve(optimizer: Any, args: Any, kwargs: Any) -> None:
        for p in optimizer.param_groups[0]["params"]:
            p.grad.mul_(0.5)

    def of(model: Any, optimizer: Any) -> Any:
        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    eager = of(models[0], optimizers[0])
    captured = gradlite.capture(of(models[1], optimizers[1]))
    handles: list[Any] = []
    for i in range(15):
        if i == 5:
            register = optim.optimizer.register_optimizer_step_pre_hook
            handles = [register(halve)] if of_all else []
            handles += [] if of_all else [o.register_step_pre_hook(halve) for o in optimizers]
        if i == 10:
            for handle in handles:
                handle.remove()
        close(captured(*batch(i)).item(), eager(*batch(i)).item())
    assert captured.replays >= 8
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        close(q.detach().cpu().numpy(), p.detach().cpu().numpy())


# -------------------------------------------------------------------------- switches
def test_a_step_that_sets_the_mode_of_its_modules() -> None:
    """As a training step does after an evaluation: the mode that it leaves is that of a replay."""
    models = [mlp(nn.Dropout(0.5)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())

    def of(model: Any) -> Any:
        optimizer = optim.SGD(model.parameters(), lr=0.05)

        def step(x: Any, y: Any) -> Any:
            model.train()
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    eager, captured = of(models[0]), gradlite.capture(of(models[1]))
    for i in range(14):
        gradlite.manual_seed(i)
        expected = eager(*batch(i)).item()
        gradlite.manual_seed(i)
        close(captured(*batch(i)).item(), expected)
        assert models[1].training
        assert models[1][2].training
        if i % 3 == 2:
            for model in models:
                model.eval()
    assert captured.replays >= 7
    assert captured.recordings == 2
    for a, b in zip(models[0].state_dict().values(), models[1].state_dict().values()):
        close(b.cpu().numpy(), a.cpu().numpy())


def test_a_step_that_freezes_layers_in_turn() -> None:
    pairs = [nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)) for _ in range(2)]
    pairs[1].load_state_dict(pairs[0].state_dict())

    def of(model: Any) -> Any:
        optimizer = optim.SGD(model.parameters(), lr=0.05)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            frozen = model[0].weight.requires_grad
            model[0].requires_grad_(not frozen)
            model[1].requires_grad_(frozen)
            return loss

        return step

    eager, captured = of(pairs[0]), gradlite.capture(of(pairs[1]))
    for i in range(12):
        close(captured(*batch(i)).item(), eager(*batch(i)).item())
        for p, q in zip(pairs[0].parameters(), pairs[1].parameters(), strict=True):
            assert p.requires_grad == q.requires_grad
            assert (p.grad is None) == (q.grad is None)
    assert captured.replays >= 4
    for p, q in zip(pairs[0].parameters(), pairs[1].parameters(), strict=True):
        close(q.detach().cpu().numpy(), p.detach().cpu().numpy())


# -------------------------------------------------------------------- random numbers
def test_a_failed_check_sets_back_every_generator() -> None:
    def of(generator: Any) -> Any:
        def step(x: Any) -> Any:
            noise = gradlite.rand(2, generator=generator) * gradlite.rand(2)
            return x + noise if noise.sum() + x.sum() > 3.0 else x - noise

        return step

    device = gradlite.get_default_device()
    generators = [gradlite.Generator(device).manual_seed(3) for _ in range(2)]
    eager, captured = of(generators[0]), gradlite.capture(of(generators[1]))
    for i in range(20):
        gradlite.manual_seed(i)
        expected = eager(gradlite.full((2,), i % 3 / 2)).cpu().numpy()
        gradlite.manual_seed(i)
        np.testing.assert_array_equal(captured(gradlite.full((2,), i % 3 / 2)).cpu(), expected)
    states = [g.get_state().cpu().numpy() for g in generators]
    np.testing.assert_array_equal(states[0], states[1])
    assert captured.replays


# ------------------------------------------------------------------ modes of the library
def test_anomaly_mode_looks_at_every_call() -> None:
    weight = nn.Parameter(gradlite.ones(2))

    def step(x: Any) -> Any:
        weight.grad = None
        (weight * x).sqrt().sum().backward()
        return weight.grad * 1

    captured = gradlite.capture(step)
    x = gradlite.tensor([1.0, -1.0])
    for _ in range(5):
        assert captured(x).isnan().tolist() == [False, True]
    assert captured.replays == 2
    with gradlite.autograd.set_detect_anomaly(True), pytest.raises(RuntimeError, match="nan"):
        with pytest.warns(UserWarning, match="Error detected"):
            captured(x)
    assert captured(x).isnan().tolist() == [False, True]
    assert captured.replays == 3


def test_whether_sums_are_in_order_counts() -> None:
    def step(x: Any) -> Any:
        return x * (3 if gradlite.are_deterministic_algorithms_enabled() else 2)

    captured = gradlite.capture(step)
    x = gradlite.ones(2)
    for i in range(12):
        if i == 6:
            gradlite.use_deterministic_algorithms(True)
        assert captured(x).tolist() == [3.0 if i >= 6 else 2.0] * 2
    gradlite.use_deterministic_algorithms(False)
    assert captured(x).tolist() == [2.0, 2.0]
    assert (captured.recordings, captured.replays) == (2, 8)


def test_another_precision_of_products_counts() -> None:
    """On a GPU they are others then."""
    x = gradlite.linspace(0.1, 1.7, 1024).view(32, 32)
    captured = gradlite.capture(lambda x: x @ x)
    try:
        for i in range(12):
            if i == 6:
                gradlite.set_float32_matmul_precision("high")
            close(captured(x).cpu().numpy(), (x @ x).cpu().numpy())
    finally:
        gradlite.set_float32_matmul_precision("highest")
    assert (captured.recordings, captured.replays) == (2, 7)


def test_another_default_device_counts(replays: str) -> None:
    if replays != "stand-in":
        pytest.skip("needs a second device")
    x, captured = gradlite.ones(2, device="cpu"), gradlite.capture(lambda x: gradlite.ones(2))
    for i in range(12):
        if i == 6:
            gradlite.set_default_device("cpu")
        assert captured(x).device.type == ("cpu" if i >= 6 else "cuda")
    assert captured.replays >= 3


def test_arguments_of_distributions_are_checked_from_now_on() -> None:
    """On the CPU: of a graph the calls before the recording are the ones that check."""
    x = gradlite.tensor([1.0, -1.0], device="cpu")
    captured = gradlite.capture(lambda x: gradlite.distributions.Normal(0.0, x).log_prob(x))
    gradlite.distributions.Distribution.set_default_validate_args(False)
    try:
        for _ in range(5):
            captured(x)
        assert captured.replays == 2
        gradlite.distributions.Distribution.set_default_validate_args(True)
        with pytest.raises(ValueError, match="Expected parameter scale"):
            captured(x)
    finally:
        gradlite.distributions.Distribution.set_default_validate_args(__debug__)


# ------------------------------------------------------------------------------- copies
class Doubling(nn.Module):
    """A module that keeps a captured step of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(gradlite.full((2,), 2.0))
        self.fast = gradlite.capture(self.scaled)

    def scaled(self, x: Any) -> Any:
        return x * self.weight


@gradlite.capture
def doubled(x: Any) -> Any:
    return x * 2


def test_a_captured_step_is_copied_with_what_it_is_a_method_of() -> None:
    module = Doubling()
    x = gradlite.ones(2)
    for _ in range(5):
        module.fast(x)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        with gradlite.no_grad():
            other.weight.mul_(2)
        for _ in range(5):
            assert other.fast(x).tolist() == [4.0, 4.0]
            assert module.fast(x).tolist() == [2.0, 2.0]
        assert other.fast.replays == 2
    assert pickle.loads(pickle.dumps(doubled)) is doubled
