"""What runs along a dimension, with kernels: the ops' rules in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels, native
from gradlite.ops.cumulative import Cumprod, Cumsum, Logcumsumexp, Prod
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.scans import product_gradient, running_extreme
from tests.kernels.support import (
    ROW_TOLERANCES,
    Context,
    ThreadsLauncher,
    by_kernel,
    host,
    normals,
    starting_anywhere,
    wide,
)
from tests.kernels.support import compare as compare_with_rule

# Columns few and many, short, and so long that they are cut into parts.
SHAPES = [
    ((1,), 0), ((31,), 0), ((3, 32), 1), ((32, 33), 0), ((2, 33, 5), 1), ((2, 1023), 1),
    ((1025, 3), 0), ((1, 1024, 2), 1), ((40003,), 0), ((4, 1, 3), 1), ((17000, 5), 1),
    ((2, 5, 17000), 1), ((9000, 40), 0),
]  # fmt: skip
RUNNING = {
    "cumsum": (Cumsum, (False,)), "cumsum from the end": (Cumsum, (True,)),
    "cumprod": (Cumprod, ()), "logcumsumexp": (Logcumsumexp, (False,)),
    "logcumsumexp from the end": (Logcumsumexp, (True,)),
}  # fmt: skip
NAMES = [*RUNNING, "prod", "cummax", "cummin"]
INF, NAN = float("inf"), float("nan")
ROWS = [
    [NAN, 1.0, NAN, 2.0], [1.0, NAN, 3.0, INF], [INF, INF, -INF, 0.0], [-INF, -INF, 1.0, 1.0],
    [0.0, -0.0, 0.0, -0.0], [3.0, 2.0, 1.0, 3.0], [2.0, 0.0, 3.0, 4.0], [0.0, 2.0, INF, 3.0],
    [0.0, INF, INF, 1.0], [-INF, 1.0, 2.0, 200.0],
]  # fmt: skip


def numbers(name: str, shape: Any, dtype: str) -> np.ndarray:
    """Numbers among which some tie; as factors few that are not 1, and zeros."""
    x = normals(shape, "float64")
    if "prod" in name:
        x[np.arange(x.size).reshape(shape) % 16 < 15 if max(shape) > 2000 else x > 9] = 0
        x = np.exp(x / 4 / np.sqrt(max(shape)))
        if max(shape) < 2000:  # the rule makes matrices of columns with zeros
            x.reshape(-1)[1 :: max(2, x.size // 3)] = 0
    return (np.round(x * 4) if name in ("cummax", "cummin") else x).astype(dtype)


def extremes_so_far(x: np.ndarray, dim: int, sign: int) -> np.ndarray:
    """Where they are, with one that ties, or is NaN, taking over."""
    rows = np.moveaxis(x if x.dtype.kind in "iub" else x.astype("f8"), dim, 0)
    index = np.zeros(rows.shape, np.int64)
    best = rows[0].copy()
    for j in range(1, len(rows)):
        over = (rows[j] >= best if sign > 0 else rows[j] <= best) | (rows[j] != rows[j])
        best = np.where(over, rows[j], best)
        index[j] = np.where(over, j, index[j - 1])
    return np.moveaxis(index, 0, dim)


def product_gradients(K: Any, x: np.ndarray, dim: int | None) -> tuple[np.ndarray, Any]:
    """By the kernel, and by the rule in float64."""
    out = Prod.forward(np, wide(x), dim, False).astype(x.dtype)
    grad = normals(out.shape, x.dtype.name, 1)
    (found,) = product_gradient(K, *map(K.xp.asarray, (grad, x, out)), dim)
    context = Context(Prod, [wide(x)], (dim, False), wide(out), None, (True,))
    return host(found), Prod.backward(context, wide(grad), NAMESPACES[np.ndarray])[0]


def compare(K: Any, name: str, x: np.ndarray, dim: int) -> None:
    limit = ROW_TOLERANCES.get(x.dtype.name, 0)
    if name in ("cummax", "cummin"):
        sign = 1 if name == "cummax" else -1
        found = host(running_extreme(K, K.xp.asarray(x), dim, sign))
        np.testing.assert_array_equal(found, extremes_so_far(x, dim, sign))
    elif name == "prod":
        for over in (dim, None) if x.size < 2000 else (dim,):
            found, expected = product_gradients(K, x, over)
            np.testing.assert_allclose(found, expected, limit, limit * np.abs(expected).max())
    else:
        op, attrs = RUNNING[name]
        if op is not Cumsum:
            compare_with_rule(K, op, [x], (dim, *attrs))
            return
        found = host(op.fused_forward(K, K.xp.asarray(x), dim, *attrs))
        expected = op.forward(np, wide(x), dim, *attrs)
        np.testing.assert_allclose(found, expected, limit, limit * np.abs(expected).max())


@pytest.mark.parametrize(("shape", "dim"), SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(wanted: Any, name: str, shape: Any, dim: int) -> None:
    compare(wanted, name, numbers(name, shape, "float32"), dim)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize(("shape", "dim"), [((3, 1025), 1), ((1025, 3), 0), ((9001,), 0)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(wanted: Any, name: str, shape: Any, dim: int, dtype: str) -> None:
    compare(wanted, name, numbers(name, shape, dtype), dim)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
@pytest.mark.parametrize(("shape", "dim"), [((40,), 0), ((3, 40), 1), ((40, 3), 0)], ids=str)
def test_whole_numbers(launcher: Any, shape: Any, dim: int, dtype: str) -> None:
    x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 200, shape).astype(dtype)
    if dtype == "int64":
        x[:2] = np.iinfo(np.int64).min  # which has no negative
        x[2:4] = np.iinfo(np.int64).max - 1
    for name in ("cummax", "cummin"):
        compare(launcher, name, x, dim)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, name: str, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for shape, dim in (((5, 33), 1), ((33, 5), 0), ((2, 9, 35), 1), ((8300,), 0), ((1040, 5), 0)):
        x = numbers(name, shape, "float32")
        x.flags.writeable = False
        compare(threads, name, x, dim)


@pytest.mark.parametrize("name", NAMES)
def test_arrays_that_start_anywhere(wanted: Any, name: str) -> None:
    class Anywhere:
        """A launcher's arrays, behind an aligned address."""

        @staticmethod
        def asarray(x: np.ndarray) -> Any:
            return starting_anywhere(wanted, [x], 3)[0]

    x = numbers(name, (3, 40), "float32")
    K = type("K", (), {"xp": Anywhere, "__getattr__": lambda self, n: getattr(wanted, n)})()
    compare(K, name, x, 1)


@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_extremes_are_where_pytorch_has_them(launcher: Any, name: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.asarray(ROWS, np.float32)
    found = running_extreme(launcher, launcher.xp.asarray(x), 1, 1 if name == "cummax" else -1)
    theirs = getattr(torch, name)(torch.tensor(x), 1).indices
    np.testing.assert_array_equal(host(found), theirs.numpy())


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("name", ["cumsum", "cumprod", "logcumsumexp", "prod"])
def test_extreme_values_are_as_in_pytorch(launcher: Any, name: str, row: list[float]) -> None:
    torch = pytest.importorskip("torch")
    x = np.asarray(row, np.float32)
    theirs = torch.tensor(x, requires_grad=True)
    expected = getattr(torch, name)(theirs, 0)
    grad = np.ones(expected.shape, np.float32)
    expected.backward(torch.tensor(grad))
    expected = expected.detach().numpy()
    if name == "prod":
        arrays = map(launcher.xp.asarray, (grad, x, expected))
        found, gradient = expected, host(product_gradient(launcher, *arrays, 0)[0])
    elif name == "cumsum":
        found = host(Cumsum.fused_forward(launcher, launcher.xp.asarray(x), 0, False))
        gradient = theirs.grad.numpy()
    else:
        op, attrs = RUNNING[name]
        found, gradient = by_kernel(launcher, op, [x], (0, *attrs), grad, (True,))
    np.testing.assert_allclose(found, expected, 1e-6)
    if name != "cumprod" or np.isfinite(x).all():  # PyTorch divides by what is infinite
        np.testing.assert_allclose(gradient, theirs.grad.numpy(), 1e-5)


def test_factors_that_overflow_behind_what_has_no_gradient(launcher: Any) -> None:
    """Running products divide by nothing, so that a part of a row stays finite with its results."""
    x = np.full((1, 64), 1e20, np.float32)
    grad = np.zeros_like(x)
    grad[0, 0] = 1
    _, gradient = by_kernel(launcher, Cumprod, [x], (1,), grad, (True,))
    assert gradient[0, 0] == 1


# ---- as the functions use them -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "logcumsumexp", "prod", "cummax", "cummin"])
@pytest.mark.parametrize("dim", [0, 1])
def test_launches_and_derivatives(
    native_kernels: None, monkeypatch: pytest.MonkeyPatch, name: str, dim: int
) -> None:
    monkeypatch.setattr(native.launcher(), "serial", False)  # as on a GPU
    gradlite.manual_seed(0)
    x = gradlite.rand(3, 5, dtype=gradlite.float64).requires_grad_()

    def call(x: Any) -> Any:
        found = getattr(gradlite, name)(x, dim)
        return found.values if name in ("cummax", "cummin") else found

    with kernels.record() as launched:
        call(x).sum().backward()
    expected = {
        "cumsum": ["running_sum", "running_sum"],
        "cumprod": ["running_product", "running_product_backward"],
        "logcumsumexp": ["running_log_sum", "running_log_sum_backward"],
        "prod": ["prod_parts", "prod_backward"],
    }.get(name, ["running_extreme"])
    assert [n for n in launched if n.startswith(("running", "prod_"))] == expected
    assert gradlite.autograd.gradcheck(call, [x])
    assert gradlite.autograd.gradgradcheck(call, [x])
    with pytest.raises(IndexError, match="Dimension out of range"):
        getattr(gradlite, name)(x, 2)
