"""embedding and one_hot: bounds, padding, frequencies, limits of norms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle import outcome_of, same


@pytest.mark.parametrize("rows", [3, 300])
def test_gradients_of_rows_add_up(rows: int) -> None:
    import gradlite

    generator = np.random.default_rng(3)
    index = generator.integers(0, rows, (4, 25))
    grad = generator.standard_normal((4, 25, 5))
    weight = gradlite.zeros(rows, 5, dtype=gradlite.float64, requires_grad=True)
    out = gradlite.nn.functional.embedding(gradlite.tensor(index), weight)
    out.backward(gradlite.tensor(grad))
    expected = np.zeros((rows, 5))
    np.add.at(expected, index, grad)
    np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_padding_gets_no_gradient() -> None:
    def program(T: Any) -> Any:
        weight = T.ones(4, 2, requires_grad=True)
        index = T.tensor([[1, 3, 1], [0, 1, 2]])
        T.nn.functional.embedding(index, weight, padding_idx=1).sum().backward()
        T.nn.functional.embedding(index, weight, padding_idx=-1).sum().backward()
        return weight.grad

    same(program)


def test_frequencies() -> None:
    def program(T: Any) -> Any:
        weight = T.ones(4, 2, requires_grad=True)
        index = T.tensor([1, 3, 1, 1])
        F = T.nn.functional
        F.embedding(index, weight, scale_grad_by_freq=True).sum().backward()
        return weight.grad

    same(program)


@pytest.mark.parametrize("norm_type", [0.5, 1.0, 2.0, float("inf"), -1.0])
def test_rows_that_are_read_are_scaled_down(norm_type: float) -> None:
    def program(T: Any) -> Any:
        weight = T.tensor([[3.0, 4.0], [0.3, 0.4], [30.0, 40.0]], requires_grad=True)
        F = T.nn.functional
        out = F.embedding(T.tensor([0, 1, 0]), weight, max_norm=1.0, norm_type=norm_type)
        return out, weight

    same(program)


def test_messages_of_embedding() -> None:
    def program(T: Any) -> Any:
        F, weight, index = T.nn.functional, T.ones(3, 2), T.tensor([0])
        return [
            outcome_of(lambda: F.embedding(T.tensor([3]), weight)),
            outcome_of(lambda: F.embedding(T.tensor([-1]), weight)),
            outcome_of(lambda: F.embedding(T.tensor([0.0]), weight)),
            outcome_of(lambda: F.embedding(index, weight, padding_idx=5)),
            outcome_of(lambda: F.embedding(index, T.ones(3))),
        ]

    same(program, message="exact")


def test_sparse_gradients_are_refused() -> None:
    import gradlite

    with pytest.raises(NotImplementedError, match="sparse"):
        gradlite.nn.functional.embedding(gradlite.tensor([0]), gradlite.ones(2, 2), sparse=True)


def test_one_hot() -> None:
    def program(T: Any) -> Any:
        F = T.nn.functional
        return [
            F.one_hot(T.tensor([[0, 2], [1, 1]])),
            F.one_hot(T.tensor(1), 3),
            F.one_hot(T.tensor([], dtype=T.int64), 3),
            outcome_of(lambda: F.one_hot(T.tensor([], dtype=T.int64))),
            outcome_of(lambda: F.one_hot(T.tensor([0, 2]), 2)),
            outcome_of(lambda: F.one_hot(T.tensor([-1]))),
            outcome_of(lambda: F.one_hot(T.tensor([1.0]))),
            outcome_of(lambda: F.one_hot(T.tensor([1], dtype=T.int32))),
        ]

    same(program, message="exact")


def test_second_derivatives() -> None:
    import gradlite

    weight = gradlite.rand(5, 3, dtype=gradlite.float64, requires_grad=True)
    index = gradlite.tensor([[0, 1], [1, 4]])

    def function(w: Any) -> Any:
        return gradlite.nn.functional.embedding(index, w).square()

    assert gradlite.autograd.gradcheck(function, (weight,))
    assert gradlite.autograd.gradgradcheck(function, (weight,))
