"""Convolutions of volumes with kernels, compared with the loops on arrays in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops import conv_launch, volumes
from gradlite.ops.volumes import Volume
from gradlite.ops.windows import Geometry
from tests import cupy_stand_in as stand_in
from tests.kernels.support import ThreadsLauncher
from tests.kernels.test_conv import TOLERANCES, close


def slides(stride: Any = (1, 1, 1), pads: Any = ((0, 0),) * 3, dilation: Any = (1, 1, 1)) -> Volume:
    plane = Geometry(stride[1:], tuple(pads[1:]), dilation[1:])
    return Volume(stride[0], pads[0], dilation[0], plane)


# input, output channels, kernel, how windows slide, groups
CASES: list[tuple[Any, ...]] = [
    ((2, 3, 4, 5, 6), 4, (3, 3, 3), slides(pads=((1, 1),) * 3), 1),
    ((2, 2, 5, 6, 7), 3, (2, 3, 2), slides((2, 1, 3), ((1, 1), (0, 2), (2, 1)), (1, 2, 1)), 1),
    ((1, 4, 6, 4, 3), 6, (2, 2, 3), slides(dilation=(3, 1, 1)), 2),
    ((2, 3, 4, 4, 5), 6, (3, 2, 3), slides((1, 2, 1), ((1, 0), (1, 1), (0, 1))), 3),
    ((2, 3, 3, 4, 2), 4, (1, 1, 1), slides(), 1),
    ((2, 4, 3, 3, 2), 2, (1, 1, 1), slides((2, 1, 2)), 2),
    ((1, 2, 6, 5, 6), 3, (2, 3, 3), slides((1, 1, 1), ((-1, -2), (1, -1), (-1, 0))), 1),
    ((1, 1, 9, 11, 33), 2, (3, 3, 5), slides((2, 1, 2), ((1, 1), (1, 1), (2, 2))), 1),
    ((2, 1, 40, 1, 1), 2, (5, 1, 1), slides((3, 1, 1), ((2, 2), (0, 0), (0, 0))), 1),
]
IDS = [f"{c[0]}-{c[1]}-{c[2]}-{i}" for i, c in enumerate(CASES)]


def compare(K: Any, case: tuple[Any, ...], dtype: str) -> None:
    shape, o, kernel, volume, groups = case
    generator = np.random.default_rng(0)
    counts = volume.windows(shape[2], kernel[0]), *volume.plane.counts(shape[3:], kernel[1:])
    x, w, b, g = (
        generator.uniform(-1, 1, s).astype(dtype)
        for s in (shape, (o, shape[1] // groups, *kernel), (o,), (shape[0], o, *counts))
    )
    wide = [a.astype("f8") for a in (x, w, b, g)]
    xs, ws, bs, gs = (K.xp.asarray(a) for a in (x, w, b, g))
    y = conv_launch.convolve(K, xs, ws, bs, volume, groups)
    close(y, volumes.convolve(np, *wide[:3], volume, groups), dtype)
    dx = conv_launch.input_gradient(K, gs, ws, shape[2:], volume, groups)
    expected = volumes.input_gradient(np, wide[3], wide[1], shape[2:], volume, groups)
    close(dx, expected, dtype)
    dw = conv_launch.weight_gradient(K, xs, gs, kernel, volume, groups)
    close(dw, volumes.weight_gradient(np, wide[0], wide[3], kernel, volume, groups), dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_values_and_gradients(launcher: Any, case: tuple[Any, ...], dtype: str) -> None:
    compare(launcher, case, dtype)


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("case", CASES[:4], ids=IDS[:4])
def test_a_volume_in_parts(
    launcher: Any, monkeypatch: Any, case: tuple[Any, ...], frames: int
) -> None:
    shape, _, kernel, volume, _ = case
    high, wide = volume.plane.counts(shape[3:], kernel[1:])
    count = volume.windows(shape[2], kernel[0])
    frame = shape[1] * int(np.prod(kernel)) * high * wide * 8
    monkeypatch.setattr(conv_launch, "WORKSPACE", frames * frame)
    with kernels.record() as launched:
        compare(launcher, case, "float64")
    assert launched.count("columns_to_volume") == shape[0] * -(-count // frames)
    assert launched.count("volume_to_columns") >= 2 * shape[0] * -(-count // frames)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, case: tuple[Any, ...], seed: int
) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, case, "float32")


@pytest.mark.parametrize(
    ("function", "shapes", "forward"),
    [
        (
            lambda x, w, b: F.conv3d(x, w, b, stride=(1, 2, 1), padding=1, groups=2),
            [(2, 4, 3, 4, 5), (6, 2, 2, 3, 3), (6,)],
            ["volume_to_columns"],
        ),
        (
            lambda x, w, b: F.conv_transpose3d(x, w, b, stride=2, output_padding=1),
            [(2, 3, 2, 3, 3), (3, 2, 2, 3, 3), (2,)],
            ["columns_to_volume"],
        ),
    ],
)
def test_ops_use_them(
    monkeypatch: pytest.MonkeyPatch, function: Any, shapes: Any, forward: Any
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
    unfolds = [name for name in launched if "volume" in name]
    # What is unfolded for the gradient of a transposed one is so for both products.
    assert unfolds[:1] == forward and len(unfolds) == (2 if forward[0].endswith("volume") else 3)
