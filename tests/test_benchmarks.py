"""What the benchmarks compute from their measurements."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import gradlite

scaling: Any = pytest.importorskip("benchmarks.scaling", reason="the benchmarks are not installed")
training: Any = pytest.importorskip("benchmarks.training", reason="not installed")
ops: Any = pytest.importorskip("benchmarks.ops", reason="the benchmarks are not installed")
pictures: Any = pytest.importorskip("benchmarks.pictures", reason="not installed")
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
@pytest.mark.parametrize("mode", (*scaling.MODES, scaling.PEER))
def test_steps_of_every_axis_run(axis: str, mode: str) -> None:
    if mode == scaling.PEER:
        pytest.importorskip(scaling.PEER)
    step = scaling.make(axis, scaling.SIZES[axis][1], mode)
    losses = [step().item() for _ in range(6)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_lines_of_the_memory_table() -> None:
    kinds = (("gradlite", "eager", 2.0), ("gradlite", "captured", 1.0), ("torch", "eager", None))
    results = [
        {"workload": "W1", "library": library, "mode": mode, "peak": 3.0, "growth": 0.5}
        | ({} if allocated is None else {"allocated": allocated, "arrays": allocated / 4})
        for library, mode, allocated in kinds
    ]
    (cells,) = memory.rows(results, {"W1": "small"})
    assert cells == [
        "W1  small",
        *["3.0"] * 3,
        *["0.5"] * 3,
        *"0.50 0.25 0.50 2.00 1.00 0.50".split(),
    ]


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


@pytest.mark.parametrize("name", list(ops.OPS))
def test_a_captured_op_does_what_the_op_does(name: str) -> None:
    step = ops.forward_and_backward(gradlite, name, 100, captured=True)
    results = [step().numpy() for _ in range(6)]
    expected = ops.OPS[name][1](gradlite, tuple(map(gradlite.tensor, ops.numbers(name, 100))))
    for result in results:
        np.testing.assert_allclose(result, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert step.replays == 3


def test_the_table_of_ops_has_a_cell_for_each_column() -> None:
    options = ops.arguments(["--blocks", "3", "--block-ms", "0.1"])
    modes = ["eager", "captured"]
    found = ops.measure("add", 10, gradlite, {"gradlite": gradlite}, modes, options)
    assert [r["mode"] for r in found] == modes
    cells, names = ops.row(found), ops.header("gradlite", ["gradlite"], modes)
    assert len(cells) == len(names) and cells[:2] == ["add", "10"]


def test_pictures_show_every_ratio(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    rows = [
        {"workload": w, "mode": m, "ratio": 0.5, "others": {"jax": {"reference_ratio": 2.0}}}
        for w in ("W1", "W2")
        for m in ("eager", "captured")
    ]
    assert pictures.of_training(rows) == {
        w: {"gradlite, eager": 0.5, "gradlite, captured": 0.5, "jax": 2.0} for w in ("W1", "W2")
    }
    of_ops = [
        {"op": "add", "elements": n, "mode": "eager", "ratio": float(n), "others": {}}
        for n in (1, 7)
    ]
    assert pictures.of_ops(of_ops) == {"add": {"gradlite, eager": 7.0}}
    machine = {"threads": 1, "processor": "a processor", "date": "2026-01-01"}
    path = tmp_path / "results.json"
    payload = {"benchmark": "training", "machine": machine, "results": rows}
    path.write_text(json.dumps(payload))
    assert pictures.beside(path) == ["results.png"]
    assert (tmp_path / "results.png").stat().st_size > 1000
    payload["results"] = [{"workload": "W1", "mode": "eager"}]  # compared with nothing
    path.write_text(json.dumps(payload))
    assert pictures.beside(path) == []
