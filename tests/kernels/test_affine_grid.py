"""Grids of affine maps with kernels: the rule on NumPy's arrays in float64 is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops import grid
from gradlite.ops.grid import AffineGridGenerator
from tests import cupy_stand_in as stand_in
from tests.kernels.support import ThreadsLauncher, by_kernel, by_rule, wide

TOLERANCES = {"bfloat16": 1e-2, "float16": 2e-3, "float32": 2e-6, "float64": 1e-13}
# The number of maps, and the sizes of images or volumes.
CASES: list[tuple[int, tuple[int, ...]]] = [
    (1, (1, 1)), (3, (4, 5)), (2, (31, 33)), (2, (1, 7)), (1, (3, 4, 5)), (2, (2, 1, 40)),
]  # fmt: skip


def compare(K: Any, case: Any, align: bool, dtype: str) -> None:
    batch, sizes = case
    rng, dims = np.random.default_rng(0), len(sizes)
    theta = rng.standard_normal((batch, dims, dims + 1)).astype(dtype)
    grad = rng.standard_normal((batch, *sizes, dims)).astype(dtype)
    attrs = (sizes, align)
    expected = by_rule(AffineGridGenerator, [wide(theta)], attrs, wide(grad), (True,))
    found = by_kernel(K, AffineGridGenerator, [theta], attrs, grad, (True,))
    for a, b in zip(found, expected):
        assert a.dtype == dtype
        assert a.shape == b.shape
        size = np.abs(b).max()
        np.testing.assert_allclose(wide(a), b, TOLERANCES[dtype], TOLERANCES[dtype] * size)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_points_and_gradients(wanted: Any, case: Any, align: bool, dtype: str) -> None:
    compare(wanted, case, align, dtype)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for case in CASES:
        compare(threads, case, bool(seed % 2), "float32")


def test_what_kernels_cannot_serve_is_left_to_the_rule(
    wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    theta, attrs = wanted.xp.ones((1, 2, 3), "f4"), ((4, 5), False)
    monkeypatch.setattr(grid, "MOST", 40)
    assert AffineGridGenerator.fused_forward(wanted, theta, *attrs) is NotImplemented
    monkeypatch.setattr(grid, "MOST", 41)
    assert AffineGridGenerator.fused_forward(wanted, theta, *attrs) is not NotImplemented
    monkeypatch.setattr(wanted, "serial", True)
    assert AffineGridGenerator.fused_forward(wanted, theta, *attrs) is NotImplemented


@pytest.mark.parametrize("sizes", [(2, 3, 4, 5), (2, 1, 3, 2, 4)])
def test_ops_use_them(monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]) -> None:
    stand_in.install(monkeypatch)
    dims = len(sizes) - 2
    data = np.random.default_rng(0).standard_normal((2, dims, dims + 1))
    results = []
    for device in ("cpu", "cuda"):
        theta = gradlite.tensor(data, device=device, requires_grad=True)
        with kernels.record() as launched:
            out = F.affine_grid(theta, sizes, align_corners=False)
            (out * out).sum().backward()
        results.append([t.detach().cpu().numpy() for t in (out, theta.grad)])
    assert [n for n in launched if "affine" in n] == ["affine_grid_forward", "affine_grid_backward"]
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, 1e-12, 1e-12)
