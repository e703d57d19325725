"""The CTC loss: random lengths and targets, impossible ones, derivatives through log_softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.nn import functional as F
from tests.oracle import same


@pytest.mark.parametrize("seed", range(6))
def test_random_targets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times, batch, classes, longest = rng.integers(1, 9), 3, 4, 4
    scores = rng.standard_normal((times, batch, classes))
    targets = rng.integers(0, classes - 1, (batch, longest))
    steps, lengths = rng.integers(1, times + 1, batch), rng.integers(0, longest + 1, batch)

    def program(T: Any) -> Any:
        x = T.tensor(scores, requires_grad=True)
        losses = T.nn.functional.ctc_loss(
            x.log_softmax(2), T.tensor(targets), T.tensor(steps), T.tensor(lengths),
            blank=classes - 1, reduction="none",
        )  # fmt: skip
        possible = losses.detach() < 1e30
        losses.masked_fill(~possible, 0.0).sum().backward()
        grad = x.grad.transpose(0, 1)[possible]
        return losses.detach(), grad

    same(program, rtol=1e-9)


def test_impossible_targets_give_infinity_or_nothing() -> None:
    def program(T: Any) -> Any:
        x = T.zeros(2, 2, 3, requires_grad=True)
        arguments = (T.tensor([[1, 1], [1, 2]]), (2, 2), (2, 2))
        infinite = T.nn.functional.ctc_loss(x.log_softmax(2), *arguments, reduction="none")
        loss = T.nn.functional.ctc_loss(x.log_softmax(2), *arguments, zero_infinity=True)
        loss.backward()
        return infinite.detach(), loss.detach(), x.grad

    same(program)


def test_derivatives_through_log_softmax() -> None:
    rng = np.random.default_rng(0)
    x = gradlite.tensor(rng.standard_normal((5, 2, 4)), requires_grad=True)
    targets = gradlite.tensor([[1, 1], [2, 3]])

    def loss(scores: Any) -> Any:
        return F.ctc_loss(scores.log_softmax(2), targets, (5, 4), (2, 1), reduction="sum")

    assert gradlite.autograd.gradcheck(loss, (x,))
    assert gradlite.autograd.gradgradcheck(loss, (x,))
