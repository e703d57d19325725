"""Products and running sums: zeros, both ways to accumulate, dtypes, messages."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tests.oracle import outcome_of, same

ROWS = [[2.0, 3.0, 4.0], [0.0, 3.0, 4.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", ["prod", "cumprod"])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_gradients_past_zeros(name: str, row: list[float]) -> None:
    def program(T: Any) -> Any:
        x = T.tensor(row, requires_grad=True)
        (
            getattr(x, name)(0) * T.tensor([1.0, 10.0, 100.0])[: 1 if name == "prod" else 3]
        ).sum().backward()
        return x.grad

    same(program)


@pytest.mark.parametrize("name", ["prod", "cumprod", "cumsum"])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_second_derivatives_past_zeros(name: str, row: list[float]) -> None:
    import gradlite

    x = gradlite.tensor([row, row[::-1]], requires_grad=True, dtype=gradlite.float64)

    def function(t: Any) -> Any:
        return getattr(t, name)(1)

    assert gradlite.autograd.gradcheck(function, (x,))
    assert gradlite.autograd.gradgradcheck(function, (x,))


@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("shape", [(2, 3, 4), (900, 2, 3), (2, 2, 900), (2, 700, 2)], ids=str)
def test_both_ways_to_accumulate(name: str, dim: int, shape: tuple[int, ...]) -> None:
    import gradlite

    values = np.random.default_rng(0).uniform(0.99, 1.01, shape)
    for view in (values, values[::-1], values[:, ::-1]):
        result = getattr(gradlite.tensor(view), name)(dim)
        np.testing.assert_allclose(result.numpy(), getattr(view, name)(axis=dim), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "bool", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["prod", "cumsum", "cumprod"])
def test_dtypes(name: str, dtype: str) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([1, 0, 1, 1]).to(getattr(T, dtype))
        return getattr(t, name)(0), getattr(t, name)(0, dtype=T.float64)

    same(program)


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize(
    ("shape", "dim"), [((5000,), 0), ((60, 33), 0), ((33, 60), 1), ((3, 700, 2), 1)], ids=str
)
@pytest.mark.parametrize("name", ["cumsum", "cumprod", "logcumsumexp"])
def test_running_results_have_the_bits_of_pytorch(
    name: str, shape: tuple[int, ...], dim: int, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both keep what runs on in double precision, where errors of single precision would add up."""
    from gradlite.ops import natively

    if not kernels:
        monkeypatch.delitem(natively.LAUNCHERS, np)
    values = np.random.default_rng(0).standard_normal(shape).astype("f4")
    if name == "cumprod":
        values = 1 + values / 64

    def program(T: Any) -> Any:
        made = []
        for array in (values, values[::-1].copy()):
            x = T.tensor(array, requires_grad=True)
            y = getattr(x, name)(dim)
            made.append(y.detach())
            if name != "logcumsumexp":  # whose rule is another one
                made += T.autograd.grad(y, x, T.cos(x.detach() * 100).round(decimals=3))
        return made

    same(program, rtol=0, atol=0)


def test_half_precision_adds_up_in_single() -> None:
    same(lambda T: T.ones(5000, dtype=T.float16).cumsum(0)[-1], rtol=1e-3)


def test_in_place() -> None:
    def program(T: Any) -> Any:
        x = T.tensor([1.0, 2.0, 3.0], requires_grad=True)
        y = x * 1
        y.cumsum_(0)
        y.cumprod_(0)
        y.sum().backward()
        return y, x.grad, outcome_of(lambda: T.tensor([1, 2]).int().cumsum_(0))

    same(program)


def test_messages() -> None:
    def program(T: Any) -> Any:
        t = T.ones(2, 2)
        return [
            outcome_of(lambda: t.cumsum(2)),
            outcome_of(lambda: t.prod(-3)),
            outcome_of(lambda: t.cumsum(0, dtype=T.int64)),
        ]

    same(program, message="exact")


def test_a_tuple_of_dimensions_is_refused() -> None:
    same(lambda T: T.ones(2, 2).prod((0, 1)), raises=TypeError, message="type")


def test_products_of_nothing() -> None:
    same(lambda T: (T.zeros(0).prod(), T.zeros(0, 2).prod(0), T.zeros(0, 2).cumsum(0)))


@pytest.mark.parametrize("dim", [0, 1])
def test_gradients_past_zeros_in_long_rows(dim: int) -> None:
    """Without a matrix for every row, which would take 20 GB here."""

    def program(T: Any) -> Any:
        values = 1 + 0.01 * T.sin(T.arange(100_000.0, dtype=T.float64)).reshape(2, -1)
        values[0, 70] = values[0, 49_000] = values[1, 20_000] = 0
        x = (values if dim else values.T).contiguous().requires_grad_()
        x.cumprod(dim).backward(T.cos(x.detach() * 100))
        return x.grad

    same(program)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", ["cumprod", "prod"])
def test_gradients_beside_what_is_no_number(name: str, create_graph: bool) -> None:
    numbers = [0.0, 1.0, -2.0, float("inf"), float("nan")]
    rows = [*itertools.product(numbers, repeat=4)]

    def program(T: Any) -> Any:
        results = []
        for some in (rows, [row for row in rows if 0.0 not in row], [[float("inf")]]):
            x = T.tensor(some, requires_grad=True)
            out = getattr(x, name)(1)
            slopes = T.tensor([1.0, 2.0, 0.0, 4.0])[: len(some[0])] if name == "cumprod" else 3.0
            results += T.autograd.grad((out * slopes).sum(), x, create_graph=create_graph)
        return [r.detach() for r in results]

    same(program)


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_of_the_product_of_all_beside_what_is_no_number(create_graph: bool) -> None:
    numbers = [0.0, 1.0, float("inf"), float("nan")]

    def program(T: Any) -> Any:
        results = []
        for row in itertools.product(numbers, repeat=4):
            x = T.tensor(row, requires_grad=True)
            results += T.autograd.grad(x.prod() * 3, x, create_graph=create_graph)
        return [r.detach() for r in results]

    same(program)


@pytest.mark.parametrize("name", ["cumprod", "prod"])
def test_second_derivatives_past_zeros_in_long_rows(name: str) -> None:
    """Without a matrix for every row, which would take 3 GB here."""
    import gradlite

    def slopes(x: Any) -> Any:
        out = getattr(x, name)(0) * 3
        return gradlite.autograd.grad(out.sum(), x, create_graph=True)[0]

    values = 1 + 0.01 * gradlite.sin(gradlite.arange(20_000.0, dtype=gradlite.float64))
    values[70] = 0
    x = values.clone().requires_grad_()
    weights = gradlite.cos(gradlite.arange(20_000.0, dtype=gradlite.float64))
    (found,) = gradlite.autograd.grad((slopes(x) * weights).sum(), x)
    step = 1e-6 * weights  # of a symmetric matrix
    ends = [slopes((values + s).requires_grad_()).detach() for s in (step, -step)]
    expected = (ends[0] - ends[1]) / 2e-6
    gradlite.testing.assert_close(
        found, expected, rtol=1e-5, atol=1e-5 * float(abs(expected).max())
    )
