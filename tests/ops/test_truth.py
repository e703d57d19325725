"""all, any, isclose, allclose, equal, count_nonzero: dtypes, devices of NaN and inf, messages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same

NAN, INF = float("nan"), float("inf")
DTYPES = ["float16", "bfloat16", "float32", "uint8", "int8", "int64", "bool"]


@pytest.mark.parametrize("name", ["all", "any", "count_nonzero"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(name: str, dtype: str) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[1, 0, 1], [2, 1, 1], [0, 0, 0]]).to(getattr(T, dtype))
        return getattr(t, name)(), getattr(t, name)(dim=1), getattr(T, name)(t, dim=(0, 1))

    same(program)


@pytest.mark.parametrize("name", ["all", "any"])
def test_empty_tensors_and_no_dimensions(name: str) -> None:
    def program(T: Any) -> Any:
        t = T.zeros(0, 3)
        return (
            getattr(t, name)(),
            getattr(t, name)(0),
            getattr(t, name)(1, keepdim=True),
            getattr(T.tensor([[0.0, 2.0]]), name)(dim=()),
            getattr(T.tensor(NAN), name)(),
            outcome_of(lambda: getattr(t, name)(2)),
        )

    same(program, message="exact")


VALUES = [1.0, 1.0 + 1e-6, 2.0, INF, -INF, NAN, 0.0, 1e-9]


@pytest.mark.parametrize("equal_nan", [False, True])
@pytest.mark.parametrize("tolerances", [(1e-5, 1e-8), (0, 0), (0.5, 0), (0, 0.5)], ids=str)
def test_isclose_of_all_pairs(tolerances: Any, equal_nan: bool) -> None:
    def program(T: Any) -> Any:
        t = T.tensor(VALUES, dtype=T.float64)
        return T.isclose(t[:, None], t, *tolerances, equal_nan=equal_nan)

    same(program)


def test_isclose_of_integers() -> None:
    same(lambda T: T.isclose(T.tensor([1, 100]), T.tensor([2, 101]), rtol=0.1))


def test_allclose_and_equal() -> None:
    def program(T: Any) -> Any:
        a = T.tensor([1.0, 2.0])
        return (
            T.allclose(a, a + 1e-7),
            a.allclose(a + 1, atol=1),
            T.equal(a, a.double()),
            T.equal(a, T.tensor([1, 2])),
            T.equal(a, T.ones(3)),
            a.equal(T.tensor([1.0, NAN])),
            T.allclose(T.zeros(0), T.zeros(0)),
        )

    same(program)


def test_messages() -> None:
    def program(T: Any) -> Any:
        a = T.ones(2)
        return [
            outcome_of(lambda: T.isclose(a, a.double())),
            outcome_of(lambda: T.isclose(a, a, rtol=-1)),
            outcome_of(lambda: T.isclose(a, a, atol=-1)),
            outcome_of(lambda: T.allclose(a, T.ones(3))),
            outcome_of(lambda: T.isclose(a, 1.0)),
            outcome_of(lambda: T.equal(a, 1)),
        ]

    same(program, message="exact")


def test_no_gradient_and_no_warning() -> None:
    import gradlite

    x = gradlite.tensor([INF, -INF, NAN], requires_grad=True)
    for result in (x.isclose(x), x.all(), x.any(), x.count_nonzero()):
        assert not result.requires_grad
