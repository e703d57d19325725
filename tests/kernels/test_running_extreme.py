"""The largest and smallest elements so far with a kernel: a loop in Python is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.ops.reductions import running_extreme
from tests.kernels.support import ROW_TOLERANCES, ThreadsLauncher, host, normals, starting_anywhere

SHAPES = [
    ((1,), 0), ((31,), 0), ((3, 32), 1), ((32, 33), 0), ((2, 33, 5), 1), ((2, 1023), 1),
    ((1025, 3), 0), ((1, 1024, 2), 1), ((100003,), 0), ((4, 1, 3), 1),
]  # fmt: skip
INF, NAN = float("inf"), float("nan")


def expected(x: np.ndarray, dim: int, sign: int) -> np.ndarray:
    """With one that ties, or is NaN, taking over."""
    rows = np.moveaxis(x.astype("f8") * sign, dim, 0)
    index = np.zeros(rows.shape, np.int64)
    best = rows[0].copy()
    for j in range(1, len(rows)):
        over = (rows[j] >= best) | np.isnan(rows[j])
        best = np.where(over, rows[j], best)
        index[j] = np.where(over, j, index[j - 1])
    return np.moveaxis(index, 0, dim)


def compare(K: Any, x: np.ndarray, dim: int) -> None:
    for sign in (1, -1):
        found = host(running_extreme(K, K.xp.asarray(x), dim, sign))
        np.testing.assert_array_equal(found, expected(x, dim, sign))


@pytest.mark.parametrize("dtype", ROW_TOLERANCES)
@pytest.mark.parametrize(("shape", "dim"), SHAPES, ids=str)
def test_indices(launcher: Any, shape: Any, dim: int, dtype: str) -> None:
    compare(launcher, np.round(normals(shape, "float64") * 4).astype(dtype), dim)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for shape, dim in (((5, 33), 1), ((33, 5), 0), ((2, 9, 35), 1)):
        x = np.round(normals(shape, "float32") * 4)
        x.flags.writeable = False
        compare(threads, x, dim)


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    x = normals((3, 40), "float32")
    for start in range(1, 4):
        (given,) = starting_anywhere(launcher, [x], start)
        found = running_extreme(launcher, given, 1, 1)
        np.testing.assert_array_equal(host(found), expected(x, 1, 1))


@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_extreme_values_are_as_in_pytorch(launcher: Any, name: str) -> None:
    torch = pytest.importorskip("torch")
    rows = [
        [NAN, 1.0, NAN, 2.0], [1.0, NAN, 3.0, INF], [INF, INF, -INF, 0.0], [-INF, -INF, 1.0, 1.0],
        [0.0, -0.0, 0.0, -0.0], [3.0, 2.0, 1.0, 3.0],
    ]  # fmt: skip
    x = np.asarray(rows, np.float32)
    found = running_extreme(launcher, launcher.xp.asarray(x), 1, 1 if name == "cummax" else -1)
    theirs = getattr(torch, name)(torch.tensor(x), 1).indices
    np.testing.assert_array_equal(host(found), theirs.numpy())


@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_launches_and_derivatives(native_kernels: None, name: str) -> None:
    gradlite.manual_seed(0)
    x = gradlite.rand(3, 5, dtype=gradlite.float64).requires_grad_()

    def call(x: Any) -> Any:
        return getattr(gradlite, name)(x, 1).values

    with kernels.record() as launched:
        call(x).sum().backward()
    assert launched.count("running_extreme") == 1
    assert gradlite.autograd.gradcheck(call, [x])
    assert gradlite.autograd.gradgradcheck(call, [x])
    with pytest.raises(IndexError, match="Dimension out of range"):
        getattr(gradlite, name)(x, 2)
