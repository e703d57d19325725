"""The CTC loss in captured steps: lengths that change between replays, and shapes that do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.nn import functional as F
from tests.capture_support import replays as replays

TIMES, BATCH, CLASSES, LONGEST = 9, 3, 5, 3


def batch(seed: int, flat: bool, times: int = TIMES) -> tuple[Any, ...]:
    """Scores, targets and lengths; flat targets have the same number of labels every time."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((times, BATCH, CLASSES)).astype(np.float32)
    lengths = rng.permutation([3, 2, 1])
    targets = rng.integers(1, CLASSES, 6 if flat else (BATCH, LONGEST))
    steps = rng.integers(times - 2, times + 1, BATCH)
    return tuple(map(gradlite.tensor, (scores, targets, steps, lengths)))


def loss_and_gradient(scores: Any, *operands: Any, **options: Any) -> tuple[Any, Any]:
    scores = scores.detach().requires_grad_()
    loss = F.ctc_loss(scores.log_softmax(2), *operands, **options)
    loss.sum().backward()
    return loss.detach(), scores.grad


@pytest.mark.parametrize("flat", [False, True], ids=["rows", "flat"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_lengths_that_change(replays: str, flat: bool, reduction: str) -> None:
    options = {"reduction": reduction, "zero_infinity": reduction == "none"}
    step = gradlite.capture(lambda *operands: loss_and_gradient(*operands, **options))
    for seed in range(8):
        operands = batch(seed, flat)
        for ours, expected in zip(step(*operands), loss_and_gradient(*operands, **options)):
            np.testing.assert_allclose(ours.cpu().numpy(), expected.cpu().numpy(), 1e-5, 1e-6)
    assert step.replays >= 4


def test_another_number_of_steps_is_another_recording(replays: str) -> None:
    step = gradlite.capture(loss_and_gradient)
    for seed in range(10):
        operands = batch(seed, False, TIMES + (seed >= 5))
        for ours, expected in zip(step(*operands), loss_and_gradient(*operands)):
            np.testing.assert_allclose(ours.cpu().numpy(), expected.cpu().numpy(), 1e-5, 1e-6)
    assert step.replays >= 4


def test_lengths_of_the_host(replays: str) -> None:
    def step_of(scores: Any, targets: Any, lengths: tuple[int, ...]) -> tuple[Any, Any]:
        return loss_and_gradient(scores, targets, (TIMES,) * BATCH, lengths)

    step = gradlite.capture(step_of)
    for seed in range(10):
        scores, targets, *_ = batch(seed, False)
        lengths = (1, 2, 3) if seed < 5 else (3, 2, 1)
        expected = step_of(scores, targets, lengths)
        for ours, theirs in zip(step(scores, targets, lengths), expected):
            np.testing.assert_allclose(ours.cpu().numpy(), theirs.cpu().numpy(), 1e-5, 1e-6)
    assert step.replays >= 4


def test_a_length_that_does_not_fit_is_an_error_in_a_replay(replays: str) -> None:
    step = gradlite.capture(loss_and_gradient)
    scores, targets, steps, lengths = batch(0, False)
    for _ in range(5):
        step(scores, targets, steps, lengths)
    steps[1] = TIMES + 1
    with pytest.raises(RuntimeError, match="at most 9, but got value 10|input_length 10 is out of"):
        loss, _ = step(scores, targets, steps, lengths)
        loss.item()  # on a GPU the host hears of it here
