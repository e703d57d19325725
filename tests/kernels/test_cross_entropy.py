"""Cross-entropy and likelihood with kernels: the rules in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops.loss_kernels import CrossEntropyLoss, NllLoss
from tests.kernels.support import (
    Context,
    ThreadsLauncher,
    by_kernel,
    by_rule,
    host,
    said,
    taken,
    wide,
)

# (N, C, ...): a thread to a position, a warp and a block to a position, rows in registers and
# longer ones, and enough positions for their losses to be summed in two steps.
SHAPES = [
    (1, 1), (4, 10), (33, 32), (5, 33), (3, 300), (2, 1025), (2, 9000), (7,), (40,),
    (2, 5, 3), (3, 4, 8, 9), (2, 3, 70), (20000, 2), (5000, 1),
]  # fmt: skip
TOLERANCES = {"bfloat16": 2.4e-2, "float16": 3e-3, "float32": 1e-5, "float64": 1e-12}


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Class numbers for logits of a shape."""
    dim = min(len(shape) - 1, 1)
    places = shape[:dim] + shape[dim + 1 :]
    return np.asarray(np.random.default_rng(seed).integers(0, shape[dim], places))


def compare(
    K: Any,
    shape: tuple[int, ...],
    dtype: str,
    *,
    reduction: str = "mean",
    smoothing: float = 0.0,
    weighted: bool = False,
    ignored: int = -100,
    probable: bool = False,
    wanted: tuple[bool, bool, bool] = (True, False, False),
    scale: float = 3,
) -> None:
    generator = np.random.default_rng(len(shape))
    dim = min(len(shape) - 1, 1)
    x = (generator.standard_normal(shape) * scale).astype(dtype)
    target = generator.random(shape).astype(dtype) if probable else numbers(shape)
    weight = (generator.random(shape[dim]) + 0.5).astype(dtype) if weighted else None
    places = shape[:dim] + shape[dim + 1 :]
    grad = generator.standard_normal(places if reduction == "none" else ()).astype(dtype)
    attrs = (ignored, reduction, smoothing)
    exact = [a if a is None else wide(a) for a in (x, target, weight)]
    expected = by_rule(CrossEntropyLoss, exact, attrs, wide(grad), wanted)
    found = by_kernel(K, CrossEntropyLoss, [x, target, weight], attrs, np.asarray(grad), wanted)
    for ours, reference, want in zip(found, expected, (True, *wanted)):
        if want:
            assert ours.dtype == dtype and ours.shape == reference.shape
            size = max(1.0 if reduction != "mean" else 1e-3, float(np.abs(reference).max()))
            tolerance = TOLERANCES[dtype]
            np.testing.assert_allclose(ours, reference, tolerance, tolerance * size)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(launcher: Any, shape: tuple[int, ...], dtype: str) -> None:
    if dtype != "float16" or np.prod(shape) < 10000:  # whose sum is no float16
        compare(launcher, shape, dtype, reduction="sum")
    compare(launcher, shape, dtype)
    compare(launcher, shape, dtype, reduction="none")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("shape", [(4, 5), (6, 70), (3, 5, 4), (6,)], ids=str)
def test_weights_smoothing_and_what_is_ignored(
    launcher: Any, shape: tuple[int, ...], smoothing: float, weighted: bool, reduction: str
) -> None:
    given = {"smoothing": smoothing, "weighted": weighted, "reduction": reduction}
    compare(launcher, shape, "float32", **given)
    if len(shape) > 1:
        compare(launcher, shape, "float32", ignored=int(numbers(shape).reshape(-1)[0]), **given)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(4, 5), (6, 70), (3, 5, 4), (6,)], ids=str)
def test_probabilities_and_their_gradient(
    launcher: Any, shape: tuple[int, ...], smoothing: float, weighted: bool, reduction: str
) -> None:
    for dtype, wanted in (
        ("float32", (True, True, False)), ("bfloat16", (True, True, False)),
        ("float32", (False, True, False)),
    ):  # fmt: skip
        compare(
            launcher, shape, dtype, probable=True, smoothing=smoothing, weighted=weighted,
            reduction=reduction, wanted=wanted,
        )  # fmt: skip


@pytest.mark.parametrize("shape", [(6, 7), (6, 100), (3, 5, 4)], ids=str)
def test_large_logits(launcher: Any, shape: tuple[int, ...]) -> None:
    for scale in (1e3, 1e4, 1e-6):
        compare(launcher, shape, "float32", scale=scale, reduction="none")
        compare(launcher, shape, "float32", scale=scale, smoothing=0.1)


def run(K: Any, x: np.ndarray, target: np.ndarray, *attrs: Any) -> tuple[np.ndarray, np.ndarray]:
    """The losses, unreduced, and the gradient of their sum."""
    attrs = attrs or (-100, "none", 0.0)
    inputs = [K.xp.asarray(x), K.xp.asarray(target), None]
    out, aux = CrossEntropyLoss.fused_forward(K, *inputs, *attrs)
    context = Context(CrossEntropyLoss, inputs, attrs, out, aux, (True, False, False))
    ones = K.xp.asarray(np.ones(out.shape, x.dtype))
    return host(out), host(CrossEntropyLoss.fused_backward(K, context, ones)[0])


@pytest.mark.parametrize("classes", [4, 40])
def test_infinite_logits(launcher: Any, classes: int) -> None:
    x = np.zeros((4, classes), np.float32)
    x[0, 1] = x[1, 0] = -np.inf  # another class is impossible; the class itself is
    x[2] = -np.inf
    x[3, 0] = np.inf
    losses, dx = run(launcher, x, np.zeros(4, np.int64))
    np.testing.assert_allclose(losses[0], np.log(classes - 1), rtol=1e-6)
    assert losses[1] == np.inf and np.isnan(losses[2:]).all()
    assert dx[0, 1] == 0 and dx[1, 0] == -1 and np.isfinite(dx[:2]).all()
    assert np.isnan(dx[2:]).any(1).all()


@pytest.mark.parametrize("shape", [(4, 3), (4, 40), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("bad", [-1, 1000, 2**40, -(2**62)])
def test_a_class_out_of_range_is_nan_and_reads_nothing(
    launcher: Any, shape: tuple[int, ...], bad: int
) -> None:
    target = numbers(shape)
    target.reshape(-1)[1] = bad
    x = np.random.default_rng(0).standard_normal(shape).astype("f4")
    losses, dx = run(launcher, x, target)
    there = target == bad
    assert (np.isnan(losses) == there).all()
    assert (np.isnan(dx) == np.broadcast_to(np.expand_dims(there, 1), shape)).all()
    assert taken(launcher) == [said("cross_entropy: Target", bad, shape[1])]


@pytest.mark.parametrize("shape", [(4, 3), (4, 40), (2, 3, 2)], ids=str)
def test_what_is_ignored_may_be_anything(launcher: Any, shape: tuple[int, ...]) -> None:
    target = numbers(shape)
    target.reshape(-1)[1] = -7
    x = np.random.default_rng(0).standard_normal(shape).astype("f4")
    x[np.broadcast_to(np.expand_dims(target == -7, 1), shape)] = np.nan
    for smoothing in (0.0, 0.1):
        losses, dx = run(launcher, x, target, -7, "none", smoothing)
        assert np.isfinite(losses).all() and np.isfinite(dx).all()
        assert (losses[target == -7] == 0).all()


def test_a_mean_of_nothing_is_nan(launcher: Any) -> None:
    x = np.zeros((2, 3), np.float32)
    loss, dx = run(launcher, x, np.full(2, -100), -100, "mean", 0.0)
    assert np.isnan(loss)


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    flat = np.random.default_rng(0).standard_normal(8 * 64 + 3).astype("f4")
    device, target = launcher.xp.asarray(flat), numbers((8, 64))
    for start in range(4):
        x = device[start : start + 512].reshape(8, 64)
        out, _ = CrossEntropyLoss.fused_forward(
            launcher, x, launcher.xp.asarray(target), x[1], -100, "none", 0.1
        )
        exact = wide(flat[start : start + 512].reshape(8, 64))
        expected, _ = CrossEntropyLoss.forward(np, exact, target, exact[1], -100, "none", 0.1)
        np.testing.assert_allclose(host(out), expected, 1e-5, 1e-5)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(4, 5), (3, 5, 4), (6,), (20000, 3)], ids=str)
def test_negative_log_likelihood(
    launcher: Any, shape: tuple[int, ...], weighted: bool, reduction: str, dtype: str
) -> None:
    generator = np.random.default_rng(0)
    dim = min(len(shape) - 1, 1)
    x, target = -generator.random(shape).astype(dtype), numbers(shape)
    weight = (generator.random(shape[dim]) + 0.5).astype(dtype) if weighted else None
    grad = np.asarray(generator.standard_normal(target.shape if reduction == "none" else ()))
    ignored = 2 if len(shape) > 1 else -100
    attrs, wanted = (ignored, reduction), (True, False, False)
    exact = [x.astype("f8"), target, None if weight is None else wide(weight)]
    expected = by_rule(NllLoss, exact, attrs, wide(grad.astype(dtype)), wanted)
    found = by_kernel(launcher, NllLoss, [x, target, weight], attrs, grad.astype(dtype), wanted)
    tolerance = TOLERANCES[dtype]
    for ours, reference in zip(found[:2], expected[:2]):
        np.testing.assert_allclose(ours, reference, tolerance, tolerance)


def test_a_class_out_of_range_in_the_likelihood(launcher: Any) -> None:
    x = launcher.xp.asarray(np.ones((4, 3), np.float32))
    target = launcher.xp.asarray(np.array([0, 3, -1, -100]))
    out, aux = NllLoss.fused_forward(launcher, x, target, None, -100, "none")
    assert np.isnan(host(out)).tolist() == [False, True, True, False]
    (noted,) = taken(launcher)
    assert noted in (said("nll_loss: Target", bad, 3) for bad in (3, -1))
    context = Context(NllLoss, [x, target, None], (-100, "none"), out, aux, (True, False, False))
    (dx, *_) = NllLoss.fused_backward(launcher, context, launcher.xp.asarray(np.ones(4, "f4")))
    assert host(dx).tolist() == [[-1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("probable", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (9, 40), (3, 300), (2, 3, 5)], ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: tuple[int, ...], probable: bool, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    wanted = (True, probable, False)
    for given in ({}, {"smoothing": 0.1, "weighted": True}):
        compare(threads, shape, "float32", probable=probable, wanted=wanted, **given)


def test_no_race_in_the_sum_of_many_losses(threads: ThreadsLauncher) -> None:
    threads.check = True
    compare(threads, (5000, 2), "float32", weighted=True)


def test_the_same_bits_at_every_run(threads: ThreadsLauncher) -> None:
    x, target = np.random.default_rng(0).standard_normal((300, 40)).astype("f4"), numbers((300, 40))
    runs = set()
    for threads.seed in range(3):
        loss, dx = run(threads, x, target, -100, "mean", 0.1)
        runs.add(loss.tobytes() + dx.tobytes())
    assert len(runs) == 1


def test_on_the_cpu_a_class_out_of_range_is_an_error(native_kernels: None) -> None:
    x = gradlite.zeros(2, 3, requires_grad=True)
    for function in (F.cross_entropy, F.nll_loss):
        with pytest.raises(IndexError, match=r"Target 3 is out of bounds\."):
            function(x, gradlite.tensor([0, 3]))
        assert function(x, gradlite.tensor([-100, 2])).grad_fn.name() == "NllLossBackward0"


def test_operands_that_kernels_cannot_serve_are_composed(native_kernels: None) -> None:
    x, target = gradlite.ones(2, 3, requires_grad=True), gradlite.tensor([0, 2])
    weight = gradlite.ones(3, requires_grad=True)
    with kernels.record() as names:
        F.cross_entropy(x, target, weight).backward()
    assert weight.grad is not None and "cross_entropy_positions" not in names
    with pytest.raises(ValueError, match="batch_size"):
        F.cross_entropy(x, gradlite.tensor([0]))


def test_second_derivatives(native_kernels: None) -> None:
    x = gradlite.randn(3, 4, dtype=gradlite.float64, requires_grad=True)
    t = gradlite.rand(3, 4, dtype=gradlite.float64, requires_grad=True)
    weight = gradlite.rand(4, dtype=gradlite.float64)
    target = gradlite.tensor([0, 3, -100])
    for reduction in ("mean", "sum", "none"):
        given = {"reduction": reduction, "label_smoothing": 0.1}
        assert gradlite.autograd.gradgradcheck(
            lambda a, given=given: F.cross_entropy(a, target, weight, **given), (x,)
        )
        assert gradlite.autograd.gradgradcheck(
            lambda a, b, given=given: F.cross_entropy(a, b, weight, **given), (x, t)
        )
        assert gradlite.autograd.gradgradcheck(
            lambda a, r=reduction: F.nll_loss(a, target, weight, reduction=r), (x,)
        )
