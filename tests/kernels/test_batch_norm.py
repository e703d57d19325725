"""Batch normalisation with kernels: the rule in float64 is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.nn import functional as F
from gradlite.ops.norm_rules import NativeBatchNorm
from tests import cupy_stand_in
from tests.cuda_on_cpu import compiler
from tests.kernels.support import ThreadsLauncher, by_kernel, by_rule, host, wide

# Planes of 1 element, planes shorter and longer than a warp needs, planes in pieces, one part of
# the samples and several.
SHAPES = [
    (2, 1), (300, 5), (4, 33), (70, 3, 2), (4, 6, 7, 7), (5, 2, 63), (3, 4, 8, 8), (2, 3, 65),
    (2, 2, 5, 33, 31), (70, 2, 64),
]  # fmt: skip
TOLERANCES = {"bfloat16": 1.6e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-12}
ALL = (True, True, True)


def values(shape: tuple[int, ...], dtype: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """x, grad, weight, bias, and running mean and variance."""
    generator = np.random.default_rng(len(shape))
    x, grad = (generator.standard_normal(shape).astype(dtype) for _ in range(2))
    channels = [generator.standard_normal(shape[1]).astype(dtype) for _ in range(4)]
    return [(x * 3 + 1).astype(dtype), grad, *channels[:2]], [channels[2], channels[3] ** 2 + 1]


def compare(
    K: Any,
    shape: tuple[int, ...],
    dtype: str,
    training: bool,
    *,
    parameters: tuple[bool, bool] = (True, True),
    wanted: tuple[bool, bool, bool] = ALL,
    momentum: float = 0.1,
    parameter_dtype: str = "",
) -> None:
    (x, grad, *both), running = values(shape, dtype)
    both = [p.astype(parameter_dtype or dtype) for p in both]
    running = [r.astype(parameter_dtype or dtype) for r in running]
    inputs = [x, *(p if given else None for p, given in zip(both, parameters))]
    wanted = tuple(want and a is not None for want, a in zip(wanted, inputs))
    ours, reference = [K.xp.asarray(r.copy()) for r in running], [wide(r) for r in running]
    options = (training, momentum, 1e-5)
    expected = by_rule(
        NativeBatchNorm, [wide(a) for a in inputs], (reference, *options, "f8"), wide(grad), wanted
    )
    found = by_kernel(
        K,
        NativeBatchNorm,
        inputs,
        (ours, *options, np.dtype(parameter_dtype or dtype)),
        grad,
        wanted,
    )
    tolerance = TOLERANCES[dtype]
    for out, exact, want in zip(found, expected, (True, *wanted)):
        if want:
            assert out.shape == exact.shape
            scale = max(1.0, float(np.abs(exact).max()))
            np.testing.assert_allclose(out, exact, tolerance, tolerance * scale)
    dtypes = [dtype, dtype, *[parameter_dtype or dtype] * 2]
    assert all(a is None or a.dtype == d for a, d in zip(found, dtypes))
    for kept, exact in zip(ours, reference):
        np.testing.assert_allclose(host(kept), exact, tolerance, tolerance)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_gradients_and_running_statistics(
    launcher: Any, shape: tuple[int, ...], dtype: str, training: bool
) -> None:
    compare(launcher, shape, dtype, training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(5, 3, 6), (2, 3, 64)], ids=str)
def test_parameters_and_statistics_in_float32_around_float16(
    launcher: Any, shape: tuple[int, ...], training: bool
) -> None:
    compare(launcher, shape, "float16", training, parameter_dtype="float32")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("parameters", [(False, False), (True, False), (False, True)])
def test_without_weight_or_bias(
    launcher: Any, training: bool, parameters: tuple[bool, bool]
) -> None:
    for shape in ((5, 3, 6), (2, 3, 64)):
        compare(launcher, shape, "float32", training, parameters=parameters)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "wanted", [(True, False, False), (False, True, False), (False, False, True)]
)
def test_only_the_gradients_that_somebody_wants(
    launcher: Any, training: bool, wanted: tuple[bool, bool, bool]
) -> None:
    for shape in ((5, 3, 6), (2, 3, 64)):
        compare(launcher, shape, "float32", training, wanted=wanted)


@pytest.mark.parametrize("momentum", [0.0, 1.0, 1 / 3])
def test_any_momentum(launcher: Any, momentum: float) -> None:
    compare(launcher, (5, 3, 6), "float32", True, momentum=momentum)


def forward(K: Any, x: np.ndarray, running: Any = None, training: bool = True) -> list[np.ndarray]:
    attrs = (running, training, 0.1, 1e-5, x.dtype)
    y, (mean, rstd) = NativeBatchNorm.fused_forward(K, K.xp.asarray(x), None, None, *attrs)
    return [host(y), host(mean), host(rstd)]


@pytest.mark.parametrize("length", [3, 200])
def test_without_running_statistics_and_far_from_0(launcher: Any, length: int) -> None:
    x = np.random.default_rng(0).standard_normal((40, 3, length)).astype("f4")
    x = (x + np.asarray([0, 1e3, 1e4], "f4")[:, None]).astype("f4")
    y, mean, rstd = forward(launcher, x)
    expected, (exact_mean, exact_rstd) = NativeBatchNorm.forward(
        np, wide(x), None, None, None, True, 0.1, 1e-5, x.dtype
    )
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(rstd, exact_rstd, rtol=1e-5)
    # A mean in float32 has half a unit of its last place of error.
    for channel, error in enumerate((1e-5, 1e-4, 1e-3)):
        np.testing.assert_allclose(y[:, channel], expected[:, channel], atol=error)


@pytest.mark.parametrize("length", [1, 200])
def test_a_first_value_far_from_all_others(launcher: Any, length: int) -> None:
    x = np.random.default_rng(0).standard_normal((4000 // length, 2, length)).astype("f4")
    x += 1000
    x[0, 0, 0] = 5000
    x[0, 1, 0] = -1e6
    _, mean, rstd = forward(launcher, x)
    _, (exact_mean, exact_rstd) = NativeBatchNorm.forward(
        np, wide(x), None, None, None, True, 0.1, 1e-5, x.dtype
    )
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-6)
    np.testing.assert_allclose(rstd, exact_rstd, rtol=1e-5)


@pytest.mark.parametrize("length", [2, 200])
def test_constant_channels_give_zeros(launcher: Any, length: int) -> None:
    x = np.full((6, 2, length), 1234.567, np.float32)
    y, _, rstd = forward(launcher, x)
    assert np.abs(y).max() == 0
    np.testing.assert_allclose(rstd, 1e-5**-0.5, rtol=1e-6)


@pytest.mark.parametrize("length", [2, 200])
def test_infinity_and_nan_stay_in_their_channels(launcher: Any, length: int) -> None:
    x = np.random.default_rng(0).standard_normal((6, 4, length)).astype("f4")
    x[1, 1, 1], x[2, 2, 0] = np.inf, np.nan
    bad = np.isnan(forward(launcher, x)[0])
    assert bad[:, 1:3].all() and not bad[:, [0, 3]].any()


@pytest.mark.parametrize("length", [1, 3])
def test_any_grid_is_right(launcher: Any, length: int) -> None:
    # Samples of 5 or 15 packs, which the threads of a block cannot all go on by.
    x = np.random.default_rng(0).standard_normal((300, 20, length)).astype("f4")
    w = np.linspace(1, 2, 20, dtype="f4")
    device, scale = launcher.xp.asarray(x), launcher.xp.asarray(w)
    for blocks in (1, 3):
        y = launcher.empty_like(device)
        arguments = device, None, None, None, scale, y, 0, *x.shape
        launcher.launch("batch_norm_forward", x.dtype, (blocks,), (256,), *arguments)
        np.testing.assert_array_equal(host(y), x * w[:, None])


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    flat = np.random.default_rng(0).standard_normal(4 * 3 * 64 + 3).astype("f4")
    device = launcher.xp.asarray(flat)
    for start in range(4):
        for shape in ((4, 3, 64), (64, 12), (4, 24, 8)):
            x = device[start : start + 768].reshape(shape)
            y, _ = NativeBatchNorm.fused_forward(
                launcher, x, None, None, None, True, 0.1, 1e-5, x.dtype
            )
            exact = NativeBatchNorm.forward(
                np, wide(flat[start : start + 768].reshape(shape)), None, None, None, True, 0.1,
                1e-5, x.dtype,
            )[0]  # fmt: skip
            np.testing.assert_allclose(host(y), exact, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(5, 3, 6), (40, 2, 5), (2, 3, 64), (9, 4)], ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: tuple[int, ...], training: bool, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, shape, "float32", training)


def test_what_kernels_cannot_serve_is_left_to_the_rule(launcher: Any) -> None:
    xp = launcher.xp
    half, single = (xp.asarray(np.ones((4, 3, 2), t)) for t in ("f2", "f4"))
    w2, w4 = (xp.asarray(np.ones(3, t)) for t in ("f2", "f4"))
    spread = xp.asarray(np.ones(6, "f4"))[::2]
    fused, end = NativeBatchNorm.fused_forward, (True, 0.1, 1e-5, np.dtype("f4"))
    assert fused(launcher, half, w2, w4, None, *end) is NotImplemented
    assert fused(launcher, single, w2, None, None, *end) is NotImplemented
    assert fused(launcher, single, w4, w4, (spread, w4), *end) is NotImplemented
    assert fused(launcher, single[:0], w4, w4, None, *end) is NotImplemented


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4)])
def test_running_statistics_that_lie_apart_and_are_edited(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    cupy_stand_in.install(monkeypatch)
    numbers = np.random.default_rng(0)
    x, statistics = numbers.standard_normal(shape), numbers.random((3, 2)) + 0.5
    found = []
    for device, dense in (("cpu", True), ("cpu", False), ("cuda", True), ("cuda", False)):
        kept = gradlite.tensor(statistics, device=device)
        running = [part.contiguous() if dense else part for part in kept.unbind(1)]
        values = gradlite.tensor(x, device=device, requires_grad=True)
        weight = gradlite.ones(3, dtype=gradlite.float64, device=device, requires_grad=True)
        out = F.batch_norm(values, *running, weight)
        for part in running:
            part += 1
        found.append(gradlite.autograd.grad((out * out).sum(), [values, weight]))
    for grads in found[1:]:
        for ours, expected in zip(grads, found[0], strict=True):
            np.testing.assert_allclose(ours.tolist(), expected.tolist(), 1e-12)
