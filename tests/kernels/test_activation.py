"""The kernels of the activation functions: the rules in float64 are the reference."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gradlite.backends import kernels
from gradlite.ops.namespaces import NAMESPACES, OPS
from tests.kernels.support import ThreadsLauncher, by_kernel, by_rule, host, wide

CALLS: dict[str, tuple[float, ...]] = {
    "relu": (), "leaky_relu": (0.1,), "elu": (0.7, 1.05, 1 / 0.7), "gelu": (), "gelu_tanh": (),
    "silu": (), "softplus": (2.0, 1.0), "log_sigmoid": (), "mish": (), "softsign": (),
    "tanhshrink": (), "sigmoid": (), "tanh": (), "hardtanh": (-0.5, 3.0), "hardsigmoid": (),
    "hardswish": (), "hardshrink": (0.5,), "softshrink": (0.5,), "threshold": (0.3, -1.0),
}  # fmt: skip
READ_OUTPUT = {"relu", "sigmoid", "tanh"}
SIZES = [1, 31, 32, 33, 1023, 1024, 1025, 100003]
# Relative, and absolute where values are small; a gradient's sums cancel more.
TOLERANCES = {
    "bfloat16": (4e-3, 1e-6, 4e-3), "float16": (2e-3, 1e-4, 2e-3), "float32": (1e-5, 1e-6, 1e-4),
    "float64": (1e-10, 1e-14, 1e-10),
}  # fmt: skip
NAN, INF = float("nan"), float("inf")
EDGES = [NAN, INF, -INF, -0.0, 0.0, 3.0, -3.0, 0.5, -0.5, 20.0, -20.0, 100.0, -100.0, 6e4, -6e4,
         1e-7, -6e-8]  # fmt: skip
FAR = [3e38, -3e38, 2e-38]


def reference(name: str, x: Any, grad: Any, out: Any) -> tuple[Any, Any]:
    """Value and gradient by the rule, in float64; a rule that reads the output reads ``out``."""
    op, attrs = OPS[name], CALLS[name]
    x, grad, out = x.astype("f8"), grad.astype("f8"), out.astype("f8")
    made = op.forward(np, x, *attrs)
    value, aux = made if op.has_aux else (made, None)
    saved = out if name in READ_OUTPUT else x
    ctx = SimpleNamespace(saved=(saved,), attrs=attrs, aux=aux, edges=(1,), shapes=(x.shape,))
    (slope,) = op.backward(ctx, grad, NAMESPACES[np.ndarray])
    return value, slope


def run(K: Any, name: str, x: Any, grad: Any) -> tuple[Any, Any]:
    """Value and gradient by the kernels."""
    op, attrs = OPS[name], CALLS[name]
    x = K.xp.asarray(x) if x.__class__ is np.ndarray else x
    out = op.fused_forward(K, x, *attrs)
    out = out[0] if op.has_aux else out
    ctx = SimpleNamespace(saved=(out if name in READ_OUTPUT else x,), attrs=attrs, aux=None)
    (dx,) = op.fused_backward(K, ctx, K.xp.asarray(grad))
    return out, dx


def compare(K: Any, name: str, x: Any, grad: Any) -> None:
    out, dx = run(K, name, x, grad)
    with np.errstate(all="ignore"):
        value, slope = reference(name, x, grad, host(out))
        value, slope = (in_range(a, x.dtype) for a in (value, slope))
    rtol, atol, slope_rtol = TOLERANCES[x.dtype.name]
    np.testing.assert_allclose(wide(host(out)), value, rtol, atol, err_msg="value")
    np.testing.assert_allclose(wide(host(dx)), slope, slope_rtol, 10 * atol, err_msg="gradient")


def in_range(values: Any, dtype: Any) -> Any:
    """Values in float64, infinite where a dtype has no number so large."""
    rounded = values.astype(dtype).astype("f8")
    return np.where(np.isinf(rounded), rounded, values)


def draw(n: int, dtype: str) -> tuple[Any, Any]:
    generator = np.random.default_rng(n)
    x = (generator.standard_normal(n) * 4).astype(dtype)
    return x, generator.standard_normal(n).astype(dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients(launcher: Any, name: str, dtype: str) -> None:
    for n in SIZES[:-1]:
        compare(launcher, name, *draw(n, dtype))


@pytest.mark.parametrize("name", [n for n in CALLS if n not in ("gelu", "log_sigmoid")])
def test_values_in_place(threads: ThreadsLauncher, name: str) -> None:
    threads.check = True  # that no two threads touch an element, and no promise is broken
    op, attrs = OPS[name], [float(a) for a in CALLS[name]]
    for n, start in ((1, 0), (33, 0), (2000, 0), (2000, 1)):
        x = np.zeros(n + 4, np.float32)[start : start + n]
        x[...] = draw(n, "float32")[0]
        expected = op.fused_forward(threads, x.copy(), *CALLS[name])
        kernel = f"{op.fused_forward.activation}_forward"
        threads.elementwise(kernel, x.dtype, n, x, x, n, *attrs)
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("name", ["relu", "gelu", "threshold"])
def test_long_arrays(launcher: Any, name: str) -> None:
    compare(launcher, name, *draw(SIZES[-1], "float32"))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", CALLS)
def test_edges_and_nans(launcher: Any, name: str, dtype: str) -> None:
    x = np.array(EDGES if dtype == "float16" else EDGES + FAR, dtype)
    if name == "gelu_tanh":  # whose x * x is infinite there; PyTorch's gradient is NaN as well
        x = x[~np.isfinite(x) | (abs(wide(x)) < 1e19)]
    if name == "threshold":
        x = x[x != 0.3]
    for grad in (1.0, -2.0):
        compare(launcher, name, x, np.full_like(x, grad))


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_gelu_with_its_slope(launcher: Any, dtype: str) -> None:
    rtol, atol, slope_rtol = TOLERANCES[dtype]
    for values in (draw(1023, dtype)[0], np.array(EDGES, dtype)):
        x = launcher.xp.asarray(values)
        out, slope = launcher.empty_like(x), launcher.empty_like(x)
        launcher.elementwise("gelu_forward", x.dtype, x.size, x, out, slope, x.size)
        with np.errstate(all="ignore"):
            expected = reference("gelu", values, np.ones_like(values), values)
        np.testing.assert_allclose(wide(host(out)), expected[0], rtol, atol)
        np.testing.assert_allclose(wide(host(slope)), expected[1], slope_rtol, 10 * atol)


# ------------------------------------------------------------------------------ glu and prelu
def both_ways(K: Any, op: Any, inputs: Any, attrs: Any, grad: Any) -> None:
    wanted = (True,) * len(inputs)
    expected = by_rule(op, [wide(a) for a in inputs], attrs, wide(grad), wanted)
    found = by_kernel(K, op, inputs, attrs, grad, wanted)
    rtol, atol, slope_rtol = TOLERANCES[inputs[0].dtype.name]
    np.testing.assert_allclose(found[0], expected[0], rtol, atol)
    for one, other in zip(found[1:], expected[1:]):
        scale = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(one, other, slope_rtol, 20 * atol * scale)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_glu(launcher: Any, dim: int, dtype: str) -> None:
    for shape in ((2, 4, 6), (4, 2, 130), (2, 34, 64), (6, 2, 2050)):
        generator = np.random.default_rng(dim)
        x = (generator.standard_normal(shape) * 3).astype(dtype)
        half = tuple(n // 2 if d == dim else n for d, n in enumerate(shape))
        grad = generator.standard_normal(half).astype(dtype)
        both_ways(launcher, OPS["glu"], [x], (dim,), grad)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
    "shape",
    [(7,), (3, 5), (300, 33), (40, 64), (2, 3, 3), (4, 5, 6), (3, 4, 20, 17), (2, 3, 1025)],
    ids=str,
)
def test_prelu(launcher: Any, shape: tuple[int, ...], dtype: str) -> None:
    generator = np.random.default_rng(len(shape))
    x, grad = (generator.standard_normal(shape).astype(dtype) for _ in range(2))
    channels = [(1,) * len(shape)]
    if len(shape) > 1:
        channels.append(tuple(n if d == 1 else 1 for d, n in enumerate(shape)))
    for form in channels:
        weight = generator.standard_normal(form).astype(dtype)
        both_ways(launcher, OPS["prelu"], [x, weight], (), grad)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((5000,), 1), ((4, 1300), 1), ((2, 3, 3100), 3), ((153601,), 1)],
    ids=str,
)
def test_planes_in_pieces(launcher: Any, shape: tuple[int, ...], channels: int) -> None:
    # So many pieces that there is nothing left for the last, in the last shape.
    x, grad = (np.random.default_rng(i).standard_normal(shape).astype("f4") for i in range(2))
    form = tuple(channels if d == 1 else 1 for d in range(len(shape)))
    weight = np.linspace(-1, 2, channels, dtype="f4").reshape(form)
    both_ways(launcher, OPS["prelu"], [x, weight], (), grad)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_in_rows(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    x, _ = draw(120, "float32")
    both_ways(threads, OPS["glu"], [x.reshape(2, 6, 10)], (1,), x[:60].reshape(2, 3, 10))
    for form in ((1, 1, 1), (1, 6, 1)):
        weight = np.full(form, 0.3, np.float32)
        both_ways(threads, OPS["prelu"], [x.reshape(2, 6, 10), weight], (), x.reshape(2, 6, 10))
    weight = np.full((1, 6), 0.3, np.float32)
    both_ways(threads, OPS["prelu"], [x.reshape(20, 6), weight], (), x.reshape(20, 6))


@pytest.mark.parametrize("start", [1, 2, 3, 5])
def test_arrays_that_start_anywhere(launcher: Any, start: int) -> None:
    x, grad = draw(100, "float16")
    whole = launcher.xp.asarray(np.concatenate([np.zeros(start, x.dtype), x]))
    out, dx = run(launcher, "silu", whole[start:], grad)
    same_out, same_dx = run(launcher, "silu", x, grad)
    np.testing.assert_array_equal(host(out), host(same_out))
    np.testing.assert_array_equal(host(dx), host(same_dx))


def test_a_gradient_stops_at_either_zero_and_passes_infinite(launcher: Any) -> None:
    xp = launcher.xp
    out = xp.asarray(np.array([-0.0, 0.0, 1.0, 2.0], np.float32))
    grad = xp.asarray(np.array([INF, NAN, -INF, NAN], np.float32))
    dx = host(OPS["threshold_backward"].fused_forward(launcher, grad, out))
    np.testing.assert_array_equal(dx, np.array([0, 0, -INF, NAN], np.float32))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for n in (5, 67):
        compare(threads, "gelu", *draw(n, "float32"))
        compare(threads, "elu", *draw(n, "bfloat16"))


def test_each_way_is_one_launch(launcher: Any) -> None:
    x, grad = draw(100, "float32")
    for name in CALLS:
        kernel = name.replace("log_sigmoid", "logsigmoid")
        with kernels.record() as launches:
            run(launcher, name, x, grad)
        assert launches == [f"{kernel}_forward", f"{kernel}_backward"]


def test_other_arrays_are_left_to_the_rule(launcher: Any) -> None:
    x = launcher.xp.asarray(np.ones((2, 3), np.float32))
    ctx = SimpleNamespace(saved=(x,), attrs=())
    for unfit in (x[:0], x.astype(np.int64)):
        assert OPS["silu"].fused_forward(launcher, unfit) is NotImplemented
        assert OPS["gelu"].fused_forward(launcher, unfit) is NotImplemented
        assert OPS["silu"].fused_backward(launcher, ctx, unfit) is NotImplemented
