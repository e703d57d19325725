"""The benchmark of kernels on the stand-in for CuPy: its table is complete, and counts right."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

import gradlite
from gradlite.backends.kernel_source import index
from gradlite.ops.namespaces import NAMESPACES
from tests import cupy_stand_in as stand_in
from tests.cuda_on_cpu import compiler

kernels = pytest.importorskip("benchmarks.kernels", reason="the benchmarks are not installed")
from benchmarks.kernel_cases import CASES, UNTIMED  # noqa: E402

needs_compiler = pytest.mark.skipif(compiler() is None, reason="needs Linux and g++")
N = 2048


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch)


def test_every_kernel_is_timed_or_has_a_reason() -> None:
    untimed = [name for names in UNTIMED.values() for name in names.split()]
    assert len(untimed) == len(set(untimed)) and not set(untimed) & set(CASES)
    assert {*untimed, *CASES} == set(index())


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_a_case_launches_its_kernel_on_as_many_arrays_as_it_says(cupy: Any, name: str) -> None:
    case = CASES[name]
    n = max(N, case.least)
    call = kernels.program(case, gradlite, n, own=True)
    launcher = NAMESPACES[stand_in.Array].launcher
    with kernels.Watch(launcher, name) as watch:
        call()
    assert len(watch.caught) == 1 and "_launch" not in vars(launcher)
    if not case.step:
        _, _, _, _, arguments, _ = watch.caught[0]
        whole = [a for a in arguments if isinstance(a, stand_in.Array) and a.size == n]
        assert len(whole) == case.passes
    watch.again()
    assert kernels.program(case, gradlite, n, own=False)() is not watch


@needs_compiler
def test_it_runs_from_end_to_end(cupy: Any, monkeypatch: Any, tmp_path: Any, capsys: Any) -> None:
    monkeypatch.setattr(kernels, "torch_with_cuda", lambda: None)
    path = tmp_path / "kernels.json"
    names = "gelu_backward,adam"
    kernels.main(["--kernels", names, "--sizes", "64,2048", "--rounds", "2", "--repeats", "1",
                  "--json", str(path)])  # fmt: skip
    printed = capsys.readouterr().out
    assert (
        "Stand-in" in printed and "gelu_backward" in printed and "written: kernels.json" in printed
    )
    payload = json.loads(path.read_text())
    assert payload["machine"]["card"] == "Stand-in" and payload["machine"]["driver"] == 12090
    sizes = [(r["kernel"], r["elements"], r["bytes"]) for r in payload["results"]]
    assert sizes == [("gelu_backward", 64, 768), ("gelu_backward", 2048, 24576),
                     ("adam", 64, 1792), ("adam", 2048, 57344)]  # fmt: skip
    # All events of the stand-in are half a millisecond apart; kernels stand in a graph.
    first = payload["results"][0]
    assert first["share"] == 1.5 and first["kernel_us"] == 500.0 / kernels.GRAPH_CALLS
    assert first["op_us"] == 500.0
    assert NAMESPACES[stand_in.Array].launcher is not None


@needs_compiler
def test_what_fails_or_is_not_launched_costs_no_other_result(
    cupy: Any, monkeypatch: Any, tmp_path: Any, capsys: Any
) -> None:
    def broken(T: Any, x: Any) -> Any:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(kernels, "torch_with_cuda", lambda: None)
    monkeypatch.setitem(
        CASES, "relu_forward", dataclasses.replace(CASES["gelu_forward"], call=broken)
    )
    path = tmp_path / "kernels.json"
    with pytest.raises(SystemExit, match="1 failed:\nrelu_forward at 2048 elements: RuntimeError"):
        kernels.main(["--kernels", "relu_forward,reduce_columns,gelu_forward", "--sizes", "2048",
                      "--rounds", "1", "--repeats", "1", "--json", str(path)])  # fmt: skip
    payload = json.loads(path.read_text())
    assert [r["kernel"] for r in payload["results"]] == ["reduce_columns", "gelu_forward"]
    assert payload["failed"] == [
        "relu_forward at 2048 elements: RuntimeError: an illegal memory access was encountered"
    ]
    kernels.main(["--kernels", "reduce_columns", "--sizes", "1024", "--rounds", "1"])
    assert "reduce_columns: the op does without it at 1024 elements" in capsys.readouterr().out


def test_what_is_slow_is_named() -> None:
    fast = {"kernel": "a", "elements": 8, "share": 0.5, "kernel_us": 2.0, "torch_kernel_us": 2.0}
    slow = {**fast, "elements": 64, "share": 0.79, "kernel_us": 3.0, "op_us": 9.0, "torch_us": 1.0}
    results = [fast, slow, {**fast, "kernel": "b", "share": 0.8}]
    assert kernels.slow(results) == [
        "a: 79% of a copy at 64 elements",
        "a: 1.50 of PyTorch's time at 64 elements",
    ]


def test_strange_kernels_and_machines_without_cuda_are_refused(monkeypatch: Any) -> None:
    with pytest.raises(SystemExit, match="unknown kernels"):
        kernels.main(["--kernels", "gelu"])
    monkeypatch.setattr("gradlite.backends.cuda._cache", (False, "no GPU here"))
    with pytest.raises(RuntimeError, match="CUDA is not available: no GPU here"):
        kernels.main(["--kernels", "adam"])


@needs_compiler
def test_training_steps_run_on_a_device(
    cupy: Any, monkeypatch: Any, tmp_path: Any, capsys: Any
) -> None:
    from benchmarks import timing, training

    waited: list[Any] = []
    monkeypatch.setattr(timing, "restart_with_threads", lambda *arguments: None)
    monkeypatch.setattr(gradlite.cuda, "synchronize", lambda: waited.append(1))
    path = tmp_path / "training.json"
    training.main(["--vs", "none", "--device", "cuda", "--workloads", "W1", "--blocks", "2",
                   "--block-ms", "1", "--json", str(path)])  # fmt: skip
    assert len(waited) >= 3 and "W1" in capsys.readouterr().out
    payload = json.loads(path.read_text())
    assert payload["device"] == "cuda" and payload["results"][0]["us"] > 0


@needs_compiler
def test_a_workload_lies_on_its_device_and_trains_as_on_the_cpu(cupy: Any) -> None:
    from benchmarks.workloads import WORKLOADS, Training

    here = Training(gradlite, WORKLOADS["W1"])
    there = Training(gradlite, WORKLOADS["W1"], here.weights(), device="cuda")
    assert all(p.is_cuda for p in there.model.parameters())
    assert all(t.is_cuda for batch in there.batches for t in batch)
    for _ in range(3):
        assert there.step().item() == pytest.approx(here.step().item(), rel=1e-4)


def test_the_processors_clock_is_refused_for_a_gpu(capsys: Any) -> None:
    from benchmarks import training

    with pytest.raises(SystemExit):
        training.arguments(["--device", "cuda", "--clock", "cpu"])
    assert "use --clock wall" in capsys.readouterr().err
