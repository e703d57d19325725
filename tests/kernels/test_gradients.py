"""Norms, clipping, the check for overflow, zeros and averages of many arrays in one launch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import amp, dtypes
from gradlite.backends import kernels
from gradlite.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm
from gradlite.ops import many
from gradlite.ops.namespaces import NAMESPACES
from gradlite.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn
from gradlite.tensor import Tensor, wrap
from tests import cupy_stand_in as stand_in
from tests.kernels.support import ThreadsLauncher, host

TOLERANCES = {"bfloat16": 8e-3, "float16": 2e-3, "float32": 2e-6, "float64": 1e-13}
SIZES = [(1,), (31, 32, 33), (1023, 1, 1024, 1025), (100_003, 7)]


@pytest.fixture(name="K")
def installed(launcher: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(NAMESPACES[launcher.array], "launcher", launcher)
    return launcher


def arrays(xp: Any, sizes: Any, dtype: str, seed: int = 0) -> list[Any]:
    """Arrays of these sizes, every second one at an odd address."""
    generator = np.random.default_rng(seed)
    made = []
    for i, n in enumerate(sizes):
        values = generator.standard_normal(n + i % 2).astype(dtype)
        made.append(xp.asarray(values)[i % 2 :])
    return made


def flat(arrays: list[Any]) -> np.ndarray:
    return np.concatenate([host(a).astype("f8") for a in arrays])


def close(found: Any, expected: Any, dtype: str) -> None:
    np.testing.assert_allclose(found, expected, TOLERANCES[dtype], TOLERANCES[dtype])


def compare_all(K: Any, sizes: Any, dtype: str) -> None:
    xp = K.xp
    for order in (2.0, 1.0, math.inf, 3.0, 0.5):
        given = arrays(xp, sizes, dtype)
        scale = 1.0 if dtype != "float16" else 1e-2  # a sum of half precision soon overflows
        given = [xp.asarray((host(a) * scale).astype(dtype)) for a in given]
        norm = many.total_norm(given, order)
        expected = np.linalg.norm(flat(given), order)
        if expected < dtypes.finfo(getattr(dtypes, dtype)).max:
            assert norm.dtype == dtype
            np.testing.assert_allclose(float(norm), expected, 10 * TOLERANCES[dtype])
    given = arrays(xp, sizes, dtype)
    before = flat(given)
    norm = xp.asarray(np.linalg.norm(before), dtype=dtype)
    assert many.clip(given, norm, 0.5)
    close(flat(given), before * min(0.5 / (float(norm) + 1e-6), 1.0), dtype)
    after = flat(given)
    assert many.clip(given, xp.asarray(0.25, dtype=dtype), 0.5)
    np.testing.assert_array_equal(flat(given), after)
    given = arrays(xp, sizes, dtype)
    assert many.clamp(given, 0.75)
    close(flat(given), flat(arrays(xp, sizes, dtype)).clip(-0.75, 0.75), dtype)
    flag = xp.zeros((), "f4")
    given = arrays(xp, sizes, dtype)
    assert many.unscale(given, xp.asarray(0.25, dtype="f4"), flag)
    close(flat(given), before / 4, dtype)
    assert float(flag) == 0
    averages, newcomers = arrays(xp, sizes, dtype), arrays(xp, sizes, dtype, seed=1)
    assert many.average(averages, newcomers, 0.1)
    close(flat(averages), 0.9 * before + 0.1 * flat(newcomers), dtype)
    assert many.average(averages, newcomers, count=xp.asarray(3))
    close(flat(averages), 0.75 * (0.9 * before) + (0.25 + 0.075) * flat(newcomers), dtype)
    assert many.zero(given)
    assert not flat(given).any()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values(K: Any, sizes: Any, dtype: str) -> None:
    compare_all(K, sizes, dtype)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    monkeypatch.setattr(NAMESPACES[np.ndarray], "launcher", threads)
    point = many.TensorTable.point

    def noted(table: Any, *columns: Any) -> bool:
        threads.regions = [array for column in columns for array in column]
        return point(table, *columns)

    monkeypatch.setattr(many.TensorTable, "point", noted)
    compare_all(threads, (33, 1, 1300), "float32")
    flag = threads.zeros((), "f4")
    assert many.unscale([np.full(40, v, "f4") for v in (np.inf, np.nan)], np.ones((), "f4"), flag)
    assert float(flag) == 1


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_what_is_not_finite(K: Any, bad: float, dtype: str) -> None:
    for position in (0, 2000, 2999):
        array = K.xp.ones(3000, dtype)
        array[position] = bad
        given = [*arrays(K.xp, (33, 40), dtype), array]
        for order in (1.0, 2.0, math.inf):
            norm = float(many.total_norm(given, order))
            assert math.isnan(norm) if math.isnan(bad) else norm == math.inf
        flag = K.xp.zeros((), "f4")
        assert many.unscale(given, K.xp.asarray(1.0, dtype="f4"), flag)
        assert float(flag) == 1
        assert many.clamp(given, 2.0)
        at = float(array[position])
        assert math.isnan(at) if math.isnan(bad) else at == math.copysign(2.0, bad)
        assert many.clip(given, K.xp.asarray(math.nan, dtype=dtype), 1.0)
        assert np.isnan(flat(given)).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_values_at_the_ends_of_the_range(K: Any, dtype: str) -> None:
    tiny = K.xp.full(100, 1e-30, dtype)
    flag = K.xp.zeros((), "f4")
    assert many.unscale([tiny], K.xp.asarray(1e20, dtype="f4"), flag)
    np.testing.assert_allclose(flat([tiny]), 1e-10, TOLERANCES[dtype])
    huge = K.xp.full(100, 3e38, dtype)
    assert many.unscale([huge], K.xp.asarray(10.0, dtype="f4"), flag)
    assert float(flag) == 0  # what came was finite, as PyTorch has it
    assert np.isinf(flat([huge])).all()
    huge = K.xp.full(100, 3e38, dtype)
    assert float(many.total_norm([huge], math.inf)) == float(huge[0])


def test_a_norm_is_the_same_bits_at_every_run(threads: ThreadsLauncher, monkeypatch: Any) -> None:
    monkeypatch.setattr(NAMESPACES[np.ndarray], "launcher", threads)
    given = arrays(np, (5000, 33, 70_000), "float32")
    norms = set()
    for seed in range(5):
        threads.seed = seed
        norms.add(float(many.total_norm(given, 2.0)))
    assert len(norms) == 1


def test_what_kernels_cannot_serve_is_left_alone(K: Any) -> None:
    xp = K.xp
    whole, empty = xp.ones(4, "f4"), xp.zeros(0, "f4")
    for given in ([whole, empty], [xp.ones(3, "i8")], [whole[::2]], [whole, whole]):
        assert not many.zero(given)
        assert many.total_norm(given, 2.0) is None
        assert not many.average(given, given, 0.5)
    assert many.total_norm([whole, xp.ones(3, "f8")], 2.0) is None
    assert many.total_norm([whole], 0.0) is None
    assert host(whole).all()


def test_the_scale_of_a_loss(K: Any) -> None:
    scale, good = K.xp.asarray(8.0, dtype="f4"), K.xp.asarray(0, dtype="i4")
    seen = []
    for overflowed in (0.0, 0.0, 1.0, 0.0, 0.0):
        flags = [K.xp.asarray(f, dtype="f4") for f in (0.0, overflowed)]
        assert many.adapt_scale(scale, good, flags, 3.0, 0.25, 2)
        seen.append((float(scale), int(good)))
    assert seen == [(8, 1), (24, 0), (6, 0), (6, 1), (18, 0)]
    scale[...] = 3e38
    for _ in range(2):
        assert many.adapt_scale(scale, good, [K.xp.zeros((), "f4")], 3.0, 0.25, 2)
    assert (float(scale), int(good)) == (np.float32(3e38), 0)


# ------------------------------------------------------------------ as the library uses them
def model(device: str) -> list[Tensor]:
    params = []
    for i, array in enumerate(arrays(np, (40, 3, 1025), "float32")):
        p = gradlite.tensor(array, device=device, requires_grad=True)
        p.grad = gradlite.tensor(arrays(np, (array.size,), "float32", i + 5)[0], device=device)
        params.append(p)
    return params


def grads(params: list[Tensor]) -> list[np.ndarray]:
    return [p.grad.cpu().numpy() for p in params]  # type: ignore[union-attr]


def test_clipping_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch)
    here, there = model("cpu"), model("cuda")
    expected = clip_grad_norm_(here, 1.5)
    with kernels.record() as launched:
        norm = clip_grad_norm_(there, 1.5)
    assert launched == ["norm_parts", "norm_total", "clip_tensors"]
    assert norm.device.type == "cuda" and norm.dtype == gradlite.float32
    np.testing.assert_allclose(norm.item(), expected.item(), 1e-6)
    for a, b in zip(grads(there), grads(here)):
        np.testing.assert_allclose(a, b, 1e-5)
    versions = [p.grad._version for p in there]  # type: ignore[union-attr]
    clip_grad_value_(here, 0.01)
    with kernels.record() as launched:
        clip_grad_value_(there, 0.01)
    assert launched == ["clamp_tensors"]
    assert [p.grad._version for p in there] == [v + 1 for v in versions]  # type: ignore[union-attr]
    for a, b in zip(grads(there), grads(here)):
        np.testing.assert_allclose(a, b, 1e-5)
    with pytest.raises(RuntimeError, match="is non-finite"):
        get_total_norm([gradlite.tensor([math.inf], device="cuda")], error_if_nonfinite=True)


def test_clearing_gradients_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch)
    params = model("cuda")
    kept = [p.grad for p in params]
    with kernels.record() as launched:
        gradlite.optim.SGD(params).zero_grad(set_to_none=False)
    assert launched == ["zero_tensors"]
    assert all(p.grad is k for p, k in zip(params, kept))
    assert not any(g.any() for g in grads(params))


@pytest.mark.parametrize("make", [get_ema_multi_avg_fn, get_swa_multi_avg_fn])
def test_averaging_on_a_device(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    stand_in.install(monkeypatch)
    results = []
    for device in ("cpu", "cuda"):
        averaged = [p.detach() for p in model(device)]
        current = [p.grad for p in model(device)]
        count = gradlite.tensor(2, device=device)
        with kernels.record() as launched:
            make()(averaged, current, count)
        assert launched == ([] if device == "cpu" else ["average_tensors"])
        results.append([p.cpu().numpy() for p in averaged])
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def test_the_table_of_a_model_is_made_once(K: Any) -> None:
    first = many.table(K, arrays(K.xp, (3, 5), "float32"))
    assert many.table(K, arrays(K.xp, (3, 5), "float32", 1)) is first
    assert many.table(K, arrays(K.xp, (5, 3), "float32")) is not first
    assert wrap(first.chunks).shape == (4,)


def test_what_is_done_to_many_is_done_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, devices=2)
    params = model("cuda:1")
    with kernels.record() as launched:
        norm = clip_grad_norm_(params, 1.5)
    assert launched == ["norm_parts", "norm_total", "clip_tensors"]
    assert norm.device == gradlite.device("cuda:1")
    expected = model("cpu")
    np.testing.assert_allclose(norm.item(), clip_grad_norm_(expected, 1.5).item(), 1e-6)
    for a, b in zip(grads(params), grads(expected)):
        np.testing.assert_allclose(a, b, 1e-5)
    both = [*params, *model("cuda:0")]
    with kernels.record() as launched:
        clip_grad_value_(both, 0.01)
        gradlite.optim.SGD(both).zero_grad(set_to_none=False)
    assert sorted(launched) == ["clamp_tensors"] * 2 + ["zero_tensors"] * 2
    assert not any(g.any() for g in grads(both))
    scaler = amp.GradScaler("cuda", init_scale=4.0, growth_interval=1)
    scaler.scale(params[0].sum()).backward()
    optimizer = gradlite.optim.SGD(params[:1], lr=1.0, fused=True)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 8.0
