"""Convolutions with kernels: the loops on NumPy's arrays in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops import conv_launch, grouped
from gradlite.ops.fold import Col2Im, Im2Col
from gradlite.ops.windows import Geometry
from tests import cupy_stand_in as stand_in
from tests.kernels.support import ThreadsLauncher, host

TOLERANCES = {"bfloat16": 8e-2, "float16": 1e-2, "float32": 1e-5, "float64": 1e-12}
G = Geometry
# input, output channels, kernel, geometry, groups
CASES: list[tuple[Any, ...]] = [
    ((2, 3, 5, 6), 4, (3, 3), G((1, 1), ((1, 1), (1, 1)), (1, 1)), 1),
    ((3, 2, 9, 7), 3, (3, 2), G((2, 3), ((1, 1), (0, 0)), (1, 1)), 1),
    ((2, 2, 8, 9), 5, (2, 3), G((1, 2), ((2, 1), (0, 3)), (2, 1)), 1),
    ((2, 4, 7, 7), 6, (3, 3), G((1, 1), ((0, 0), (0, 0)), (1, 1)), 2),
    ((2, 3, 6, 5), 4, (1, 1), G(), 1),
    ((2, 4, 6, 5), 4, (1, 1), G(), 2),
    ((2, 3, 6, 5), 4, (1, 1), G((2, 2), ((0, 0), (1, 0)), (1, 1)), 1),
    ((2, 2, 7, 8), 3, (3, 3), G((1, 1), ((-1, -2), (1, -1)), (1, 1)), 1),
    ((2, 5, 7, 6), 5, (3, 3), G((1, 1), ((1, 1), (1, 1)), (1, 1)), 5),
    ((3, 3, 9, 8), 6, (2, 3), G((2, 1), ((1, 0), (2, 2)), (1, 2)), 3),
    ((2, 3, 1, 40), 2, (1, 5), G((1, 2), ((0, 0), (2, 2)), (1, 1)), 1),
    ((1, 1, 33, 31), 2, (5, 5), G((3, 2), ((2, 2), (2, 2)), (2, 3)), 1),
]
IDS = [f"{c[0]}-{c[1]}-{c[2]}-{i}" for i, c in enumerate(CASES)]

UNCUT = [case for case in CASES if min(map(min, case[3].pads)) >= 0]  # as those of unfold are


def close(found: Any, expected: Any, dtype: str) -> None:
    found = host(found)
    assert found.dtype == dtype and found.shape == expected.shape
    scale = TOLERANCES[dtype] * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found.astype("f8"), expected, TOLERANCES[dtype], scale)


def compare(K: Any, case: tuple[Any, ...], dtype: str) -> None:
    shape, o, kernel, geometry, groups = case
    generator = np.random.default_rng(0)
    counts = geometry.counts(shape[2:], kernel)
    x, w, b, g = (
        generator.uniform(-1, 1, s).astype(dtype)
        for s in (shape, (o, shape[1] // groups, *kernel), (o,), (shape[0], o, *counts))
    )
    wide = [a.astype("f8") for a in (x, w, b, g)]
    xs, ws, bs, gs = (K.xp.asarray(a) for a in (x, w, b, g))
    for bias in (bs, None):
        y = conv_launch.convolve(K, xs, ws, bias, geometry, groups)
        expected = grouped.convolve(
            np, wide[0], wide[1], None if bias is None else wide[2], geometry, groups
        )
        close(y, expected, dtype)
    dx = conv_launch.input_gradient(K, gs, ws, shape[2:], geometry, groups)
    expected = grouped.input_gradient(np, wide[3], wide[1], shape[2:], geometry, groups)
    close(dx, expected, dtype)
    dw = conv_launch.weight_gradient(K, xs, gs, kernel, geometry, groups)
    expected = grouped.weight_gradient(np, wide[0], wide[3], kernel, geometry, groups)
    close(dw, expected, dtype)
    y, dw = conv_launch.convolve_both(K, xs, ws, gs, kernel, geometry, groups)
    close(y, grouped.convolve(np, wide[0], wide[1], None, geometry, groups), dtype)
    close(dw, expected, dtype)
    close(conv_launch.channel_sums(K, gs), wide[3].sum((0, 2, 3)), dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_values_and_gradients(launcher: Any, case: tuple[Any, ...], dtype: str) -> None:
    compare(launcher, case, dtype)


@pytest.mark.parametrize("case", CASES[:4], ids=IDS[:4])
def test_a_batch_in_parts(launcher: Any, monkeypatch: Any, case: tuple[Any, ...]) -> None:
    monkeypatch.setattr(conv_launch, "WORKSPACE", 1)
    with kernels.record() as launched:
        compare(launcher, case, "float64")
    images = case[0][0]
    assert launched.count("image_to_columns") == 4 * images
    assert launched.count("columns_to_image") == images


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("case", UNCUT, ids=str)
@pytest.mark.parametrize("batched", [True, False])
def test_windows_as_columns_and_back(
    wanted: Any, case: tuple[Any, ...], dtype: str, batched: bool
) -> None:
    shape, _, kernel, geometry, _ = case
    shape = shape if batched else shape[1:]
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, shape).astype(dtype)
    columns = Im2Col.forward(np, x.astype("f8"), kernel, geometry)
    found = Im2Col.fused_forward(wanted, wanted.xp.asarray(x), kernel, geometry)
    close(found, columns, dtype)
    g = generator.uniform(-1, 1, columns.shape).astype(dtype)
    attrs = (shape[-2:], kernel, geometry)
    found = Col2Im.fused_forward(wanted, wanted.xp.asarray(g), *attrs)
    close(found, Col2Im.forward(np, g.astype("f8"), *attrs), dtype)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, case: tuple[Any, ...], seed: int
) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, case, "float32")


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (
            lambda x, w, b: F.conv2d(x, w, b, padding=1),
            [(2, 3, 5, 4), (4, 3, 3, 3), (4,)],
            ["image_to_columns", "columns_to_image", "image_to_columns"],
        ),
        (
            lambda x, w: F.conv1d(x, w, stride=2, groups=2),
            [(2, 4, 9), (6, 2, 3)],
            ["image_to_columns", "columns_to_image", "image_to_columns"],
        ),
        (
            lambda x, w, b: F.conv2d(x, w, b, groups=3, dilation=2),
            [(2, 3, 6, 7), (6, 1, 2, 3), (6,)],
            ["depthwise_forward", "depthwise_input_gradient", "depthwise_weight_gradient"],
        ),
        (
            lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2),
            [(2, 3, 4, 4), (3, 2, 3, 3), (2,)],
            ["columns_to_image", "image_to_columns"],
        ),
        (
            lambda x, w: F.conv_transpose2d(x.detach(), w, stride=2) + x.sum(),
            [(2, 3, 4, 4), (3, 2, 3, 3)],
            ["columns_to_image", "image_to_columns"],
        ),
        (
            lambda x, w: F.conv_transpose2d(x, w.detach(), stride=2) + w.sum(),
            [(2, 3, 4, 4), (3, 2, 3, 3)],
            ["columns_to_image", "image_to_columns"],
        ),
        (
            lambda x, w: F.conv_transpose1d(x, w, groups=2),
            [(2, 4, 5), (4, 3, 2)],
            ["columns_to_image", "image_to_columns"],
        ),
        (
            lambda x, w, b: F.conv_transpose2d(x, w, b, groups=3),
            [(2, 3, 4, 4), (3, 1, 2, 3), (3,)],
            ["depthwise_input_gradient", "depthwise_forward", "depthwise_weight_gradient"],
        ),
    ],
)
def test_ops_use_them(
    monkeypatch: pytest.MonkeyPatch, function: Any, shapes: Any, expected: Any
) -> None:
    stand_in.install(monkeypatch)
    results = []
    for device in ("cpu", "cuda"):
        generator = np.random.default_rng(1)
        given = [
            gradlite.tensor(generator.standard_normal(s), device=device, requires_grad=True)
            for s in shapes
        ]
        with kernels.record() as launched:
            out = function(*given)
            (out * out).sum().backward()
        results.append([t.detach().cpu().numpy() for t in (out, *[g.grad for g in given])])
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, 1e-10, 1e-10)
    assert [n for n in launched if "column" in n or "depth" in n if "total" not in n] == expected
    assert launched.count("planes_parts") == (len(shapes) == 3)
