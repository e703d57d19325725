"""The choice by a condition on large arrays: bit by bit what NumPy's ``where`` gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops import chosen
from tests.oracle import same

DTYPES = ["f2", "f4", "f8", "i1", "i4", "i8", "?", "u1"]
SHAPES = [(chosen.LEAST,), (70, 123), (3, 5, 1200)]


def values(dtype: Any, shape: tuple[int, ...], seed: int) -> Any:
    """Every pattern of bits that fits, NaNs with what they carry and both zeros among them."""
    rng = np.random.default_rng(seed)
    if dtype == "?":
        return np.asarray(rng.random(shape) < 0.5)
    dtype = np.dtype(dtype)
    drawn = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype)
    drawn = drawn.reshape(shape)
    if dtype.kind == "f" and shape:
        drawn.reshape(-1)[:4] = [0.0, -0.0, np.inf, np.nan]
    return drawn


def assert_same_bits(made: Any, expected: Any) -> None:
    assert made.dtype == expected.dtype and made.shape == expected.shape
    assert made.tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits(dtype: str, shape: tuple[int, ...]) -> None:
    a, b = values(dtype, shape, 0), values(dtype, shape, 1)
    number = values(dtype, (), 2)
    assert np.prod(shape) >= chosen.LEAST
    for condition in (values("?", shape, 3), np.zeros(shape, bool), np.ones(shape, bool)):
        for first, second in ((a, b), (a, number), (number, b), (a, a)):
            assert chosen._by_bits(condition, first, second) is not None
            made = chosen.chosen(np, condition, first, second)
            assert_same_bits(made, np.where(condition, first, second))
            assert not np.shares_memory(made, first) and not np.shares_memory(made, second)


def test_bfloat16() -> None:
    bfloat16 = gradlite.zeros(1, dtype=gradlite.bfloat16).array.dtype
    condition = values("?", SHAPES[0], 0)
    a, b = (values("i2", SHAPES[0], seed).view(bfloat16) for seed in (1, 2))
    made = chosen.chosen(np, condition, a, b)
    assert_same_bits(made, np.where(condition, a, b))


def test_other_layouts_are_numpys() -> None:
    shape = (128, 96)
    condition, a, b = values("?", shape, 0), values("i4", shape, 1), values("i4", shape, 2)
    others = [
        (condition.T, a.T, b.T), (condition, a[0], b), (condition, a[:, :1], b),
        (condition, a, b.astype("i8")), (condition, a, 2), (condition[:, :1], a, b),
        (np.broadcast_to(condition[0], shape), a, b), (condition, a.T.copy().T, b),
    ]  # fmt: skip
    for given in others:
        assert chosen._by_bits(*given) is None
        np.testing.assert_array_equal(chosen.chosen(np, *given), np.where(*given))


@pytest.mark.parametrize("size", [chosen.LEAST - 1, chosen.LEAST, 100_003])
def test_ops_and_their_gradients(size: int) -> None:
    """Those of PyTorch, infinities where nothing is chosen included."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(size).astype(np.float32) for _ in range(3)]
    arrays[1][::7] = np.inf

    def program(T: Any) -> Any:
        x, y = (T.tensor(array, requires_grad=True) for array in arrays[:2])
        mask = T.tensor(arrays[2]) > 0
        results = [T.where(mask, x, y), T.where(mask, y, 0.5), x.masked_fill(mask, -np.inf)]
        results.append(y.masked_fill(mask, T.tensor(2.0)))
        for k, result in enumerate(results):
            T.where(result.isfinite(), result, 0.0).mul(k + 1).sum().backward()
        return (*results, x.grad, y.grad)

    same(program)


def test_captured_steps_have_the_same_bits() -> None:
    x = gradlite.randn(20_000)
    step = gradlite.capture(lambda x: gradlite.where(x > 0, x, x * 2), native=False)
    for _ in range(5):
        assert step(x).equal(gradlite.where(x > 0, x, x * 2))
    assert step.replays >= 2
