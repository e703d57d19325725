"""The workloads in JAX compute what they compute in gradlite."""

from __future__ import annotations

from typing import Any

import pytest

import gradlite

pytest.importorskip("jax", reason="JAX is no dependency: only benchmarks compare with it")
jax_steps: Any = pytest.importorskip("benchmarks.jax_steps", reason="needs the benchmarks")
ops: Any = pytest.importorskip("benchmarks.ops", reason="needs the benchmarks")
training: Any = pytest.importorskip("benchmarks.training", reason="needs the benchmarks")
workloads: Any = pytest.importorskip("benchmarks.workloads", reason="needs the benchmarks")


@pytest.mark.parametrize("name", list(workloads.WORKLOADS))
def test_losses_agree(name: str) -> None:
    workload = workloads.WORKLOADS[name]
    own = workloads.Training(gradlite, workload)
    jax = jax_steps.load(1)
    other = jax_steps.JaxTraining(jax, name, own.weights(), workload.batches())
    assert training.check_losses(name, [own, other]) < training.TOLERANCE


@pytest.mark.parametrize("name", list(ops.OPS))
def test_ops_agree(name: str) -> None:
    jax = jax_steps.load(1)
    ops.check(name, 1000, jax, gradlite)
    ops.compiled_by_jax(jax, name, 100)()
