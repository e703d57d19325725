"""solve_triangular, cholesky_solve, cholesky_inverse: triangles, zeros, derivatives, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.triangular import BLOCK, SolveTriangular
from tests.oracle import outcome_of, same


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def regular(*shape: int) -> np.ndarray:
    return draw(*shape) + 3 * np.eye(shape[-1])


@pytest.mark.parametrize("unitriangular", [False, True])
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("batches", [((), ()), ((2,), ()), ((), (2,)), ((3, 1), (2,))], ids=str)
@pytest.mark.parametrize("n", [3, BLOCK + 1, 2 * BLOCK + 3])
def test_triangular_systems(
    n: int, batches: Any, left: bool, upper: bool, unitriangular: bool
) -> None:
    def program(T: Any) -> Any:
        whole = regular(*batches[0], n, n) if n == 3 else draw(*batches[0], n, n) / n + np.eye(n)
        a = T.tensor(whole, requires_grad=True)
        b = T.tensor(draw(*batches[1], *((n, 2) if left else (2, n))), requires_grad=True)
        x = T.linalg.solve_triangular(a, b, upper=upper, left=left, unitriangular=unitriangular)
        return x.detach(), T.autograd.grad(x.square().sum(), (a, b))

    same(program, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("upper", [False, True])
def test_derivatives_of_triangular_systems(upper: bool) -> None:
    a = gradlite.tensor(regular(3, 3), requires_grad=True)
    b = gradlite.tensor(draw(2, 3, 2), requires_grad=True)
    for unit in (False, True):
        options = {"upper": upper, "unitriangular": unit}
        assert gradlite.autograd.gradcheck(
            lambda a, b, o=options: gradlite.linalg.solve_triangular(a, b, **o), (a, b)
        )
        assert gradlite.autograd.gradgradcheck(
            lambda a, b, o=options: gradlite.linalg.solve_triangular(a, b, **o), (a, b)
        )


@pytest.mark.parametrize("upper", [False, True])
def test_rows_of_very_different_sizes_cost_no_digits(upper: bool) -> None:

    def program(T: Any) -> Any:
        a = draw(6, 6) * 10.0 ** np.linspace(-9, 9, 6)[:: -1 if upper else 1, None]
        return T.linalg.solve_triangular(T.tensor(a), T.tensor(a @ np.ones((6, 1))), upper=upper)

    same(program, rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("upper", [False, True])
def test_zeros_on_the_diagonal(upper: bool) -> None:
    def program(T: Any) -> Any:
        zero = [[1.0, 2.0], [3.0, 0.0]]
        a, b = T.tensor([zero, [[0.0, 1.0], [1.0, 0.0]]]), T.tensor([[1.0], [1.0]])
        options = {"upper": upper, "unitriangular": True}
        return (
            T.linalg.solve_triangular(a, b, upper=upper),
            T.linalg.solve_triangular(a, b, **options),
        )

    same(program)


@pytest.mark.parametrize("upper", [False, True])
def test_a_zero_far_down_the_diagonal(upper: bool) -> None:
    n = BLOCK + 6

    def program(T: Any) -> Any:
        a = draw(n, n) / n + np.eye(n)
        a[-2 if upper else 1, -2 if upper else 1] = 0.0
        return T.linalg.solve_triangular(T.tensor(a), T.tensor(draw(n, 1)), upper=upper)

    same(program, rtol=1e-9, atol=1e-11)


def test_what_is_refused() -> None:
    def program(T: Any) -> Any:
        solve, eye, b = T.linalg.solve_triangular, T.eye(3), T.ones(3, 2)
        return [
            outcome_of(lambda: solve(eye, T.ones(3), upper=True)),
            outcome_of(lambda: solve(T.ones(3), b, upper=True)),
            outcome_of(lambda: solve(T.ones(2, 3), b, upper=True)),
            outcome_of(lambda: solve(eye, T.ones(2, 3), upper=True)),
            outcome_of(lambda: solve(eye, b, upper=True, left=False)),
            outcome_of(lambda: solve(eye.half(), b.half(), upper=True)),
            outcome_of(lambda: solve(eye.expand(5, 3, 3), b.expand(2, 3, 2), upper=True)),
            outcome_of(lambda: T.cholesky_solve(T.ones(3), eye)),
            outcome_of(lambda: T.cholesky_solve(b, T.ones(3))),
            outcome_of(lambda: T.cholesky_solve(b, T.ones(3, 2))),
            outcome_of(lambda: T.cholesky_solve(T.ones(2, 2), eye)),
            outcome_of(lambda: T.cholesky_solve(b, eye.double())),
            outcome_of(lambda: T.cholesky_solve(b.half(), eye.half())),
            outcome_of(lambda: T.cholesky_inverse(T.ones(3))),
            outcome_of(lambda: T.cholesky_inverse(b)),
            outcome_of(lambda: T.cholesky_inverse(eye.half())),
        ]

    same(program, message="exact")


# ------------------------------------------------------------------- Cholesky factors
def factor(T: Any, upper: bool, *batch: int) -> Any:
    a = T.tensor(regular(*batch, 3, 3), requires_grad=True)
    return a, (T.triu if upper else T.tril)(a)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("batches", [((), ()), ((2,), ()), ((), (2,))], ids=str)
def test_systems_with_factors(batches: Any, upper: bool) -> None:
    def program(T: Any) -> Any:
        leaf, f = factor(T, upper, *batches[0])
        b = T.tensor(draw(*batches[1], 3, 2), requires_grad=True)
        x = T.cholesky_solve(b, f, upper=upper)
        inverse = T.cholesky_inverse(f, upper)
        grads = T.autograd.grad(x.square().sum() + inverse.square().sum(), (leaf, b, f))
        return x.detach(), inverse.detach(), grads, b.detach().cholesky_solve(f.detach(), upper)

    same(program, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("upper", [False, True])
def test_derivatives_with_factors(upper: bool) -> None:
    def function(a: Any, b: Any) -> Any:
        f = (gradlite.triu if upper else gradlite.tril)(a)
        return gradlite.cholesky_solve(b, f, upper), gradlite.cholesky_inverse(f, upper)

    a = gradlite.tensor(regular(2, 3, 3), requires_grad=True)
    b = gradlite.tensor(draw(3, 2), requires_grad=True)
    assert gradlite.autograd.gradcheck(function, (a, b))
    assert gradlite.autograd.gradgradcheck(function, (a, b))


def test_factors_with_a_zero_on_the_diagonal() -> None:
    def program(T: Any) -> Any:
        bad = T.tensor([[1.0, 0.0], [2.0, 0.0]])
        messages = []
        for given in (bad, T.stack([T.eye(2), bad])):
            with pytest.raises(T.linalg.LinAlgError) as found:
                T.cholesky_inverse(given)
            messages.append(str(found.value))
        return messages

    same(program)


def test_a_wrong_rule_is_found() -> None:
    """The negative control: a gradient that is wrong by half a thousandth."""
    op = NAMESPACES[np.ndarray].runs(SolveTriangular)
    right = op.backward

    def wrong(ctx: Any, grad: Any, F: Any) -> Any:
        left, other = right(ctx, grad, F)
        return left * 1.0005, other

    a, b = (gradlite.tensor(x, requires_grad=True) for x in (regular(3, 3), draw(3, 2)))
    op.backward = staticmethod(wrong)
    try:
        assert not gradlite.autograd.gradcheck(
            lambda a: gradlite.linalg.solve_triangular(a, b.detach(), upper=True),
            (a,),
            rtol=1e-4,
            raise_exception=False,
        )
    finally:
        op.backward = staticmethod(right)
