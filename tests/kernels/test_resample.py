"""Resized images with kernels: the rules on NumPy's arrays in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops import resample
from gradlite.ops.resample import Resample
from gradlite.ops.resampling import Resized
from tests import cupy_stand_in as stand_in
from tests.kernels.support import ThreadsLauncher, host, wide

TOLERANCES = {"bfloat16": 4e-3, "float16": 1e-3, "float32": 2e-6, "float64": 1e-13}
NEAREST = ("nearest", None, False, False)
EXACT = ("nearest-exact", None, False, False)
LINEAR = ("linear", None, False, False)
CORNERS = ("linear", None, True, False)
CUBIC = ("bicubic", None, False, False)
SMOOTH = ("bilinear", None, False, True)
# The input's shape, and for dimensions of it their new sizes and how they get them.
CASES: list[tuple[tuple[int, ...], dict[int, tuple[int, tuple[Any, ...]]]]] = [
    ((2, 3, 5), {2: (10, NEAREST)}),
    ((1, 1, 1), {2: (3, LINEAR)}),
    ((7,), {0: (3, EXACT)}),
    ((2, 3, 4, 5), {2: (8, NEAREST), 3: (10, NEAREST)}),
    ((2, 3, 4, 5), {2: (8, LINEAR), 3: (10, LINEAR)}),
    ((2, 3, 7, 5), {2: (4, EXACT), 3: (2, EXACT)}),
    ((2, 3, 7, 5), {2: (3, CORNERS), 3: (11, CORNERS)}),
    ((1, 2, 5, 6), {2: (9, CUBIC), 3: (4, CUBIC)}),
    ((1, 2, 9, 33), {2: (2, SMOOTH), 3: (40, SMOOTH)}),
    ((1, 2, 3, 4, 5), {2: (5, LINEAR), 3: (2, LINEAR), 4: (9, LINEAR)}),
    ((1, 2, 3, 4, 5), {2: (6, NEAREST), 4: (10, NEAREST)}),
    ((2, 2, 2, 3, 4), {3: (7, ("linear", 2.4, False, False))}),
]


def resized(case: Any) -> tuple[Any, ...]:
    shape, changes = case
    return tuple((axis, Resized(shape[axis], n, *how)) for axis, (n, how) in changes.items())


def turned(lines: Any) -> tuple[Any, ...]:
    return tuple((axis, line._replace(turned=True)) for axis, line in lines)


def values(shape: Any, dtype: str) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def close(found: Any, expected: Any, dtype: str) -> None:
    assert found.dtype == dtype
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        wide(host(found)), expected, TOLERANCES[dtype], TOLERANCES[dtype] * 4
    )


def compare(K: Any, case: Any, dtype: str) -> None:
    lines = resized(case)
    x = values(case[0], dtype)
    out = Resample.fused_forward(K, K.xp.asarray(x), lines)
    close(out, Resample.forward(np, wide(x), lines), dtype)
    g = values(out.shape, dtype)
    dx = Resample.fused_forward(K, K.xp.asarray(g), turned(lines))
    assert dx.shape == x.shape
    close(dx, Resample.forward(np, wide(g), turned(lines)), dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_sizes(wanted: Any, case: Any, dtype: str) -> None:
    compare(wanted, case, dtype)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for case in CASES:
        compare(threads, case, "float32")


def test_a_pixel_that_is_no_number_reaches_its_neighbours_alone(wanted: Any) -> None:
    x = np.zeros((1, 1, 8, 8), "f4")
    x[0, 0, 3, 3], x[0, 0, 6, 0] = np.nan, np.inf
    lines = resized(((1, 1, 8, 8), {2: (16, LINEAR), 3: (16, LINEAR)}))
    found = host(Resample.fused_forward(wanted, wanted.xp.asarray(x), lines))[0, 0]
    near = np.zeros((16, 16), bool)
    near[5:9, 5:9] = near[11:15, 0:3] = True
    np.testing.assert_array_equal(np.isfinite(found), ~near)
    assert np.isinf(found[11:15, 0:3]).all()


def test_many_terms_are_summed_along_one_dimension_after_the_other(wanted: Any) -> None:
    case = ((1, 2, 40, 36), {2: (3, SMOOTH), 3: (2, SMOOTH)})
    with kernels.record() as launched:
        compare(wanted, case, "float32")
    assert launched == ["resample"] * 3  # gradients of few are made of few
    lines = resized(case)
    x = values(case[0], "float32")
    with kernels.record() as launched:
        Resample.fused_forward(wanted, wanted.xp.asarray(x), lines[:1])
    assert launched == ["resample"]


def test_tables_are_made_once(wanted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, x = resized(CASES[4]), wanted.xp.asarray(values(CASES[4][0], "float32"))
    Resample.fused_forward(wanted, x, lines)
    made: list[Any] = []
    real = resample.terms
    monkeypatch.setattr(
        resample, "terms", lambda line, dtype: made.append(line) or real(line, dtype)
    )
    Resample.fused_forward(wanted, x, lines)
    assert not made
    monkeypatch.setattr(kernels, "CONSTANTS_KEPT", 0)
    for _ in range(2):  # with so many kept, no more are: nothing that is kept goes
        Resample.fused_forward(wanted, x, turned_once := resized(((2, 3, 4, 5), {2: (5, CUBIC)})))
    assert made == [turned_once[0][1]] * 2


def test_what_kernels_cannot_serve_is_left_to_the_rule(
    wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, changes = CASES[4]
    lines, x = resized((shape, changes)), wanted.xp.ones(shape, "f4")
    assert Resample.fused_forward(wanted, x.astype("i8"), lines) is NotImplemented
    assert Resample.fused_forward(wanted, x, ()) is NotImplemented
    first = resized(((2, 3, 4, 5), {0: (3, NEAREST)}))
    assert Resample.fused_forward(wanted, x, first) is NotImplemented
    monkeypatch.setattr(resample, "MOST", 480)
    assert Resample.fused_forward(wanted, x, lines) is NotImplemented
    monkeypatch.setattr(resample, "MOST", 481)
    assert Resample.fused_forward(wanted, x, lines) is not NotImplemented
    monkeypatch.setattr(wanted, "serial", True)
    assert Resample.fused_forward(wanted, x, lines) is NotImplemented


FUNCTIONS: dict[str, Any] = {
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, (7, 11), mode="bicubic", align_corners=True),
    "antialias": lambda x: F.interpolate(x, (3, 4), mode="bilinear", antialias=True),
}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_ops_use_them(monkeypatch: pytest.MonkeyPatch, name: str, dtype: str) -> None:
    stand_in.install(monkeypatch)
    data, results = values((2, 3, 5, 6), dtype), []
    for device in ("cpu", "cuda"):
        x = gradlite.tensor(data).to(device).requires_grad_()
        with kernels.record() as launched:
            out = FUNCTIONS[name](x)
            (out * out).sum().backward()
        results.append([t.detach().float().cpu().numpy() for t in (out, x.grad)])
    assert launched.count("resample") == 2
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, TOLERANCES[dtype] * 3, TOLERANCES[dtype] * np.abs(a).max())
