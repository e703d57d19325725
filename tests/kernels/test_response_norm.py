"""Normalisation across channels with kernels: the op's rule in float64 is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops.response_norm import LocalResponseNorm, composed
from tests.kernels.support import (
    ROW_TOLERANCES,
    ThreadsLauncher,
    compare,
    host,
    normals,
    starting_anywhere,
    wide,
)

SHAPES = [
    (1, 1, 1), (2, 31, 1), (1, 32, 3), (3, 33, 2), (1, 5, 31), (2, 3, 33), (1, 2, 1023),
    (2, 7, 8, 9), (1, 3, 32, 32), (1, 1, 1025), (1, 7, 100003 // 7),
]  # fmt: skip
# Sizes, alpha, beta and k.
ATTRS = [(5, 0.5, 0.75, 1.0), (2, 1.0, 0.5, 2.0), (1, 0.1, 1.0, 1.0), (40, 3.0, 0.75, 0.5)]


@pytest.mark.parametrize("dtype", ROW_TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(launcher: Any, shape: Any, dtype: str) -> None:
    for attrs in ATTRS[: 1 if max(shape) > 2000 else None]:
        compare(launcher, LocalResponseNorm, [normals(shape, dtype)], attrs)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("attrs", ATTRS, ids=str)
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, attrs: Any, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for shape in ((2, 5, 7), (1, 9, 4), (3, 1, 33)):
        x = normals(shape, "float32")
        x.flags.writeable = False
        compare(threads, LocalResponseNorm, [x], attrs)


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    x = normals((2, 5, 7), "float32")
    for start in range(1, 4):
        (given,) = starting_anywhere(launcher, [x], start)
        found, _ = LocalResponseNorm.fused_forward(launcher, given, *ATTRS[0])
        expected, _ = LocalResponseNorm.forward(np, wide(x), *ATTRS[0])
        np.testing.assert_allclose(host(found), expected, 1e-5)


EDGES = [0.0, -1.0, 1e10, -1e18, 1e-30, float("inf"), float("nan"), 2.0]


@pytest.mark.parametrize("attrs", ATTRS, ids=str)
def test_extreme_values_are_as_in_pytorch(launcher: Any, attrs: Any) -> None:
    torch = pytest.importorskip("torch")
    x = np.asarray(EDGES, np.float32).reshape(1, -1, 1) * np.ones((1, 1, 3), np.float32)
    theirs = torch.nn.functional.local_response_norm(torch.tensor(x), *attrs)
    found, _ = LocalResponseNorm.fused_forward(launcher, launcher.xp.asarray(x), *attrs)
    np.testing.assert_allclose(host(found), theirs.numpy(), 1e-5, 1e-30)


# ---- as the function uses them -----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 5, 4), (1, 3, 2, 2), (2, 2, 1, 2, 2)], ids=str)
def test_one_kernel_each_way_and_derivatives(native_kernels: None, shape: Any) -> None:
    x = gradlite.randn(shape, dtype=gradlite.float64).requires_grad_()
    with kernels.record() as launched:
        F.local_response_norm(x, 3, 0.5).sum().backward()
    names = [n for n in launched if n.startswith("response")]
    assert names == ["response_norm_forward", "response_norm_backward"]
    for attrs in ATTRS[:2]:
        function = lambda x, attrs=attrs: F.local_response_norm(x, *attrs)  # noqa: E731
        np.testing.assert_allclose(function(x).detach(), composed(x, *attrs).detach(), 1e-12)
        assert gradlite.autograd.gradcheck(function, [x])
        assert gradlite.autograd.gradgradcheck(function, [x])
