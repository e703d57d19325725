"""Margin losses of classes and labels with kernels: the rules in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops.loss_margin import MultilabelMarginLoss, MultiMarginLoss
from tests.kernels.support import (
    DTYPES,
    ROWS,
    ThreadsLauncher,
    by_kernel,
    compare,
    host,
    normals,
    said,
    starting_anywhere,
    taken,
)

# The rule makes a table of labels and classes, gigabytes of it for the longest row. These kernels
# keep no row in registers, so that one of a third of the length is as good.
SHAPES = [shape if shape != (1, 9000) else (1, 3000) for shape in ROWS]


def classes(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(2).integers(0, shape[1], shape[0])


def labels(shape: tuple[int, int], most: int = 5) -> np.ndarray:
    """None to ``most`` labels in each row, some of them twice, and what does not count."""
    generator = np.random.default_rng(3)
    y = generator.integers(0, shape[1], shape)
    for row, count in enumerate(generator.integers(0, most + 1, shape[0])):
        y[row, count : count + 1] = -1
    return y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(launcher: Any, shape: tuple[int, int], dtype: str) -> None:
    reduction = "none" if shape[0] < 100 else "mean"
    x = normals(shape, dtype)
    for p in (1, 2):
        inputs = [x, classes(shape), None]
        compare(launcher, MultiMarginLoss, inputs, (p, 1.0, reduction))
    compare(launcher, MultilabelMarginLoss, [x, labels(shape)], (reduction,))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("margin", [0.3, 1.0, -0.5])
@pytest.mark.parametrize("p", [1, 2])
def test_weights_margins_and_reductions(
    launcher: Any, p: int, margin: float, reduction: str
) -> None:
    for shape in ((6, 5), (4, 70), (3, 1100)):
        weight = np.random.default_rng(4).random(shape[1]).astype("f4") + np.float32(0.5)
        inputs = [normals(shape, "float32"), classes(shape), weight]
        compare(launcher, MultiMarginLoss, inputs, (p, margin, reduction))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("most", [0, 1, 40])
def test_many_labels_and_none(launcher: Any, most: int, reduction: str) -> None:
    for shape in ((6, 5), (4, 70), (3, 300)):
        x = normals(shape, "float32")
        compare(launcher, MultilabelMarginLoss, [x, labels(shape, most)], (reduction,))
    every = np.arange(40)[None].repeat(3, 0)
    compare(launcher, MultilabelMarginLoss, [normals((3, 40), "float32"), every], (reduction,))


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    x, y = normals((3, 64), "float32"), launcher.xp.asarray(classes((3, 64)))
    expected = MultiMarginLoss.forward(np, x, classes((3, 64)), None, 1, 1.0, "none")
    for start in range(4):
        (shifted,) = starting_anywhere(launcher, (x,), start)
        out = MultiMarginLoss.fused_forward(launcher, shifted, y, None, 1, 1.0, "none")
        np.testing.assert_allclose(host(out), expected, 1e-5)


# Scores at the margin exactly, infinite ones, and no numbers.
SCORES = np.array(
    [[1, 0, 0, 1], [1, 2, 3, 4], [1, np.inf, 3, 0], [1, -np.inf, 3, 0], [1, np.nan, 0, 0],
     [1, 2, np.nan, 0], [np.nan, 1, 1, 2]], np.float32,
)  # fmt: skip


@pytest.mark.parametrize("p", [1, 2])
def test_edges_and_nans_as_in_pytorch(launcher: Any, p: int) -> None:
    torch = pytest.importorskip("torch", reason="needs the oracle")
    numbers, ones = np.array([0, 1, 1, 1, 1, 1, 2]), np.ones(7, "f4")
    there = torch.tensor(SCORES, requires_grad=True)
    loss = torch.nn.functional.multi_margin_loss(
        there, torch.tensor(numbers), p=p, reduction="none"
    )
    loss.sum().backward()
    attrs, wanted = (p, 1.0, "none"), (True, False, False)
    found = by_kernel(launcher, MultiMarginLoss, [SCORES, numbers, None], attrs, ones, wanted)
    for ours, theirs in zip(found, (loss.detach(), there.grad)):
        np.testing.assert_allclose(ours, theirs.numpy(), 1e-5, 1e-6)
    lists = np.array([[0, -1, 9, 9], [1, 1, -1, 0], [0, 1, 2, -1], [1, -1, 1, 1], [1, 0, -1, 0],
                      [0, 1, 2, 3], [-1, 0, 1, 2]])  # fmt: skip
    lists[0, 2:] = 3
    there = torch.tensor(SCORES, requires_grad=True)
    loss = torch.nn.functional.multilabel_margin_loss(there, torch.tensor(lists), reduction="none")
    loss.sum().backward()
    found = by_kernel(
        launcher, MultilabelMarginLoss, [SCORES, lists], ("none",), ones, (True, False)
    )
    for ours, theirs in zip(found, (loss.detach(), there.grad)):
        np.testing.assert_allclose(ours, theirs.numpy(), 1e-5, 1e-6)


@pytest.mark.parametrize("shape", [(4, 3), (4, 40), (4, 300)], ids=str)
@pytest.mark.parametrize("bad", [-1, 1000, 2**40, -(2**62)])
def test_a_class_out_of_range_is_nan_and_reads_nothing(
    launcher: Any, shape: tuple[int, int], bad: int
) -> None:
    numbers, ones = classes(shape), np.ones(4, "f4")
    numbers[1] = bad
    x, weight = normals(shape, "float32"), np.ones(shape[1], "f4")
    found = by_kernel(
        launcher, MultiMarginLoss, [x, numbers, weight], (1, 1.0, "none"), ones, (1, 0, 0)
    )
    assert np.isnan(found[0]).tolist() == [False, True, False, False]
    assert taken(launcher) == [said("multi_margin_loss: target", bad, shape[1])]
    if bad > 0:
        lists = labels(shape)
        lists[1, :2] = 0, bad
        found = by_kernel(
            launcher, MultilabelMarginLoss, [x, lists], ("none",), ones, (True, False)
        )
        assert np.isnan(found[0]).tolist() == [False, True, False, False]
        assert np.isnan(found[1]).all(1).tolist() == [False, True, False, False]
        assert taken(launcher) == [said("multilabel_margin_loss: target", bad, shape[1])]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(3, 5), (9, 40), (3, 300)], ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: tuple[int, int], seed: int
) -> None:
    threads.check, threads.seed = True, seed
    x, weight = normals(shape, "float32"), np.ones(shape[1], "f4")
    compare(threads, MultiMarginLoss, [x, classes(shape), weight], (2, 1.0, "mean"))
    compare(threads, MultilabelMarginLoss, [x, labels(shape)], ("mean",))


def test_the_same_bits_at_every_run(threads: ThreadsLauncher) -> None:
    x, runs = normals((40, 300), "float32"), set()
    for threads.seed in range(3):
        found = by_kernel(
            threads, MultilabelMarginLoss, [x, labels((40, 300))], ("mean",), np.float32(1), (1, 0)
        )
        runs.add(b"".join(np.asarray(a).tobytes() for a in found[:2]))
    assert len(runs) == 1


def test_one_launch_each_way(native_kernels: None) -> None:
    x = gradlite.randn(3, 4, requires_grad=True)
    with kernels.record() as names:
        F.multi_margin_loss(x, gradlite.tensor([0, 3, 1])).backward()
        F.multilabel_margin_loss(x, gradlite.tensor([[0, -1, 1, 1]] * 3)).backward()
    ours = [name for name in names if "margin" in name or "losses" in name]
    assert ours == [
        "multi_margin_forward", "losses_total", "multi_margin_backward",
        "multilabel_margin_forward", "losses_total", "multilabel_margin_backward",
    ]  # fmt: skip
    with pytest.raises(RuntimeError, match="out of range"):
        F.multi_margin_loss(x, gradlite.tensor([0, 4, 1]))


def test_second_derivatives(native_kernels: None) -> None:
    x = gradlite.randn(3, 4, dtype=gradlite.float64, requires_grad=True)
    weight = gradlite.rand(4, dtype=gradlite.float64)
    target = gradlite.tensor([0, 3, 1])
    for p, reduction in ((1, "mean"), (2, "sum"), (2, "none")):
        given = {"p": p, "reduction": reduction, "weight": weight}
        assert gradlite.autograd.gradgradcheck(
            lambda a, given=given: F.multi_margin_loss(a, target, **given), (x,)
        )
    lists = gradlite.tensor([[0, -1, 1, 1]] * 3)
    assert gradlite.autograd.gradgradcheck(lambda a: F.multilabel_margin_loss(a, lists), (x,))
