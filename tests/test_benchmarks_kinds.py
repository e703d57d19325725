"""The models of many kinds that benchmarks compare with PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite

kinds: Any = pytest.importorskip("benchmarks.kinds", reason="the benchmarks are not installed")


@pytest.mark.parametrize("name", list(kinds.KINDS))
def test_captured_steps_go_as_they_do_otherwise(name: str) -> None:
    losses = []
    for options in (None, {"native": False}):
        step = kinds.step_of(gradlite, name, options)
        losses.append([step().item() for _ in range(6)])
    assert np.isfinite(losses[0]).all() and len(set(losses[0])) > 1
    np.testing.assert_allclose(losses[1], losses[0], 1e-5)


@pytest.mark.parametrize("name", list(kinds.KINDS))
def test_both_libraries_have_the_same_model(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    shapes = [
        [
            (key, tuple(value.shape))
            for key, value in kinds.KINDS[name].model(T).state_dict().items()
        ]
        for T in (gradlite, torch)
    ]
    assert shapes[0] == shapes[1]
