"""pinv, matrix_rank, lstsq, cond and norms of singular values: tolerances, drivers, derivatives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops.least_squares import Lstsq, Pinv
from gradlite.ops.namespaces import NAMESPACES
from tests.oracle import outcome_of, same


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def low_rank(*shape: int) -> np.ndarray:
    return draw(*shape[:-1], 2) @ draw(*shape[:-2], 2, shape[-1])


def loss_of(T: Any, out: Any) -> Any:
    return (out * T.tensor(draw(*out.shape))).sum() + (out**2).sum()


# ------------------------------------------------------------------- pseudo-inverses
@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (2, 3, 3), (4, 4), (1, 1)], ids=str)
@pytest.mark.parametrize("make", [draw, low_rank])
def test_pseudo_inverses_and_their_gradients(make: Any, shape: Any) -> None:
    if make is low_rank and shape == (1, 1):
        shape = (5, 6)

    def program(T: Any) -> Any:
        a = T.tensor(make(*shape), requires_grad=True)
        out = T.linalg.pinv(a)
        return out.detach(), T.autograd.grad(loss_of(T, out), a)

    same(program, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("shape", [(4, 3), (2, 4), (2, 3, 3)], ids=str)
def test_derivatives_of_pseudo_inverses(shape: Any) -> None:
    a = gradlite.tensor(draw(*shape), requires_grad=True)
    assert gradlite.autograd.gradcheck(gradlite.linalg.pinv, (a,))
    assert gradlite.autograd.gradgradcheck(gradlite.linalg.pinv, (a,))


def test_derivatives_where_the_rank_is_low_and_stays_so() -> None:
    def function(x: Any, y: Any) -> Any:
        return gradlite.linalg.pinv(x @ y, rtol=1e-6)

    x = gradlite.tensor(draw(4, 2), requires_grad=True)
    y = gradlite.tensor(draw(2, 3), requires_grad=True)
    assert gradlite.autograd.gradcheck(function, (x, y))
    assert gradlite.autograd.gradgradcheck(function, (x, y))


def symmetric(T: Any) -> Any:
    a = T.tensor(draw(2, 3, 3), requires_grad=True)
    return a, a + a.mT


def test_hermitian_pseudo_inverses() -> None:
    def program(T: Any) -> Any:
        leaf, a = symmetric(T)
        out = T.linalg.pinv(a, hermitian=True)
        return out.detach(), T.autograd.grad(loss_of(T, out), leaf)

    same(program, rtol=1e-8, atol=1e-9)


TOLERANCES = {
    "rcond": lambda T: {"rcond": 0.4},
    "rcond of a tensor": lambda T: {"rcond": T.tensor([0.4, 1e-9])},
    "atol": lambda T: {"atol": 1.0},
    "atol of a tensor": lambda T: {"atol": T.tensor([1.0, 0.0])},
    "atol with a usual rtol": lambda T: {"atol": 0.0},
    "rtol": lambda T: {"rtol": T.tensor(0.4)},
    "both": lambda T: {"atol": T.tensor(0.1), "rtol": 0.6},
    "hermitian": lambda T: {"atol": 1.0, "hermitian": True},
}


@pytest.mark.parametrize("name", TOLERANCES)
def test_tolerances(name: str) -> None:
    def program(T: Any) -> Any:
        a = symmetric(T)[1].detach().requires_grad_()
        options = TOLERANCES[name](T)
        out = T.linalg.pinv(a, **options)
        if "rcond" in options:
            options["rtol"] = options.pop("rcond")
        rank = T.linalg.matrix_rank(a, **options)
        return out.detach(), rank

    same(program, rtol=1e-8, atol=1e-9)


def test_gradients_of_matrices_that_several_tolerances_share() -> None:
    a = gradlite.tensor(draw(3, 2), requires_grad=True)
    several = gradlite.linalg.pinv(a, atol=gradlite.tensor([0.0, 1e-3], dtype=a.dtype))
    one = gradlite.linalg.pinv(a)
    (grad,) = gradlite.autograd.grad(several.sum(), a)
    (expected,) = gradlite.autograd.grad(2 * one.sum(), a)
    np.testing.assert_allclose(grad.numpy(), expected.numpy(), 1e-12)
    limits = gradlite.tensor([[1.0], [9.0]])
    ranks = gradlite.linalg.matrix_rank(gradlite.diag(gradlite.tensor([2.0, 0.5])), atol=limits)
    assert ranks.tolist() == [[1], [0]]


def test_ranks() -> None:
    def program(T: Any) -> Any:
        a, flat = T.tensor(low_rank(2, 4, 3)), T.zeros(3, 2)
        rank = T.linalg.matrix_rank
        return (
            rank(a),
            rank(flat),
            rank(a, 1e9),
            rank(a, tol=T.tensor(0.1)),
            rank(a @ a.mT, hermitian=True),
            rank(T.eye(2), 0.5, True),
            rank(T.zeros(2, 0, 3)),
            rank(a.requires_grad_()).requires_grad,
        )

    same(program)


@pytest.mark.parametrize("name", ["pinv", "matrix_rank"])
def test_what_is_refused(name: str) -> None:
    def program(T: Any) -> Any:
        function = getattr(T.linalg, name)
        eye, wanting = T.eye(2), T.ones((), requires_grad=True)
        return [
            outcome_of(lambda: function(T.ones(2))),
            outcome_of(lambda: function(eye.long())),
            outcome_of(lambda: function(eye.half())),
            outcome_of(lambda: function(T.ones(2, 3), hermitian=True)),
            outcome_of(lambda: T.linalg.pinv(eye, atol=wanting)),
        ]

    same(program, message="exact")
    for hermitian in (False, True):
        bad = gradlite.diag(gradlite.tensor([1.0, math.nan, 2.0])) + 1
        with pytest.raises(gradlite.linalg.LinAlgError, match="algorithm failed to converge"):
            getattr(gradlite.linalg, name)(bad, hermitian=hermitian)


# --------------------------------------------------------------------- least squares
SYSTEMS = {
    "tall": ((4, 3), (4, 2)),
    "wide": ((2, 3), (2, 2)),
    "square": ((3, 3), (3, 1)),
    "a vector": ((4, 3), (4,)),
    "vectors": ((2, 4, 3), (2, 4)),
    "a batch": ((2, 4, 3), (2, 4, 2)),
}
EMPTY = [((0, 3), (0, 2)), ((3, 0), (3, 2)), ((3, 2), (3, 0)), ((0, 3, 2), (0, 3))]


@pytest.mark.parametrize("driver", [None, "gels", "gelsy", "gelsd", "gelss"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_solutions_and_gradients_of_least_squares(name: str, driver: str | None) -> None:
    one, other = SYSTEMS[name]

    def program(T: Any) -> Any:
        a = T.tensor(draw(*one), requires_grad=True)
        b = T.tensor(draw(*other), requires_grad=True)
        x, residuals, rank, values = T.linalg.lstsq(a, b, driver=driver)
        loss = loss_of(T, x) + (residuals**2).sum()
        grads = T.autograd.grad(loss, (a, b))
        return x.detach(), residuals.detach(), rank, values, grads

    same(program, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("shapes", EMPTY, ids=str)
def test_empty_systems(shapes: Any) -> None:
    same(lambda T: T.linalg.lstsq(*(T.zeros(*shape) for shape in shapes)))


@pytest.mark.parametrize("driver", ["gelsy", "gelsd", "gelss"])
def test_systems_of_low_rank(driver: str) -> None:
    def program(T: Any) -> Any:
        a, b = T.tensor(low_rank(4, 3)), T.tensor(draw(4, 2))
        return T.linalg.lstsq(a, b, driver=driver)[:3], T.linalg.lstsq(a, b, 0.9, driver=driver)[2]

    same(program, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((2, 3), (2, 1))], ids=str)
def test_derivatives_of_least_squares(shapes: Any) -> None:
    a, b = (gradlite.tensor(draw(*s), requires_grad=True) for s in shapes)

    def function(a: Any, b: Any) -> Any:
        x, residuals, *_ = gradlite.linalg.lstsq(a, b, driver="gelsd")
        return x, residuals

    assert gradlite.autograd.gradcheck(function, (a, b))
    assert gradlite.autograd.gradgradcheck(function, (a, b))


def test_systems_that_are_refused() -> None:
    def program(T: Any) -> Any:
        solve, a, b = T.linalg.lstsq, T.ones(3, 2), T.ones(3, 4)
        return [
            outcome_of(lambda: solve(T.ones(3), b)),
            outcome_of(lambda: solve(a, T.ones(()))),
            outcome_of(lambda: solve(a, T.ones(2, 4))),
            outcome_of(lambda: solve(a, T.ones(5, 3, 4))),
            outcome_of(lambda: solve(a, b.double())),
            outcome_of(lambda: solve(a.half(), b.half())),
            outcome_of(lambda: solve(a, b, driver="qr")),
        ]

    same(program, message="exact")
    with pytest.raises(gradlite.linalg.LinAlgError, match="algorithm failed to converge"):
        gradlite.linalg.lstsq(gradlite.full((2, 2), math.nan), gradlite.ones(2))
    with pytest.raises(gradlite.linalg.LinAlgError, match="does not have full rank"):
        gradlite.linalg.lstsq(gradlite.ones(3, 2), gradlite.ones(3, 1), driver="gels")


# ------------------------------------------------------------------------ conditions
ORDERS = [None, 2, -2, 1, -1, math.inf, -math.inf, "fro", "nuc"]


@pytest.mark.parametrize("p", ORDERS)
def test_condition_numbers(p: Any) -> None:
    def program(T: Any) -> Any:
        a = T.tensor(draw(2, 3, 3) + 3 * np.eye(3))
        singular = T.stack([T.eye(2), T.ones(2, 2), T.tensor([[1.0, 2.0], [0.0, 1.0]])])
        values = T.linalg.cond(a, p), T.linalg.cond(T.zeros(3, 0, 0), p)
        return values if p in (None, 2, -2, "nuc") else (*values, T.linalg.cond(singular, p))

    same(program)


@pytest.mark.parametrize("p", [None, 2, -2, "nuc"])
def test_gradients_of_condition_numbers(p: Any) -> None:
    def program(T: Any) -> Any:
        a = T.tensor(draw(2, 3, 3) + 3 * np.eye(3), requires_grad=True)
        return T.autograd.grad(T.linalg.cond(a, p).sum(), a)

    same(program, rtol=1e-8, atol=1e-9)


def test_the_gradient_of_a_batch_with_a_singular_matrix() -> None:
    a = gradlite.stack([gradlite.eye(2) * 2, gradlite.ones(2, 2)]).double().requires_grad_()
    gradlite.linalg.cond(a, 1)[0].backward()
    alone = a[0].detach().requires_grad_()
    gradlite.linalg.cond(alone, 1).backward()
    np.testing.assert_allclose(a.grad[0].numpy(), alone.grad.numpy(), 1e-12)
    assert not a.grad[1].any()


def test_condition_numbers_that_are_refused() -> None:
    def program(T: Any) -> Any:
        cond, eye = T.linalg.cond, T.eye(2)
        return [
            outcome_of(lambda: cond(T.ones(2))),
            outcome_of(lambda: cond(T.ones(2, 3), 1)),
            outcome_of(lambda: cond(T.ones(2, 3), "x")),
            outcome_of(lambda: cond(eye, 3)),
            outcome_of(lambda: cond(eye, "x")),
            outcome_of(lambda: cond(eye.half())),
            outcome_of(lambda: cond(eye.long())),
            outcome_of(lambda: cond(eye.half(), 1)),
            outcome_of(lambda: cond(eye.long(), "fro")),
        ]

    same(program, message="exact")


# ------------------------------------------------------------- norms of singular values
@pytest.mark.parametrize("ord", ["nuc", 2, -2])
def test_norms_of_singular_values(ord: Any) -> None:
    def program(T: Any) -> Any:
        a, L = T.tensor(draw(2, 3, 4), requires_grad=True), T.linalg
        norms = [
            L.matrix_norm(a, ord),
            L.matrix_norm(a, ord, (2, 0), True),
            L.matrix_norm(a, ord, (0, 1)),
            L.norm(a, ord, (1, 2)),
            L.norm(a[0], ord),
        ]
        if ord == "nuc":
            norms += [T.norm(a[0], ord), T.norm(a, ord, (0, 2)), a.norm(ord, (0, 1))]
        grads = T.autograd.grad(sum((n**2).sum() for n in norms), a)
        return [n.detach() for n in norms], grads

    same(program, rtol=1e-8, atol=1e-9)


def test_norms_of_nothing_and_of_what_is_refused() -> None:
    def program(T: Any) -> Any:
        norm, none = T.linalg.matrix_norm, T.zeros(2, 0, 3)
        return [
            norm(none, 2),
            norm(none, "nuc"),
            outcome_of(lambda: norm(none, -2)),
            outcome_of(lambda: norm(T.eye(2).half(), 2)),
            outcome_of(lambda: norm(T.eye(2), 3)),
            outcome_of(lambda: T.norm(T.ones(2, 2, 2), "nuc")),
            outcome_of(lambda: T.norm(T.ones(2, 2, 2), "nuc", dim=1)),
            norm(T.eye(2), 2, dtype=T.float64),
        ]

    same(program, message="exact")


# ------------------------------------------------------------------------- controls
@pytest.mark.parametrize("op", [Pinv, Lstsq])
def test_a_wrong_rule_is_found(op: Any) -> None:
    """The negative control: a gradient that is wrong by half a thousandth."""
    op = NAMESPACES[np.ndarray].runs(op)
    right = op.backward

    def wrong(ctx: Any, grad: Any, F: Any) -> Any:
        first, *rest = right(ctx, grad, F)
        return (first * 1.0005, *rest)

    a, b = (gradlite.tensor(draw(*s), requires_grad=True) for s in ((4, 3), (4, 2)))
    function = {"Pinv": gradlite.linalg.pinv, "Lstsq": lambda a: gradlite.linalg.lstsq(a, b)[0]}
    op.backward = staticmethod(wrong)
    try:
        assert not gradlite.autograd.gradcheck(
            function[op.__name__], (a,), rtol=1e-4, raise_exception=False
        )
    finally:
        op.backward = staticmethod(right)


def test_captured_steps() -> None:
    def step(values: Any, right: Any) -> Any:
        a = values.clone().requires_grad_()
        x = gradlite.linalg.lstsq(a, right, driver="gelsd").solution
        loss = x.square().sum() + gradlite.linalg.pinv(a).sum() + gradlite.linalg.cond(a)
        (grad,) = gradlite.autograd.grad(loss, a)
        return grad, gradlite.linalg.matrix_rank(values, 1.0)

    captured = gradlite.capture(step)
    for number in range(5):
        a = gradlite.tensor(draw(4, 2) * 3.0**-number + number * np.eye(4, 2))
        b = gradlite.tensor(draw(4, 3) + number)
        for found, expected in zip(captured(a, b), step(a, b)):
            np.testing.assert_allclose(found.numpy(), expected.numpy(), 1e-9)
