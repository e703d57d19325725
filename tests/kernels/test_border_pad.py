"""Borders from the inside with kernels: the rule is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.nn import functional as F
from gradlite.ops.pad import BorderPad, BorderPadGrad, _check_border, _geometry
from gradlite.ops.pad_sources import sources
from tests.kernels.support import DTYPES, ThreadsLauncher, epsilon, host, wide

MODES = ("reflect", "replicate", "circular")
# Shapes, and borders from the last dimension on: as wide as they may be, of one element, cut off.
CASES: list[tuple[tuple[int, ...], list[tuple[int, int]]]] = [
    ((1, 1), [(0, 0)]), ((2, 5), [(4, 4)]), ((3, 4), [(0, 3)]), ((2, 7), [(-2, 3)]),
    ((2, 9), [(3, -4)]), ((2, 9), [(-3, -2)]), ((33, 35), [(2, 1)]), ((5, 1023), [(1, 1)]),
    ((2, 3, 4), [(2, 1), (0, 2)]), ((2, 6, 5), [(-1, 3), (2, -2)]),
    ((2, 3, 2, 4), [(3, 3), (1, 1), (2, 2)]), ((1, 2, 4, 5, 3), [(1, 2), (-1, 2), (3, 0)]),
]  # fmt: skip


def compare(K: Any, mode: str, shape: tuple[int, ...], pads: Any, dtype: str = "float32") -> None:
    """The kernels beside the rule, of elements that lie in any order."""
    _check_border(mode, shape, pads)
    generator = np.random.default_rng(len(pads))
    borders = tuple(
        (len(shape) - 1 - place, sources(mode, shape[-1 - place], *side))
        for place, side in enumerate(pads)
    )
    attrs = (borders, _geometry(shape, pads, MODES.index(mode)))
    x = generator.standard_normal(shape[::-1]).astype(dtype)
    found = host(BorderPad.fused_forward(K, K.xp.asarray(x).transpose(), *attrs))
    expected = BorderPad.forward(np, x.transpose(), *attrs)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)
    grad = generator.standard_normal(expected.shape).astype(dtype)
    found = host(BorderPadGrad.fused_forward(K, K.xp.asarray(grad), shape, *attrs))
    exact = BorderPadGrad.forward(np, wide(grad), shape, *attrs)
    assert found.dtype == dtype and found.shape == shape
    np.testing.assert_allclose(wide(found), exact, epsilon(dtype), 16 * epsilon(dtype))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_borders(launcher: Any, case: Any, mode: str) -> None:
    for dtype in DTYPES:
        compare(launcher, mode, *case, dtype)


def test_borders_wider_than_the_inside(launcher: Any) -> None:
    compare(launcher, "replicate", (2, 3), [(7, 9)])
    compare(launcher, "replicate", (2, 1, 3), [(7, -2), (4, 5)])
    compare(launcher, "replicate", (2, 5), [(-7, 9)])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES[1:7] + CASES[8:], ids=str)
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, case: Any, mode: str) -> None:
    threads.check, threads.seed = True, 1
    compare(threads, mode, *case)


@pytest.mark.parametrize("mode", MODES)
def test_derivatives(native_kernels: None, mode: str) -> None:
    x = gradlite.randn(2, 4, 3, dtype=gradlite.float64, requires_grad=True)
    assert gradlite.autograd.gradcheck(lambda x: F.pad(x, (1, 2, 2, -1), mode), (x,))
    assert gradlite.autograd.gradgradcheck(lambda x: F.pad(x, (1, 2, 2, -1), mode) ** 2, (x,))
