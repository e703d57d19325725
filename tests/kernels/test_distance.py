"""Distances of rows with kernels: the rule in float64 is the reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops.distance import PairwiseDistance
from tests.kernels.support import (
    DTYPES,
    ROWS,
    ThreadsLauncher,
    by_kernel,
    compare,
    host,
    normals,
    starting_anywhere,
)

ORDERS = [1.0, 2.0, math.inf, 3.0, 1.5, 0.5]


def pair(shape: tuple[int, ...], dtype: str = "float32") -> list[np.ndarray]:
    return [normals(shape, dtype, 0), normals(shape, dtype, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_values_and_gradients(launcher: Any, shape: tuple[int, int], dtype: str) -> None:
    compare(launcher, PairwiseDistance, pair(shape, dtype), (2.0, 1e-6, False))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", ORDERS)
def test_orders(launcher: Any, p: float, dtype: str) -> None:
    # Powers of many rounded numbers, whose sum is far from 1.
    limit = {"float32": 1e-4, "float64": 1e-11}.get(dtype, 4e-2)
    # The length of a long row for p = 0.5 is no float16.
    for shape in ((3, 5), (2, 64), (2, 700))[: 2 if p < 1 else 3]:
        attrs, exact = (p, 1e-2, True), {"tolerance": limit, "rounded": p != math.inf}
        compare(launcher, PairwiseDistance, pair(shape, dtype), attrs, **exact)


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_only_the_gradients_that_somebody_wants(launcher: Any, wanted: tuple[bool, bool]) -> None:
    for shape in ((40, 64), (3, 7), (1, 9000)):
        compare(launcher, PairwiseDistance, pair(shape), (2.0, 1e-6, False), wanted=wanted)


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    x, y = pair((3, 64))
    for start in range(4):
        shifted = starting_anywhere(launcher, (x, y), start)
        out = PairwiseDistance.fused_forward(launcher, *shifted, 2.0, 1e-6, False)
        np.testing.assert_allclose(host(out), np.sqrt(((x - y) ** 2).sum(1)), 1e-5)


# Vectors of zeros, of numbers that are too small or too large to be squared, and of no numbers.
EDGES = np.zeros((9, 64), np.float32)
EDGES[1:, 5] = 1e-13, 1e-12, 1e-25, 1e25, np.inf, -np.inf, np.nan, 3
EDGES[8, 9] = -3


@pytest.mark.parametrize("columns", [64, 63])
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf, 1.5, 0.5])
def test_edges_and_nans_as_in_pytorch(launcher: Any, p: float, columns: int) -> None:
    torch = pytest.importorskip("torch", reason="needs the oracle")
    x, other = EDGES[:, :columns].copy(), np.zeros((9, columns), np.float32)
    ones = np.ones((9, columns), np.float32)
    for eps in (1e-6, 0.0):
        there = torch.tensor(x, requires_grad=True)
        length = torch.nn.functional.pairwise_distance(there, torch.tensor(other), p, eps)
        length.sum().backward()
        attrs, wanted = (p, eps, False), (True, False)
        found = by_kernel(launcher, PairwiseDistance, [x, other], attrs, ones[:, 0], wanted)
        for ours, theirs in zip(found, (length.detach(), there.grad)):
            np.testing.assert_allclose(ours, theirs.numpy(), 2e-5, 1e-20)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(3, 5), (9, 64), (3, 1100)], ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: tuple[int, int], seed: int
) -> None:
    threads.check, threads.seed = True, seed
    for p in (2.0, math.inf, 1.5):
        exact = {"tolerance": 1e-4, "rounded": p != math.inf}
        compare(threads, PairwiseDistance, pair(shape), (p, 1e-2, False), **exact)


def test_the_same_bits_at_every_run(threads: ThreadsLauncher) -> None:
    x, y = pair((20, 700))
    runs = set()
    for threads.seed in range(3):
        grads = by_kernel(threads, PairwiseDistance, [x, y], (2.0, 1e-6, False), x[:, 0], (1, 1))
        runs.add(b"".join(a.tobytes() for a in grads))
    assert len(runs) == 1


def test_one_launch_each_way_and_rules_for_the_rest(native_kernels: None) -> None:
    x = gradlite.randn(3, 4, requires_grad=True)
    y = gradlite.randn(1, 4, requires_grad=True)
    with kernels.record() as names:
        F.pairwise_distance(x, y).backward(gradlite.ones(3))
    ours = [name for name in names if "distance" in name]
    assert ours == ["distance_forward", "distance_backward"]
    assert y.grad.shape == (1, 4)
    with kernels.record() as names:
        F.pairwise_distance(x, x * 2, p=-1.0).sum().backward()
        F.pairwise_distance(x, y.double()).sum().backward()
    assert names.count("distance_forward") == 1


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_second_derivatives(native_kernels: None, p: float) -> None:
    x, y = (gradlite.randn(3, 4, dtype=gradlite.float64, requires_grad=True) for _ in range(2))
    assert gradlite.autograd.gradgradcheck(lambda a, b: F.pairwise_distance(a, b, p), (x, y))
