"""Pooling with kernels: the rules on NumPy's arrays in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops import pool_launch, pooling
from gradlite.ops.adaptive_pool import AdaptiveAvgPool2d, AdaptiveAvgPool2dGrad, AdaptiveMaxPool2d
from gradlite.ops.pool import (
    AvgPool2d,
    AvgPool2dGrad,
    MaxPool2d,
    MaxPool2dWithIndices,
    MaxPoolScatter,
)
from gradlite.ops.pool_arguments import pool_geometry
from tests import cupy_stand_in as stand_in
from tests.kernels.support import ThreadsLauncher, host

TOLERANCES = {"bfloat16": 4e-3, "float16": 2e-3, "float32": 2e-6, "float64": 1e-13}
# shape, kernel, stride, padding, dilation, ceil mode
WINDOWS: list[tuple[Any, ...]] = [
    ((2, 3, 4, 6), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 7, 9), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((1, 2, 8, 7), (3, 2), (1, 1), (1, 0), (1, 1), False),
    ((3, 5, 5), (2, 2), (2, 2), (0, 0), (1, 1), True),
    ((2, 9, 8), (2, 3), (1, 2), (1, 0), (2, 1), False),
    ((2, 9, 8), (3, 2), (4, 3), (1, 1), (3, 2), True),
    ((5, 1, 33), (1, 3), (1, 2), (0, 1), (1, 1), False),
    ((1, 33, 31), (5, 7), (3, 2), (2, 3), (1, 1), True),
    ((2, 3, 1), (2, 2), (1, 1), (1, 1), (3, 2), True),
    ((2, 1, 4), (1, 2), (1, 1), (0, 1), (1, 4), False),
    ((2, 2, 5), (2, 2), (2, 3), (1, 1), (3, 3), True),
]
SIZES = [((2, 3, 4, 6), (2, 3)), ((3, 7, 5), (3, 2)), ((2, 5, 4), (5, 7)), ((2, 20, 17), (1, 1))]


def images(xp: Any, shape: Any, dtype: str, seed: int = 0) -> Any:
    """Images with many equal elements."""
    values = np.random.default_rng(seed).integers(-4, 5, shape) / 4
    return xp.asarray(values.astype(dtype))


def wide(array: Any) -> np.ndarray:
    return host(array).astype("f8")


def close(found: Any, expected: Any, dtype: str) -> None:
    assert found.dtype == dtype
    np.testing.assert_allclose(wide(found), expected, TOLERANCES[dtype], TOLERANCES[dtype])


def compare_windows(K: Any, case: tuple[Any, ...], dtype: str) -> None:
    shape, kernel, stride, padding, dilation, ceil_mode = case
    geometry = pool_geometry(shape, kernel, stride, padding, dilation, ceil_mode)
    x = images(K.xp, shape, dtype)
    out, winners = MaxPool2d.fused_forward(K, x, kernel, geometry, True)
    expected, which = MaxPool2d.forward(np, wide(x), kernel, geometry, True)
    np.testing.assert_array_equal(host(out), expected)
    np.testing.assert_array_equal(host(winners), which)
    values, nothing = MaxPool2d.fused_forward(K, x, kernel, geometry, False)
    np.testing.assert_array_equal(host(values), expected)
    assert nothing is None
    g = images(K.xp, out.shape, dtype, 1)
    dx = MaxPoolScatter.fused_forward(K, g, winners, shape, kernel, geometry)
    close(dx, MaxPoolScatter.forward(np, wide(g), which, shape, kernel, geometry), dtype)
    (out, places), winners = MaxPool2dWithIndices.fused_forward(K, x, kernel, geometry)
    (expected, where), which = MaxPool2dWithIndices.forward(np, wide(x), kernel, geometry)
    np.testing.assert_array_equal(host(out), expected)
    np.testing.assert_array_equal(host(places), where)
    np.testing.assert_array_equal(host(winners), which)
    if dilation != (1, 1):
        return
    areas = pooling.window_areas(shape[-2:], kernel, geometry, padding, False)
    for divisor in (3, areas):
        attrs = (kernel, geometry, divisor)
        out = AvgPool2d.fused_forward(K, x, *attrs)
        close(out, AvgPool2d.forward(np, wide(x), *attrs), dtype)
        dx = AvgPool2dGrad.fused_forward(K, g, shape, *attrs)
        close(dx, AvgPool2dGrad.forward(np, wide(g), shape, *attrs), dtype)


def compare_adaptive(K: Any, shape: Any, size: Any, dtype: str) -> None:
    x = images(K.xp, shape, dtype)
    out = AdaptiveAvgPool2d.fused_forward(K, x, size)
    close(out, AdaptiveAvgPool2d.forward(np, wide(x), size), dtype)
    g = images(K.xp, out.shape, dtype, 1)
    dx = AdaptiveAvgPool2dGrad.fused_forward(K, g, shape, size)
    close(dx, AdaptiveAvgPool2dGrad.forward(np, wide(g), shape, size), dtype)
    out, places = AdaptiveMaxPool2d.fused_forward(K, x, size)
    expected, where = AdaptiveMaxPool2d.forward(np, wide(x), size)
    np.testing.assert_array_equal(host(out), expected)
    np.testing.assert_array_equal(host(places), where)
    dx = MaxPoolScatter.fused_forward(K, g, places, shape, None, None)
    close(dx, MaxPoolScatter.forward(np, wide(g), where, shape, None, None), dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("case", WINDOWS, ids=str)
def test_windows(wanted: Any, case: tuple[Any, ...], dtype: str) -> None:
    compare_windows(wanted, case, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "size"), SIZES, ids=str)
def test_adaptive(wanted: Any, shape: Any, size: Any, dtype: str) -> None:
    compare_adaptive(wanted, shape, size, dtype)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for case in WINDOWS[:6]:
        compare_windows(threads, case, "float32")
    for shape, size in SIZES:
        compare_adaptive(threads, shape, size, "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_what_is_not_a_number_wins(wanted: Any, dtype: str) -> None:
    values = images(np, (4, 9, 9), dtype)
    values[0, 2:5, 3] = np.nan
    values[1] = np.nan
    values[2] = -np.inf
    values[3] = np.where(values[3] > 0, 3e38, -3e38)
    x, values = wanted.xp.asarray(values), wide(values)
    geometry = pool_geometry(values.shape, (3, 3), (2, 2), (1, 1), (1, 1), False)
    out, winners = MaxPool2d.fused_forward(wanted, x, (3, 3), geometry, True)
    expected, which = MaxPool2d.forward(np, values, (3, 3), geometry, True)
    np.testing.assert_array_equal(wide(out), expected)
    np.testing.assert_array_equal(host(winners), which)
    out, places = AdaptiveMaxPool2d.fused_forward(wanted, x, (2, 4))
    expected, where = AdaptiveMaxPool2d.forward(np, values, (2, 4))
    np.testing.assert_array_equal(wide(out), expected)
    np.testing.assert_array_equal(host(places), where)


def test_what_kernels_cannot_serve_is_left_to_the_rule(
    wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = wanted.xp.ones((2, 40, 40), "f4")
    geometry = pool_geometry(x.shape, (17, 17), (1, 1), (0, 0), (1, 1), False)
    assert MaxPool2d.fused_forward(wanted, x, (17, 17), geometry, True) is NotImplemented
    whole = x.astype("i8")
    geometry = pool_geometry(x.shape, (2, 2), (1, 1), (0, 0), (1, 1), False)
    assert MaxPool2d.fused_forward(wanted, whole, (2, 2), geometry, True) is NotImplemented
    assert AvgPool2d.fused_forward(wanted, whole, (2, 2), geometry, 4) is NotImplemented
    assert AdaptiveAvgPool2d.fused_forward(wanted, x, (0, 2)) is NotImplemented
    assert AdaptiveMaxPool2d.fused_forward(wanted, x, (0, 2)) is NotImplemented
    assert AdaptiveMaxPool2d.fused_forward(wanted, x, (1 << 26, 1)) is NotImplemented
    monkeypatch.setattr(wanted, "serial", True)
    assert AdaptiveAvgPool2d.fused_forward(wanted, x, (2, 2)) is NotImplemented


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: F.max_pool2d(x, 2), ["max_pool_forward", "max_pool_backward"]),
        (lambda x: F.max_pool1d(x[0], 3, 2, 1), ["max_pool_forward", "max_pool_backward"]),
        (
            lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            ["avg_pool_forward", "avg_pool_backward"],
        ),
        (
            lambda x: F.adaptive_avg_pool2d(x, (3, 4)),
            ["adaptive_avg_pool_forward", "adaptive_avg_pool_backward"],
        ),
        (
            lambda x: F.adaptive_max_pool2d(x, 3),
            ["adaptive_max_pool_forward", "adaptive_max_pool_backward"],
        ),
    ],
)
def test_ops_use_them(monkeypatch: pytest.MonkeyPatch, function: Any, expected: Any) -> None:
    stand_in.install(monkeypatch)
    results = []
    for device in ("cpu", "cuda"):
        values = images(np, (2, 3, 7, 8), "float64")
        x = gradlite.tensor(values, device=device, requires_grad=True)
        with kernels.record() as launched:
            out = function(x)
            (out * out).sum().backward()
        results.append([t.detach().cpu().numpy() for t in (out, x.grad)])
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, 1e-12, 1e-12)
    assert [name for name in launched if "pool" in name] == expected


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pool3d(x, (2, 3, 2), (1, 2, 2), return_indices=True),
        lambda x: F.max_pool3d(x[0], 2, ceil_mode=True, return_indices=True),
        lambda x: F.adaptive_max_pool3d(x, (2, 1, 3), return_indices=True),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_places_in_volumes(monkeypatch: pytest.MonkeyPatch, function: Any, seed: int) -> None:
    stand_in.install(monkeypatch)
    values = gradlite.tensor(images(np, (2, 3, 4, 5, 6), "float32", seed))
    with kernels.record() as launched:
        found = function(values.cuda())[1]
    assert launched.count("box_places") == 1
    assert found.tolist() == function(values)[1].tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_places_in_volumes_stay_in_bounds(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    generator = np.random.default_rng(seed)
    inner, outer = generator.integers(0, 20, (3, 4, 6)), generator.integers(0, 24, (3, 10))
    for array in (inner, outer):
        array.flags.writeable = False
    found = pool_launch.box_places(threads, inner, outer, 6, 20)
    chosen = np.take_along_axis(inner.reshape(3, 24), outer, 1)
    np.testing.assert_array_equal(found, outer // 6 * 20 + chosen)
