"""Variances with kernels: the ops' rules in float64 are the reference."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels, native
from gradlite.ops.statistics import Std, Var
from tests.kernels.support import ThreadsLauncher, by_kernel, compare, host, normals, wide

# Shapes and what is reduced: rows short and long, those that are cut into pieces, other dimensions.
SHAPES = [
    ((2,), (0,)), ((31,), (0,)), ((3, 32), (1,)), ((2, 33), (1,)), ((5, 1023), (1,)),
    ((3, 1024), (1,)), ((2, 1025), (1,)), ((100003,), (0,)), ((2, 9001), (0, 1)), ((2100, 8), (1,)),
    ((31, 2), (0,)), ((1025, 3), (0,)), ((2, 33, 32), (1,)), ((2, 3, 5), (0, 2)),
    ((3, 2, 4, 5), (0, 2, 3)), ((2, 1, 5), (1, 2)), ((4, 1, 3), (0,)),
]  # fmt: skip
TOLERANCES = {"bfloat16": 1.6e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-12}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "dims"), SHAPES, ids=str)
@pytest.mark.parametrize("op", [Var, Std], ids=["var", "std"])
def test_values_and_gradients(wanted: Any, op: Any, shape: Any, dims: Any, dtype: str) -> None:
    x = normals(shape, dtype)
    for correction, keepdim in ((1, False), (0, True)):
        compare(wanted, op, [x], (dims, correction, keepdim), tolerance=TOLERANCES[dtype])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("shape", "dims"),
    [((5, 33), (1,)), ((2, 640), (1,)), ((8200,), (0,)), ((2, 9, 35), (1,))],
    ids=str,
)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: Any, dims: Any, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    x = normals(shape, "float32")
    x.flags.writeable = False
    compare(threads, Std, [x], (dims, 1, False))


def test_rows_that_start_anywhere(wanted: Any) -> None:
    flat = normals((9700,), "float32")
    device = wanted.xp.asarray(flat)
    for start in range(4):
        for rows, columns in ((5, 128), (1, 9600)):
            part = slice(start, start + rows * columns)
            x = device[part].reshape(rows, columns)
            found, _ = Var.fused_forward(wanted, x, (1,), 1, False)
            expected, _ = Var.forward(np, wide(flat[part]).reshape(rows, columns), (1,), 1, False)
            np.testing.assert_allclose(host(found), expected, 1e-5)


@pytest.mark.parametrize("columns", [64, 1000, 20000])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_far_from_zero(wanted: Any, offset: float, columns: int) -> None:
    x = (normals((2, columns), "float64") + offset).astype("f4")
    found, mean = Var.fused_forward(wanted, wanted.xp.asarray(x), (1,), 1, False)
    np.testing.assert_allclose(host(found), wide(x).var(1, ddof=1), 1e-5)
    np.testing.assert_allclose(host(mean), wide(x).mean(1), 1e-6, 1e-6)
    ones = np.full((2, columns), offset + 0.1, np.float32)
    found, _ = Std.fused_forward(wanted, wanted.xp.asarray(ones), (1,), 1, False)
    assert (host(found) <= 1e-7 * (offset + 1)).all()


INF, NAN = float("inf"), float("nan")
ROWS = [[1.0, 1.0], [0.0, 0.0], [INF, 1.0], [NAN, 1.0], [-INF, INF], [1e30, 1e30], [1e-15, 0.0]]


@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize("correction", [0, 1, 2, 3])
def test_extreme_values_are_as_in_pytorch(wanted: Any, name: str, correction: int) -> None:
    torch = pytest.importorskip("torch")
    x = np.asarray(ROWS, np.float32)
    theirs = torch.tensor(x, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of degrees of freedom
        expected = getattr(torch, name)(theirs, 1, correction=correction)
    weights = np.linspace(1, 2, len(x), dtype=np.float32)
    op = Var if name == "var" else Std
    attrs = ((1,), correction, False)
    found = by_kernel(wanted, op, [x], attrs, weights, (True,))
    np.testing.assert_allclose(found[0], expected.detach().numpy(), 1e-6)
    if correction < 2:
        (gradient,) = torch.autograd.grad(expected, theirs, torch.tensor(weights))
        np.testing.assert_allclose(found[1], gradient.numpy(), 1e-5)


# ---- as the functions use them -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["var", "std", "var_mean", "std_mean"])
@pytest.mark.parametrize("dim", [1, 0, (0, 2), None], ids=str)
def test_launches_and_derivatives(
    native_kernels: None, monkeypatch: pytest.MonkeyPatch, name: str, dim: Any
) -> None:
    x = gradlite.randn(2, 3, 4, dtype=gradlite.float64).requires_grad_()

    def call(x: Any) -> Any:
        found = getattr(gradlite, name)(x, dim)
        return sum(f.square().sum() for f in found) if isinstance(found, tuple) else found

    monkeypatch.setattr(native.launcher(), "serial", False)  # as on a GPU
    with kernels.record() as launched:
        call(x).sum().backward()
    names = [n for n in launched if n.startswith("variance")]
    assert names[0] == "variance_rows" and names.count("variance_rows") == 1
    if dim in (0, 1):
        assert names[1:] == ["variance_backward"]
    assert gradlite.autograd.gradcheck(call, [x])
    assert gradlite.autograd.gradgradcheck(call, [x])


def test_a_second_pass_needs_a_graph_that_is_kept() -> None:
    y = gradlite.randn(4).requires_grad_().var()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()


def test_on_the_cpu_nothing_is_moved(native_kernels: None) -> None:
    x = gradlite.rand(3, 4)
    with kernels.record() as launched:
        x.var(0)
    assert not launched
