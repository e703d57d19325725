"""matrix_exp, tensorinv, tensorsolve: norms of all sizes, derivatives, what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops.matrix_functions import MatrixExp
from gradlite.ops.namespaces import NAMESPACES
from tests.oracle import outcome_of, same


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-3, 0.1, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (5, 5), (2, 3, 4, 4)], ids=str)
def test_exponentials(shape: Any, scale: float) -> None:
    def program(T: Any) -> Any:
        a = T.tensor(draw(*shape) * scale, requires_grad=True)
        out = T.matrix_exp(a)
        size = out.detach().abs().max()
        (grad,) = T.autograd.grad((out * T.tensor(draw(*shape))).sum(), a)
        return out.detach() / size, grad / size

    same(program, rtol=1e-9, atol=1e-11)


def test_exponentials_of_matrices_of_very_different_norms() -> None:
    def program(T: Any) -> Any:
        scales = T.tensor([1e-9, 1e-2, 1.0, 30.0], dtype=T.float64)[:, None, None]
        return T.linalg.matrix_exp(T.tensor(draw(3, 3)) * scales) / (scales * 30).exp()

    same(program, rtol=1e-9, atol=1e-12)


def test_known_exponentials() -> None:
    def exp(values: Any) -> Any:
        return gradlite.matrix_exp(gradlite.tensor(values, dtype=gradlite.float64)).numpy()

    for angle in (1e-8, 0.3, 2.0, 50.0):
        rotation = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        np.testing.assert_allclose(exp([[0.0, -angle], [angle, 0.0]]), rotation, 0, 1e-14 * 50)
    np.testing.assert_allclose(exp([[1.0, 1e3], [0.0, 1.0]]), math.e * np.array([[1, 1e3], [0, 1]]))
    np.testing.assert_allclose(exp(np.diag([1.0, -700.0])), np.diag([math.e, 0.0]), 1e-13, 1e-300)


def test_exponentials_of_what_is_not_finite_and_of_nothing() -> None:
    nan = gradlite.matrix_exp(gradlite.full((2, 2), math.nan))
    assert bool(nan.isnan().all())
    assert not gradlite.matrix_exp(gradlite.full((2, 2), math.inf)).isfinite().any()
    same(lambda T: (T.matrix_exp(T.zeros(0, 0)), T.matrix_exp(T.zeros(0, 2, 2))))


@pytest.mark.parametrize("scale", [0.1, 2.0])
def test_derivatives_of_exponentials(scale: float) -> None:
    a = gradlite.tensor(draw(2, 3, 3) * scale, requires_grad=True)
    assert gradlite.autograd.gradcheck(gradlite.matrix_exp, (a,))
    assert gradlite.autograd.gradgradcheck(gradlite.matrix_exp, (a,))


def test_a_wrong_rule_is_found() -> None:
    """The negative control: a gradient that is wrong by half a thousandth."""
    op = NAMESPACES[np.ndarray].runs(MatrixExp)
    right = op.backward

    def wrong(ctx: Any, grad: Any, F: Any) -> Any:
        return (right(ctx, grad, F)[0] * 1.0005,)

    a = gradlite.tensor(draw(3, 3), requires_grad=True)
    op.backward = staticmethod(wrong)
    try:
        assert not gradlite.autograd.gradcheck(
            gradlite.matrix_exp, (a,), rtol=1e-4, raise_exception=False
        )
    finally:
        op.backward = staticmethod(right)


def test_captured_exponentials_follow_the_norm() -> None:
    def step(a: Any) -> Any:
        return gradlite.matrix_exp(a)

    captured = gradlite.capture(step)
    for scale in (0.1, 0.2, 0.1, 5.0, 0.1, 40.0):
        a = gradlite.tensor(draw(3, 3) * scale)
        np.testing.assert_allclose(captured(a).numpy(), step(a).numpy(), 1e-12)


def test_what_is_refused() -> None:
    def program(T: Any) -> Any:
        return [
            outcome_of(lambda: T.matrix_exp(T.ones(2))),
            outcome_of(lambda: T.matrix_exp(T.ones(2, 3))),
            outcome_of(lambda: T.matrix_exp(T.ones(2, 2).long())),
            outcome_of(lambda: T.linalg.tensorinv(T.ones(2, 3), ind=1)),
            outcome_of(lambda: T.linalg.tensorinv(T.ones(2, 2), ind=0)),
            outcome_of(lambda: T.linalg.tensorsolve(T.ones(2, 3), T.ones(2))),
        ]

    same(program, message="exact")
    singular = gradlite.zeros(2, 2)
    with pytest.raises(gradlite.linalg.LinAlgError, match="singular"):
        gradlite.linalg.tensorinv(singular, ind=1)
    with pytest.raises(gradlite.linalg.LinAlgError, match="singular"):
        gradlite.linalg.tensorsolve(singular, gradlite.ones(2))


def test_tensors_that_stand_for_matrices() -> None:
    def program(T: Any) -> Any:
        a = T.tensor((draw(24, 24) + 9 * np.eye(24)).reshape(4, 6, 8, 3), requires_grad=True)
        b = T.tensor(draw(4, 6), requires_grad=True)
        inverse, x = T.linalg.tensorinv(a), T.linalg.tensorsolve(a, b)
        grads = T.autograd.grad(inverse.square().sum() + x.square().sum(), (a, b))
        return inverse.detach(), x.detach(), grads

    same(program, rtol=1e-9, atol=1e-11)
