"""Inputs of compiled steps are read where they lie, unless that would give other values."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.capturing.native import inputs
from gradlite.capturing.native.build import available
from gradlite.capturing.native.inputs import Pointers
from gradlite.tensor import wrap

pytestmark = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")


@pytest.fixture(params=["one call", "Python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Python":
        monkeypatch.setattr(inputs, "_library", lambda: None)
    return str(request.param)


def layouts(n: int) -> list[Any]:
    """Arrays of one shape and dtype: plain, with gaps, turned, read-only, and odd addresses."""
    rng = np.random.default_rng(n)
    arrays = [rng.standard_normal((n, 3)).astype(np.float32) for _ in range(2)]
    arrays.append(rng.standard_normal((2 * n, 6)).astype(np.float32)[::2, 1::2])
    arrays.append(rng.standard_normal((3, n)).astype(np.float32).T)
    arrays.append(rng.standard_normal((n, 3)).astype(np.float32)[::-1])
    fixed = rng.standard_normal((n, 3)).astype(np.float32)
    fixed.flags.writeable = False
    raw = rng.standard_normal((n, 3)).astype(np.float32).tobytes()
    odd = np.frombuffer(b"." + raw, np.uint8)[1:].view(np.float32).reshape(n, 3)
    return [*arrays, fixed, odd, arrays[0]]


@pytest.mark.parametrize("n", [1, 5, 2000])
def test_every_layout(way: str, n: int) -> None:
    step = gradlite.capture(lambda x, y, k: (x * 2 + y, x.sum(0) * k), native=True)
    arrays = layouts(n)
    for i in range(2 * len(arrays)):
        x, y = arrays[i % len(arrays)], arrays[(3 * i + 1) % len(arrays)]
        k = np.float32(i)
        first, second = step(wrap(x), wrap(y), gradlite.tensor(float(k)))
        np.testing.assert_allclose(first.numpy(), x * 2 + y, rtol=1e-6)
        np.testing.assert_allclose(second.numpy(), x.sum(0) * k, rtol=1e-5, atol=1e-5)
    assert step.replays >= 2 * len(arrays) - 4


@pytest.mark.parametrize("n", [3, 3000])
def test_an_input_that_the_step_changes(way: str, n: int) -> None:
    """The parameter itself is given: what is read behind the update is what it was before."""

    def train(captured: bool) -> list[Any]:
        w = nn.Parameter(gradlite.linspace(0.5, 1, n))
        optimizer = optim.SGD([w], lr=0.25)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = (w * x).sum()
            loss.backward()
            optimizer.step()
            return x + w.detach() * 0

        run = gradlite.capture(step, native=True) if captured else step
        other = gradlite.linspace(0.25, 0.75, n)
        results = []
        for i in range(10):
            given = w.detach() if i % 2 and i > 4 else other
            expected = given.numpy().copy()
            result = run(given)
            if captured:
                np.testing.assert_array_equal(result.numpy(), expected)
            results.append(w.detach().numpy().copy())
        assert not captured or run.replays >= 7
        return results

    for ours, theirs in zip(train(True), train(False), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_buffer_that_the_step_writes(way: str) -> None:
    total = gradlite.zeros(6)

    def step(x: Any) -> Any:
        total.add_(1)
        return x * 2 + total

    run = gradlite.capture(step, native=True)
    expected = np.zeros(6, np.float32)
    for i in range(8):
        given = total if i > 5 else gradlite.arange(6.0)
        before = given.numpy().copy()
        result = run(given)
        expected = expected + 1
        np.testing.assert_array_equal(result.numpy(), before * 2 + expected)
    assert run.replays >= 5


def test_results_are_no_views_of_the_plan(way: str) -> None:
    run = gradlite.capture(lambda x: x * 2, native=True)
    x = gradlite.arange(4.0)
    for _ in range(4):
        x = run(x)  # a result may be the next input
    assert x.tolist() == [0.0, 16.0, 32.0, 48.0]


def test_one_call_finds_the_addresses() -> None:
    table = (ctypes.c_void_p * 3)()
    arrays = [np.arange(6.0), np.arange(4.0), np.arange(8.0)[::2]]
    pointers = Pointers({0: 2, 1: 0}, {0: 48, 1: 32}, table, [(1, 2)])
    assert pointers.point(arrays) == []
    assert list(table) == [arrays[1].ctypes.data, None, arrays[0].ctypes.data]
    gaps = Pointers({2: 1}, {2: 32}, table, [(1, 2)])
    (copy,) = gaps.point(arrays)
    assert table[1] == copy.ctypes.data
    assert copy.tolist() == [0, 2, 4, 6]
    start = arrays[0].ctypes.data
    taken = Pointers({0: 2}, {0: 48}, table, [(start + 47, start + 90)])
    (copy,) = taken.point(arrays)
    assert copy.tolist() == arrays[0].tolist()
    behind = Pointers({0: 2}, {0: 48}, table, [(start + 48, start + 90), (start - 9, start)])
    assert behind.point(arrays) == []


@pytest.mark.parametrize("n", [3, 5000])
def test_an_input_that_an_average_is_made_in(way: str, n: int) -> None:
    """Python code of a step may change tensors that have no gradient."""
    model = nn.Linear(n, 1, bias=False)
    average = optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)

    def step(x: Any) -> Any:
        average.update_parameters(model)
        return x * 1

    run = gradlite.capture(step, state=[average, model], native=True)
    weight = average.module.weight
    for i in range(8):
        model.weight.data.fill_(float(i))
        given = weight.detach() if i > 4 else gradlite.zeros(1, n)
        expected = given.numpy().copy()
        result = run(given).numpy()
        if i > 2:
            np.testing.assert_array_equal(result, expected)
    assert run.replays >= 4
