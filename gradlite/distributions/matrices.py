"""What the distributions of vectors and matrices share."""

from __future__ import annotations

from typing import Any

from gradlite.distributions.distribution import Distribution
from gradlite.distributions.utils import lazy_property
from gradlite.ops.creation import eye
from gradlite.ops.linear_systems import cholesky
from gradlite.ops.matmul import matmul
from gradlite.ops.triangular import solve_triangular

__all__ = ["OfCovariance", "log_diagonal", "only_one", "product", "square"]


def product(matrix: Any, vector: Any) -> Any:
    """The products of matrices and vectors."""
    return matmul(matrix, vector.unsqueeze(-1)).squeeze(-1)  # type: ignore[attr-defined]


def square(matrix: Any) -> Any:
    """M M^T."""
    return matmul(matrix, matrix.swapaxes(-2, -1))


def log_diagonal(factor: Any) -> Any:
    """The logarithm of the determinant of triangular matrices with a positive diagonal."""
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def only_one(error: type[Exception] = ValueError, **matrices: Any) -> tuple[str, Any]:
    """The one matrix that is given, with its name.

    Raises:
        error: none, or several.
    """
    given = [(name, matrix) for name, matrix in matrices.items() if matrix is not None]
    if len(given) != 1:
        raise error(
            "Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified."
        )
    return given[0]


class OfCovariance(Distribution):
    """Base of the distributions with one of three matrices, from which the others follow."""

    _narrow_scale: Any

    def _factor(self, name: str, matrix: Any) -> None:
        """Keep L of the matrix that is given, as narrow as that is."""
        if name == "scale_tril":
            self._narrow_scale = matrix
        elif name == "covariance_matrix":
            self._narrow_scale = cholesky(matrix)
        else:
            # P = M^T M with the lower triangular M that flipping both sides makes of a factor of
            # the flipped P; C is then M^-1 M^-T.
            factor: Any = cholesky(matrix.flip(-2, -1))
            self._narrow_scale = _inverse(factor.flip(-2, -1).swapaxes(-2, -1))

    def _wide(self, matrix: Any) -> Any:
        return matrix.expand(*self._batch_shape, *matrix.shape[-2:])

    @lazy_property
    def scale_tril(self) -> Any:
        """L."""
        return self._wide(self._narrow_scale)

    @lazy_property
    def covariance_matrix(self) -> Any:
        """C = L L^T."""
        return self._wide(square(self._narrow_scale))

    @lazy_property
    def precision_matrix(self) -> Any:
        """The inverse of C."""
        return self._wide(square(self._inverse_scale.swapaxes(-2, -1)))

    @lazy_property
    def _inverse_scale(self) -> Any:
        return _inverse(self._narrow_scale)

    @property
    def _half_log_det(self) -> Any:
        return log_diagonal(self._narrow_scale)


def _inverse(matrix: Any) -> Any:
    """The inverse of lower triangular matrices."""
    identity: Any = eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return solve_triangular(matrix, identity.expand(matrix.shape), upper=False)
