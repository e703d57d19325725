"""The normal distribution of vectors."""

from __future__ import annotations

import math
from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.utils import lazy_property
from gradlite.functions import broadcast_shapes
from gradlite.ops.creation import eye
from gradlite.ops.linear_systems import cholesky
from gradlite.ops.matmul import matmul
from gradlite.ops.random import randn
from gradlite.ops.triangular import solve_triangular

__all__ = ["MultivariateNormal"]


class MultivariateNormal(Distribution):
    """The normal distribution of vectors, with one of three matrices.

    Args:
        loc: the mean, (*, n).
        covariance_matrix: the covariance C, (*, n, n).
        precision_matrix: or its inverse.
        scale_tril: or the lower triangular L with a positive diagonal and C = L L^T, which the
            others are turned into.
        validate_args: see `Distribution`.

    Raises:
        ValueError: a scalar mean, a matrix of fewer than two dimensions, or not one matrix.

    >>> import gradlite
    >>> d = gradlite.distributions.MultivariateNormal(gradlite.zeros(2), gradlite.eye(2))
    >>> d.log_prob(gradlite.zeros(2))
    tensor(-1.8379)
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True
    _expands = {"loc": 1, "covariance_matrix": 2, "precision_matrix": 2, "scale_tril": 2}

    def __init__(
        self,
        loc: Any,
        covariance_matrix: Any = None,
        precision_matrix: Any = None,
        scale_tril: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        matrices = {
            "covariance_matrix": covariance_matrix,
            "precision_matrix": precision_matrix,
            "scale_tril": scale_tril,
        }
        given = [name for name, matrix in matrices.items() if matrix is not None]
        if len(given) != 1:
            raise ValueError(
                "Exactly one of covariance_matrix or precision_matrix or scale_tril may be "
                "specified."
            )
        name = given[0]
        matrix = matrices[name]
        if matrix.dim() < 2:
            kind = "scale_tril matrix" if name == "scale_tril" else name
            raise ValueError(
                f"{kind} must be at least two-dimensional, with optional leading batch dimensions"
            )
        batch = broadcast_shapes(matrix.shape[:-2], loc.shape[:-1])
        setattr(self, name, matrix.expand(*batch, -1, -1))
        self.loc = loc.expand(*batch, -1)
        super().__init__(batch, self.loc.shape[-1:], validate_args=validate_args)
        if name == "scale_tril":
            self._narrow_scale = matrix
        elif name == "covariance_matrix":
            self._narrow_scale = cholesky(matrix)
        else:
            # P = M^T M with the lower triangular M that flipping both sides makes of a factor of
            # the flipped P; C is then M^-1 M^-T.
            factor: Any = cholesky(matrix.flip(-2, -1))
            self._narrow_scale = _inverse(factor.flip(-2, -1).swapaxes(-2, -1))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new._narrow_scale = self._narrow_scale
        return new

    def _wide(self, matrix: Any) -> Any:
        return matrix.expand(*self._batch_shape, *self._event_shape, *self._event_shape)

    @lazy_property
    def scale_tril(self) -> Any:
        """L."""
        return self._wide(self._narrow_scale)

    @lazy_property
    def covariance_matrix(self) -> Any:
        """C = L L^T."""
        scale = self._narrow_scale
        return self._wide(matmul(scale, scale.swapaxes(-2, -1)))

    @lazy_property
    def precision_matrix(self) -> Any:
        """The inverse of C."""
        inverse = self._inverse_scale
        return self._wide(matmul(inverse.swapaxes(-2, -1), inverse))

    @lazy_property
    def _inverse_scale(self) -> Any:
        return _inverse(self._narrow_scale)

    @property
    def _half_log_det(self) -> Any:
        return self._narrow_scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @property
    def mean(self) -> Any:
        return self.loc

    @property
    def mode(self) -> Any:
        return self.loc

    @property
    def variance(self) -> Any:
        squares = (self._narrow_scale**2).sum(-1)
        return squares.expand(*self._batch_shape, *self._event_shape)

    def rsample(self, sample_shape: Any = ()) -> Any:
        shape = self._extended_shape(sample_shape)
        eps: Any = randn(*shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + _product(self._narrow_scale, eps)

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        distance = (_product(self._inverse_scale, value - self.loc) ** 2).sum(-1)
        constant = self._event_shape[0] * math.log(2 * math.pi)
        return -0.5 * (constant + distance) - self._half_log_det

    def entropy(self) -> Any:
        n = self._event_shape[0]
        return (0.5 * n * (1.0 + math.log(2 * math.pi)) + self._half_log_det).expand(
            self._batch_shape
        )


def _product(matrix: Any, vector: Any) -> Any:
    return matmul(matrix, vector.unsqueeze(-1)).squeeze(-1)  # type: ignore[attr-defined]


def _inverse(matrix: Any) -> Any:
    """The inverse of lower triangular matrices."""
    identity: Any = eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return solve_triangular(matrix, identity.expand(matrix.shape), upper=False)
