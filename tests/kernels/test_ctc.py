"""The CTC loss with kernels: the rule in float64 is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradlite.ops import ctc_launch
from gradlite.ops.ctc import CtcLoss
from tests.kernels.support import Context, ThreadsLauncher, by_kernel, by_rule, host, wide

TOLERANCES = {"float32": (1e-5, 1e-4), "float64": (1e-12, 1e-11)}  # of the loss, of its gradient
# (T, N, C, S): nothing to say, one state pair to each thread of a warp and one more, more than
# the threads of a block, more steps than are read ahead, more classes than lanes.
SHAPES = [
    (1, 1, 1, 0), (3, 1, 2, 1), (5, 3, 3, 2), (17, 2, 4, 5), (33, 2, 40, 9), (40, 2, 5, 31),
    (40, 1, 5, 33), (70, 1, 7, 63), (300, 1, 4, 256), (2, 70, 3, 1),
]  # fmt: skip
WANTED = (True, False, False, False)


def arguments(
    shape: tuple[int, ...], dtype: str = "float32", flat: bool = False, seed: int = 0
) -> tuple[list[Any], tuple[int, int]]:
    """Log probabilities, targets and lengths, the first as long as they may be; blank, bound."""
    times, batch, classes, longest = shape
    generator = np.random.default_rng((seed, *shape))
    x = generator.standard_normal((times, batch, classes))
    lp = (x - np.log(np.exp(x).sum(-1, keepdims=True))).astype(dtype)
    blank = int(generator.integers(classes))
    targets = generator.integers(0, max(classes - 1, 1), (batch, longest))
    targets += (targets >= blank) & (classes > 1)
    steps = generator.integers(0, times + 1, batch)
    lengths = np.minimum(generator.integers(0, longest + 1, batch), 1 + steps // 3)
    lengths = np.minimum(lengths, longest)
    steps[0], lengths[0] = times, longest
    counts = np.arange(longest) < lengths[:, None]
    targets = targets[counts] if flat else np.where(counts, targets, -(1 << 40))
    return [lp, targets, steps, lengths], (blank, longest)


def compare(
    K: Any,
    shape: tuple[int, ...],
    dtype: str = "float32",
    *,
    flat: bool = False,
    reduction: str = "none",
    zero_infinity: bool = False,
    bound: int | None = None,
) -> None:
    inputs, (blank, longest) = arguments(shape, dtype, flat)
    attrs = (blank, longest if bound is None else bound, reduction, zero_infinity)
    grad = np.random.default_rng(1).standard_normal(shape[1] if reduction == "none" else ())
    grad = np.asarray(grad, dtype)
    exact = [wide(a) for a in inputs]
    expected = by_rule(CtcLoss, exact, (blank, longest, *attrs[2:]), wide(grad), WANTED)
    found = by_kernel(K, CtcLoss, inputs, attrs, grad, WANTED)
    for ours, reference, tolerance in zip(found, expected, TOLERANCES[dtype]):
        assert ours.dtype == dtype and ours.shape == reference.shape
        np.testing.assert_allclose(ours, reference, tolerance, tolerance)


@pytest.mark.parametrize("flat", [False, True], ids=["rows", "flat"])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_losses_and_gradients(
    launcher: Any, shape: tuple[int, ...], dtype: str, flat: bool
) -> None:
    compare(launcher, shape, dtype, flat=flat)


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions(launcher: Any, reduction: str, zero_infinity: bool) -> None:
    for seed_of_sizes in ((9, 5, 4, 3), (4, 1, 3, 2), (4, 40, 3, 2)):
        compare(launcher, seed_of_sizes, reduction=reduction, zero_infinity=zero_infinity)


@pytest.mark.parametrize("flat", [False, True], ids=["rows", "flat"])
def test_lengths_that_the_host_does_not_know(launcher: Any, flat: bool) -> None:
    shape = (20, 4, 5, 6)
    inputs, _ = arguments(shape, flat=flat)
    compare(launcher, shape, flat=flat, bound=inputs[1].shape[-1])


@pytest.mark.parametrize("room", [0, 2000, 5000])
@pytest.mark.parametrize("flat", [False, True], ids=["rows", "flat"])
def test_targets_too_long_for_shared_memory(
    launcher: Any, flat: bool, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctc_launch, "ROOM", room)
    compare(launcher, (70, 3, 7, 40), flat=flat)
    compare(launcher, (20, 3, 7, 5), "float64", flat=flat)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)], ids=str)
def test_log_probabilities_in_any_order(launcher: Any, order: tuple[int, ...]) -> None:
    inputs, attrs = arguments((9, 3, 4, 2))
    expected = by_kernel(launcher, CtcLoss, inputs, (*attrs, "sum", False), np.float32(1), WANTED)
    # That of memory is another one.
    back = np.argsort(order)
    turned = launcher.xp.asarray(np.ascontiguousarray(inputs[0].transpose(order))).transpose(back)
    operands = [turned, *map(launcher.xp.asarray, inputs[1:])]
    out, aux = CtcLoss.fused_forward(launcher, *operands, *attrs, "sum", False)
    context = Context(CtcLoss, operands, (*attrs, "sum", False), out, aux, WANTED)
    grad = CtcLoss.fused_backward(launcher, context, launcher.xp.asarray(np.float32(1)))[0]
    np.testing.assert_array_equal(host(out), expected[0])
    np.testing.assert_array_equal(host(grad), expected[1])


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_what_is_impossible(launcher: Any, zero_infinity: bool) -> None:
    inputs, _ = arguments((3, 4, 4, 3))
    # Three equal labels take five steps, and no step leads to no label alone.
    inputs[1:] = (
        np.array([[1, 1, 1], [1, 2, 3], [1, 0, 0], [0, 0, 0]]),
        *np.array([[3, 3, 0, 0], [3, 3, 1, 0]]),
    )
    attrs = (0, 3, "none", zero_infinity)
    losses, grad, *_ = by_kernel(launcher, CtcLoss, inputs, attrs, np.ones(4, "f4"), WANTED)
    never = 0 if zero_infinity else np.inf
    assert losses[0] == losses[2] == never and losses[3] == 0 and 0 < losses[1] < np.inf
    assert (grad[:, 2:] == 0).all() and np.isfinite(grad[:, 1]).all()
    assert (grad[:, 0] == 0).all() if zero_infinity else np.isnan(grad[:, 0]).all()


def test_repeated_labels(launcher: Any) -> None:
    inputs, _ = arguments((90, 1, 3, 40))
    for targets in (np.ones((1, 40)), np.arange(40)[None] % 2 + 1, np.arange(40)[None] // 20 + 1):
        inputs[1] = targets.astype(np.int64)
        attrs = (0, 40, "none", False)
        grad = np.ones(1, "f4")
        found = by_kernel(launcher, CtcLoss, inputs, attrs, grad, WANTED)
        expected = by_rule(CtcLoss, [wide(a) for a in inputs], attrs, wide(grad), WANTED)
        np.testing.assert_allclose(found[0], expected[0], 1e-5)
        np.testing.assert_allclose(found[1], expected[1], 1e-4, 1e-4)


def test_a_blank_among_the_labels(launcher: Any) -> None:
    inputs, _ = arguments((12, 1, 3, 4))
    inputs[1] = np.array([[1, 0, 0, 2]])
    attrs, grad = (0, 4, "none", False), np.ones(1, "f4")
    found = by_kernel(launcher, CtcLoss, inputs, attrs, grad, WANTED)
    expected = by_rule(CtcLoss, [wide(a) for a in inputs], attrs, wide(grad), WANTED)
    np.testing.assert_allclose(found[1], expected[1], 1e-4, 1e-4)


def test_probabilities_of_0_and_of_nothing(launcher: Any) -> None:
    inputs, _ = arguments((6, 3, 4, 2))
    lp = inputs[0]
    inputs[1:] = np.array([[1, 2]] * 3), np.full(3, 6), np.full(3, 2)
    lp[2, 0, 1] = lp[3, 1] = -np.inf  # one label at one time; all of them
    lp[4, 2, 0] = np.nan
    attrs, grad = (0, 2, "none", False), np.ones(3, "f4")
    losses, slopes, *_ = by_kernel(launcher, CtcLoss, inputs, attrs, grad, WANTED)
    assert np.isfinite(losses[0]) and losses[1] == np.inf and np.isnan(losses[2])
    assert np.isfinite(slopes[:, 0]).all() and np.isnan(slopes[:, 1:]).all()


WRONG = {
    "a step too many": (2, [6, 8], 8, 8),
    "fewer steps than none": (2, [6, -1], -1, 8),
    "a label too many": (3, [2, 4], 4, 4),
    "fewer labels than none": (3, [2, -1], -1, 4),
    "no label": (1, [[1, 2, 3], [4, 1, 2]], 4, 4),
    "a label below 0": (1, [[1, 2, 3], [-1, 1, 2]], -1, 4),
    "labels left over": (1, [1, 2, 3, 1, 2, 3, 3], 7, 7),
    "labels missing": (1, [1, 2, 3, 1, 2], 3, 3),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_noted(threads: ThreadsLauncher, what: str) -> None:
    threads.check = True
    inputs, _ = arguments((7, 2, 4, 3))
    inputs[1:] = np.array([[1, 2, 3], [3, 1, 2]]), np.array([7, 7]), np.array([3, 3])
    place, value, index, size = WRONG[what]
    inputs[place] = np.array(value)
    attrs, ones = (0, 3, "none", False), np.ones(2, "f4")
    for array in inputs:
        array.flags.writeable = False
    losses, grad, *_ = by_kernel(threads, CtcLoss, inputs, attrs, ones, WANTED)
    assert np.isfinite(losses[0]) and np.isnan(losses[1])
    assert np.isfinite(grad[:, 0]).all()
    found = ctc_launch.noted(threads)
    assert found[found[:, 0] == 1].tolist() == [[1, index, size]]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("flat", [False, True], ids=["rows", "flat"])
@pytest.mark.parametrize("shape", [(5, 3, 3, 2), (19, 2, 40, 9), (40, 1, 5, 33)], ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: tuple[int, ...], flat: bool, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, shape, flat=flat, reduction="mean")


@pytest.mark.parametrize("room", [0, 1500])
def test_no_race_without_shared_memory(
    threads: ThreadsLauncher, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctc_launch, "ROOM", room)
    threads.check = True
    compare(threads, (19, 3, 5, 12))


def test_the_same_bits_at_every_run(threads: ThreadsLauncher) -> None:
    inputs, attrs = arguments((30, 3, 4, 12))
    runs = set()
    for threads.seed in range(3):
        found = by_kernel(threads, CtcLoss, inputs, (*attrs, "mean", False), np.float32(1), WANTED)
        runs.add(b"".join(a.tobytes() for a in found if a is not None))
    assert len(runs) == 1
