"""Angles of rows, and the loss of embeddings, with kernels: the rules in float64 compare."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops.distance import CosineSimilarity
from gradlite.ops.row_losses import CosineEmbeddingLoss
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


def pair(shape: tuple[int, ...], dtype: str = "float32") -> list[np.ndarray]:
    """Rows that are neither alike nor at right angles."""
    x = normals(shape, dtype, 0)
    return [x, normals(shape, dtype, 1) + x]


def signs(rows: int, dtype: str = "int64") -> np.ndarray:
    """Targets: 1, -1 and one that is neither."""
    return np.resize(np.array([1, -1, -1, 1, 0]), rows).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_values_and_gradients(launcher: Any, shape: tuple[int, int], dtype: str) -> None:
    # With one column nothing is left of the gradients but a rounding, of terms as large as 1.
    limit = 2e-5 if (shape[1], dtype) == (1, "float32") else None
    compare(launcher, CosineSimilarity, pair(shape, dtype), (1, 1e-8), tolerance=limit)
    inputs = [*pair(shape, dtype), signs(shape[0])]
    attrs = (0.1, "none" if shape[0] < 100 else "mean")
    compare(launcher, CosineEmbeddingLoss, inputs, attrs, tolerance=limit)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("targets", ["int64", "float32", "int32", "float64"])
def test_reductions_and_targets(launcher: Any, targets: str, reduction: str) -> None:
    for shape in ((6, 5), (11, 70)):
        inputs = [*pair(shape), signs(shape[0], targets)]
        for margin in (0.0, 0.4):
            compare(launcher, CosineEmbeddingLoss, inputs, (margin, reduction))
    inputs = [a[0] for a in pair((1, 40))]
    compare(launcher, CosineEmbeddingLoss, [*inputs, np.asarray(-1)], (0.0, reduction))


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_only_the_gradients_that_somebody_wants(launcher: Any, wanted: tuple[bool, bool]) -> None:
    for shape in ((40, 64), (3, 7), (1, 9000)):
        compare(launcher, CosineSimilarity, pair(shape), (1, 1e-8), wanted=wanted)
        inputs = [*pair(shape), signs(shape[0])]
        compare(launcher, CosineEmbeddingLoss, inputs, (0.1, "sum"), wanted=(*wanted, False))


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_vectors_along_any_dimension(launcher: Any, dim: int) -> None:
    compare(launcher, CosineSimilarity, pair((3, 40, 5)), (dim, 1e-8))


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    x, y = pair((3, 64))
    expected = CosineSimilarity.forward(np, x, y, 1, 1e-8)
    for start in range(4):
        out = CosineSimilarity.fused_forward(
            launcher, *starting_anywhere(launcher, (x, y), start), 1, 1e-8
        )
        np.testing.assert_allclose(host(out), expected, 1e-5)


# Pairs of zeros, below and at eps, of squares that overflow, and with no numbers; the last pair
# lies exactly where the margin of 0 begins.
EDGES = np.zeros((2, 9, 4), np.float32)
EDGES[0, 1:, :2] = [
    [1, 2], [1, np.nan], [1, np.inf], [1e-9, 0], [1e-8, 0], [1e20, 1e20], [1e15, 0], [0, 1],
]  # fmt: skip
EDGES[1, :, 0], EDGES[1, :8, 3], EDGES[1, 6, 0] = 1, 1, 1e20


@pytest.mark.parametrize("columns", [4, 3])
def test_edges_and_nans_as_in_pytorch(launcher: Any, columns: int) -> None:
    torch = pytest.importorskip("torch", reason="needs the oracle")
    x, y = EDGES[..., :columns].copy()
    there = [torch.tensor(a, requires_grad=True) for a in (x, y)]
    cosine = torch.nn.functional.cosine_similarity(*there)
    cosine.sum().backward()
    ones, wanted = np.ones(9, "f4"), (True, True)
    found = by_kernel(launcher, CosineSimilarity, [x, y], (1, 1e-8), ones, wanted)
    # Two terms cancel in the gradients, but for a rounding of theirs where one is multiplied and
    # subtracted at once.
    terms = [
        1 / np.fmax(np.linalg.norm(a.astype(float), axis=1, keepdims=True), 1e-8) for a in (x, y)
    ]
    theirs = [t.numpy() for t in (cosine.detach(), *(t.grad for t in there))]
    rounding = 0.0 if launcher.xp is np else 2.0**-24
    for mine, exact, size in zip(found, theirs, (0.0, *terms)):
        assert np.isclose(mine, exact, 2e-5, 1e-6 + rounding * size, equal_nan=True).all()
    for target in (signs(9), -np.ones(9, np.int64)):
        there = [torch.tensor(a, requires_grad=True) for a in (x, y)]
        loss = torch.nn.functional.cosine_embedding_loss(
            *there, torch.tensor(target), reduction="none"
        )
        loss.sum().backward()
        inputs, attrs = [x, y, target], (0.0, "none")
        found = by_kernel(launcher, CosineEmbeddingLoss, inputs, attrs, ones, (True, True, False))
        for ours, theirs in zip(found, (loss.detach(), *(t.grad for t in there))):
            np.testing.assert_allclose(ours, theirs.numpy(), 2e-5, 1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(3, 5), (9, 40), (3, 1100)], ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: tuple[int, int], seed: int
) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, CosineSimilarity, pair(shape), (1, 1e-8))
    compare(threads, CosineEmbeddingLoss, [*pair(shape), signs(shape[0])], (0.1, "mean"))


def test_the_same_bits_at_every_run(threads: ThreadsLauncher) -> None:
    runs = set()
    for threads.seed in range(3):
        inputs = [*pair((300, 40)), signs(300)]
        found = by_kernel(
            threads, CosineEmbeddingLoss, inputs, (0.1, "mean"), np.float32(1), (1, 1, 0)
        )
        runs.add(b"".join(np.asarray(a).tobytes() for a in found[:3]))
    assert len(runs) == 1


def test_one_launch_each_way(native_kernels: None) -> None:
    x = gradlite.randn(3, 4, requires_grad=True)
    y = gradlite.randn(1, 4, requires_grad=True)
    with kernels.record() as names:
        F.cosine_similarity(x, y).backward(gradlite.ones(3))
        F.cosine_embedding_loss(x, y, gradlite.tensor([1, -1, 1])).backward()
    ours = [name for name in names if "cosine" in name or "losses" in name]
    assert ours == [
        "cosine_forward", "cosine_backward", "cosine_embedding_forward", "losses_total",
        "cosine_embedding_backward",
    ]  # fmt: skip
    assert y.grad.shape == (1, 4)


def test_second_derivatives(native_kernels: None) -> None:
    x, y = (gradlite.randn(4, 5, dtype=gradlite.float64, requires_grad=True) for _ in range(2))
    assert gradlite.autograd.gradgradcheck(lambda a, b: F.cosine_similarity(a, b), (x, y))
    target = gradlite.tensor([1, -1, -1, 0])
    for reduction in ("mean", "sum", "none"):
        assert gradlite.autograd.gradgradcheck(
            lambda a, b, r=reduction: F.cosine_embedding_loss(a, b, target, reduction=r), (x, y)
        )
