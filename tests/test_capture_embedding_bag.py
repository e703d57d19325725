"""Bags of embeddings in captured steps: offsets and indices that change between replays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import autograd, nn, optim
from gradlite.nn import functional as F
from tests.capture_support import close
from tests.capture_support import replays as replays


def trained(mode: str, captured: bool) -> tuple[np.ndarray, int]:
    """The table after eight steps, and how many of them were replays."""
    gradlite.manual_seed(0)
    bag = nn.EmbeddingBag(7, 3, mode=mode, padding_idx=2)
    optimizer = optim.SGD(bag.parameters(), lr=0.1)

    def step(index: Any, offsets: Any) -> Any:
        optimizer.zero_grad()
        loss = bag(index, offsets).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    run: Any = gradlite.capture(step) if captured else step
    rng = np.random.default_rng(0)
    for _ in range(8):
        index, offsets = rng.integers(0, 7, 12), np.sort(rng.integers(0, 12, 4))
        offsets[0] = 0
        run(gradlite.tensor(index), gradlite.tensor(offsets))
    return bag.weight.detach().cpu().numpy(), getattr(run, "replays", 0)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_offsets_that_change(replays: str, mode: str) -> None:
    expected, _ = trained(mode, False)
    table, replays = trained(mode, True)
    close(table, expected)
    assert replays >= 4


def test_an_index_out_of_range_is_an_error_in_a_replay(replays: str) -> None:
    bag = nn.EmbeddingBag(7, 3)
    step = gradlite.capture(lambda index, offsets: bag(index, offsets).sum())
    index, offsets = gradlite.tensor([1, 2, 3]), gradlite.tensor([0, 2])
    for _ in range(5):
        step(index, offsets)
    index[1] = 7
    with pytest.raises(
        RuntimeError, match="index 7 is out of bounds|Index 1 of input takes value 7"
    ):
        step(index, offsets).item()  # on a GPU the host hears of it at the end


def test_offsets_that_do_not_fit_are_errors_in_replays(replays: str) -> None:
    bag = nn.EmbeddingBag(7, 3)
    step = gradlite.capture(lambda index, offsets: bag(index, offsets).sum())
    index, offsets = gradlite.tensor([1, 2, 3]), gradlite.tensor([0, 2])
    for _ in range(5):
        step(index, offsets)
    offsets[1] = 4
    with pytest.raises(
        RuntimeError, match=r"offset 4 is out of bounds|greater than input's length"
    ):
        step(index, offsets).item()


def test_factors_and_second_derivatives(replays: str) -> None:
    gradlite.manual_seed(0)
    table = gradlite.randn(7, 3).requires_grad_()
    factors = gradlite.randn(2, 4).requires_grad_()

    def step(index: Any) -> Any:
        out = F.embedding_bag(index, table, mode="sum", per_sample_weights=factors)
        slopes = autograd.grad(out.square().sum(), (table, factors), create_graph=True)
        return slopes, autograd.grad(sum(s.square().sum() for s in slopes), (table, factors))

    run = gradlite.capture(step)
    for seed in range(8):
        index = gradlite.tensor(np.random.default_rng(seed).integers(0, 7, (2, 4)))
        for ours, expected in zip(run(index), step(index)):
            for a, b in zip(ours, expected):
                np.testing.assert_allclose(
                    a.detach().cpu().numpy(), b.detach().cpu().numpy(), 1e-5, 1e-5
                )
    assert run.replays >= 4
