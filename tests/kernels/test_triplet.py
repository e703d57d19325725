"""The margin loss of triplets with kernels: the rule in float64 is the reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops.row_losses import TripletMarginLoss
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


def triplet(shape: tuple[int, ...], dtype: str = "float32") -> list[np.ndarray]:
    return [normals(shape, dtype, seed) for seed in range(3)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_values_and_gradients(launcher: Any, shape: tuple[int, int], dtype: str) -> None:
    reduction = "none" if shape[0] < 100 else "mean"
    for swap in (False, True):
        attrs = (1.0, 2.0, 1e-6, swap, reduction)
        # A loss is a small difference of distances that grow with the columns.
        limit = {"float32": 2e-5, "float64": 1e-12}.get(dtype)
        compare(launcher, TripletMarginLoss, triplet(shape, dtype), attrs, tolerance=limit)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("p", [1.0, math.inf, 3.0, 1.5])
@pytest.mark.parametrize("swap", [False, True])
def test_orders_and_reductions(launcher: Any, p: float, swap: bool, reduction: str) -> None:
    for shape in ((6, 5), (4, 70), (2, 3, 33)):
        attrs = (2.0, p, 1e-2, swap, reduction)
        compare(launcher, TripletMarginLoss, triplet(shape), attrs, tolerance=1e-4)


@pytest.mark.parametrize(
    "wanted", [(True, False, False), (False, True, False), (False, False, True)]
)
def test_only_the_gradients_that_somebody_wants(
    launcher: Any, wanted: tuple[bool, bool, bool]
) -> None:
    attrs = (1.0, 2.0, 1e-6, True, "sum")
    compare(launcher, TripletMarginLoss, triplet((5, 40)), attrs, wanted=wanted)


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    rows = triplet((3, 64))
    expected = TripletMarginLoss.forward(np, *rows, 1.0, 2.0, 1e-6, True, "none")
    for start in range(4):
        shifted = starting_anywhere(launcher, rows, start)
        out = TripletMarginLoss.fused_forward(launcher, *shifted, 1.0, 2.0, 1e-6, True, "none")
        np.testing.assert_allclose(host(out), expected, 1e-4)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf, 3.0])
def test_edges_ties_and_nans_as_in_pytorch(launcher: Any, p: float, swap: bool) -> None:
    torch = pytest.importorskip("torch", reason="needs the oracle")
    rows = np.zeros((3, 8, 4), np.float32)
    rows[0, 1:] = [[1, 2, 0, 0], [1, np.nan, 2, 0], [1, np.inf, 0, 0], [1e-7, 0, 0, 0],
                   [1e25, 0, 0, 0], [2, 0, 0, 0], [1, 0, 0, 0]]  # fmt: skip
    rows[1, 1:] = [[2, 2, 0, 0], [1, 1, 2, 0], [1, 2, 0, 0], [0] * 4, [0] * 4, [0] * 4, [0] * 4]
    # The last two: as far from the positive as from the anchor, and an excess of 0.
    rows[2, 6:] = [[1, 3, 0, 0], [2, 0, 0, 0]]
    margin = 1e-3
    there = [torch.tensor(a, requires_grad=True) for a in rows]
    loss = torch.nn.functional.triplet_margin_loss(
        *there, margin=margin, p=p, swap=swap, reduction="none"
    )
    loss.sum().backward()
    attrs, ones = (margin, p, 1e-6, swap, "none"), np.ones(8, "f4")
    found = by_kernel(launcher, TripletMarginLoss, list(rows), attrs, ones, (True, True, True))
    for ours, theirs in zip(found, (loss.detach(), *(t.grad for t in there))):
        np.testing.assert_allclose(ours, theirs.numpy(), 2e-5, 1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(3, 5), (9, 40), (3, 300)], ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: tuple[int, int], seed: int
) -> None:
    threads.check, threads.seed = True, seed
    for p in (2.0, math.inf, 1.5):
        attrs = (1.0, p, 1e-2, True, "mean")
        compare(threads, TripletMarginLoss, triplet(shape), attrs, tolerance=1e-4)


def test_the_same_bits_at_every_run(threads: ThreadsLauncher) -> None:
    runs = set()
    for threads.seed in range(3):
        attrs = (1.0, 2.0, 1e-6, True, "mean")
        wanted = (True, True, True)
        found = by_kernel(
            threads, TripletMarginLoss, triplet((300, 40)), attrs, np.float32(1), wanted
        )
        runs.add(b"".join(np.asarray(a).tobytes() for a in found))
    assert len(runs) == 1


def test_one_launch_each_way_and_rules_for_the_rest(native_kernels: None) -> None:
    a, b = (gradlite.randn(3, 4, requires_grad=True) for _ in range(2))
    c = gradlite.randn(1, 4, requires_grad=True)
    with kernels.record() as names:
        F.triplet_margin_loss(a, b, c, swap=True).backward()
    ours = [name for name in names if "triplet" in name or "losses" in name]
    assert ours == ["triplet_forward", "losses_total", "triplet_backward"]
    assert c.grad.shape == (1, 4)
    with kernels.record() as names:
        F.triplet_margin_loss(a, b, c, p=-1.0).backward()
        F.triplet_margin_loss(a, b, c.double()).backward()
    assert not [name for name in names if "triplet" in name]


def test_second_derivatives(native_kernels: None) -> None:
    rows = [gradlite.randn(3, 4, dtype=gradlite.float64, requires_grad=True) for _ in range(3)]
    for p, swap, reduction in ((2.0, True, "mean"), (3.0, False, "none"), (2.0, False, "sum")):
        given = {"p": p, "swap": swap, "reduction": reduction, "margin": 2.0}
        assert gradlite.autograd.gradgradcheck(
            lambda a, b, c, given=given: F.triplet_margin_loss(a, b, c, **given), rows
        )
