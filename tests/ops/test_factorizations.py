"""svd, svdvals, eigh, eigvalsh, qr: factors, gradients that no choice of signs changes, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops.factorizations import Eigh, Qr, Svd
from gradlite.ops.namespaces import NAMESPACES
from tests.oracle import outcome_of, same

SHAPES = [(3, 3), (4, 2), (2, 4), (2, 3, 3), (2, 1, 4, 3), (3, 2, 5)]


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def symmetric(T: Any, *shape: int) -> Any:
    a = T.tensor(draw(*shape), requires_grad=True)
    return a, a + a.mT


def weights(T: Any, *shape: int) -> Any:
    return T.tensor(np.random.default_rng(5).standard_normal(shape))


# --------------------------------------------------------------------------------- SVD
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("shape", [*SHAPES, (0, 3), (3, 0), (2, 0, 3), (0, 2, 3)], ids=str)
def test_factors_of_svd(shape: Any, full: bool) -> None:
    a = draw(*shape)
    u, s, vh = gradlite.linalg.svd(gradlite.tensor(a), full_matrices=full)
    m, n, k = *shape[-2:], min(shape[-2:])
    assert u.shape == (*shape[:-2], m, m if full else k)
    assert vh.shape == (*shape[:-2], n if full else k, n)
    np.testing.assert_allclose(((u[..., :k] * s[..., None, :]) @ vh[..., :k, :]).numpy(), a, 1e-12)
    for q in (u.mT @ u, vh @ vh.mT):
        np.testing.assert_allclose(
            q.numpy(), np.broadcast_to(np.eye(q.shape[-1]), q.shape), 0, 1e-12
        )
    assert bool((s[..., 1:] <= s[..., :-1]).all())
    same(lambda T: (T.linalg.svd(T.tensor(a), full_matrices=full).S, T.linalg.svdvals(T.tensor(a))))


def without_signs(T: Any, a: Any, full: bool) -> Any:
    """A function of all three factors that stays the same when vectors change their signs."""
    u, s, vh = T.linalg.svd(a, full_matrices=full)
    k = s.shape[-1]
    u, vh = u[..., :k], vh[..., :k, :]
    left = (u**2 * weights(T, *u.shape)).sum() + (u @ vh * weights(T, *a.shape)).sum()
    return left + (s**3).sum() + (vh**2 * weights(T, *vh.shape)).sum()


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_of_svd_are_those_of_pytorch(shape: Any, full: bool) -> None:
    def program(T: Any) -> Any:
        a = T.tensor(draw(*shape), requires_grad=True)
        return T.autograd.grad(without_signs(T, a, full), a)

    same(program, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4)], ids=str)
def test_gradients_of_one_factor(shape: Any, part: int) -> None:
    def program(T: Any) -> Any:
        a = T.tensor(draw(*shape), requires_grad=True)
        factor = T.linalg.svd(a, full_matrices=False)[part]
        return T.autograd.grad((factor**4 * weights(T, *factor.shape)).sum(), a)

    same(program, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 2, 3)], ids=str)
def test_derivatives_of_svd(shape: Any, full: bool) -> None:
    a = gradlite.tensor(draw(*shape), requires_grad=True)
    assert gradlite.autograd.gradcheck(lambda a: without_signs(gradlite, a, full), (a,))
    assert gradlite.autograd.gradgradcheck(lambda a: without_signs(gradlite, a, full), (a,))
    assert gradlite.autograd.gradgradcheck(gradlite.linalg.svdvals, (a,))


def test_equal_singular_values_have_gradients_but_their_vectors_do_not() -> None:
    def program(T: Any) -> Any:
        a = T.eye(2, dtype=T.float64, requires_grad=True)
        T.linalg.svdvals(a).sum().backward()
        u, _, vh = T.linalg.svd(a)
        (grad,) = T.autograd.grad((u**2).sum() + vh.sum(), a)
        return a.grad, bool(T.isfinite(grad).all())

    same(program)


# ------------------------------------------------------------------------- eigenvalues
@pytest.mark.parametrize("uplo", ["L", "U", "l", "u"])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (1, 1), (0, 0), (0, 2, 2)], ids=str)
def test_factors_of_eigh(shape: Any, uplo: str) -> None:
    a = draw(*shape)
    values, vectors = gradlite.linalg.eigh(gradlite.tensor(a), uplo)
    half = np.tril(a, -1) if uplo.upper() == "L" else np.triu(a, 1).swapaxes(-1, -2)
    read = half + half.swapaxes(-1, -2) + a * np.eye(shape[-1])
    back = (vectors * values[..., None, :]) @ vectors.mT
    np.testing.assert_allclose(back.numpy(), read, 1e-9, 1e-12)
    same(lambda T: (T.linalg.eigh(T.tensor(a), uplo)[0], T.linalg.eigvalsh(T.tensor(a), UPLO=uplo)))


def of_symmetric(T: Any, a: Any, uplo: str = "L") -> Any:
    values, vectors = T.linalg.eigh(a, UPLO=uplo)
    return (vectors**2 * weights(T, *vectors.shape)).sum() + (values**3).sum()


@pytest.mark.parametrize("uplo", ["L", "U"])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4)], ids=str)
def test_gradients_of_eigh_are_those_of_pytorch(shape: Any, uplo: str) -> None:
    def program(T: Any) -> Any:
        leaf, a = symmetric(T, *shape)
        # Of what is not symmetric too: which triangle counts does not change the formula.
        return T.autograd.grad(of_symmetric(T, a, uplo), a), T.autograd.grad(
            T.linalg.eigvalsh(leaf, uplo).square().sum(), leaf
        )

    same(program, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("uplo", ["L", "U"])
def test_derivatives_of_eigh(uplo: str) -> None:
    def function(a: Any) -> Any:
        return of_symmetric(gradlite, a + a.mT, uplo)

    a = gradlite.tensor(draw(2, 3, 3), requires_grad=True)
    assert gradlite.autograd.gradcheck(function, (a,))
    assert gradlite.autograd.gradgradcheck(function, (a,))


# --------------------------------------------------------------------------------- QR
@pytest.mark.parametrize("mode", ["reduced", "complete", "r"])
@pytest.mark.parametrize("shape", [*SHAPES, (0, 3), (3, 0), (2, 0, 3), (0, 2, 3)], ids=str)
def test_factors_of_qr(shape: Any, mode: str) -> None:
    a = draw(*shape)
    same(lambda T: T.linalg.qr(T.tensor(a), mode), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["reduced", "complete"])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (2, 3, 3), (3, 2, 5)], ids=str)
def test_derivatives_of_qr(shape: Any, mode: str) -> None:
    def program(T: Any) -> Any:
        a = T.tensor(draw(*shape), requires_grad=True)
        q, r = T.linalg.qr(a, mode)
        loss = (q * weights(T, *q.shape)).sum() + (r**2 * weights(T, *r.shape)).sum()
        return T.autograd.grad(loss, a)

    same(program, rtol=1e-8, atol=1e-9)
    a = gradlite.tensor(draw(*shape), requires_grad=True)
    assert gradlite.autograd.gradgradcheck(lambda a: tuple(gradlite.linalg.qr(a, mode)), (a,))


def test_derivatives_of_qr_of_tall_matrices() -> None:
    a = gradlite.tensor(draw(2, 4, 2), requires_grad=True)
    assert gradlite.autograd.gradcheck(lambda a: tuple(gradlite.linalg.qr(a)), (a,))
    assert gradlite.autograd.gradgradcheck(lambda a: tuple(gradlite.linalg.qr(a)), (a,))


@pytest.mark.parametrize("mode", ["complete", "r"])
def test_qr_without_a_derivative(mode: str) -> None:
    def program(T: Any) -> Any:
        r = T.linalg.qr(T.ones(3, 2, requires_grad=True), mode).R
        return [r.requires_grad, outcome_of(lambda: r.sum().backward())]

    same(program, message="exact")


# ------------------------------------------------------------------- what goes wrong
OPS = {"svd": Svd, "eigh": Eigh, "qr": Qr}


@pytest.mark.parametrize("name", OPS)
def test_a_wrong_rule_is_found(name: str) -> None:
    """The negative control: a gradient that is wrong by half a thousandth."""
    op = NAMESPACES[np.ndarray].runs(OPS[name])
    right = op.backward

    def wrong(ctx: Any, grads: Any, F: Any) -> Any:
        return (right(ctx, grads, F)[0] * 1.0005,)

    a = gradlite.tensor(draw(3, 3), requires_grad=True)
    op.backward = staticmethod(wrong)
    try:
        assert not gradlite.autograd.gradcheck(
            lambda a: getattr(gradlite.linalg, name)(a + a.mT)[1].abs().sum(),
            (a,),
            rtol=1e-4,
            raise_exception=False,
        )
    finally:
        op.backward = staticmethod(right)


@pytest.mark.parametrize("name", ["svd", "svdvals", "eigh", "eigvalsh", "qr"])
def test_what_is_refused(name: str) -> None:
    def program(T: Any) -> Any:
        function = getattr(T.linalg, name)
        return [
            outcome_of(lambda: function(T.ones(2))),
            outcome_of(lambda: function(T.ones(2, 3).long())),
            outcome_of(lambda: function(T.ones(2, 2).long())),
            outcome_of(lambda: function(T.ones(2, 2).half())),
        ]

    same(program, message="exact")


def test_options_that_are_refused() -> None:
    def program(T: Any) -> Any:
        a = T.eye(2)
        return [
            outcome_of(lambda: T.linalg.svd(a, driver="gesvd")),
            outcome_of(lambda: T.linalg.svdvals(a, driver="gesvd")),
            outcome_of(lambda: T.linalg.eigh(a, "X")),
            outcome_of(lambda: T.linalg.eigh(a, UPLO=3)),
            outcome_of(lambda: T.linalg.qr(a, "full")),
            outcome_of(lambda: T.linalg.eigh(T.ones(2, 3))),
        ]

    same(program, message="exact")


@pytest.mark.parametrize("name", ["svd", "svdvals"])
def test_svd_of_nan_does_not_converge(name: str) -> None:
    def program(T: Any) -> Any:
        bad = T.full((2, 2), float("nan"))
        function = getattr(T.linalg, name)
        with pytest.raises(T.linalg.LinAlgError) as single:
            function(bad)
        with pytest.raises(T.linalg.LinAlgError) as batch:
            function(T.stack([T.eye(2), bad]))
        return str(single.value), str(batch.value)

    same(program)


def test_eigh_of_nan_does_not_converge() -> None:
    bad = gradlite.diag(gradlite.tensor([1.0, float("nan"), 2.0])) + 1
    batch = gradlite.stack([gradlite.eye(3), bad])
    for function in (gradlite.linalg.eigh, gradlite.linalg.eigvalsh):
        with pytest.raises(gradlite.linalg.LinAlgError, match=r"linalg.eigh: \(Batch element 1\)"):
            function(batch)


@pytest.mark.parametrize(("name", "part"), [("svd", 0), ("svd", 1), ("svd", 2), ("eigh", 0),
                                            ("eigh", 1), ("qr", 0), ("qr", 1)])  # fmt: skip
def test_a_factor_that_was_edited_is_caught(name: str, part: int) -> None:
    def program(T: Any) -> Any:
        a = T.tensor(draw(3, 3) + 3 * np.eye(3), requires_grad=True)
        factors = getattr(T.linalg, name)(a)
        with T.no_grad():
            factors[part].mul_(2)
        return outcome_of(lambda: factors[0].sum().backward())

    same(program, raises=None, message="exact")


def test_what_nodes_save() -> None:
    def program(T: Any) -> Any:
        a = T.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
        svd = T.linalg.svd(a).S.grad_fn
        qr, eigh = T.linalg.qr(a).R.grad_fn, T.linalg.eigh(a).eigenvalues.grad_fn
        names = [node.name() for node in (svd, qr, eigh)]
        saved = [svd._saved_S, qr._saved_R, eigh._saved_eigenvalues]
        return names[1:], [s.detach() for s in saved]

    same(program)


def test_named_results() -> None:
    def program(T: Any) -> Any:
        a = T.eye(2)
        U, S, Vh = T.linalg.svd(a)
        return (
            type(T.linalg.svd(a)).__name__,
            S is not U,
            T.linalg.svd(a).Vh,
            T.linalg.eigh(a).eigenvectors,
            T.linalg.qr(a).Q,
        )

    same(program)


def test_captured_steps() -> None:
    """The recorded step gives what the plain one does, with other numbers in every call."""

    def step(values: Any) -> Any:
        a = values.clone().requires_grad_()
        (grad,) = gradlite.autograd.grad(without_signs(gradlite, a, False), a)
        (other,) = gradlite.autograd.grad(of_symmetric(gradlite, a @ a.mT), a)
        return grad + other + gradlite.linalg.qr(a.detach().mT).R.sum()

    captured = gradlite.capture(step)
    for number in range(5):
        a = gradlite.tensor(draw(2, 3) + number * np.eye(2, 3))
        np.testing.assert_allclose(captured(a).numpy(), step(a).numpy(), 1e-9)
