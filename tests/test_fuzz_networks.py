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
from gradlite.ops import conv, norm_rules
from gradlite.ops.embedding import Embedding
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


@pytest.mark.parametrize("op", [conv.Convolution, norm_rules.NativeBatchNorm, Embedding])
def test_a_rule_that_is_wrong_by_a_thousandth_is_found(
    op: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule, used = op.backward, [False]

    def enlarged(*args: Any) -> Any:
        used[0] = True
        return tuple(g if g is None else g * 1.001 for g in rule(*args))

    with_it, found = 0, 0
    for case in map(training, range(EXAMPLES)):
        expected = case.run(gradlite, STEPS)
        with monkeypatch.context() as patch:
            patch.setattr(op, "backward", staticmethod(enlarged))
            used[0] = False
            wrong = difference(case.run(gradlite, STEPS), expected, NEAR)
        with_it += used[0]
        found += wrong is not None
    # The others hide it: gradients that are zero, or that are clipped to a norm all together.
    assert found > 0.7 * with_it > 1
