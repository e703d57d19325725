"""Norms with kernels: the op's rule in float64 is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels, native
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.norms import VectorNorm
from tests.kernels.support import (
    Context,
    ThreadsLauncher,
    compare,
    host,
    normals,
    starting_anywhere,
    wide,
)

SHAPES = [
    ((1,), (0,)), ((31,), (0,)), ((3, 32), (1,)), ((2, 33), (1,)), ((5, 1023), (1,)),
    ((3, 1024), (1,)), ((2, 1025), (1,)), ((100003,), (0,)), ((2, 9001), (0, 1)), ((2100, 8), (1,)),
    ((31, 2), (0,)), ((1025, 3), (0,)), ((2, 33, 32), (1,)), ((2, 1, 5), (1, 2)), ((4, 1, 3), (0,)),
    ((2, 3, 5), (0, 2)),
]  # fmt: skip
ORDERS = [1.0, 2.0, 3.0, 1.5, 0.5]
INF, NAN = float("inf"), float("nan")
TOLERANCES = {"bfloat16": 2e-2, "float16": 4e-3, "float32": 2e-5, "float64": 1e-12}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "dims"), SHAPES, ids=str)
def test_values_and_gradients(wanted: Any, shape: Any, dims: Any, dtype: str) -> None:
    x = normals(shape, dtype, scale=1.0 if max(shape) < 9000 else 1 / 16)
    for p in ORDERS:
        if dtype == "float16" and p == 0.5 and max(shape) > 40:
            continue  # its norms are infinite
        attrs = (p, dims, p == 1)
        compare(wanted, VectorNorm, [x], attrs, tolerance=TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "dims"), SHAPES, ids=str)
def test_the_largest(wanted: Any, shape: Any, dims: Any, dtype: str) -> None:
    x = normals(shape, dtype)
    found = VectorNorm.fused_forward(wanted, wanted.xp.asarray(x), INF, dims, False)
    np.testing.assert_array_equal(host(found), np.abs(x).max(dims))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, INF])
def test_a_nan_is_a_norm_of_nan(wanted: Any, p: float) -> None:
    x = np.ones((3, 9000), np.float32)
    x[0, 7], x[1, 8990] = NAN, INF
    found = host(VectorNorm.fused_forward(wanted, wanted.xp.asarray(x), p, (1,), False))
    assert np.isnan(found[0]) and found[1] == INF and np.isfinite(found[2])
    x = np.where(np.arange(40) == 33, NAN, np.ones((2, 40))).astype(np.float32)
    found = VectorNorm.fused_forward(wanted, wanted.xp.asarray(x), p, (1,), False)
    assert np.isnan(host(found)).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("p", [2.0, 3.0, INF])
@pytest.mark.parametrize(
    ("shape", "dims"),
    [((5, 33), (1,)), ((2, 640), (1,)), ((8200,), (0,)), ((2, 9, 35), (1,))],
    ids=str,
)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: Any, dims: Any, p: float, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    x = normals(shape, "float32")
    x.flags.writeable = False
    if p == INF:
        found = VectorNorm.fused_forward(threads, x, p, dims, False)
        np.testing.assert_array_equal(found, np.abs(x).max(dims))
    else:
        compare(threads, VectorNorm, [x], (p, dims, False), tolerance=2e-5)


@pytest.mark.parametrize("p", [2.0, 3.0, INF])
def test_rows_that_start_anywhere(wanted: Any, p: float) -> None:
    for rows, columns in ((5, 128), (1, 9600)):
        x = normals((rows, columns), "float32")
        for start in range(1, 4):
            (given,) = starting_anywhere(wanted, [x], start)
            found = VectorNorm.fused_forward(wanted, given, p, (1,), False)
            expected = VectorNorm.forward(np, wide(x), p, (1,), False)
            np.testing.assert_allclose(host(found), expected, 1e-5)


ROWS = [
    [0.0, 0.0], [3.0, -4.0], [INF, 1.0], [NAN, 1.0], [-0.0, 2.0], [-INF, INF], [1e-10, 0.0],
    [NAN, INF], [1e10, -1e10],
]  # fmt: skip


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 1.5, 0.5])
def test_extreme_values_are_as_in_pytorch(wanted: Any, p: float) -> None:
    torch = pytest.importorskip("torch")
    x = np.asarray(ROWS, np.float32)
    theirs = torch.tensor(x, requires_grad=True)
    expected = torch.linalg.vector_norm(theirs, p, 1)
    weights = np.linspace(1, 2, len(x), dtype=np.float32)
    (gradient,) = torch.autograd.grad(expected, theirs, torch.tensor(weights))
    given = wanted.xp.asarray(x)
    found = VectorNorm.fused_forward(wanted, given, p, (1,), False)
    np.testing.assert_allclose(host(found), expected.detach().numpy(), 1e-5)
    rule = Context(VectorNorm, [x], (p, (1,), False), expected.detach().numpy(), None, (True,))
    with np.errstate(all="ignore"):
        (by_rule,) = VectorNorm.backward(rule, weights, NAMESPACES[np.ndarray])
    context = Context(VectorNorm, [given], (p, (1,), False), found, None, (True,))
    (slope,) = VectorNorm.fused_backward(wanted, context, wanted.xp.asarray(weights))
    fine = np.isfinite(x).all(1)
    np.testing.assert_allclose(host(slope)[fine], gradient.numpy()[fine], 2e-5)
    np.testing.assert_allclose(host(slope), by_rule, 2e-5)


# ---- as the functions use them -----------------------------------------------------------------

CALLS = {
    "norm": (lambda x: x.norm(), ["vector_norm_rows", "vector_norm_backward"]),
    "of columns": (lambda x: x.norm(3, 0), ["vector_norm_rows", "vector_norm_backward"]),
    "dist": (lambda x: gradlite.dist(x, x * 2), ["vector_norm_rows", "vector_norm_backward"]),
    "matrix_norm": (
        lambda x: gradlite.linalg.matrix_norm(x), ["vector_norm_rows", "vector_norm_backward"],
    ),
    "outer dimensions": (
        lambda x: x.norm(2, (0, 2)), ["vector_norm_rows", "vector_norm_backward"],
    ),
    "the largest": (lambda x: x.norm(INF, 1), ["vector_norm_rows"]),
    "none": (lambda x: x.norm(-1.0, 1), []),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_launches_and_derivatives(
    native_kernels: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    call, expected = CALLS[name]
    gradlite.manual_seed(0)
    x = (gradlite.rand(2, 3, 4, dtype=gradlite.float64) + 0.5).requires_grad_()
    monkeypatch.setattr(native.launcher(), "serial", False)  # as on a GPU
    with kernels.record() as launched:
        call(x).sum().backward()
    assert [n for n in launched if n.startswith("vector_norm")] == expected
    assert gradlite.autograd.gradcheck(call, [x])
    assert gradlite.autograd.gradgradcheck(call, [x])


def test_on_the_cpu_nothing_is_moved(native_kernels: None) -> None:
    x = gradlite.rand(3, 4)
    with kernels.record() as launched:
        x.norm(dim=0), x.norm()
    assert not launched
