"""Programs written for PyTorch: the same numbers here, as they are and captured."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import libraries
from gradlite.capturing.native.build import available
from tests.programs import PROGRAMS, decisions, images, others, sequences

torch = pytest.importorskip("torch")

__all__ = [
    "decisions",
    "images",
    "others",
    "sequences",
]  # which enter their programs into the table

STEPS = 6
Step = Callable[..., Any]


def numbers(library: Any, name: str, updates: int, around: Callable[[Step], Step]) -> list[Any]:
    """The losses of each step, and the parameters afterwards."""
    program = PROGRAMS[name](library)

    def several(*inputs: Any) -> Any:
        for _ in range(updates):
            result = program.step(*inputs)
        return result

    step = around(several)
    losses = [step(*program.inputs) for _ in range(STEPS)]
    flat = [v for loss in losses for v in (loss if isinstance(loss, tuple) else (loss,))]
    return [np.array(t.detach().numpy()) for t in (*flat, *program.parameters)]


@cache
def expected(name: str, updates: int) -> list[Any]:
    return numbers(torch, name, updates, lambda step: step)


def same(ours: list[Any], theirs: list[Any]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(np.abs(b).max()))


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_it_is(name: str) -> None:
    same(numbers(gradlite, name, 1, lambda step: step), expected(name, 1))


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", PROGRAMS)
def test_captured(name: str, native: bool, updates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if native and not available():
        pytest.skip("no C++ compiler, or GRADLITE_NATIVE=0")
    # What the optimiser makes of loops is the business of other tests.
    monkeypatch.setattr(libraries, "OPTIONS", (*libraries.OPTIONS, "-O0"))
    kept: list[Any] = []

    def captured(step: Step) -> Step:
        kept.append(gradlite.capture(step, native=native))
        return kept[0]

    same(numbers(gradlite, name, updates, captured), expected(name, updates))
    assert kept[0].replays > 0
