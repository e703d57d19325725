"""Layer and RMS normalisation with kernels: the rules in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradlite.ops.norm_rules import NativeLayerNorm, RmsNorm
from tests.kernels.support import ThreadsLauncher, by_kernel, by_rule, wide

# Rows and columns: a warp to a row and a block to a row, rows in registers and rows that are
# too long or of an odd length, one part of the rows and several.
SHAPES = [
    (1, 1), (2, 31), (300, 32), (5, 33), (3, 300), (2, 1023), (2, 1024), (3, 1025), (70, 5),
    (1, 9000), (9, 2048),
]  # fmt: skip
TOLERANCES = {"bfloat16": 1.6e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-12}


def compare(
    K: Any,
    op: Any,
    shape: tuple[int, int],
    dtype: str,
    *,
    offset: float = 0,
    parameters: tuple[bool, bool] = (True, True),
    wanted: tuple[bool, bool, bool] = (True, True, True),
) -> None:
    generator = np.random.default_rng(shape[1])
    x = (generator.standard_normal(shape) * 3 + offset).astype(dtype)
    grad = generator.standard_normal(shape).astype(dtype)
    w, b = (generator.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    center = op is NativeLayerNorm
    inputs = [x, w if parameters[0] else None, b if parameters[1] and center else None]
    wanted = tuple(want and a is not None for want, a in zip(wanted, inputs))
    attrs = ((shape[1],), center, 1e-5, np.dtype(dtype))
    expected = by_rule(op, [wide(a) for a in inputs], (*attrs[:3], "f8"), wide(grad), wanted)
    found = by_kernel(K, op, inputs, attrs, grad, wanted)
    tolerance = TOLERANCES[dtype] * (1 + abs(offset))
    for ours, reference, want in zip(found, expected, (True, *wanted)):
        if want:
            assert ours.dtype == dtype and ours.shape == reference.shape
            scale = max(1.0, float(np.abs(reference).max()))
            np.testing.assert_allclose(ours, reference, tolerance, tolerance * scale)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op", [NativeLayerNorm, RmsNorm])
def test_values_and_gradients(launcher: Any, op: Any, shape: tuple[int, int], dtype: str) -> None:
    compare(launcher, op, shape, dtype)


@pytest.mark.parametrize("op", [NativeLayerNorm, RmsNorm])
@pytest.mark.parametrize("parameters", [(False, False), (True, False), (False, True)])
def test_without_weight_or_bias(launcher: Any, op: Any, parameters: tuple[bool, bool]) -> None:
    for shape in ((4, 64), (3, 7), (2, 9000)):
        compare(launcher, op, shape, "float32", parameters=parameters)


@pytest.mark.parametrize(
    "wanted",
    [(True, False, False), (False, True, False), (False, False, True), (True, False, True)],
)
def test_only_the_gradients_that_somebody_wants(
    launcher: Any, wanted: tuple[bool, bool, bool]
) -> None:
    compare(launcher, NativeLayerNorm, (40, 64), "float32", wanted=wanted)


@pytest.mark.parametrize("columns", [64, 63, 9000])
def test_a_mean_far_from_0_costs_no_more_than_its_own_rounding(launcher: Any, columns: int) -> None:
    x = np.random.default_rng(0).standard_normal((4, columns)).astype("f4")
    x = (x + np.float32(1e5)).astype("f4")
    attrs = ((columns,), True, 1e-5, np.dtype("f4"))
    y, _ = NativeLayerNorm.fused_forward(launcher, launcher.xp.asarray(x), None, None, *attrs)
    expected, _ = NativeLayerNorm.forward(np, wide(x), None, None, *attrs)
    np.testing.assert_allclose(np.asarray(y.tolist()), expected, atol=2e-5)


def test_constant_rows_give_zeros(launcher: Any) -> None:
    x = launcher.xp.asarray(np.full((3, 77), 1234.567, np.float32))
    attrs = ((77,), True, 0.0, np.dtype("f4"))
    y, (_, rstd, _) = NativeLayerNorm.fused_forward(launcher, x, None, None, *attrs[:2], 1e-5, "f4")
    assert np.abs(np.asarray(y.tolist())).max() == 0
    np.testing.assert_allclose(np.asarray(rstd.tolist()), 1e-5**-0.5, rtol=1e-6)


def test_infinity_and_nan_stay_in_their_rows(launcher: Any) -> None:
    x = np.random.default_rng(0).standard_normal((4, 100)).astype("f4")
    x[1, 5], x[2, 99] = np.inf, np.nan
    attrs = ((100,), True, 1e-5, np.dtype("f4"))
    y, _ = NativeLayerNorm.fused_forward(launcher, launcher.xp.asarray(x), None, None, *attrs)
    bad = np.isnan(np.asarray(y.tolist()))
    assert bad[1].all() and bad[2].all() and not bad[[0, 3]].any()


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    generator = np.random.default_rng(0)
    flat = launcher.xp.asarray(generator.standard_normal(8 * 64 + 3).astype("f4"))
    attrs = ((64,), True, 1e-5, np.dtype("f4"))
    results = []
    for start in range(4):
        x = flat[start : start + 512].reshape(8, 64)
        y, _ = NativeLayerNorm.fused_forward(launcher, x, x[3], x[4], *attrs)
        expected, _ = NativeLayerNorm.forward(
            np, *(wide(np.asarray(a.tolist())) for a in (x, x[3], x[4])), *attrs
        )
        results.append(np.abs(np.asarray(y.tolist()) - expected).max())
    assert max(results) < 1e-5


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(9, 33), (3, 300), (2, 64), (40, 8)], ids=str)
@pytest.mark.parametrize("op", [NativeLayerNorm, RmsNorm])
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, op: Any, shape: tuple[int, int], seed: int
) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, op, shape, "float32")


def test_the_same_bits_at_every_run(threads: ThreadsLauncher) -> None:
    generator = np.random.default_rng(0)
    x, grad = (generator.standard_normal((300, 40)).astype("f4") for _ in range(2))
    w = generator.standard_normal(40).astype("f4")
    attrs = ((40,), True, 1e-5, np.dtype("f4"))
    runs = []
    for seed in range(3):
        threads.seed = seed
        runs.append(by_kernel(threads, NativeLayerNorm, [x, w, w], attrs, grad, (True,) * 3))
    for other in runs[1:]:
        for a, b in zip(runs[0], other):
            assert a.tobytes() == b.tobytes()


def test_parameters_in_single_precision_beside_halves(launcher: Any) -> None:
    rng = np.random.default_rng(0)
    x, grad = (rng.standard_normal((2, 3)).astype(np.float16) for _ in range(2))
    w, b = (rng.standard_normal(3).astype(np.float32) for _ in range(2))
    attrs = ((3,), True, 1e-5, np.dtype("f4"))
    found = by_kernel(launcher, NativeLayerNorm, [x, w, b], attrs, grad, (True,) * 3)
    exact = [wide(a) for a in (x, w, b)], (*attrs[:-1], np.dtype("f8"))
    expected = by_rule(NativeLayerNorm, *exact, wide(grad), (True,) * 3)
    for ours, reference, dtype in zip(found, expected, ["f2", "f2", "f4", "f4"], strict=True):
        assert ours.dtype == dtype
        tolerance = 2e-3 if dtype == "f2" else 1e-5
        np.testing.assert_allclose(ours, reference, tolerance, tolerance)
