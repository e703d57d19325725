"""The memory of a captured step: nothing of the recording is held on, and no more than eager's."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gradlite
from gradlite import nn, optim
from gradlite.capturing.native.build import available
from gradlite.capturing.step import WAITING

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
    # The lists of calls; compiled products also pack their operands in half a MiB of scratch.
    assert replayed < eager + (1.25 * MIB if native else 0.75 * MIB)


def test_signatures_that_never_come_again_are_forgotten() -> None:
    step = gradlite.capture(lambda x: x * 2, warmup=0, max_recordings=2, native=False)
    for size in range(1, 60):
        step(gradlite.ones(size))
    assert step.recordings == 0 and len(step._pending) <= 2 * WAITING
    for _ in range(3):
        step(gradlite.ones(59))  # the latest of them are still waiting for their second time
    assert step.recordings == 1 and step.replays == 2
