"""The memory of a captured step: nothing of the recording is held on, and no more than eager's."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.capturing.native.build import available
from gradlite.capturing.step import WAITING
from gradlite.tensor import wrap

MIB = 1 << 20


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.skipif(
    not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0"))])  # fmt: skip
def native(request: pytest.FixtureRequest) -> bool:
    """Replays by array calls, and by compiled code."""
    return bool(request.param)


def training(depth: int, width: int, batch: int) -> tuple[nn.Module, Callable[[], Any]]:
    """A perceptron and a step of training it on noise."""
    layers = [m for _ in range(depth) for m in (nn.Linear(width, width), nn.Tanh())]
    model = nn.Sequential(*layers)
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    x = gradlite.randn(batch, width)

    def step() -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def test_the_gradients_of_the_recording_are_freed(native: bool) -> None:
    model, step = training(2, 16, 8)
    captured = gradlite.capture(step, native=native)
    recorded = []
    for _ in range(3):
        captured()
        recorded += [weakref.ref(p.grad) for p in model.parameters()]
    assert captured.recordings == 1 and captured.replays == 0
    captured()
    gc.collect()
    assert captured.replays == 1
    assert [grad for grad in recorded if grad() is not None] == []


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def peak(step: Callable[[], Any]) -> int:
    """Bytes in use at the highest point of a step, once it is warm."""
    for _ in range(5):
        step()
    gc.collect()
    tracemalloc.reset_peak()
    for _ in range(2):
        step()
    return tracemalloc.get_traced_memory()[1]


def test_a_replay_needs_no_more_than_the_step_as_it_is(native: bool, traced: None) -> None:
    peak(gradlite.capture(training(1, 2, 2)[1], native=native))  # imports what it needs
    gc.collect()
    start = tracemalloc.get_traced_memory()[0]
    kept = training(12, 64, 4096)  # 12 activations of 1 MiB, and one gradient or two
    eager = peak(kept[1]) - start
    del kept
    gc.collect()
    start = tracemalloc.get_traced_memory()[0]
    _, step = training(12, 64, 4096)
    captured = gradlite.capture(step, native=native)
    replayed = peak(captured) - start
    assert captured.replays > 2
    assert 13 * MIB < eager < 20 * MIB
    # Python's own objects; compiled products also pack their operands, in a MiB of scratch at most,
    # where NumPy's have memory that Python does not know.
    assert replayed < eager + (1.25 * MIB if native else 0.25 * MIB)


def test_gradients_and_what_came_before_them_share_memory(native: bool) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    def step(x: Any, target: Any) -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        return loss

    captured = gradlite.capture(step, native=native)
    x, target = gradlite.randn(4096, 64), gradlite.arange(4096) % 4
    for _ in range(5):
        captured(x, target)
    (plan,) = [r.plan for kept in captured._kept.values() for r in kept]
    gradients = sum(p.grad.array.nbytes for p in model.parameters())
    assert plan.arena.nbytes < 3.2 * MIB + gradients  # hidden layer and logits, with gradients


def test_calls_are_let_go_and_still_explained(native: bool) -> None:
    captured = gradlite.capture(training(2, 16, 8)[1], native=native)
    for _ in range(3):
        captured()
    before = captured.explain()
    captured()
    (recording,) = [r for kept in captured._kept.values() for r in kept]
    assert recording.plan.calls == [] and recording.listing is not None
    assert captured.explain() == before.replace("0 replays", "1 replays")
    assert "dot(" in before or "layer(" in before
    assert ": ElementwiseOptimizer.step" in before


def test_results_take_the_place_of_operands_element_by_element(native: bool) -> None:
    def step(x: Any) -> Any:
        a = x * 2
        b = a.exp()  # over a
        c = b + b.t()  # two views of one array: not over b
        d = gradlite.matmul(c, c)  # no element by itself: not over c
        e = (c - d).clone()
        f = e.sin() + 1
        g = f - e  # in f, which was there before
        return (g * (x > 0)).log1p().sum(), d * x

    captured = gradlite.capture(step, native=native)
    for _ in range(6):
        x = gradlite.rand(16, 16)
        for ours, theirs in zip(captured(x), step(x), strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), 2e-5, 2e-5)
    assert captured.replays == 3


def sums(x: Any) -> Any:
    return (x * 2).sum(1), x.exp()


def test_large_inputs_are_read_where_they_lie(native: bool) -> None:
    captured = gradlite.capture(sums, native=native)
    for _ in range(3):
        captured(gradlite.randn(64, 64))
    (recording,) = [r for kept in captured._kept.values() for r in kept]
    assert recording.plan.inputs == [None]
    wide = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
    fixed = wide[:, :64].copy()
    fixed.flags.writeable = False
    for array in (wide[:, ::2], wide[:, 64:], wide[:64, :64].T, fixed):
        x = wrap(array)
        for ours, theirs in zip(captured(x), sums(x), strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), 1e-5, 1e-5)
    assert captured.replays == 4


def test_an_input_may_be_what_the_step_itself_writes_to(native: bool) -> None:
    w = gradlite.randn(64, 64).requires_grad_()
    weights = [w.detach().clone().requires_grad_(), w]

    def made(w: Any) -> Any:
        def step(x: Any) -> Any:
            w.grad = None
            (w * 3).square().sum().backward()
            w.detach().mul_(0.5)
            return (x * 2).sum()

        return step

    eager, captured = made(weights[0]), gradlite.capture(made(weights[1]), native=native)
    for _ in range(3):
        x = gradlite.randn(64, 64)
        assert eager(x).item() == pytest.approx(captured(x).item(), rel=1e-4, abs=1e-3)
    x = gradlite.from_numpy(weights[1].detach().numpy())  # before the step halves it, as a copy
    expected = 2 * x.numpy().sum()
    assert captured(x).item() == pytest.approx(expected, rel=1e-4, abs=1e-3)
    eager(x.clone())
    # A gradient lies where this step, or the next, has other values in between.
    before = weights[1].grad.numpy().sum() * 2
    assert captured(weights[1].grad).item() == pytest.approx(before, rel=1e-4, abs=1e-2)
    eager(gradlite.zeros(64, 64))
    np.testing.assert_allclose(weights[0].detach().numpy(), weights[1].detach().numpy(), 1e-6)


def test_a_replay_that_does_not_hold_leaves_gradients_alone(native: bool) -> None:
    w = gradlite.ones(256, requires_grad=True)

    def step(x: Any) -> Any:
        y = (x * w).exp()
        if y.sum() > 1e3:
            return None
        w.grad = None
        y.sum().backward()
        return y

    captured = gradlite.capture(step, native=native)
    for value in range(5):
        captured(gradlite.full((256,), 0.1 * value))
    assert captured.replays == 2
    gradient = w.grad.numpy().copy()
    for _ in range(3):
        assert captured(gradlite.full((256,), 9.0)) is None
        np.testing.assert_array_equal(w.grad.numpy(), gradient)


def test_signatures_that_never_come_again_are_forgotten() -> None:
    step = gradlite.capture(lambda x: x * 2, warmup=0, max_recordings=2, native=False)
    for size in range(1, 60):
        step(gradlite.ones(size))
    assert step.recordings == 0 and len(step._pending) <= 2 * WAITING
    for _ in range(3):
        step(gradlite.ones(59))  # the latest of them are still waiting for their second time
    assert step.recordings == 1 and step.replays == 2
