"""Distances between all rows of two matrices with kernels: the rule in float64 is the reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.ops.cdist import Cdist
from tests.kernels.support import (
    DTYPES,
    ThreadsLauncher,
    by_kernel,
    compare,
    host,
    normals,
    starting_anywhere,
)

# Rows of both sides and columns: below, at and above the edges of tiles and of their chunks.
SHAPES = [
    (1, 1, 1), (31, 33, 3), (32, 32, 32), (33, 31, 33), (5, 70, 64), (2, 3, 1025), (100, 2, 31),
    (17, 16, 65),
]  # fmt: skip


def sides(n: int, m: int, columns: int, dtype: str, *batch: int) -> list[np.ndarray]:
    return [
        normals((*batch, n, columns), dtype, 0),
        normals((*batch, m, columns), dtype, 1) + np.asarray(0.25, dtype),
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(launcher: Any, shape: tuple[int, int, int], dtype: str) -> None:
    compare(launcher, Cdist, sides(*shape, dtype), (2.0,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [1.0, math.inf, 3.0, 1.5, 0.5])
def test_orders_and_batches(launcher: Any, p: float, dtype: str) -> None:
    limit = {"float32": 1e-4, "float64": 1e-11}.get(dtype, 4e-2)
    # The largest of numbers that are rounded to halves are several.
    rounds = p == math.inf and dtype not in ("float32", "float64")
    wanted = (False, False) if rounds else None
    for batch in ((), (3,), (2, 2)):
        inputs = sides(5, 34, 35, dtype, *batch)
        if wanted is None:
            compare(launcher, Cdist, inputs, (p,), tolerance=limit, rounded=p != math.inf)
        else:
            out = Cdist.fused_forward(launcher, *map(launcher.xp.asarray, inputs), p)
            exact = Cdist.forward(np, *(a.astype("f8") for a in inputs), p)
            np.testing.assert_allclose(host(out).astype("f8"), exact, limit)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_largest_of_halves_have_the_gradient(launcher: Any, dtype: str) -> None:
    x, y = sides(4, 5, 40, dtype)
    grads = by_kernel(launcher, Cdist, [x, y], (math.inf,), np.ones((4, 5), dtype), (True, True))
    assert (np.abs(grads[1]).sum(1) >= 5 - 4e-2).all() and (np.abs(grads[2]).sum(1) >= 3.9).all()


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_only_the_gradients_that_somebody_wants(launcher: Any, wanted: tuple[bool, bool]) -> None:
    compare(launcher, Cdist, sides(7, 40, 33, "float32", 2), (2.0,), wanted=wanted)


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    x, y = sides(5, 6, 16, "float32")
    for start in range(4):
        out = Cdist.fused_forward(launcher, *starting_anywhere(launcher, (x, y), start), 2.0)
        expected = np.sqrt(((x[:, None] - y) ** 2).sum(2))
        np.testing.assert_allclose(host(out), expected, 1e-5)


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf, 3.0, 1.5, 0.5])
def test_edges_and_nans_as_in_pytorch(launcher: Any, p: float) -> None:
    torch = pytest.importorskip("torch", reason="needs the oracle")
    x = np.array([[0, 0, 0], [1, 2, 0], [4, -4, 0], [1, np.nan, 2], [1, np.inf, 0],
                  [1e-25, 0, 0], [1e25, 0, 1]], np.float32)  # fmt: skip
    y = np.array([[0, 0, 0], [1, 2, 0]], np.float32)
    there = [torch.tensor(a, requires_grad=True) for a in (x, y)]
    out = torch.cdist(*there, p)
    out.sum().backward()
    found = by_kernel(launcher, Cdist, [x, y], (p,), np.ones((7, 2), "f4"), (True, True))
    for ours, theirs in zip(found, (out.detach(), *(t.grad for t in there))):
        np.testing.assert_allclose(ours, theirs.numpy(), 2e-5, 1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(3, 5, 2), (33, 34, 35)], ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: tuple[int, int, int], seed: int
) -> None:
    threads.check, threads.seed = True, seed
    for p in (2.0, math.inf, 1.5):
        exact = {"tolerance": 1e-4, "rounded": p != math.inf}
        compare(threads, Cdist, sides(*shape, "float32", 2), (p,), **exact)


def test_one_launch_each_way_and_rules_for_the_rest(native_kernels: None) -> None:
    x, y = (gradlite.randn(*shape, requires_grad=True) for shape in ((2, 3, 4), (5, 4)))
    with kernels.record() as names:
        gradlite.cdist(x, y).backward(gradlite.ones(2, 3, 5))
    assert [n for n in names if "cdist" in n] == ["cdist_forward", "cdist_backward"]
    assert y.grad.shape == (5, 4)
    with kernels.record() as names:
        gradlite.cdist(x, y, 0.0).sum().backward()
    assert not [n for n in names if "cdist" in n]


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_second_derivatives(native_kernels: None, p: float) -> None:
    x, y = (gradlite.randn(n, 4, dtype=gradlite.float64, requires_grad=True) for n in (3, 2))
    assert gradlite.autograd.gradgradcheck(lambda a, b: gradlite.cdist(a, b, p), (x, y))
