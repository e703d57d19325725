"""Long sums of single precision have errors like those of short ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.capturing.native.build import available
from gradlite.nn import functional as F


def numbers(seed: int, *shape: int) -> Any:
    """Normal numbers, so that errors of rounding add up at random."""
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def convolved(x: Any, w: Any) -> Any:
    return F.conv2d(x, w, padding=w.shape[-1] // 2)


# What is computed, and of which arrays: each result is the sum of thousands of products.
CASES: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]] = {
    "matrices": (lambda a, b: a @ b, lambda: (numbers(0, 32, 20000), numbers(1, 20000, 64))),
    "a turned matrix": (
        lambda a, b: F.linear(a, b),
        lambda: (numbers(0, 32, 20000), numbers(1, 48, 20000)),
    ),
    "a few columns": (
        lambda a, b: F.linear(a, b),
        lambda: (numbers(0, 16, 30000), numbers(1, 5, 30000)),
    ),
    "mostly zeros": (
        lambda a, b: a @ b,
        lambda: (
            numbers(0, 36, 30000) * (np.arange(30000) % 4 == 0).astype("f4"),
            numbers(1, 30000, 64),
        ),
    ),
    "stacks": (lambda a, b: a @ b, lambda: (numbers(0, 4, 16, 9000), numbers(1, 4, 9000, 16))),
    "an image": (convolved, lambda: (numbers(0, 1, 256, 9, 9), numbers(1, 16, 256, 7, 7))),
    "a batch of images": (
        convolved,
        lambda: (numbers(0, 32, 128, 6, 6), numbers(1, 8, 128, 5, 5)),
    ),
}


# Numbers of one sign: sums that grow round each number more and more.
SUMS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "all numbers": (lambda x: x.sum(), (1500000,)),
    "the mean of squares": (lambda x: (x * x).mean(), (1500000,)),
    "long rows": (lambda x: x.mean(1), (4, 400000)),
    "columns": (lambda x: x.sum(0), (150000, 5)),
    "means of columns": (lambda x: (x + 1).mean(0), (150000, 5)),
    "columns of blocks": (lambda x: x.sum((0, 1)), (300, 500, 6)),
    "columns of every block": (lambda x: x.sum(1, keepdim=True), (3, 70000, 5)),
    "apart": (lambda x: x.sum((0, 2)), (700, 3, 300, 2)),
    "each second row": (lambda x: x[::2].sum(0), (200000, 3)),
    "channels": (lambda x: x.sum((0, 2)), (40000, 3, 5)),
}

compiled = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")
MODES = ["as it is", pytest.param("captured", marks=compiled)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SUMS)
def test_long_sums(name: str, mode: str) -> None:
    compute, shape = SUMS[name]
    x = np.random.default_rng(0).random(shape, "f4")
    check(compute, (x,), mode, 2.5e-7)


def test_gradients_of_biases_of_many_rows() -> None:
    x = np.random.default_rng(0).random((50000, 4), "f4")
    for dtype in ("f4", "f8"):
        given: list[Any] = [
            gradlite.from_numpy(x.astype(dtype)) for x in (x, x[:3], x[0, :3], x[1, :3])
        ]
        for one in given[1:]:
            one.requires_grad_()
        made = F.linear(*given[:3]) + given[3]
        made.backward(given[0][:, :3])
        for one in given[2:]:
            np.testing.assert_allclose(one.grad.numpy(), x[:, :3].astype("f8").sum(0), 2.5e-7)


@compiled
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_long_sums_of_products(name: str, mode: str) -> None:
    compute, make = CASES[name]
    check(compute, make(), mode, 5e-7)


def check(compute: Callable[..., Any], arrays: tuple[Any, ...], mode: str, bound: float) -> None:
    """Compare with double precision, by the norm of what is wrong."""
    exact = compute(*(gradlite.from_numpy(x.astype("f8")) for x in arrays)).numpy()
    given = [gradlite.from_numpy(x) for x in arrays]
    run = gradlite.capture(compute) if mode == "captured" else compute
    for _ in range(4 if mode == "captured" else 1):
        made = run(*given).numpy()
    assert made.shape == exact.shape and made.dtype == np.float32
    error = np.linalg.norm(made - exact) / np.linalg.norm(exact)
    assert error < bound, error


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("dims", [(0,), (0, 1), (1,)], ids=str)
def test_captured_sums_are_as_long(dims: tuple[int, ...], native: bool) -> None:
    """The very bits in array calls, and no less precise in compiled code."""
    x = gradlite.rand(60, 1100, 9)
    step = gradlite.capture(lambda x: x.sum(dims), native=native)
    for _ in range(5):
        made = step(x)
    assert step.replays >= 2
    if native:
        np.testing.assert_allclose(made, x.double().sum(dims), 1e-6)
    else:
        np.testing.assert_array_equal(made, x.sum(dims))
