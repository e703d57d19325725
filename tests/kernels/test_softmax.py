"""softmax and log_softmax with kernels: the rule in float64 is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradlite.ops.softmax import LogSoftmax, Softmax
from tests.kernels.support import ThreadsLauncher, host

SHAPES = [(1, 1), (3, 31), (5, 32), (2, 33), (9, 257), (3, 1023), (2, 1025), (2, 3, 7), (70, 5)]
TOLERANCES = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-12}


class Context:
    """What backward reads of a node."""

    def __init__(self, saved: Any, attrs: Any) -> None:
        self.saved, self.attrs = saved, attrs


def compare(K: Any, op: Any, shape: tuple[int, ...], dtype: str) -> None:
    generator = np.random.default_rng(len(shape) + shape[-1])
    x, grad = (generator.standard_normal(shape).astype(dtype) for _ in range(2))
    x[0] *= 20
    expected = op.forward(np, x.astype("f8"), x.ndim - 1)
    out = op.fused_forward(K, K.xp.asarray(x), x.ndim - 1)
    tolerance = TOLERANCES[dtype]
    np.testing.assert_allclose(host(out), expected, tolerance, tolerance)
    wide = host(out).astype("f8")  # what backward reads is the rounded output
    y, g = wide.reshape(-1, shape[-1]), grad.astype("f8").reshape(-1, shape[-1])
    if op is Softmax:
        slope = y * (g - (g * y).sum(1, keepdims=True))
    else:
        slope = g - np.exp(y) * g.sum(1, keepdims=True)
    context = Context((out,), (x.ndim - 1,))
    (dx,) = op.fused_backward(K, context, K.xp.asarray(grad))
    scale = max(1.0, float(np.abs(slope).max()))
    np.testing.assert_allclose(host(dx), slope.reshape(shape), tolerance, tolerance * scale)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op", [Softmax, LogSoftmax], ids=lambda op: op.__name__)
def test_values_and_gradients(launcher: Any, op: Any, shape: tuple[int, ...], dtype: str) -> None:
    compare(launcher, op, shape, dtype)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(9, 33), (3, 300)], ids=str)
@pytest.mark.parametrize("op", [Softmax, LogSoftmax], ids=lambda op: op.__name__)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, op: Any, shape: tuple[int, ...], seed: int
) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, op, shape, "float32")


def test_other_dimensions_and_dtypes_are_left_to_the_rule(launcher: Any) -> None:
    x = launcher.xp.asarray(np.ones((2, 3), np.float32))
    assert Softmax.fused_forward(launcher, x, 0) is NotImplemented
    assert Softmax.fused_forward(launcher, x[:0], 1) is NotImplemented
    assert Softmax.fused_forward(launcher, x[0, 0], 0) is NotImplemented
    assert LogSoftmax.fused_backward(launcher, Context((x,), (0,)), x) is NotImplemented
