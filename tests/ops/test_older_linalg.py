"""svd, qr, chain_matmul under their older names, svd_lowrank and pca_lowrank, absent names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from tests.oracle import outcome_of, same


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


@pytest.mark.parametrize("some", [True, False])
@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 2, 3)], ids=str)
def test_svd(shape: Any, some: bool) -> None:
    def program(T: Any) -> Any:
        a = T.tensor(draw(*shape), requires_grad=True)
        u, s, v = T.svd(a, some)
        k = s.shape[-1]
        u, v = u[..., :k], v[..., :k]
        loss = (u**2).sum() * (v**4).sum() + (s**2).sum()
        back = (u * s[..., None, :]) @ v.mT
        return back.detach(), s.detach(), T.autograd.grad(loss, a), a.svd(some=some).V.shape

    same(program, rtol=1e-8, atol=1e-9)


def test_svd_without_vectors() -> None:
    def program(T: Any) -> Any:
        a = T.tensor(draw(3, 2), requires_grad=True)
        result = T.svd(a, compute_uv=False)
        (grad,) = T.autograd.grad(result.S.sum(), a)
        return type(result).__name__, result.U.detach(), result.S.detach(), result.V.detach(), grad

    same(program)


def test_qr_warns() -> None:
    def program(T: Any) -> Any:
        a = T.tensor(draw(3, 2), requires_grad=True)
        result = T.qr(a)
        (grad,) = T.autograd.grad((result.R**2).sum(), a)
        return type(result).__name__, result.Q.detach(), grad, a.detach().qr(some=False)

    same(program, warns="qr is deprecated", message="exact", rtol=1e-9, atol=1e-11)


def test_chain_matmul_warns() -> None:
    def program(T: Any) -> Any:
        a, b = T.tensor(draw(2, 3)), T.tensor(draw(3, 4))
        return [
            T.chain_matmul(a, b, b.mT),
            T.chain_matmul(a),
            outcome_of(lambda: T.chain_matmul(a, b[0])),
        ]

    same(program, warns="chain_matmul is deprecated", message="exact", rtol=1e-12, atol=1e-12)


def test_what_is_refused() -> None:
    def program(T: Any) -> Any:
        a = T.ones(3, 4)
        return [
            outcome_of(lambda: T.svd(T.ones(3))),
            outcome_of(lambda: T.svd(a.half())),
            outcome_of(lambda: T.pca_lowrank(a, q=9)),
            outcome_of(lambda: T.pca_lowrank(a, q=-1)),
            outcome_of(lambda: T.pca_lowrank(a, niter=-1)),
        ]

    same(program, message="exact")


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (2, 20, 10)], ids=str)
def test_matrices_of_low_rank_come_back(shape: Any) -> None:
    """Up to the sign of its vectors, the decomposition does not depend on the draws."""
    a = draw(*shape[:-1], 3) @ draw(*shape[:-2], 3, shape[-1])

    def program(T: Any) -> Any:
        x = T.tensor(a, requires_grad=True)
        u, s, v = T.svd_lowrank(x, q=3)
        back = (u * s[..., None, :]) @ v.mT
        (grad,) = T.autograd.grad((s**2).sum(), x)
        return back.detach(), s.detach(), v.detach().abs(), grad, u.shape

    same(program, rtol=1e-8, atol=1e-8)


def test_singular_values_of_what_has_more_are_near() -> None:
    a = gradlite.tensor(draw(40, 20) * 2.0 ** -np.arange(20.0))
    s = gradlite.svd_lowrank(a, q=4, niter=4)[1]
    np.testing.assert_allclose(s.numpy(), np.linalg.svd(a.numpy())[1][:4], 1e-2)


@pytest.mark.parametrize("center", [True, False])
def test_principal_components(center: bool) -> None:
    def program(T: Any) -> Any:
        a = T.tensor(draw(20, 2) @ draw(2, 5) + 3)
        u, s, v = T.pca_lowrank(a, q=3, center=center)
        return s[:2], v[:, :2].abs(), u.shape, T.pca_lowrank(a)[1].shape

    same(program, rtol=1e-8, atol=1e-8)


def test_other_matrices_are_subtracted() -> None:
    a, mean = gradlite.tensor(draw(6, 3)), gradlite.tensor(draw(1, 3))
    s = gradlite.svd_lowrank(a, q=3, M=mean)[1]
    np.testing.assert_allclose(s.numpy(), np.linalg.svd((a - mean).numpy())[1], 1e-10)


@pytest.mark.parametrize("name", ["eig", "eigvals", "lu_factor"])
def test_absent_names_say_what_there_is_instead(name: str) -> None:
    with pytest.raises(AttributeError, match=r"no attribute .*: .*(eigh|solve)"):
        getattr(gradlite.linalg, name)
    assert not hasattr(gradlite.linalg, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'$"):
        _ = gradlite.linalg.nothing
