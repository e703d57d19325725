"""The softmax family with kernels: the rules in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradlite.backends import kernels
from gradlite.ops.attention_weights import AttentionWeights
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.softmax import LONG, LogSoftmax, Logsumexp, Softmax
from tests.kernels.support import Context, ThreadsLauncher, by_kernel, host, wide

# Rows of one warp, of a block, as long as what a team keeps in registers, and longer.
SHAPES = [(1, 1), (3, 31), (5, 32), (2, 33), (9, 257), (3, 1023), (2, 1025), (2, 3, 7), (70, 5),
          (2, 4095), (2, 8191), (2, 9001)]  # fmt: skip
STRIDED = [((3, 1), 0), ((5, 7), 0), ((33, 40), 0), ((2, 9, 33), 1), ((2, 300, 65), 1),
           ((3, 2, 4, 5), 1), ((4, 1, 6), 1), ((1025, 3), 0)]  # fmt: skip
TOLERANCES = {"bfloat16": 1.6e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-12}
NAN, INF = float("nan"), float("inf")


def compare(K: Any, op: Any, x: Any, attrs: Any, mask: Any = None) -> None:
    """Value and gradient by kernel and by rule, which for backward reads the kernel's result."""
    inputs = (x,) if op is not AttentionWeights else (x, mask)
    wanted = (True, *[False] * (len(inputs) - 1))
    with np.errstate(all="ignore"):
        expected = op.forward(np, *map(wide, inputs), *attrs)
    generator = np.random.default_rng(x.size)
    grad = np.asarray(generator.standard_normal(expected.shape)).astype(x.dtype)
    out, dx = by_kernel(K, op, inputs, attrs, grad, wanted)[:2]
    tolerance = TOLERANCES[x.dtype.name]
    np.testing.assert_allclose(out, expected, tolerance, tolerance)
    context = Context(op, [wide(a) for a in inputs], attrs, wide(out), None, wanted)
    with np.errstate(all="ignore"):
        slope = op.backward(context, wide(grad), NAMESPACES[np.ndarray])[0]
    scale = max(1.0, float(np.abs(slope[np.isfinite(slope)]).max(initial=0.0)))
    np.testing.assert_allclose(dx, slope, 2 * tolerance, 2 * tolerance * scale)


def draw(shape: tuple[int, ...], dtype: str) -> Any:
    generator = np.random.default_rng(len(shape) + shape[-1])
    x = generator.standard_normal(shape).astype(dtype)
    x[0] *= 20
    return x


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op", [Softmax, LogSoftmax], ids=lambda op: op.__name__)
def test_the_last_dimension(launcher: Any, op: Any, shape: tuple[int, ...], dtype: str) -> None:
    compare(launcher, op, draw(shape, dtype), (len(shape) - 1,))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "dim"), STRIDED, ids=str)
@pytest.mark.parametrize("op", [Softmax, LogSoftmax], ids=lambda op: op.__name__)
def test_other_dimensions(
    launcher: Any, op: Any, shape: tuple[int, ...], dim: int, dtype: str
) -> None:
    compare(launcher, op, draw(shape, dtype), (dim,))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        *((s, (len(s) - 1,)) for s in SHAPES), ((3, 4, 50), (1, 2)), ((31, 33), (0,)),
        ((2, 5, 3, 4), (2, 0)), ((2, 5, 3, 4), (1,)),
    ],
    ids=str,
)  # fmt: skip
def test_logsumexp(wanted: Any, shape: Any, dims: Any, keepdim: bool, dtype: str) -> None:
    compare(wanted, Logsumexp, draw(shape, dtype), (dims, keepdim))


@pytest.mark.parametrize("columns", [40, 600, 9001])
@pytest.mark.parametrize("op", [Softmax, LogSoftmax, Logsumexp], ids=lambda op: op.__name__)
def test_large_infinite_and_missing_values(launcher: Any, op: Any, columns: int) -> None:
    x = draw((9, columns), "float32")
    x[0] = 1e4 * x[0]
    x[1] = -INF
    x[2, 1:] = -INF
    x[3, 7] = INF
    x[4, 7] = NAN
    x[5, : columns - 1] = -INF
    x[6] = 3e38
    x[7, ::2] = -3e38
    attrs = ((1,), False) if op is Logsumexp else (1,)
    with np.errstate(all="ignore"):
        expected = op.forward(np, x.astype("f8"), *attrs).astype("f4")
    out = op.fused_forward(launcher, launcher.xp.asarray(x), *attrs)
    if out is NotImplemented:  # long rows on the CPU are the rule's
        assert launcher.serial and op is Logsumexp and columns > LONG
        with np.errstate(all="ignore"):
            out = op.forward(np, x, *attrs)
    np.testing.assert_allclose(host(out), expected, 1e-5, 1e-6)
    if op is not Logsumexp and columns < 9001:
        across = op.fused_forward(launcher, launcher.xp.asarray(np.ascontiguousarray(x.T)), 0)
        np.testing.assert_allclose(host(across).T, expected, 1e-5, 1e-6)


@pytest.mark.parametrize("op", [Softmax, LogSoftmax], ids=lambda op: op.__name__)
def test_long_strips_are_cut_into_parts(threads: ThreadsLauncher, op: Any) -> None:
    threads.check = True
    with kernels.record() as launches:
        compare(threads, op, draw((2, 515, 33), "float32"), (1,))
    name = "softmax_strided" if op is Softmax else "log_softmax_strided"
    assert launches == ["softmax_strided_parts", f"{name}_forward",
                        "softmax_strided_sums", f"{name}_backward"]  # fmt: skip


def test_a_large_shift_costs_no_precision(launcher: Any) -> None:
    x = (draw((4, 40), "float32") / 20).astype("f4")
    x += np.float32(2**14)
    for dim in (0, 1):
        expected = LogSoftmax.forward(np, x.astype("f8"), dim)
        out = host(LogSoftmax.fused_forward(launcher, launcher.xp.asarray(x), dim))
        np.testing.assert_allclose(out, expected, 1e-6, 1e-6)


@pytest.mark.parametrize("start", [1, 2, 3])
def test_arrays_that_start_anywhere(launcher: Any, start: int) -> None:
    x = draw((3 * 64 + start,), "float32")
    part = launcher.xp.asarray(x)[start:].reshape(3, 64)
    for op in (Softmax, LogSoftmax):
        expected = op.forward(np, x[start:].astype("f8").reshape(3, 64), 1)
        out = op.fused_forward(launcher, part, 1)
        np.testing.assert_allclose(host(out), expected, 1e-5, 1e-6)
        context = Context(op, [part], (1,), out, None, (True,))
        wide_context = Context(op, [part], (1,), host(out).astype("f8"), None, (True,))
        (dx,) = op.fused_backward(launcher, context, part)
        grad = x[start:].astype("f8").reshape(3, 64)
        (slope,) = op.backward(wide_context, grad, NAMESPACES[np.ndarray])
        np.testing.assert_allclose(host(dx), slope, 1e-4, 1e-4)


# --------------------------------------------------------------------- the weights of attention
LEAD = (2, 3)
MASKS = [None, (6, 7), (1, 7), (2, 1, 1, 7), (2, 1, 6, 7), (1, 3, 6, 7), (3, 6, 7), (2, 3, 6, 7),
         (2, 3, 1, 7), (6, 1), (2, 1, 6, 1), (1, 1)]  # fmt: skip


def a_mask(shape: Any, kind: str, dtype: str) -> Any:
    if shape is None:
        return None
    generator = np.random.default_rng(sum(shape))
    if kind == "bool":
        return generator.random(shape) < 0.6
    mask = generator.standard_normal(shape).astype(dtype)
    mask[generator.random(shape) < 0.3] = -INF
    return mask


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["bool", "added"])
@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_masks_of_every_shape(
    launcher: Any, mask: Any, kind: str, causal: bool, dtype: str
) -> None:
    compare(launcher, AttentionWeights, draw((*LEAD, 6, 7), dtype), (0.7, causal),
            a_mask(mask, kind, dtype))  # fmt: skip


@pytest.mark.parametrize(
    "sizes", [(1, 1), (33, 33), (40, 9), (9, 40), (5, 300), (3, 9001)], ids=str
)
def test_weights_of_every_size(launcher: Any, sizes: tuple[int, int]) -> None:
    for causal in (False, True):
        compare(launcher, AttentionWeights, draw((2, *sizes), "float32"), (1.0, causal),
                a_mask(sizes, "bool", "float32"))  # fmt: skip


def test_a_mask_that_is_broadcast_in_the_middle(launcher: Any) -> None:
    mask = a_mask((2, 1, 3, 4, 5), "bool", "float32")
    compare(launcher, AttentionWeights, draw((2, 4, 3, 4, 5), "float32"), (1.0, False), mask)


def test_a_query_without_keys_has_weights_of_zero(launcher: Any) -> None:
    scores = launcher.xp.asarray(draw((2, 3, 5), "float32"))
    for mask in (np.zeros((3, 5), bool), np.full((3, 5), -INF, "f4")):
        mask[0] = mask[0] == 0
        weights = host(
            AttentionWeights.fused_forward(launcher, scores, launcher.xp.asarray(mask), 1.0, False)
        )
        assert (weights[:, 1:] == 0).all() and (weights[:, 0] > 0).all()


# ------------------------------------------------------------------------------------- the rest
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(9, 33), (3, 300), (2, 5000)], ids=str)
@pytest.mark.parametrize("op", [Softmax, LogSoftmax], ids=lambda op: op.__name__)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, op: Any, shape: tuple[int, ...], seed: int
) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, op, draw(shape, "float32"), (1,))
    if shape[1] <= 300:
        compare(threads, op, draw(shape, "float32"), (0,))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_in_the_rest_of_the_family(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, Logsumexp, draw((9, 33), "float32"), ((1,), False))
    for kind in ("bool", "added"):
        mask = a_mask((2, 1, 6, 7), kind, "float32")
        compare(threads, AttentionWeights, draw((2, 3, 6, 7), "float32"), (0.5, True), mask)


def test_each_way_is_one_launch(launcher: Any) -> None:
    x = draw((4, 5, 6), "float32")
    for op, attrs, name in (
        (Softmax, (2,), "softmax"), (Softmax, (1,), "softmax_strided"),
        (LogSoftmax, (2,), "log_softmax"), (LogSoftmax, (0,), "log_softmax_strided"),
        (Logsumexp, ((2,), False), "logsumexp"),
    ):  # fmt: skip
        with kernels.record() as launches:
            compare(launcher, op, x, attrs)
        assert launches == [f"{name}_forward", f"{name}_backward"]
    with kernels.record() as launches:
        compare(launcher, AttentionWeights, x, (1.0, True))
    assert launches == ["attention_weights_forward", "softmax_backward"]


def test_other_arrays_are_left_to_the_rule(launcher: Any) -> None:
    x = launcher.xp.asarray(np.ones((2, 3), np.float32))
    assert Softmax.fused_forward(launcher, x[:0], 1) is NotImplemented
    assert Softmax.fused_forward(launcher, x[0, 0], 0) is NotImplemented
    assert Logsumexp.fused_forward(launcher, x[0, 0], (), False) is NotImplemented
    context = Context(Softmax, [x], (0,), x, None, (True,))
    assert Softmax.fused_backward(launcher, context, x.astype("f8")) is NotImplemented
    integers = launcher.xp.asarray(np.ones((2, 3), np.int64))
    assert AttentionWeights.fused_forward(launcher, x, integers, 1.0, False) is NotImplemented
