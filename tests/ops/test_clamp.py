"""Values between bounds that are tensors: every order of the three, NaN and infinities."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tests.oracle import outcome_of, same

NUMBERS = [-1.0, 0.0, 1.0, 2.0, float("nan"), float("inf"), -float("inf")]
TRIPLES = np.array(list(itertools.product(NUMBERS, repeat=3))).T.tolist()
BOUNDS = {
    "both": lambda low, high: {"min": low, "max": high},
    "the lower one": lambda low, high: {"min": low},
    "the upper one": lambda low, high: {"max": high},
}


@pytest.mark.parametrize("bounds", BOUNDS)
def test_values_and_gradients_in_every_order(bounds: str) -> None:
    def program(T: Any) -> Any:
        x, low, high = (T.tensor(v, requires_grad=True) for v in TRIPLES)
        y = T.clamp(x, **BOUNDS[bounds](low, high))
        y.backward(T.arange(1.0, len(y) + 1))
        return y, x.grad, *(t.grad for t in (low, high) if t.grad is not None)

    same(program)


def test_bounds_that_broadcast_and_are_of_other_dtypes() -> None:
    def program(T: Any) -> Any:
        x = T.arange(12).reshape(3, 4)
        low, high = T.tensor([2.5, 0.0, 3.0, 1.0], dtype=T.float64), T.tensor([[9], [4], [8]])
        return (
            x.clamp(low, high), x.clamp(min=high), x.clamp(max=low), T.clamp(x, T.tensor(3)),
            T.clamp_min(x, low), T.clamp_max(x, high), x.int().clamp(high, high + 2),
        )  # fmt: skip

    same(program)


def test_in_place_and_messages() -> None:
    def program(T: Any) -> Any:
        x = T.tensor([1.0, 5.0], requires_grad=True)
        y = x * 1
        y.clamp_(T.tensor([2.0, 2.0]), T.tensor([3.0, 3.0]))
        y.sum().backward()
        return y, x.grad, outcome_of(lambda: T.ones(2).clamp(T.ones(3)))

    same(program)
