"""Functions of elements by compiled code against PyTorch and the rules."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import elements
from gradlite.ops import natively
from tests.oracle import same

needs_code = pytest.mark.skipif(elements.find("sign", "f") is None, reason="no C++ compiler")
FUNCTIONS = {
    "lgamma": lambda T, x: T.lgamma(x),
    "digamma": lambda T, x: T.digamma(x),
    "trigamma": lambda T, x: T.polygamma(1, x),
    "sign": lambda T, x: T.sign(x),
    "abs": lambda T, x: T.abs(x),
}
ODD = [0.0, -0.0, 1.0, 2.0, -1.5, float("inf"), -float("inf"), float("nan"), 1e30, 1e-20, 3.0]


def numbers(dtype: str) -> Any:
    """Numbers of both signs, some of them odd, more than compiled code is worth."""
    x = np.random.default_rng(0).uniform(-20, 20, (35, 60)).astype(dtype)
    x[0, : len(ODD)] = ODD
    x[1] = np.linspace(0.9, 2.1, 60)
    x[2] = np.linspace(1e-3, 200, 60)
    return x


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients(name: str, dtype: str) -> None:
    """PyTorch's own derivatives of lgamma have errors of 1e-5 in float32, 1e-10 in float64."""

    def program(T: Any) -> Any:
        x = T.tensor(numbers(dtype), requires_grad=True)
        y = FUNCTIONS[name](T, x)
        (grad,) = T.autograd.grad(
            y, x, T.linspace(-1, 2, x.numel(), dtype=x.dtype).reshape(x.shape)
        )
        below = (x < 0) & (x.detach() == x.detach().round())  # where PyTorch's trigamma is 1e15
        if name == "trigamma":  # of whose slope PyTorch has no values where x is negative, or 0
            grad = T.zeros(1)
        else:
            grad = grad.masked_fill(below, 0)
        return y.detach().masked_fill(below, 0), grad

    same(program, rtol=2e-3 if dtype == "f4" else 1e-8, atol=1e-5 if dtype == "f4" else 1e-9)


@needs_code
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_they_are_the_rules(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for code in (True, False):
        if not code:
            monkeypatch.delitem(natively.LAUNCHERS, np)
        x = gradlite.tensor(numbers(dtype)).requires_grad_()
        y = FUNCTIONS[name](gradlite, x)
        (grad,) = gradlite.autograd.grad(y, x, gradlite.cos(x.detach().nan_to_num()))
        made.append([y.detach().numpy(), grad.numpy()])
    for a, b in zip(*made):
        rtol = 2e-7 if dtype == "f4" else 2e-13
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
        np.testing.assert_array_equal(np.signbit(a[b == 0]), np.signbit(b[b == 0]))


@needs_code
@pytest.mark.parametrize("name", FUNCTIONS)
def test_they_are_computed_by_compiled_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    real = elements.values

    def values(xp: Any, name: str, *arrays: Any) -> Any:
        names.append(name)
        return real(xp, name, *arrays)

    monkeypatch.setattr(elements, "values", values)
    for n in (elements.LEAST - 1, elements.LEAST):
        assert not names
        x = gradlite.ones(n, requires_grad=True)
        FUNCTIONS[name](gradlite, x).sum().backward()
    assert names


@needs_code
def test_second_derivatives_are_of_the_rule() -> None:
    x = gradlite.linspace(0.5, 9, 1200, dtype=gradlite.float64).requires_grad_()
    (first,) = gradlite.autograd.grad(gradlite.lgamma(x).sum(), x, create_graph=True)
    (second,) = gradlite.autograd.grad(first.sum(), x)
    np.testing.assert_allclose(second, gradlite.polygamma(1, x.detach()), rtol=1e-13)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_layouts(name: str) -> None:
    """Results lie as the inputs do."""

    def program(T: Any) -> Any:
        x = T.tensor(np.abs(numbers("f8")[3:].reshape(16, 12, 10)) + 0.1)
        views = [x.permute(2, 0, 1), x.transpose(0, 1), x[:, ::2], x[:, :1].expand(16, 12, 10)]
        made = []
        for view in views:
            y = FUNCTIONS[name](T, view)
            made += [y, y.stride() if view.stride()[1] else ()]
        z = x.clone().requires_grad_()
        FUNCTIONS[name](T, z.permute(1, 2, 0)).backward(
            T.ones(10, 12, 16).permute(1, 0, 2)[:, :, :]
        )
        return [*made, z.grad]

    same(program, rtol=1e-8)


@needs_code
@pytest.mark.parametrize("dtype", [gradlite.float16, gradlite.bfloat16])
def test_halves_are_rounded_once(dtype: Any) -> None:
    x = gradlite.rand(2000).to(dtype)
    assert gradlite.equal(gradlite.lgamma(x), gradlite.lgamma(x.float()).to(dtype))


@needs_code
@pytest.mark.parametrize("native", [True, False])
def test_captured_steps(native: bool) -> None:
    def step(x: Any) -> Any:
        x = x.detach().requires_grad_()
        y = gradlite.lgamma(x) + gradlite.sign(x) + x.abs()
        y.backward(gradlite.ones_like(y))
        return y.detach(), x.grad

    x = gradlite.rand(50, 60) + 0.5
    captured = gradlite.capture(step, native=native)
    for _ in range(5):
        made = captured(x)
    assert captured.replays >= 2
    for a, b in zip(made, step(x)):
        np.testing.assert_allclose(a, b, rtol=1e-6 if native else 0, atol=1e-6 if native else 0)


REMAINDERS = ["remainder", "fmod", "floor_divide"]
OF_TWO = [*REMAINDERS, "logaddexp", "logaddexp2", "copysign", "hypot"]


def pairs(dtype: str) -> tuple[Any, Any]:
    """Numbers of many sizes and every pair of odd ones, though no quotient that overflows."""
    random = np.random.default_rng(0)
    odd = [*ODD[:8], 7.5, -0.1]
    a, b = (grid.ravel() for grid in np.meshgrid(odd, odd))
    a = np.concatenate([a, random.standard_normal(1500) * 10.0 ** random.integers(-5, 9, 1500)])
    b = np.concatenate([b, random.standard_normal(1500) * 10.0 ** random.integers(-5, 5, 1500)])
    return a.astype(dtype), b.astype(dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", OF_TWO)
def test_functions_of_two(name: str, dtype: str) -> None:
    a, b = pairs(dtype)
    exact = name in REMAINDERS or name == "copysign"

    def program(T: Any) -> Any:
        function, x, y = getattr(T, name), T.tensor(a), T.tensor(b)
        made = [
            function(x, y),
            function(x, y[200]),
            function(x.reshape(40, 40).T, y.flip(0).reshape(40, 40)),
        ]
        if exact:
            made += [function(x, 1.5), function(x, -3), function(x, 0.0)]
        return made

    if exact:
        same(program, rtol=0, atol=0)
    else:
        same(program, rtol=2e-6 if dtype == "f4" else 1e-14, atol=1e-6 if dtype == "f4" else 1e-14)


def test_erf_and_its_rest() -> None:
    x = np.concatenate([np.linspace(-5, 10.5, 3000), ODD]).astype("f4")
    same(lambda T: (T.erfc(T.tensor(x)), T.erf(T.tensor(x))), rtol=1e-6)


def test_the_inverse_of_erf() -> None:
    x = np.concatenate([np.linspace(-1, 1, 3000), 1 - 10.0 ** np.linspace(-7, -1, 500)])
    x = np.concatenate([x, [1.5, -1.5, float("nan"), -0.0, 1e-30]]).astype("f4")
    same(lambda T: T.erfinv(T.tensor(x)), rtol=4e-7)


@pytest.mark.parametrize("exponent", [0.5, -0.5])
def test_roots_that_are_written_as_powers(exponent: float) -> None:
    same(lambda T: T.tensor([4.0, -0.0, 0.0, -1.0, float("inf"), -float("inf")]) ** exponent)


@needs_code
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_casts(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.concatenate([*[pairs("f4")[0]] * 3, np.float32(2.0) ** np.arange(-30, 20)])

    def program(T: Any) -> Any:
        half = T.tensor(values[:4800].reshape(60, 80)).T.to(getattr(T, dtype))
        back = T.tensor(values).to(getattr(T, dtype)).float()
        return (
            half,
            half.stride(),
            back,
            half.float().stride(),
            half[:, ::2].float(),
            half[0].float(),
        )

    same(program, rtol=0, atol=0)
    x = gradlite.tensor(values)
    made = x.to(getattr(gradlite, dtype)).float()
    monkeypatch.delitem(natively.LAUNCHERS, np)
    np.testing.assert_array_equal(made, x.to(getattr(gradlite, dtype)).float())


def askew(values: Any) -> Any:
    """The same numbers where no number of their size may begin."""
    room = np.empty(values.nbytes + 1, np.uint8)[1:]
    made = room.view(values.dtype).reshape(values.shape)
    made[...] = values
    return made


def from_a_file(values: Any) -> Any:
    """The same numbers with a dtype that is equal to NumPy's own, and another object."""
    return pickle.loads(pickle.dumps(values))


@pytest.mark.parametrize("change", [askew, from_a_file])
@pytest.mark.parametrize("turned", [False, True])
def test_arrays_that_compiled_code_does_not_take(change: Any, turned: bool) -> None:
    values = np.random.default_rng(0).uniform(0.5, 2, (70, 80)).astype("f4")
    x = change(values.T if turned else values)
    assert not x.flags.aligned or x.dtype is not np.dtype("f4")

    def results(t: Any) -> list[Any]:
        half = t.half()
        return [
            *(f(gradlite, t) for f in FUNCTIONS.values()), half, half.float(), t.bfloat16(),
            t.fmod(0.3), gradlite.hypot(t, t), t.sum(), t.mean(1), t.var(0), t.std(), t.amax(1),
            t.min(), t.cumsum(0), t.logsumexp(0),
        ]  # fmt: skip

    plain = np.array((values.T if turned else values).tolist(), "f4")
    for made, expected in zip(results(gradlite.from_numpy(x)), results(gradlite.tensor(plain))):
        np.testing.assert_allclose(made.float(), expected.float(), rtol=1e-6)
