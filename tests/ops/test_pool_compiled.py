"""Max-pooling by the compiled functions of maxima.hpp, against NumPy's fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import launches, libraries
from gradlite.capturing.native.build import available
from gradlite.nn import functional as F
from gradlite.ops import pool_compiled, pooling
from gradlite.ops.windows import Geometry

needs_compiler = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")
WINDOW, WINDOWS = (2, 2), Geometry((2, 2))
SHAPES = [
    (3, 2, 4, 6), (2, 3, 5, 7), (5, 8, 8), (2, 1, 2, 16), (2, 2, 3, 17), (4, 2, 2), (2, 2, 9, 26),
    (3, 2, 35), (7, 6, 9),
]  # fmt: skip


@pytest.fixture
def all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code for all images, however small."""
    monkeypatch.setattr(pool_compiled, "LEAST_PIXELS", 1)


def by_numpy(function: Any, *args: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_compiled, "_loaded", lambda dtype: None)
        return function(np, *args)


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_maxima_and_winners(shape: tuple[int, ...], dtype: str, all_sizes: None) -> None:
    rng = np.random.default_rng(0)
    for special in (False, True):
        x = rng.integers(-2, 3, shape).astype(dtype)  # with many equal ones
        if special:
            for value in (np.nan, np.inf, -np.inf, -0.0):
                x[rng.random(shape) < 0.15] = value
        with launches.record() as names:
            high, winners = pooling.maxima(np, x, WINDOW, WINDOWS)
            g = rng.standard_normal(high.shape).astype(dtype)
            g[rng.random(g.shape) < 0.1] = np.inf
            spread = pooling.scatter(np, g, winners, shape, WINDOW, WINDOWS)
        assert names == ["max_pool", "max_pool_scatter"]
        expected, places = by_numpy(pooling.maxima, x, WINDOW, WINDOWS)
        assert high.dtype == dtype and winners.dtype == places.dtype
        np.testing.assert_array_equal(high, expected)
        np.testing.assert_array_equal(winners, places)
        np.testing.assert_array_equal(
            spread, by_numpy(pooling.scatter, g, places, shape, WINDOW, WINDOWS)
        )


@needs_compiler
def test_what_does_not_fit_is_numpys(all_sizes: None) -> None:
    x = np.random.default_rng(0).random((3, 4, 6, 8), np.float32)
    across = np.ascontiguousarray(x.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    odd = (
        (across, WINDOW, WINDOWS),
        (x[:, :, ::-1], WINDOW, WINDOWS),
        (x.astype(np.int32), WINDOW, WINDOWS),
        (x[:0], WINDOW, WINDOWS),
        (x, WINDOW, Geometry((1, 1))),
        (x, WINDOW, Geometry((2, 2), ((1, 1), (1, 1)))),
        (x, (3, 3), Geometry((2, 2))),
    )
    for args in odd:
        with launches.record() as names:
            high, winners = pooling.maxima(np, *args)
        assert names == []
        expected, places = by_numpy(pooling.maxima, *args)
        np.testing.assert_array_equal(high, expected)
        np.testing.assert_array_equal(winners, places)


@needs_compiler
def test_a_gradient_of_any_layout(all_sizes: None) -> None:
    x = gradlite.rand(4, 3, 8, 8, requires_grad=True)
    y = F.max_pool2d(x, 2)
    with launches.record() as names:
        y.backward(gradlite.ones(1, 1, 1, 1).expand(4, 3, 4, 4))
    assert names == ["max_pool_scatter"]
    assert x.grad is not None and x.grad.sum().item() == 4 * 3 * 4 * 4


@needs_compiler
def test_a_replay_of_array_calls_is_eager_to_the_bit(all_sizes: None) -> None:
    def step(x: Any) -> Any:
        leaf = x.detach().requires_grad_()
        y = F.max_pool2d(leaf, 2)
        (y * y).sum().backward()
        return leaf.grad

    x = gradlite.randn(4, 3, 8, 8)
    expected = step(x).numpy().copy()
    captured = gradlite.capture(step, native=False)
    for _ in range(3):
        captured(x)
    with launches.record() as names:
        made = captured(x).numpy()
    assert names == ["max_pool", "max_pool_scatter"]
    np.testing.assert_array_equal(made, expected)


def test_few_pixels_compile_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "load", lambda *names: pytest.fail("compiled"))
    x = gradlite.rand(8, 4, 16, 16, requires_grad=True)
    F.max_pool2d(x, 2).sum().backward()
    assert 8 * 4 * 16 * 16 < pool_compiled.LEAST_PIXELS
