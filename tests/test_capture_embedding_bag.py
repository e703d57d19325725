"""Bags of embeddings in CUDA graphs: offsets and indices that change between replays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from tests.capture_support import where as where


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
def test_offsets_that_change(where: str, mode: str) -> None:
    expected, _ = trained(mode, False)
    table, replays = trained(mode, True)
    np.testing.assert_array_equal(table, expected)
    assert replays >= 4


def test_an_index_out_of_range_is_an_error_in_a_replay(where: str) -> None:
    bag = nn.EmbeddingBag(7, 3)
    step = gradlite.capture(lambda index, offsets: bag(index, offsets).sum())
    index, offsets = gradlite.tensor([1, 2, 3]), gradlite.tensor([0, 2])
    for _ in range(5):
        step(index, offsets)
    index[1] = 7
    loss = step(index, offsets)
    with pytest.raises(RuntimeError, match="index 7 is out of bounds for dimension with size 7"):
        loss.item()
