"""Sums over rows in two kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradlite.backends import kernels
from gradlite.ops.column_sums import column_sums, total
from tests.kernels.support import ThreadsLauncher, host

SIZES = [(1, 1), (5, 7), (31, 33), (33, 32), (65, 128), (10, 130), (3, 1025), (1025, 3), (70, 1023),
         (100003, 2)]  # fmt: skip
TOLERANCES = {"bfloat16": 1.6e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-13}


def draw(shape: tuple[int, ...], dtype: str) -> Any:
    return np.random.default_rng(shape[0]).standard_normal(shape).astype(dtype)


def compare(K: Any, rows: int, columns: int, dtype: str) -> Any:
    x = draw((rows, columns), dtype)
    sums = host(column_sums(K, K.xp.asarray(x)))
    expected = x.astype("f8").sum(0)
    tolerance = TOLERANCES[dtype]
    scale = np.abs(x.astype("f8")).sum(0).max()
    np.testing.assert_allclose(sums, expected, tolerance, tolerance * scale / 10)
    return sums


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sums_over_rows(launcher: Any, size: tuple[int, int], dtype: str) -> None:
    compare(launcher, *size, dtype)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("size", [(9, 7), (70, 132), (3, 300)], ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, size: tuple[int, int], seed: int
) -> None:
    threads.check, threads.seed = True, seed
    for dtype in TOLERANCES:
        compare(threads, *size, dtype)


def test_the_order_of_threads_changes_no_bit(threads: ThreadsLauncher) -> None:
    results = []
    for seed in (0, 1, 2):
        threads.seed = seed
        results.append(compare(threads, 1000, 5, "float32"))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("start", [1, 2, 3])
def test_arrays_that_start_anywhere(launcher: Any, start: int) -> None:
    x = draw((9 * 64 + start,), "float32")
    part = launcher.xp.asarray(x)[start:].reshape(9, 64)
    expected = x[start:].astype("f8").reshape(9, 64).sum(0)
    np.testing.assert_allclose(host(column_sums(launcher, part)), expected, 1e-5, 1e-5)


def test_planes_are_parts_of_channels(launcher: Any) -> None:
    """Sums over batch and space of (N, C, length): the planes' sums are the parts."""
    batch, channels = 3, 5
    for length in (1, 40, 1000):
        x = draw((batch, channels, length), "float32")
        partials = launcher.empty((1, batch, channels), launcher.acc(x.dtype))
        planes = batch * channels
        launcher.rows(
            "planes_parts",
            x.dtype,
            planes,
            length,
            launcher.xp.asarray(x),
            partials,
            planes,
            length,
        )
        sums = launcher.empty((channels,), x.dtype)
        total(launcher, x.dtype, partials, sums)
        np.testing.assert_allclose(host(sums), x.astype("f8").sum((0, 2)), 1e-5, 1e-4)


def test_two_launches_for_two_sums(launcher: Any) -> None:
    x = draw((64, 48), "float32")
    with kernels.record() as launches:
        compare(launcher, 64, 48, "float32")
        partials = launcher.xp.asarray(np.stack([x[:4], x[4:8]]))
        first, second = launcher.empty((48,), x.dtype), launcher.empty((48,), x.dtype)
        total(launcher, x.dtype, partials, first, second)
    assert launches == ["columns_parts", "columns_total", "columns_total"]
    np.testing.assert_allclose(host(first), x[:4].sum(0), 1e-5, 1e-6)
    np.testing.assert_allclose(host(second), x[4:8].sum(0), 1e-5, 1e-6)
