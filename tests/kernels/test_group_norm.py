"""Group and instance normalisation with kernels: the rules in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradlite.backends import kernels
from gradlite.ops.norm_rules import InstanceNorm, NativeGroupNorm
from tests.kernels.support import ThreadsLauncher, by_kernel, by_rule, wide

# (N, C, ...) and groups: short and long planes, groups in registers and longer ones, one channel
# to a group and all of them.
CASES = [
    ((2, 4), 2), ((3, 6, 1), 3), ((2, 6, 5), 3), ((40, 4, 7, 7), 2), ((2, 6, 8, 8), 2),
    ((3, 4, 33), 4), ((2, 2, 3, 5, 67), 1), ((1, 4, 64, 96), 2), ((2, 3, 9001), 3), ((1, 2, 64), 1),
    ((5, 32), 2), ((3, 24), 3), ((2, 256, 1), 1), ((2, 16, 3, 3), 2), ((2, 8, 2), 2),
]  # fmt: skip
TOLERANCES = {"bfloat16": 1.6e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-12}
ALL = (True, True, True)


def compare(
    K: Any,
    shape: tuple[int, ...],
    groups: int,
    dtype: str,
    *,
    parameters: tuple[bool, bool] = (True, True),
    wanted: tuple[bool, bool, bool] = ALL,
) -> None:
    generator = np.random.default_rng(len(shape))
    x, grad = (generator.standard_normal(shape).astype(dtype) for _ in range(2))
    x = (x * 3 + 1).astype(dtype)
    w, b = (generator.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    inputs = [x, w if parameters[0] else None, b if parameters[1] else None]
    wanted = tuple(want and a is not None for want, a in zip(wanted, inputs))
    attrs = (groups, 1e-5, np.dtype(dtype))
    op = InstanceNorm if groups == shape[1] else NativeGroupNorm
    expected = by_rule(op, [wide(a) for a in inputs], (groups, 1e-5, "f8"), wide(grad), wanted)
    found = by_kernel(K, op, inputs, attrs, grad, wanted)
    for ours, reference, want in zip(found, expected, (True, *wanted)):
        if want:
            assert ours.dtype == dtype and ours.shape == reference.shape
            scale = max(1.0, float(np.abs(reference).max()))
            tolerance = TOLERANCES[dtype]
            np.testing.assert_allclose(ours, reference, tolerance, tolerance * scale)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "groups"), CASES, ids=str)
def test_values_and_gradients(
    launcher: Any, shape: tuple[int, ...], groups: int, dtype: str
) -> None:
    compare(launcher, shape, groups, dtype)


@pytest.mark.parametrize("parameters", [(False, False), (True, False), (False, True)])
def test_without_weight_or_bias(launcher: Any, parameters: tuple[bool, bool]) -> None:
    for shape in ((2, 4, 6), (2, 4, 64)):
        compare(launcher, shape, 2, "float32", parameters=parameters)


@pytest.mark.parametrize(
    "wanted", [ALL[:1] + (False,) * 2, (False, True, False), (False,) * 2 + (True,)]
)
def test_only_the_gradients_that_somebody_wants(
    launcher: Any, wanted: tuple[bool, bool, bool]
) -> None:
    for shape in ((2, 4, 6), (2, 4, 64)):
        compare(launcher, shape, 2, "float32", wanted=wanted)


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    flat = np.random.default_rng(0).standard_normal(4 * 64 + 3).astype("f4")
    device, attrs = launcher.xp.asarray(flat), (2, 1e-5, np.dtype("f4"))
    for start in range(4):
        x = device[start : start + 256].reshape(1, 4, 64)
        y, _ = NativeGroupNorm.fused_forward(launcher, x, None, None, *attrs)
        expected = NativeGroupNorm.forward(
            np, wide(flat[start : start + 256].reshape(1, 4, 64)), None, None, *attrs
        )[0]
        np.testing.assert_allclose(np.asarray(y.tolist()), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("inner", [4, 13, 32])
def test_many_short_rows(launcher: Any, inner: int, dtype: str) -> None:
    compare(launcher, (2049, 2 * inner), 2, dtype)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_race_between_short_rows(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    with kernels.record() as launches:
        compare(threads, (2049, 6), 2, "float32")
    assert {"norm_short_forward", "norm_short_backward"} <= set(launches)


def test_parameters_that_start_anywhere(launcher: Any) -> None:
    flat = np.random.default_rng(0).standard_normal((3, 40)).astype("f4")
    x = flat[0, :32].reshape(2, 16)
    for start in range(4):
        w, b = (flat[i, start : start + 16] for i in (1, 2))
        device = [launcher.xp.asarray(row)[start : start + 16] for row in flat[1:]]
        attrs = (2, 1e-5, np.dtype("f4"))
        y, _ = NativeGroupNorm.fused_forward(launcher, launcher.xp.asarray(x), *device, *attrs)
        expected = NativeGroupNorm.forward(np, wide(x), wide(w), wide(b), *attrs)[0]
        np.testing.assert_allclose(np.asarray(y.tolist()), expected, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 4, 6), 2), ((3, 16), 2), ((2, 8, 3), 2), ((3, 4, 64), 2), ((1, 2, 300), 1)],
    ids=str,
)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: tuple[int, ...], groups: int, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, shape, groups, "float32")


def test_parameters_in_single_precision_beside_halves(launcher: Any) -> None:
    rng = np.random.default_rng(0)
    x, grad = (rng.standard_normal((2, 4, 3)).astype(np.float16) for _ in range(2))
    w, b = (rng.standard_normal(4).astype(np.float32) for _ in range(2))
    attrs = (2, 1e-5, np.dtype("f4"))
    found = by_kernel(launcher, NativeGroupNorm, [x, w, b], attrs, grad, (True,) * 3)
    exact = [wide(a) for a in (x, w, b)], (*attrs[:-1], np.dtype("f8"))
    expected = by_rule(NativeGroupNorm, *exact, wide(grad), (True,) * 3)
    for ours, reference, dtype in zip(found, expected, ["f2", "f2", "f4", "f4"], strict=True):
        assert ours.dtype == dtype
        tolerance = 2e-3 if dtype == "f2" else 1e-5
        np.testing.assert_allclose(ours, reference, tolerance, tolerance)
