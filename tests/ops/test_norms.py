"""Norms: every order, gradients where they have kinks, degenerate inputs, messages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.oracle import outcome_of, same

ORDERS = [2, 1, 0, 3, 0.5, 1.5, math.inf, -math.inf, -1]


@pytest.mark.parametrize("p", ORDERS)
def test_gradients_at_zeros_and_ties(p: float) -> None:
    def program(T: Any) -> Any:
        grads = []
        for values in ([0.0, 0.0], [0.0, -2.0, 2.0], [1.0, -3.0]):
            x = T.tensor(values, requires_grad=True, dtype=T.float64)
            x.norm(p).backward()
            grads.append(x.grad)
        return grads[2:] if p < 0 else grads

    same(program)


@pytest.mark.parametrize("p", [*ORDERS, "fro", None])
def test_the_forms_of_a_call(p: Any) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[1.0, -2.0, 2.0], [4.0, 0.0, 3.0]])
        return (
            T.norm(t, p),
            t.norm(p, 1),
            t.norm(p, dim=(0, 1), keepdim=True),
            t.norm(p, 0, True, dtype=T.float64),
        )

    same(program)


@pytest.mark.parametrize("order", [None, "fro", 1, -1, math.inf, -math.inf])
def test_norms_of_matrices(order: Any) -> None:
    def program(T: Any) -> Any:
        t = T.arange(12.0).reshape(2, 2, 3) - 5
        result = [T.linalg.norm(t[0], order), T.linalg.norm(t, order, dim=(1, 2))]
        if order is not None:
            result.append(T.linalg.matrix_norm(t, order, keepdim=True))
            result.append(T.linalg.matrix_norm(t, order, (0, 2)))
        return result

    same(program)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(dtype: str) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([300.0, 400.0]).to(getattr(T, dtype))
        return t.norm(), t.norm(1), T.linalg.vector_norm(t, 3)

    same(program)


def test_messages() -> None:
    def program(T: Any) -> Any:
        return [
            outcome_of(lambda: T.tensor([1, 2]).norm()),
            outcome_of(lambda: T.ones(2, 2).norm("x")),
            outcome_of(lambda: T.zeros(0).norm(math.inf)),
            outcome_of(lambda: T.zeros(0, 3).norm(math.inf, dim=0)),
            outcome_of(lambda: T.ones(2).norm(2, 1)),
            outcome_of(lambda: T.linalg.matrix_norm(T.ones(2))),
        ]

    same(program, message="exact")


def test_norms_of_nothing() -> None:
    same(lambda T: (T.zeros(0).norm(), T.zeros(0, 3).norm(1, 0), T.zeros(0, 3).norm(math.inf, 1)))


def test_distances() -> None:
    def program(T: Any) -> Any:
        a, b = T.arange(6.0).reshape(2, 3), T.ones(4, 3)
        return (
            T.cdist(a, b),
            T.cdist(a, b, p=1),
            T.cdist(a.expand(5, 2, 3), b, p=math.inf),
            outcome_of(lambda: T.cdist(a, T.ones(4, 2))),
            outcome_of(lambda: T.cdist(T.ones(3), b)),
        )

    same(program, message="exact")


def test_the_gradient_of_a_distance_of_0_is_0() -> None:
    def program(T: Any) -> Any:
        x = T.ones(2, 3, requires_grad=True)
        T.cdist(x, T.ones(2, 3)).sum().backward()
        return x.grad

    same(program)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_fast_way_for_all_elements(order: Any) -> None:
    import gradlite

    array = np.asarray(np.random.default_rng(0).standard_normal((30, 40)), order=order)
    for view in (array, array[::2], array[:, ::-1]):
        expected = np.sqrt((view * view).sum())
        assert gradlite.from_numpy(array.copy(order="K")).norm().item() > 0
        assert gradlite.tensor(view).norm().item() == pytest.approx(expected, rel=1e-12)


def test_cosines_of_different_dtypes() -> None:
    same(
        lambda library: library.nn.functional.cosine_similarity(
            library.tensor([[1, 2]]), library.tensor([[0.5, 2.0]])
        )
    )
