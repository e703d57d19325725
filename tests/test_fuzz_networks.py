"""Random networks train as PyTorch's do, and captured as they are.

``GRADLITE_FUZZ_EXAMPLES=2000 pytest tests/test_fuzz_networks.py`` trains more of them.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest

import gradlite
from gradlite.capturing.native.build import available
from tests.fuzz_networks import STEPS, difference, training
from tests.oracle import torch

EXAMPLES = int(os.environ.get("GRADLITE_FUZZ_EXAMPLES", "0")) or 24
TOGETHER = 12
COMPILED = 12  # of so many one is compiled as well
NEAR = 1e-8


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of layers, which are tested elsewhere
        yield


@pytest.mark.parametrize("start", range(0, EXAMPLES, TOGETHER))
def test_networks_train_as_pytorchs(start: int) -> None:
    for seed in range(start, start + TOGETHER):
        case = training(seed)
        found = difference(case.run(gradlite, STEPS), case.run(torch, STEPS), NEAR)
        assert found is None, f"seed {seed}: {found}\n{case.network}"


@pytest.mark.parametrize("start", range(0, EXAMPLES, TOGETHER))
def test_captured_networks_train_as_they_are(start: int) -> None:
    for seed in range(start, start + TOGETHER):
        case = training(seed)
        expected = case.run(gradlite, STEPS + 4)
        for native in (False, True) if seed % COMPILED == 0 and available() else (False,):
            captured: list[Any] = []

            def capture(step: Any, native: bool = native, into: list[Any] = captured) -> Any:
                into.append(gradlite.capture(step, native=native))
                return into[0]

            found = difference(case.run(gradlite, STEPS + 4, capture), expected, NEAR)
            assert found is None, f"seed {seed}, native {native}: {found}\n{case.network}"
            assert captured[0].replays >= 2, f"seed {seed}: {captured[0].explain()}\n{case.network}"


@pytest.mark.parametrize("kind", ["Conv", "BatchNorm", "Embedding"])
def test_gradients_that_are_wrong_by_a_thousandth_are_found(kind: str) -> None:
    with_it, found = 0, 0
    for case in map(training, range(EXAMPLES)):
        spoilt: list[Any] = []

        def spoil(model: Any, into: list[Any] = spoilt) -> None:
            for layer in model.modules():
                if type(layer).__name__.startswith(kind):
                    into.extend(layer.parameters())
            for p in into:
                p.register_hook(lambda grad: grad * 1.001)

        expected = case.run(gradlite, STEPS)
        found += difference(case.run(gradlite, STEPS, spoil=spoil), expected, NEAR) is not None
        with_it += bool(spoilt)
    # The others hide it: gradients that are zero, or that are clipped to a norm all together.
    assert found > 0.7 * with_it > 1
