"""Every op in a captured step on a GPU: the same values and gradients as without capture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops import samples
from gradlite.ops.table import TABLE
from tests import cublaslt_stand_in, cupy_stand_in
from tests.cuda_on_cpu import compiler
from tests.test_capture_native import OTHERS, REFUSED, results_of
from tests.test_stand_in import convert

# Ops with samples that no graph can hold beside those that no recording can: CuPy has them from
# cuSOLVER, or waits for a value in them.
NOT_CAPTURED = set(
    """bincount cholesky cholesky_ex cholesky_inverse cholesky_solve cond det eigh eigvalsh
    householder_product inv linalg_qr linalg_svd logdet lstsq matrix_norm
    matrix_power matrix_rank mode pinv pinverse repeat_interleave slogdet solve
    solve_triangular svd svdvals tensorinv tensorsolve unique""".split()
)
# CuPy has functions that NumPy has not.
SERVED = {"digamma", "polygamma"}
SEVERAL = 30
NAMES = sorted(set(TABLE) - OTHERS)


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.cuda)], autouse=True)
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "stand-in":
        if compiler() is None:
            pytest.skip("kernels run thread by thread on Linux with g++ alone")
        cupy_stand_in.install(monkeypatch)
        cublaslt_stand_in.install(monkeypatch)


def calls_of(name: str) -> list[tuple[str, Any, Any]]:
    samples.fresh()
    return [(name, *convert((s.args, s.kwargs), "cuda")) for s in TABLE[name].samples()]


def refused(name: str) -> bool:
    """Whether an op has a sample that cannot be captured."""
    for call in calls_of(name):
        captured = gradlite.capture(lambda call=call: results_of(*call), warmup=0)
        try:
            for _ in range(3):
                captured()
        except gradlite.CaptureError:
            return True
    return False


@pytest.mark.parametrize("name", sorted((REFUSED | NOT_CAPTURED) - SERVED))
def test_what_cannot_be_captured_is_refused(name: str) -> None:
    assert refused(name)


@pytest.mark.parametrize("start", range(0, len(NAMES), SEVERAL))
def test_every_op_gives_the_same_bits_in_a_graph(start: int) -> None:
    names = [
        name
        for name in NAMES[start : start + SEVERAL]
        if name in SERVED or name not in REFUSED | NOT_CAPTURED
    ]
    calls = [call for name in names for call in calls_of(name)]

    def step() -> list[Any]:
        gradlite.manual_seed(3)
        return [results_of(*call) for call in calls]

    captured = gradlite.capture(step, state=[calls], warmup=0)
    expected = step()
    for _ in range(4):
        actual = captured()
    assert captured.replays == 2
    for (name, *_), ours, theirs in zip(calls, actual, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            x, y = a.detach().cpu().numpy(), b.detach().cpu().numpy()
            np.testing.assert_array_equal(x, y, err_msg=name)
