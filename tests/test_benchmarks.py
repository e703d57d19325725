"""What the benchmarks compute from their measurements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

scaling: Any = pytest.importorskip("benchmarks.scaling", reason="the benchmarks are not installed")
training: Any = pytest.importorskip("benchmarks.training", reason="not installed")
memory: Any = pytest.importorskip("benchmarks.memory", reason="the benchmarks are not installed")

SIZES = [1.0, 4.0, 16.0, 64.0, 256.0]


def test_a_straight_line_is_found() -> None:
    found = scaling.fit(SIZES, [5 + 2 * x for x in SIZES])
    assert (found["offset"], found["slope"]) == (pytest.approx(5), pytest.approx(2))
    assert abs(found["worst"]) < 1e-9 and found["growth"] == "linear"


def test_other_growth_is_called_so() -> None:
    found = scaling.fit(SIZES, [x**1.5 for x in SIZES])
    assert found["exponent"] == pytest.approx(1.5) and found["growth"] == "more than linear"
    assert scaling.fit(SIZES, [x**0.5 for x in SIZES])["growth"] == "less than linear"
    assert scaling.fit(SIZES, [7.0] * 5)["exponent"] == pytest.approx(0)


def test_no_line_goes_below_zero() -> None:
    offset, slope = scaling.line(SIZES, [x**1.5 for x in SIZES])
    assert offset == 0 and slope > 0
    offset, slope = scaling.line(SIZES, [1 / x for x in SIZES])
    assert offset > 0 and slope == 0


@pytest.mark.parametrize("axis", list(scaling.SIZES))
@pytest.mark.parametrize("mode", list(scaling.MODES))
def test_steps_of_every_axis_run(axis: str, mode: str) -> None:
    step = scaling.make(axis, scaling.SIZES[axis][1], mode)
    losses = [step().item() for _ in range(6)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_lines_of_the_memory_table() -> None:
    kinds = (("gradlite", "eager", 2.0), ("gradlite", "captured", 1.0), ("torch", "eager", None))
    results = [
        {"workload": "W1", "library": library, "mode": mode, "peak": 3.0, "growth": 0.5}
        | ({} if allocated is None else {"allocated": allocated})
        for library, mode, allocated in kinds
    ]
    (cells,) = memory.rows(results, {"W1": "small"})
    assert cells == ["W1  small", *["3.0"] * 3, *["0.5"] * 3, "2.00", "1.00", "0.50"]


def test_what_is_compared_with(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    there = {"torch", "jax"}
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: name in there or None)
    assert training.references_of("none") == []
    assert training.references_of("torch") == ["torch"]
    assert training.references_of("torch,jax") == ["torch", "torch.compile", "jax"]
    assert training.references_of("torch,torch.compile") == ["torch", "torch.compile"]
    there.remove("jax")
    assert training.references_of("torch,jax") == ["torch", "torch.compile"]
    assert "jax is not installed: left out" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="jax is not installed"):
        training.references_of("jax")
