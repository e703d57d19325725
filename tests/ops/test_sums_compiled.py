"""Sums, means and variances by compiled code: precision, shapes, layouts, what is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.nn import functional as F
from gradlite.ops import sums_compiled
from tests.oracle import same

needs_code = pytest.mark.skipif(sums_compiled._functions("f") is None, reason="no C++ compiler")
# Shapes, and the dimensions that are summed.
REDUCED: list[tuple[tuple[int, ...], Any]] = [
    ((100_003,), None), ((1562, 64), 0), ((1562, 64), 1), ((64, 1562), 0), ((64, 1562), 1),
    ((316, 317), 0), ((2, 3, 50, 17), (0, 2)), ((20, 16, 9, 5), (0, 2, 3)), ((7, 1000, 3), 1),
    ((2048, 10), 0), ((5000, 1), 0), ((5000, 1), 1), ((1, 5000), 0), ((300, 1, 20), (0, 1)),
    ((3, 70_000), 0), ((70_000, 3), 1),
]  # fmt: skip


@contextmanager
def without_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(sums_compiled, "_functions", lambda char: None)
        yield


def error(made: Any, exact: Any) -> float:
    return float(np.linalg.norm(made - exact) / np.linalg.norm(exact))


@needs_code
@pytest.mark.parametrize(("shape", "dims"), REDUCED, ids=str)
@pytest.mark.parametrize("name", ["sum", "mean", "var", "std"])
def test_precision(name: str, shape: tuple[int, ...], dims: Any) -> None:
    for dtype, bound in (("f4", 1.2e-7), ("f8", 4e-16)):
        x = (np.random.default_rng(0).random(shape) + 1).astype(dtype)
        if name in ("var", "std") and x.size == x.sum(dims).size:
            return  # there is none of one number
        more = {"ddof": 1} if name in ("var", "std") else {}
        exact = getattr(x.astype(np.longdouble), name)(dims, **more)
        for keepdim in (False, True):
            axes = tuple(range(x.ndim)) if dims is None else dims
            made = getattr(gradlite.from_numpy(x), name)(axes, keepdim=keepdim).numpy()
            assert made.dtype == x.dtype
            wide = 2 if name in ("var", "std") else 1
            assert error(made.reshape(exact.shape), exact) < wide * bound
            assert made.shape == x.sum(axes, keepdims=keepdim).shape


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "turned": lambda x: x.T,
    "two turned": lambda x: x.swapaxes(0, 1),
    "every other": lambda x: x[:, ::2],
    "spread": lambda x: np.broadcast_to(x[:, :1], x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dims", [0, 1, (0, 1), (0, 2), (1, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("code", [True, False])
def test_layouts(layout: str, dims: Any, code: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not code:
        monkeypatch.setattr(sums_compiled, "_functions", lambda char: None)
    x = LAYOUTS[layout](np.random.default_rng(0).standard_normal((40, 50, 30)))
    t = gradlite.from_numpy(x) if x.flags.writeable else gradlite.tensor(x[:, :1]).expand(*x.shape)
    for name in ("sum", "mean", "std"):
        made = getattr(t, name)(dims)
        expected = getattr(x, name)(dims, **({"ddof": 1} if name == "std" else {}))
        np.testing.assert_allclose(made.numpy(), expected, rtol=1e-12, atol=1e-12)
        assert made.is_contiguous()


@pytest.mark.parametrize("dim", [None, 0, 1])
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf"), -0.0])
def test_what_is_not_finite(odd: float, dim: int | None) -> None:
    def program(T: Any) -> Any:
        x = T.full((90, 70), odd if odd == 0 else 1.0)
        x[3, 5] = x[40, 5] = x[41, 6] = odd
        x[50, 6] = -odd
        made = (
            [x.sum(), x.mean(), x.var()] if dim is None else [x.sum(dim), x.mean(dim), x.std(dim)]
        )
        return [*made, T.signbit(made[0]) if odd == 0 else None]

    same(program, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "bool"])
def test_dtypes(dtype: str) -> None:
    def program(T: Any) -> Any:
        x = (T.arange(6000).reshape(60, 100) % 7).to(getattr(T, dtype))
        return x.sum(), x.sum(0), x.sum(1, dtype=T.float64), x.float().mean(1)

    same(program, rtol=1e-2 if "float" in dtype else 0)


@needs_code
def test_no_bit_depends_on_the_number_of_threads() -> None:
    x = gradlite.randn(3, 1100, 700)
    before = gradlite.get_num_threads()
    made = []
    try:
        for threads in (1, 2):
            gradlite.set_num_threads(threads)
            made.append([x.sum(), x.sum(1), x.sum((0, 1)), x.sum((1, 2)), x.var(0)])
    finally:
        gradlite.set_num_threads(before)
    assert all(gradlite.equal(a, b) for a, b in zip(*made))


@needs_code
def test_gradients_of_biases_are_as_precise() -> None:
    x = np.random.default_rng(0).standard_normal((2048, 64)).astype("f4")
    weight, bias = gradlite.zeros(64, 8), gradlite.zeros(64, requires_grad=True)
    F.linear(gradlite.zeros(2048, 8), weight, bias).backward(gradlite.from_numpy(x))
    assert bias.grad is not None
    assert error(bias.grad.numpy(), x.astype("f8").sum(0)) < 1e-7


@needs_code
@pytest.mark.parametrize("shape", [(8, 6, 32, 32), (200, 24, 4, 5), (300, 40)], ids=str)
def test_means_and_variances_of_batches_are_as_precise(shape: tuple[int, ...]) -> None:
    """Means that are small beside the spread: the shift of the kernel's sums is far from them."""
    x = np.random.default_rng(1).standard_normal(shape).astype("f4")
    layer = gradlite.from_numpy(x)
    made = F.batch_norm(layer, None, None, None, None, True).numpy()
    axes = (0, *range(2, x.ndim))
    wide = x.astype("f8")
    exact = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + 1e-5)
    assert error(made, exact) < 1.5e-7


@pytest.mark.parametrize("shape", [(200_000,), (1500, 70)], ids=str)
def test_logarithms_of_long_sums(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype("f4")
    made = gradlite.logsumexp(gradlite.from_numpy(x), 0).numpy()
    assert error(made, np.log(np.exp(x.astype("f8")).sum(0))) < 6e-8


@needs_code
def test_array_calls_of_captured_steps_have_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    x = gradlite.randn(70, 90)

    def step(x: Any) -> Any:
        return x.sum(0), x.mean(), x.var(0), x.std(1)

    captured = gradlite.capture(step, native=False)
    for _ in range(5):
        made = captured(x)
    assert captured.replays >= 2
    for a, b in zip(made, step(x)):
        assert gradlite.equal(a, b)
    with without_code(monkeypatch):
        for a, b in zip(made, step(x)):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["amax", "amin"])
@pytest.mark.parametrize("odd", [None, float("nan"), float("inf"), -float("inf")])
def test_extremes(odd: float | None, name: str) -> None:
    values = np.random.default_rng(0).standard_normal((24, 36, 20))
    if odd is not None:
        values[3, 7, 9] = values[20, 30, 1] = odd

    def program(T: Any) -> Any:
        made = []
        for dtype in (T.float32, T.float64):
            x = T.tensor(values, dtype=dtype)
            for t in (x, x.permute(2, 1, 0), x.transpose(0, 1), x[:, :, ::2], x.reshape(-1)):
                for dims in (None, 0, 1, 2, (0, 1), (1, 2), (0, 2)):
                    if t.dim() == 3 or dims in (None, 0):
                        made.append(getattr(t, name)(() if dims is None else dims, keepdim=True))
            made += [x.max(), x.min(), *T.aminmax(x, dim=1)]
        return made

    same(program, rtol=0, atol=0)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_running_extremes(name: str, dim: int) -> None:
    values = np.random.default_rng(0).integers(-40, 40, (50, 60)).astype("f4")
    values[4, 7] = values[9, 9] = np.nan
    same(lambda T: tuple(getattr(T.tensor(values, requires_grad=True) * 1, name)(dim)))
