"""What runs along a dimension, with kernels: the ops' rules in float64 are the reference."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels, native
from gradlite.ops.cumulative import (
    Cumprod,
    CumprodGrad,
    Cumsum,
    Logcumsumexp,
    Prod,
    ProdGrad,
    Recurrence,
)
from gradlite.ops.scans import running_extreme
from tests import cupy_stand_in
from tests.cuda_on_cpu import compiler
from tests.kernels.support import (
    ROW_TOLERANCES,
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
    "logcumsumexp": (Logcumsumexp, (False,)), "logcumsumexp from the end": (Logcumsumexp, (True,)),
    "recurrence": (Recurrence, (False,)), "recurrence from the end": (Recurrence, (True,)),
}  # fmt: skip
NAMES = [*RUNNING, "cumprod", "prod", "cummax", "cummin"]
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


def products(
    K: Any, op: Any, x: np.ndarray, dim: int | None, *flags: bool
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Products and their gradients, by the kernels and by the rules in float64."""
    if op is Cumprod:
        gradient: Any = CumprodGrad
        expected = op.forward(np, wide(x), dim)
        out = host(op.fused_forward(K, K.xp.asarray(x), dim))
    else:
        gradient = ProdGrad
        expected = op.forward(np, wide(x), dim, False)
        out = expected.astype(x.dtype)
    grad = normals(out.shape, x.dtype.name, 1)
    found = gradient.fused_forward(K, *map(K.xp.asarray, (grad, x, out)), dim, *flags)
    exact = gradient.forward(np, wide(grad), wide(x), wide(out), dim, *flags)
    return (out, host(found)), (expected, exact)


def compare(K: Any, name: str, x: np.ndarray, dim: int) -> None:
    limit = ROW_TOLERANCES.get(x.dtype.name, 0)
    if name in ("cummax", "cummin"):
        sign = 1 if name == "cummax" else -1
        found = host(running_extreme(K, K.xp.asarray(x), dim, sign))
        np.testing.assert_array_equal(found, extremes_so_far(x, dim, sign))
    elif "prod" in name:
        op = Prod if name == "prod" else Cumprod
        for over in (dim, None) if op is Prod and x.size < 2000 else (dim,):
            for ours, reference in zip(*products(K, op, x, over, False)):
                np.testing.assert_allclose(ours, reference, limit, limit * np.abs(reference).max())
    elif "sum" in name:
        op, attrs = RUNNING[name]
        if op is not Cumsum:
            compare_with_rule(K, op, [x], (dim, *attrs))
            return
        found = host(op.fused_forward(K, K.xp.asarray(x), dim, *attrs))
        expected = op.forward(np, wide(x), dim, *attrs)
        np.testing.assert_allclose(found, expected, limit, limit * np.abs(expected).max())
    else:
        op, attrs = RUNNING[name]
        factors = np.tanh(normals(x.shape, "float64", 2)).astype(x.dtype)
        factors.reshape(-1)[::7] = 0
        found = host(op.fused_forward(K, *map(K.xp.asarray, (x, factors)), dim, *attrs))
        expected = op.forward(np, wide(x), wide(factors), dim, *attrs)
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
    if "prod" in name:
        arrays = map(launcher.xp.asarray, (grad, x, expected))
        op = ProdGrad if name == "prod" else CumprodGrad
        found, gradient = expected, host(op.fused_forward(launcher, *arrays, 0, False))
    elif name == "cumsum":
        found = host(Cumsum.fused_forward(launcher, launcher.xp.asarray(x), 0, False))
        gradient = theirs.grad.numpy()
    else:
        op, attrs = RUNNING[name]
        found, gradient = by_kernel(launcher, op, [x], (0, *attrs), grad, (True,))
    np.testing.assert_allclose(found, expected, 1e-6)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), 1e-5)


def test_factors_that_overflow_times_nothing(launcher: Any) -> None:
    factors, values = np.full((1, 64), 1e20, np.float32), np.zeros((1, 64), np.float32)
    values[0, 0] = 1
    arrays = map(launcher.xp.asarray, (values, factors))
    found = host(Recurrence.fused_forward(launcher, *arrays, 1, True))
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("name", ["cumprod", "prod", "prod of all"])
def test_gradients_of_products_beside_what_is_no_number(launcher: Any, name: str) -> None:
    torch = pytest.importorskip("torch")
    numbers = [0.0, 1.0, -2.0, INF, NAN]
    rows = np.asarray([*itertools.product(numbers, repeat=4)], np.float32)
    slopes = np.asarray([1, 2, 0, 4] if name == "cumprod" else 3, np.float32)
    op = CumprodGrad if name == "cumprod" else ProdGrad

    def both(x: np.ndarray, dim: int | None) -> tuple[Any, Any]:
        theirs = torch.tensor(x, requires_grad=True)
        out = theirs.prod() if dim is None else getattr(theirs, name)(dim)
        along = slopes[:, None] if dim == 0 and slopes.ndim else slopes
        grad = np.broadcast_to(along, out.shape).copy()
        out.backward(torch.tensor(grad))
        arrays = map(launcher.xp.asarray, (grad, x, out.detach().numpy()))
        found = op.fused_forward(launcher, *arrays, dim, dim is None)
        return host(found), theirs.grad.numpy()

    if name == "prod of all":
        for row in rows[::7]:
            np.testing.assert_array_equal(*both(row, None))
        return
    # PyTorch's gradient of a row without a zero depends on whether another row has one.
    has_zero = (rows == 0).any(1)
    for some in (rows[has_zero], rows[~has_zero]):
        np.testing.assert_array_equal(*both(some, 1))
        np.testing.assert_array_equal(*both(np.ascontiguousarray(some.T), 0))


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
        "cumprod": ["running_product", "running_product_slopes", "running_product_backward"],
        "logcumsumexp": ["running_log_sum", "running_log_sum_backward"],
        "prod": ["prod_parts", "prod_backward"],
    }.get(name, ["running_extreme"])
    assert [n for n in launched if n.startswith(("running", "prod_"))] == expected
    assert gradlite.autograd.gradcheck(call, [x])
    assert gradlite.autograd.gradgradcheck(call, [x])
    with pytest.raises(IndexError, match="Dimension out of range"):
        getattr(gradlite, name)(x, 2)


@pytest.mark.parametrize("name", ["cumprod", "prod"])
def test_a_graph_of_gradients_does_not_wait(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    cupy_stand_in.install(monkeypatch)
    values = np.asarray([[2.0, 0.0, 3.0], [0.0, 4.0, 0.0], [1.0, 5.0, 2.0]], np.float32)

    def penalty(device: str) -> Any:
        x = gradlite.tensor(values, device=device).requires_grad_()
        out = getattr(gradlite, name)(x, 1)
        (slope,) = gradlite.autograd.grad(out.sum(), x, create_graph=True)
        (second,) = gradlite.autograd.grad(slope.square().sum(), x)
        return second

    monkeypatch.setattr(cupy_stand_in.arrays, "reads", reads := [])
    found = penalty("cuda")
    assert not reads
    monkeypatch.undo()
    np.testing.assert_allclose(host(found.array), penalty("cpu").numpy(), 1e-5)
