"""inv, solve, det, slogdet, cholesky: singular matrices, batches, derivatives, messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from tests.oracle import outcome_of, same


def regular(*shape: int) -> Any:
    values = np.random.default_rng(sum(shape)).standard_normal(shape)
    return gradlite.tensor(values * 0.4 + 2 * np.eye(shape[-1]), requires_grad=True)


@pytest.mark.parametrize("name", ["inv", "det", "slogdet", "cholesky"])
def test_what_is_no_square_matrix_is_refused(name: str) -> None:
    def program(T: Any) -> Any:
        function = getattr(T.linalg, name)
        return [
            outcome_of(lambda: function(T.ones(2))),
            outcome_of(lambda: function(T.ones(2, 3))),
            outcome_of(lambda: function(T.ones(2, 2, dtype=T.int64))),
        ]

    same(program, message="exact")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("inv", "linalg.inv: .*singular"),
        ("cholesky", "linalg.cholesky: .*not positive-definite"),
    ],
)
def test_matrices_without_a_result(name: str, message: str) -> None:
    function = getattr(gradlite.linalg, name)
    with pytest.raises(gradlite.linalg.LinAlgError, match=message):
        function(gradlite.zeros(2, 2))
    batch = gradlite.stack([gradlite.eye(2), gradlite.zeros(2, 2)])
    with pytest.raises(RuntimeError, match=r"\(Batch element 1\)"):
        function(batch)


def test_singular_systems() -> None:
    with pytest.raises(gradlite.linalg.LinAlgError, match="the input matrix is singular"):
        gradlite.linalg.solve(gradlite.ones(2, 2), gradlite.ones(2))


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 3), (3,)),
        ((3, 3), (3, 2)),
        ((2, 3, 3), (2, 3)),
        ((2, 3, 3), (2, 3, 1)),
        ((2, 3, 3), (3, 2)),
        ((3, 3), (4, 3, 2)),
        ((2, 3, 3), (3,)),
    ],
    ids=str,
)
def test_shapes_of_solve(shapes: Any) -> None:
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal(s) for s in shapes)

    def program(T: Any) -> Any:
        x, y = T.tensor(a, requires_grad=True), T.tensor(b, requires_grad=True)
        result = T.linalg.solve(x, y)
        result.square().sum().backward()
        return result.detach(), x.grad, y.grad

    same(program, rtol=1e-7, atol=1e-9)


def test_messages_of_solve() -> None:
    def program(T: Any) -> Any:
        eye = T.eye(2)
        return [
            outcome_of(lambda: T.linalg.solve(eye, T.ones(3))),
            outcome_of(lambda: T.linalg.solve(eye, T.ones(2, dtype=T.float64))),
        ]

    same(program, message="exact")


def test_the_gradient_of_a_determinant_of_0_is_the_matrix_of_cofactors() -> None:
    for values in ([[1.0, 2.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]):
        x = gradlite.tensor(values, requires_grad=True, dtype=gradlite.float64)
        gradlite.linalg.det(x).backward()
        (a, b), (c, d) = values
        np.testing.assert_allclose(x.grad.numpy(), [[d, -c], [-b, a]], atol=1e-12)


def test_signs_and_logarithms() -> None:
    def program(T: Any) -> Any:
        batch = T.tensor(
            [[[0.0, 2.0], [3.0, 0.0]], [[1.0, 0.0], [0.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]]
        )
        sign, logarithm = T.linalg.slogdet(batch)
        return sign, logarithm, T.logdet(batch[1]), T.logdet(batch[0]), T.det(batch[0])

    same(program)


@pytest.mark.parametrize("name", ["logdet", "slogdet"])
def test_gradients_of_logarithms_of_nothing(name: str) -> None:
    singular = [
        [[1.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]],
        [[1.0, 2.0], [2.0, 4.0]], [[0.0, 3.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 3.0]],
    ]  # fmt: skip

    def program(T: Any) -> Any:
        x = T.tensor(singular, requires_grad=True)
        out = T.logdet(x) if name == "logdet" else T.linalg.slogdet(x).logabsdet
        alone = T.tensor(singular[0], requires_grad=True)
        T.logdet(alone).backward()
        return out.detach(), T.autograd.grad(out.sum(), x), alone.grad

    same(program)


def test_logdet_has_no_gradient_where_it_is_nan() -> None:
    def program(T: Any) -> Any:
        x = T.tensor([[[2.0, 1.0], [0.5, 3.0]], [[-1.0, 0.2], [0.1, 1.0]]], requires_grad=True)
        out = T.logdet(x)
        return out.detach(), T.autograd.grad(out.sum(), x)

    same(program)


@pytest.mark.parametrize("upper", [False, True])
def test_derivatives_of_cholesky(upper: bool) -> None:
    def function(x: Any) -> Any:
        return gradlite.linalg.cholesky(x @ x.mT + gradlite.eye(3, dtype=x.dtype), upper=upper)

    x = regular(2, 3, 3)
    assert gradlite.autograd.gradcheck(function, (x,))
    assert gradlite.autograd.gradgradcheck(function, (x,))


@pytest.mark.parametrize("upper", [False, True])
def test_which_matrices_of_a_batch_have_no_factor(upper: bool) -> None:
    good = [[4.0, 2.0, 0.0], [2.0, 5.0, 1.0], [0.0, 1.0, 3.0]]
    bad = [[4.0, 2.0, 0.0], [2.0, 1.0, 1.0], [0.0, 1.0, 3.0]]

    def program(T: Any) -> Any:
        a = T.tensor([good, bad, (-np.eye(3)).tolist(), good], requires_grad=True)
        factor, info = T.linalg.cholesky_ex(a, upper=upper)
        (grad,) = T.autograd.grad(factor[0].sum() + factor[3].square().sum(), a)
        messages = []
        for matrices in (a, a[1]):
            with pytest.raises(T.linalg.LinAlgError) as found:
                T.linalg.cholesky_ex(matrices, check_errors=True)
            messages.append(str(found.value))
        single = T.linalg.cholesky_ex(a[1]).info
        return factor[0].detach(), factor[3].detach(), info, grad[0], grad[3], single, messages

    same(program)
    assert gradlite.linalg.cholesky_ex(gradlite.tensor(bad)).L.isnan().all()


def test_derivatives_of_compositions() -> None:
    x, y = regular(3, 3), gradlite.rand(3, 2, dtype=gradlite.float64, requires_grad=True)

    def function(a: Any, b: Any) -> Any:
        return gradlite.linalg.solve(a, b).sum() * gradlite.linalg.slogdet(a).logabsdet

    assert gradlite.autograd.gradgradcheck(function, (x, y))


def test_powers() -> None:
    def program(T: Any) -> Any:
        a = T.tensor([[1.0, 1.0], [0.0, 1.0]])
        return [T.matrix_power(a, n) for n in (0, 1, 2, 5, -2)]

    same(program)


def test_products_of_several_matrices() -> None:
    def program(T: Any) -> Any:
        a, b, c = T.ones(2, 30), T.ones(30, 3), T.ones(3, 4)
        v = T.ones(4)
        return (
            T.linalg.multi_dot([a, b, c]),
            T.linalg.multi_dot([a, b, c, v]),
            T.linalg.multi_dot([v, c.T]),
            T.linalg.vecdot(a, a),
            T.linalg.diagonal(c),
        )

    same(program)


def test_vector_products() -> None:
    def program(T: Any) -> Any:
        x, y = T.tensor([[1.0, 2.0, 3.0]]), T.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
        return (
            T.linalg.cross(x, y),
            T.cross(x.expand(2, 3), y, dim=1),
            outcome_of(lambda: T.linalg.cross(T.ones(2, 2), T.ones(2, 2))),
        )

    same(program, message="exact")
