"""Orthogonal weights as parametrizations: maps from all matrices onto the orthogonal ones."""

from __future__ import annotations

from typing import Any, TypeVar

from gradlite.device import array_module
from gradlite.dtypes import finfo
from gradlite.grad_mode import no_grad
from gradlite.nn import functional as F
from gradlite.nn.module import Module
from gradlite.nn.utils.parametrize import register_parametrization
from gradlite.ops.creation import eye
from gradlite.ops.factorizations import linalg_qr as qr
from gradlite.ops.linear_systems import solve
from gradlite.ops.matrix_functions import matrix_exp
from gradlite.ops.reflections import householder_product
from gradlite.ops.truth import allclose
from gradlite.tensor import Tensor, wrap

__all__ = ["orthogonal"]

ModuleT = TypeVar("ModuleT", bound=Module)


class _Orthogonal(Module):
    """Q of any matrix, by a map from all matrices onto the orthogonal ones.

    Matrices are taken as tall, (*, n, k); wide ones are transposed. A ``base``, by which the values
    are multiplied, makes any orthogonal matrix the start.
    """

    def __init__(self, weight: Any, orthogonal_map: str, use_trivialization: bool) -> None:
        super().__init__()
        self.shape, self.orthogonal_map = weight.shape, orthogonal_map
        self.use_trivialization = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Any) -> Any:
        wide = X.shape[-2] < X.shape[-1]
        if wide:
            X = X.mT
        n, k = X.shape[-2:]
        if self.orthogonal_map == "householder":
            A = X.tril(-1)
            Q = householder_product(A, 2.0 / (1.0 + (A * A).sum(-2)))
            # The diagonal holds the signs of the columns.
            Q = Q * X.diagonal(dim1=-2, dim2=-1).int().unsqueeze(-2)
        else:
            A = F.pad(X.tril(), (0, n - k))
            A = A - A.mT
            if self.orthogonal_map == "matrix_exp":
                Q = matrix_exp(A)
            else:
                one = eye(n, dtype=A.dtype, device=A.device)
                Q = solve(one - 0.5 * A, one + 0.5 * A)
            Q = Q[..., :k]
        if self.use_trivialization:
            Q = self.base @ Q
        return Q.mT if wide else Q

    @no_grad()
    def right_inverse(self, Q: Any) -> Any:
        if Q.shape != self.shape:
            raise ValueError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. "
                f"Got a tensor of shape {Q.shape}."
            )
        wide = Q.shape[-2] < Q.shape[-1]
        tall = Q.mT if wide else Q
        n, k = tall.shape[-2:]
        if self.use_trivialization:
            if k < n:
                tall = F.pad(tall, (0, n - k))
                tall[..., k:].normal_()
            if k < n or not _is_orthogonal(tall):
                tall = _orthonormal(tall)
            self.base = tall.clone()
            # Of a matrix with -1 on its diagonal and zeros elsewhere, every map makes the identity.
            start = Q.new_zeros(Q.shape)
            start.diagonal(dim1=-2, dim2=-1).fill_(-1.0)
            return start
        if self.orthogonal_map != "householder":
            raise NotImplementedError(
                "It is not possible to assign to the matrix exponential or the Cayley "
                "parametrizations when use_trivialization=False."
            )
        reflections, tau = array_module(tall.device).linalg.qr(tall.array, "raw")
        A, signs = wrap(reflections).mT.contiguous(), wrap(tau) == 0
        diagonal = A.diagonal(dim1=-2, dim2=-1)
        diagonal.copy_(diagonal.sign() * (1 - 2 * signs.to(A.dtype)))
        return A.mT if wide else A


def _is_orthogonal(Q: Any) -> bool:
    """Whether a square is, to some digits: then it is taken as it is."""
    n = Q.shape[-1]
    one = eye(n, dtype=Q.dtype, device=Q.device)
    return allclose(Q.mT @ Q, one, atol=10 * n * finfo(Q.dtype).eps)


def _orthonormal(A: Any) -> Any:
    """The columns of a matrix made orthonormal, keeping the side to which each one points."""
    Q, R = qr(A)
    return Q * R.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)


def orthogonal(
    module: ModuleT,
    name: str = "weight",
    orthogonal_map: str | None = None,
    *,
    use_trivialization: bool = True,
) -> ModuleT:
    """Parametrize a weight by any matrix: its columns are orthonormal, or the rows of a wide one.

    Args:
        name: the weight, a matrix or a stack of matrices, (*, n, k).
        orthogonal_map: ``"matrix_exp"`` or ``"cayley"``, of a skew-symmetric matrix, or
            ``"householder"``, a product of reflections. By default matrix_exp for squares and
            householder for others.
        use_trivialization: start from the weight's own directions and multiply by them; it can be
            assigned to then.

    Raises:
        ValueError: there is no such tensor or map, or it is no matrix.

    >>> import gradlite
    >>> from gradlite import nn
    >>> layer = nn.utils.parametrizations.orthogonal(nn.Linear(20, 40))
    >>> gradlite.dist(layer.weight.T @ layer.weight, gradlite.eye(20)).item() < 1e-4
    True

    Source: Lezcano-Casado, Trivializations for gradient-based optimization on manifolds, 2019.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.ndim < 2:
        raise ValueError(
            f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions."
        )
    if orthogonal_map is None:
        square = weight.shape[-2] == weight.shape[-1]
        orthogonal_map = "matrix_exp" if square else "householder"
    if orthogonal_map not in ("matrix_exp", "cayley", "householder"):
        raise ValueError(
            'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: '
            f"{orthogonal_map}"
        )
    made = _Orthogonal(weight, orthogonal_map, use_trivialization)
    return register_parametrization(module, name, made, unsafe=True)
