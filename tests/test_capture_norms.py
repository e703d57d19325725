"""Norms in compiled steps: one recording wherever means lie, as good as float64 allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.capturing.native.build import available

NORMS: dict[str, Any] = {
    "batch of vectors": (lambda: nn.BatchNorm1d(6), (32, 6)),
    "batch of images": (lambda: nn.BatchNorm2d(6), (5, 6, 4, 3)),
    "batch, larger": (lambda: nn.BatchNorm2d(6), (9, 6, 40, 40)),
    "groups": (lambda: nn.GroupNorm(3, 6), (4, 6, 5, 3)),
    "groups of one pixel": (lambda: nn.GroupNorm(2, 6), (4, 6, 1)),
    "groups without weights": (lambda: nn.GroupNorm(2, 6, affine=False), (4, 6, 7)),
    "instances": (lambda: nn.InstanceNorm2d(6, affine=True), (4, 6, 5, 5)),
}
each_norm = pytest.mark.parametrize("name", NORMS)
compiled = pytest.mark.skipif(not available(), reason="there is no C++ compiler")


def captured_step(name: str, dtype: Any) -> tuple[Any, Any]:
    """A norm's values and gradients, and the same captured."""
    norm = NORMS[name][0]().to(dtype)
    with gradlite.no_grad():
        for parameter in norm.parameters():
            parameter += gradlite.arange(6) / 4
    start = gradlite.zeros(NORMS[name][1], dtype=dtype, requires_grad=True)

    def step(x: Any, g: Any) -> list[Any]:
        y = norm(x + start)
        wanted = [start, *norm.parameters()]
        return [y, *gradlite.autograd.grad((y * g).sum(), wanted)]

    return step, gradlite.capture(step)


@each_norm
@compiled
def test_means_near_and_far_take_one_recording(name: str) -> None:
    step, captured = captured_step(name, gradlite.float32)
    rng, shape = np.random.default_rng(1), NORMS[name][1]
    for _ in range(16):
        moved = rng.standard_normal(shape) + rng.choice([0, 3, 30])
        x, g = gradlite.tensor(moved).float(), gradlite.randn(shape)
        for ours, expected in zip(captured(x, g), step(x, g), strict=True):
            np.testing.assert_allclose(ours.array, expected.array, rtol=1e-3, atol=1e-3)
    assert (captured.recordings, captured.replays) == (1, 13)


def test_one_row_among_many_that_is_nearly_constant_takes_no_other_recording() -> None:
    """What rounds is the mean of a row that is large against that row's own deviations."""
    norm = nn.LayerNorm(8)
    captured = gradlite.capture(lambda x: norm(x), native=False)
    rng = np.random.default_rng(3)
    for i in range(8):
        x = rng.standard_normal((64, 8)).astype(np.float32)
        x[5] *= 0.03 if i % 2 else 1.0
        expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(captured(gradlite.tensor(x)).array, expected, atol=1e-5)
    assert (captured.recordings, captured.replays) == (1, 5)


@pytest.mark.parametrize("first", ["as it is", "recorded"])
@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_few_rows_keep_arrays_that_serve_steps_of_any_kind(kind: Any, first: str) -> None:
    rows, n = (5, 12) if first == "recorded" else (5, 13)  # which nothing else has met
    norm = kind(n)

    def step(x: Any) -> list[Any]:
        x = x.detach().requires_grad_()
        return list(gradlite.autograd.grad((norm(x) * x).sum(), [x, *norm.parameters()]))

    for native in {False, available()}:
        captured = gradlite.capture(step, warmup=0 if first == "recorded" else 1, native=native)
        for _ in range(5):
            x = gradlite.randn(rows, n)
            for ours, expected in zip(captured(x), step(x), strict=True):
                assert expected.array.__class__ is np.ndarray
                np.testing.assert_allclose(ours.array, expected.array, rtol=1e-4, atol=1e-5)
        assert captured.replays >= 2


@each_norm
@compiled
@pytest.mark.parametrize("kind", ["at 0", "at 100", "one far off"])
def test_compiled_norms_are_as_good_as_their_input_allows(name: str, kind: str) -> None:
    rng, shape = np.random.default_rng(2), NORMS[name][1]
    x = rng.standard_normal(shape)
    if kind == "at 100":
        x += 100
    elif kind == "one far off":  # the first, as where few samples have a feature
        x *= 1e-6
        x[(0, slice(None), *(0,) * (len(shape) - 2))] = 0.7
    x, g = x.astype(np.float32), rng.standard_normal(shape).astype(np.float32)
    results = []
    for dtype in gradlite.float32, gradlite.float64:
        step, captured = captured_step(name, dtype)
        for _ in range(4):
            result = captured(gradlite.tensor(x, dtype=dtype), gradlite.tensor(g, dtype=dtype))
        assert captured.replays
        results.append([r.array for r in result])
    for ours, expected in zip(*results, strict=True):
        largest = np.abs(expected).max()
        # A mean of 100 is itself rounded, by 4e-6 of the standard deviation.
        limit = 1e-4 if kind == "at 100" else 1e-5
        np.testing.assert_allclose(ours, expected, rtol=0, atol=limit * largest)
