"""Compiled look-ups, running sums, remainders and copies against array calls, bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.capturing.native import lookups
from gradlite.capturing.native.build import NativePlan, available
from gradlite.capturing.native.loops import Place
from gradlite.nn import functional as F

pytestmark = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")

NAN, INF = float("nan"), float("inf")
NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 7.25, 1e-40, 3e38, INF, -INF, NAN]


def compiled(step: Callable[..., Any], *args: Any, left: int = 0) -> tuple[list[Any], list[Any]]:
    """Results of a compiled replay and of one by array calls; no more calls than that are left."""
    results = []
    for native in (True, False):
        captured = gradlite.capture(step, native=native)
        for _ in range(4):
            found = captured(*args)
        assert captured.replays
        results.append([np.array(t.detach().numpy()) for t in found])
        if native:
            (plan,) = [r.plan for kept in captured._kept.values() for r in kept]
            assert isinstance(plan, NativePlan) and not plan.reason
            assert len(plan.left) <= left, captured.explain()
    return results[0], results[1]


def same(step: Callable[..., Any], *args: Any, rtol: float = 0.0, left: int = 0) -> None:
    for ours, expected in zip(*compiled(step, *args, left=left), strict=True):
        assert ours.dtype == expected.dtype
        np.testing.assert_allclose(ours, expected, rtol=rtol, atol=0)
        if not rtol:
            np.testing.assert_array_equal(np.signbit(ours), np.signbit(expected))


@pytest.mark.parametrize("dtype", [gradlite.float32, gradlite.float64])
def test_remainders_of_floats(dtype: Any) -> None:
    a, b = (gradlite.tensor(v, dtype=dtype) for v in zip(*itertools.product(NUMBERS, NUMBERS)))
    with np.errstate(all="ignore"):
        same(lambda a, b: [a % b, a // b, gradlite.fmod(a, b)], a, b)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8"])
def test_remainders_of_whole_numbers(dtype: str) -> None:
    limits = np.iinfo(dtype)
    numbers = sorted({0, 1, 3, 7, limits.min, limits.min + 1, limits.max, max(-4, limits.min)})
    pairs = [(a, b) for a in numbers for b in numbers if b]
    a, b = (gradlite.from_numpy(np.array(v, dtype)) for v in zip(*pairs))
    same(lambda a, b: [a % b, a // b, gradlite.fmod(a, b), ~a, a.max() - a], a, b)


def test_functions_of_the_c_library() -> None:
    x = gradlite.tensor([-INF, -2.5, -1.0, -0.3, -0.0, 0.0, 1e-40, 0.7, 1.0, 1.5, 40.0, INF, NAN])
    y = x.flip(0)
    names = "tan asin acos atan sinh cosh asinh acosh atanh exp2 log2 log10 round".split()
    with np.errstate(all="ignore"):
        same(
            lambda x, y: [
                *(getattr(x, name)() for name in names),
                *(gradlite.atan2(x, y), gradlite.hypot(x, y), gradlite.logaddexp(x, y)),
            ],
            *(x, y), rtol=2e-6,
        )  # fmt: skip
        same(
            lambda x, y: [
                *(gradlite.fmax(x, y), gradlite.fmin(x, y), x.isinf(), x.signbit()),
                *(gradlite.logical_xor(x, y), ~(x > y)),
            ],
            *(x, y),
        )  # fmt: skip


@pytest.mark.parametrize("index_dtype", [gradlite.int64, gradlite.int32])
def test_look_ups(index_dtype: Any) -> None:
    x = gradlite.randn(4, 5, 6)
    i = gradlite.tensor([[3, -1], [0, 0]], dtype=index_dtype)
    j = gradlite.tensor([2, -5], dtype=index_dtype)
    same(
        lambda x, i, j: [
            *(x[i], x[:, i], x[:, :, i], x[..., i], x[i, j], x[:, i, j], x[i, j, j]),
            *(x[[0, 2]], x[:, [4, 4, 1]], x[[0, 1], [1, 2]], x.transpose(1, 2)[i, :, j]),
        ],
        *(x, i, j), left=1,
    )  # fmt: skip
    long = i.long() % 4
    same(
        lambda x, i, j: [
            *(x.index_select(1, j), x.index_select(-1, j), x.gather(1, i[:, :, None])),
            *(x.gather(0, i[None]), x.permute(2, 0, 1).gather(2, i[:, :, None])),
        ],
        *(x, long, j.long() % 4),
    )  # fmt: skip


def test_look_ups_put_and_added_to() -> None:
    x, i, j = gradlite.randn(4, 5, 3), gradlite.tensor([3, 1, 0, 3]), gradlite.tensor([0, 4, 4, 0])
    values = gradlite.randn(4, 3)

    def step(x: Any, i: Any, j: Any, values: Any) -> list[Any]:
        a, b, c, d = (x.clone() for _ in range(4))
        a[i, j] = values
        b[:, j] = values.sum()
        c[i] = values[:, None]
        d.scatter_(1, j.reshape(4, 1, 1), values[:, None])
        w = x.clone().requires_grad_()
        (w[i, j] * values).sum().backward()
        return [a, b, c, d, w.grad, x.scatter_add(0, i.reshape(4, 1, 1), values[:, None])]

    same(step, x, i, j, values, left=2)


def test_what_numpy_would_copy_first_is_left_to_it() -> None:
    whole = Place(0, 0, (6,), (4,), np.dtype(np.float32))
    part = Place(0, 8, (3,), (4,), np.dtype(np.float32))
    other = Place(1, 0, (3,), (4,), np.dtype(np.float32))
    index = Place(2, 0, (3,), (8,), np.dtype(np.int64))
    for kind in ("take", "set", "add"):
        assert lookups.rows(kind, whole, [index], 0, part, 1) is None
        assert lookups.rows(kind, whole, [index], 0, other, 1)
    assert lookups.along("set", whole, index, 0, part, 1) is None
    assert lookups.along("set", whole, index, 0, other, 1)


def test_an_index_out_of_range_is_refused() -> None:
    x = gradlite.arange(12.0).reshape(3, 4)
    step = gradlite.capture(lambda i: x[:, i] + x[i, i], native=True)
    for _ in range(4):
        step(gradlite.tensor([0, -3, 2]))
    with pytest.raises(IndexError, match="out of (range|bounds)"):
        step(gradlite.tensor([0, 3, 2]))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_running_sums(dim: int) -> None:
    x, n = gradlite.randn(3, 5, 4), gradlite.arange(60).reshape(3, 5, 4)
    x[1, 2, 3] = NAN
    same(
        lambda x, n: [
            *(x.cumsum(dim), x.cumprod(dim), x.transpose(0, 2).cumsum(dim)),
            *(n.cumsum(dim), (n > 30).cumsum(dim), x.double().cumsum(dim), x[:, ::2].cumsum(dim)),
        ],
        *(x, n),
    )  # fmt: skip


def test_rolled_tiled_and_stacked() -> None:
    x = gradlite.randn(3, 4)
    same(
        lambda x: [
            *(x.roll(1, 0), x.roll(-5, 1), x.roll((1, 2), (0, 1)), x.roll((1, 1), (0, 0))),
            *(x[0].roll(2), x.repeat(2, 1), x.repeat(2, 3, 2), x.T.repeat(1, 2), x.tile(2)),
            *(gradlite.stack([x[0, 0], x[1, 1]]), gradlite.cat([x, x[:0], x.T.reshape(3, 4)])),
            *(x.argmax(), x.argmin(), x.T.argmax()),
        ],
        x, left=1,
    )  # fmt: skip


def test_everyday_losses_layers_and_clipping_leave_nothing_to_array_calls() -> None:
    """Batch norm, smoothed labels, norms of gradients: all calls but the optimizer's step."""
    gradlite.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.ConvTranspose2d(4, 4, 2, stride=2), nn.GroupNorm(2, 4), nn.AdaptiveMaxPool2d(2),
        nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    optimizer = gradlite.optim.Adam(model.parameters(), lr=0.01)
    mode = nn.functional.cross_entropy

    def step(x: Any, y: Any) -> list[Any]:
        optimizer.zero_grad()
        out = model(x)
        loss = mode(out, y, label_smoothing=0.1) + F.nll_loss(out.log_softmax(1), y)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return [loss, norm]

    captured = gradlite.capture(step, native=True)
    x, y = gradlite.randn(4, 2, 8, 8), gradlite.tensor([0, 4, 2, 2])
    losses = [captured(x, y)[0].item() for _ in range(40)]
    assert losses[-1] < losses[0]
    (plan,) = [r.plan for kept in captured._kept.values() for r in kept]
    assert isinstance(plan, NativePlan) and len(plan.left) == 1, captured.explain()
