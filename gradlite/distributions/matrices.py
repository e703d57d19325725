"""What the distributions of vectors and matrices share."""

from __future__ import annotations

from typing import Any

from gradlite.ops.creation import eye
from gradlite.ops.linear_systems import cholesky
from gradlite.ops.matmul import matmul
from gradlite.ops.triangular import solve_triangular

__all__ = ["factor_of_precision", "inverse_of_factor", "log_diagonal", "product", "square"]


def product(matrix: Any, vector: Any) -> Any:
    """The products of matrices and vectors."""
    return matmul(matrix, vector.unsqueeze(-1)).squeeze(-1)  # type: ignore[attr-defined]


def square(matrix: Any) -> Any:
    """M M^T."""
    return matmul(matrix, matrix.swapaxes(-2, -1))


def log_diagonal(factor: Any) -> Any:
    """The logarithm of the determinant of triangular matrices with a positive diagonal."""
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def inverse_of_factor(matrix: Any) -> Any:
    """The inverse of lower triangular matrices."""
    identity: Any = eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return solve_triangular(matrix, identity.expand(matrix.shape), upper=False)


def factor_of_precision(precision: Any) -> Any:
    """The lower triangular L with a positive diagonal and (L L^T)^-1 = P.

    P = M^T M with the lower triangular M that flipping both sides makes of a factor of the flipped
    P; the inverse of P is then M^-1 M^-T.
    """
    factor: Any = cholesky(precision.flip(-2, -1))
    return inverse_of_factor(factor.flip(-2, -1).swapaxes(-2, -1))
