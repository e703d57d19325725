"""Dropout by kernels: the mask of gradlite.random's stream, drawn again in backward."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gradlite.backends import kernels
from gradlite.ops.column_sums import sum_parts, total
from gradlite.ops.draws import signed, threshold
from gradlite.ops.dropout import AlphaDropout, Dropout
from gradlite.random import Generator, default_generator
from tests.kernels.support import DTYPES, ThreadsLauncher, epsilon, host, wide

# The array's shape, and how many of its dimensions the mask has.
SHAPES = [((1,), 1), ((7,), 1), ((8,), 1), ((31, 33), 2), ((1023,), 1), ((20, 1025), 2),
          ((2, 3, 5), 2), ((9, 4, 300), 2), ((3, 2, 1), 2), ((5, 3, 2, 2), 1)]  # fmt: skip


@pytest.fixture(autouse=True)
def place() -> Any:
    """The generator somewhere, and where it was afterwards."""
    before = default_generator.state_array()
    default_generator.manual_seed(2**63 + 17)
    default_generator.set_offset(2**40 + 5)
    yield
    default_generator.set_state_array(before)


def draw(shape: tuple[int, ...], dtype: str) -> Any:
    generator = np.random.default_rng(math.prod(shape))
    return generator.standard_normal(shape).astype(dtype)


def compare(K: Any, shape: tuple[int, ...], lead: int, dtype: str, p: float = 0.7) -> None:
    x, grad = draw(shape, dtype), draw(shape, dtype)[::-1].copy()
    attrs = (*shape[:lead], *(1,) * (len(shape) - lead)), p, 1 / p
    state = default_generator.state_array()
    out, mask = Dropout.forward(np, x, *attrs)
    after = default_generator.state_array()
    default_generator.set_state_array(state)
    made, where = Dropout.fused_forward(K, K.xp.asarray(x), *attrs)
    assert (default_generator.state_array() == after).all()
    np.testing.assert_array_equal(host(made), out)
    assert isinstance(where, tuple)  # and not an array
    ctx = SimpleNamespace(aux=where, attrs=attrs)
    (dx,) = Dropout.fused_backward(K, ctx, K.xp.asarray(grad))
    np.testing.assert_array_equal(host(dx), grad * mask)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_same_elements_are_kept_as_on_the_cpu(launcher: Any, shape: Any, dtype: str) -> None:
    compare(launcher, *shape, dtype)


@pytest.mark.parametrize("p", [0.0, 2**-32, 0.5, 1 - 2**-32, 1.0])
def test_every_probability(launcher: Any, p: float) -> None:
    x = draw((3, 700), "float32")
    default_generator.manual_seed(3)
    out, _ = Dropout.forward(np, x, x.shape, p, 1.0)
    default_generator.manual_seed(3)
    made, _ = Dropout.fused_forward(launcher, launcher.xp.asarray(x), x.shape, p, 1.0)
    np.testing.assert_array_equal(host(made), out)


@pytest.mark.parametrize("lead", [2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_alpha_dropout(launcher: Any, dtype: str, lead: int) -> None:
    x = draw((4, 5, 9), dtype)
    attrs = (4, 5, 9 if lead == 3 else 1), 0.8, 0.9, 0.3, -1.2
    default_generator.manual_seed(3)
    out, mask = AlphaDropout.forward(np, wide(x), *attrs)
    default_generator.manual_seed(3)
    made, where = AlphaDropout.fused_forward(launcher, launcher.xp.asarray(x), *attrs)
    np.testing.assert_allclose(host(made), out, 2 * epsilon(dtype), 2 * epsilon(dtype))
    ctx = SimpleNamespace(aux=where, attrs=attrs)
    (dx,) = AlphaDropout.fused_backward(launcher, ctx, launcher.xp.asarray(x))
    np.testing.assert_array_equal(host(dx), x * mask.astype(dtype))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_infinite_and_missing_values_stay_what_the_rule_makes_of_them(
    launcher: Any, dtype: str
) -> None:
    x = np.full(64, np.nan, dtype)
    x[::2] = np.inf
    x[::3] = 3e38
    default_generator.manual_seed(3)
    with np.errstate(invalid="ignore", over="ignore"):
        out, _ = Dropout.forward(np, x, (64,), 0.5, 2.0)
    default_generator.manual_seed(3)
    made, _ = Dropout.fused_forward(launcher, launcher.xp.asarray(x), (64,), 0.5, 2.0)
    np.testing.assert_array_equal(wide(host(made)), wide(out))


@pytest.mark.parametrize("start", [1, 2, 3])
def test_arrays_that_start_anywhere(launcher: Any, start: int) -> None:
    x = draw((100 + start,), "float32")
    default_generator.manual_seed(3)
    out, _ = Dropout.forward(np, x[start:], (100,), 0.5, 2.0)
    default_generator.manual_seed(3)
    made, _ = Dropout.fused_forward(launcher, launcher.xp.asarray(x)[start:], (100,), 0.5, 2.0)
    np.testing.assert_array_equal(host(made), out)


def test_each_way_is_one_launch(launcher: Any) -> None:
    for shape, lead, kernel in (((6, 4), 2, "dropout"), ((6, 4), 1, "dropout_rows")):
        with kernels.record() as launches:
            compare(launcher, shape, lead, "float32")
        assert launches == [kernel, kernel]


# ------------------------------------------------------ bias, dropout and a residual in one
def compare_bias(K: Any, rows: int, columns: int, dtype: str, bias: bool = True) -> None:
    x, residual = draw((rows, columns), dtype), draw((rows, columns), dtype)[::-1].copy()
    b = draw((columns,), dtype) if bias else np.zeros(columns, dtype)
    kind, n, xp = np.dtype(dtype), x.size, K.xp
    seed, offset, p = 2**63 + 17, 2**40 + 5, 0.6
    generator = Generator().manual_seed(seed)
    generator.set_offset(offset)
    scale = float(kind.type(1 / p))
    mask = generator.bernoulli_mask(x.shape, p).astype("f8") * scale
    y = xp.empty(x.shape, kind)
    arrays = xp.asarray(x), xp.asarray(b) if bias else None, xp.asarray(residual), y
    place = None, signed(seed), offset
    K.elementwise("bias_dropout_add_forward", kind, n, *arrays, *place, n, columns, threshold(p),
                  1 / p)  # fmt: skip
    expected = wide(residual) + (wide(x) + wide(b)) * mask
    tolerance = {"bfloat16": 8e-3, "float16": 2e-3, "float32": 1e-6, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(host(y), expected, tolerance, tolerance)

    dx, sums = xp.empty(x.shape, kind), xp.empty(columns, kind)
    partials, _ = sum_parts(K, "bias_dropout_add_backward", kind, 1, rows, columns,
                            xp.asarray(residual), dx, *place, threshold(p), 1 / p)  # fmt: skip
    total(K, kind, partials, sums)
    np.testing.assert_array_equal(host(dx), residual * mask.astype(dtype))
    expected = (residual.astype("f8") * mask).sum(0)
    np.testing.assert_allclose(host(sums), expected, 10 * tolerance, 100 * tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "size", [(1, 1), (5, 7), (33, 32), (10, 130), (70, 257), (9, 1024)], ids=str
)
def test_bias_dropout_and_residual(launcher: Any, size: Any, dtype: str) -> None:
    compare_bias(launcher, *size, dtype)
    compare_bias(launcher, *size, dtype, bias=False)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for shape, lead in (((9, 7), 2), ((9, 40), 1)):
        compare(threads, shape, lead, "float32")
        compare(threads, shape, lead, "bfloat16")
    compare_bias(threads, 9, 12, "float32")
    compare_bias(threads, 9, 13, "float32")
