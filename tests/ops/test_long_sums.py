"""Long sums of single precision by compiled code have errors like those of short ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.capturing.native.build import available
from gradlite.nn import functional as F

pytestmark = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")


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


@pytest.mark.parametrize("mode", ["as it is", "captured"])
@pytest.mark.parametrize("name", CASES)
def test_long_sums_of_products(name: str, mode: str) -> None:
    compute, make = CASES[name]
    arrays = make()
    exact = compute(*(gradlite.from_numpy(x.astype("f8")) for x in arrays)).numpy()
    given = [gradlite.from_numpy(x) for x in arrays]
    run = gradlite.capture(compute) if mode == "captured" else compute
    for _ in range(4 if mode == "captured" else 1):
        made = run(*given).numpy()
    error = np.linalg.norm(made - exact) / np.linalg.norm(exact)
    assert error < 5e-7, error
