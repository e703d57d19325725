"""Sums, means and extremes with kernels: NumPy in float64 is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.ops.extrema import Amax, Amin
from gradlite.ops.reduce import ColumnSums, Mean, Sum
from gradlite.ops.reductions import extremes, merged, sums
from tests.kernels.support import ThreadsLauncher, host

# All of an array, rows, columns, blocks of rows, channels: few and many, short and long.
CASES = [
    ((1,), (0,)), ((33,), (0,)), ((100003,), (0,)), ((3, 5, 7), (0, 1, 2)), ((), ()),
    ((5, 1023), (1,)), ((300, 3), (1,)), ((2, 20000), (1,)), ((4, 31, 33), (1, 2)),
    ((1025, 5), (0,)), ((64, 3), (0,)), ((100, 600), (0,)), ((1, 40), (0,)), ((33, 1024), (0,)),
    ((2, 1000, 3), (1,)), ((3, 96, 40), (1,)), ((7, 5, 300), (1,)), ((5, 64, 1, 2), (1,)),
    ((70, 3, 5), (0, 2)), ((6, 5, 8, 8), (0, 2, 3)), ((2, 3, 9001), (0, 2)), ((3, 1, 4), (1, 2)),
]  # fmt: skip
TOLERANCES = {"bfloat16": 1.6e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-12}


def array(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.asarray(np.random.default_rng(len(shape)).standard_normal(shape) + 0.5).astype(dtype)


def compare(K: Any, op: Any, shape: Any, dims: Any, dtype: str, keepdim: bool = False) -> None:
    x = array(shape, dtype)
    out = op.fused_forward(K, K.xp.asarray(x), dims, keepdim)
    if all(shape[d] == 1 for d in dims):
        assert out is NotImplemented
        return
    function = {Sum: np.sum, Mean: np.mean, Amax: np.max, Amin: np.min}[op]
    expected = function(x.astype("f8"), axis=dims, keepdims=keepdim)
    assert out.shape == expected.shape and out.dtype == dtype
    size = np.sum(np.abs(x.astype("f8")), axis=dims, keepdims=keepdim) if op is Sum else 1.0
    tolerance = TOLERANCES[dtype] * np.maximum(size, 1) if op in (Sum, Mean) else 0.0
    if op is Sum and dtype == "float16":
        tolerance = np.maximum(tolerance, np.abs(expected) * 2**-10)
    assert (np.abs(host(out).astype("f8") - expected) <= tolerance).all()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "dims"), CASES, ids=str)
@pytest.mark.parametrize("op", [Sum, Mean])
def test_sums_and_means(launcher: Any, op: Any, shape: Any, dims: Any, dtype: str) -> None:
    for keepdim in (False, True):
        compare(launcher, op, shape, dims, dtype, keepdim)


@pytest.mark.parametrize(("shape", "dims"), CASES[:18], ids=str)
@pytest.mark.parametrize("op", [Amax, Amin])
def test_extremes(launcher: Any, op: Any, shape: Any, dims: Any) -> None:
    for dtype in TOLERANCES:
        compare(launcher, op, shape, dims, dtype)
    compare(launcher, op, shape, dims, "float32", True)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "dims"), CASES[1:], ids=str)
def test_sums_of_products(launcher: Any, shape: Any, dims: Any, dtype: str) -> None:
    x = array(shape, dtype)
    y = np.random.default_rng(9).standard_normal(shape).astype(dtype)
    out = sums(launcher, launcher.xp.asarray(x), dims, False, factor=launcher.xp.asarray(y))
    if all(shape[d] == 1 for d in dims):
        assert out is NotImplemented
        return
    products = x.astype("f8") * y.astype("f8")
    scale = np.maximum(np.abs(products).sum(dims), 1)
    assert out.shape == scale.shape and out.dtype == dtype
    assert (np.abs(host(out) - products.sum(dims)) <= TOLERANCES[dtype] * scale).all()


@pytest.mark.parametrize(
    "shapes",
    [
        ((4, 5), (5,)),
        ((5,), (4, 5)),
        ((2, 3, 4), (2, 1, 4)),
        ((3, 1), (1, 4)),
        ((2, 3, 4), (3, 1)),
        ((4, 5), ()),
    ],
)
def test_the_gradient_of_a_factor_that_was_broadcast(native_kernels: None, shapes: Any) -> None:
    a, b = (gradlite.randn(s, dtype=gradlite.float64, requires_grad=True) for s in shapes)
    assert gradlite.autograd.gradcheck(lambda a, b: a * b, (a, b))
    assert gradlite.autograd.gradgradcheck(lambda a, b: a * b, (a, b))
    grad = gradlite.randn((a * b).shape, dtype=gradlite.float64)
    with kernels.record() as launched:
        (a * b).backward(grad)
    assert launched


def test_sums_of_columns(launcher: Any) -> None:
    x = array((100, 33), "float32")
    out = ColumnSums.fused_forward(launcher, launcher.xp.asarray(x))
    np.testing.assert_allclose(host(out), x.astype("f8").sum(0), atol=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("shape", "dim"),
    [((9000,), 0), ((3, 9001), 1), ((40, 33), 1), ((1000, 3), 0), ((2, 300, 5), 1), ((3, 2, 4), 1),
     ((700, 70), 0), ((2, 65, 300), 1)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_indices_of_the_first_extreme(
    launcher: Any, shape: Any, dim: int, sign: int, dtype: str
) -> None:
    generator = np.random.default_rng(dim)
    ties = generator.integers(-3, 4, shape).astype("f4")
    distinct = generator.permutation(int(np.prod(shape))).reshape(shape).astype("f4")
    missing = distinct.copy()
    missing.reshape(-1)[generator.integers(0, missing.size, 7)] = np.nan
    infinite = np.full(shape, -np.inf, "f4")
    infinite.reshape(-1)[::3] = np.inf
    for x in (ties, distinct, missing, infinite, np.full(shape, -sign * np.inf, "f4")):
        given = launcher.xp.asarray(x.astype(dtype))
        x = x.astype(dtype).astype("f4")
        values, index = extremes(launcher, given, (dim,), False, sign, with_index=True)
        expected = (np.argmax if sign == 1 else np.argmin)(x, dim)
        assert index.dtype == np.int64 and index.shape == expected.shape
        assert (host(index) == expected).all()
        exact = np.take_along_axis(x, np.expand_dims(expected, dim), dim).squeeze(dim)
        assert np.array_equal(host(values).astype("f4"), exact, equal_nan=True)


def test_nan_is_the_extreme_and_infinities_add_up_to_nan(launcher: Any) -> None:
    x = array((4, 300), "float32")
    x[1, 7], x[2, 0], x[2, 299] = np.nan, np.inf, -np.inf
    given = launcher.xp.asarray(x)
    for op in (Sum, Amax, Amin):
        found = host(op.fused_forward(launcher, given, (1,), False))
        assert np.isnan(found[1]) and np.isnan(found[2]) == (op is Sum)
        assert np.isfinite(found[[0, 3]]).all()


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    flat = array((40 * 64 + 3,), "float32")
    device = launcher.xp.asarray(flat)
    for start in range(4):
        x = device[start : start + 2560]
        exact = flat[start : start + 2560].astype("f8")
        for shape, dims in (
            ((40, 64), (1,)),
            ((40, 64), (0,)),
            ((2560,), (0,)),
            ((20, 2, 64), (0, 2)),
        ):
            out = Sum.fused_forward(launcher, x.reshape(shape), dims, False)
            np.testing.assert_allclose(host(out), exact.reshape(shape).sum(dims), atol=2e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("op", [Sum, Amax])
@pytest.mark.parametrize(
    ("shape", "dims"),
    [((9000,), (0,)), ((9, 33), (1,)), ((3, 300), (1,)), ((65, 5), (0,)), ((130, 40), (0,)),
     ((2, 128, 3), (1,)), ((2, 7, 40), (1,)), ((200, 33), (0,))],
    ids=str,
)  # fmt: skip
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, op: Any, shape: Any, dims: Any, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, op, shape, dims, "float32")
    x = array(shape, "float32")
    x.flags.writeable = False
    sums(threads, x, dims, False, factor=x)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("shape", [(5, 3, 6), (2, 3, 64)], ids=str)
def test_no_race_in_channels(threads: ThreadsLauncher, shape: Any, seed: int) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, Sum, shape, (0, 2), "float32")


def test_the_same_bits_at_every_run(threads: ThreadsLauncher) -> None:
    for shape, dims in (((9000,), (0,)), ((100, 40), (0,)), ((5, 3, 70), (0, 2))):
        x = array(shape, "float32")
        runs = set()
        for threads.seed in range(3):
            runs.add(host(Sum.fused_forward(threads, x, dims, False)).tobytes())
        assert len(runs) == 1


def test_what_kernels_cannot_serve_is_left_to_the_rule(launcher: Any) -> None:
    x = launcher.xp.asarray(array((2, 3, 4, 5), "float32"))
    for unfit, dims in (
        (x, (0, 2)),  # two blocks of dimensions apart
        (x[:, :, ::2], (0, 1, 2, 3)),
        (x[:0], (0, 1, 2, 3)),
        (x.astype("i8"), (0, 1, 2, 3)),
    ):
        assert Sum.fused_forward(launcher, unfit, dims, False) is NotImplemented
        assert Amax.fused_forward(launcher, unfit, dims, False) is NotImplemented


def test_dimensions_that_lie_together_are_one() -> None:
    assert merged((2, 1, 3, 4), (2, 3)) == ((2, False), (12, True))
    assert merged((2, 1, 3, 4), (0, 1)) == ((2, True), (12, False))
    assert merged((1, 1), (0,)) == ()
