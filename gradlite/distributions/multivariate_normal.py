"""The normal distribution of vectors."""

from __future__ import annotations

import math
from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.matrices import OfCovariance, only_one, product
from gradlite.functions import broadcast_shapes
from gradlite.ops.matmul import matmul
from gradlite.ops.random import randn

__all__ = ["MultivariateNormal"]


class MultivariateNormal(OfCovariance):
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
        name, matrix = only_one(
            covariance_matrix=covariance_matrix,
            precision_matrix=precision_matrix,
            scale_tril=scale_tril,
        )
        if matrix.dim() < 2:
            kind = "scale_tril matrix" if name == "scale_tril" else name
            raise ValueError(
                f"{kind} must be at least two-dimensional, with optional leading batch dimensions"
            )
        batch = broadcast_shapes(matrix.shape[:-2], loc.shape[:-1])
        setattr(self, name, matrix.expand(*batch, -1, -1))
        self.loc = loc.expand(*batch, -1)
        super().__init__(batch, self.loc.shape[-1:], validate_args=validate_args)
        self._factor(name, matrix)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new._narrow_scale = self._narrow_scale
        return new

    # What divergences ask for.
    @property
    def _roots(self) -> list[Any]:
        """Matrices whose squares have the covariance as their sum."""
        return [self._narrow_scale]

    def _distance(self, columns: Any) -> Any:
        """The sum of x^T C^-1 x over the columns x of matrices."""
        return (matmul(self._inverse_scale, columns) ** 2).sum((-2, -1))  # type: ignore[operator]

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
        return self.loc + product(self._narrow_scale, eps)

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        distance = (product(self._inverse_scale, value - self.loc) ** 2).sum(-1)
        constant = self._event_shape[0] * math.log(2 * math.pi)
        return -0.5 * (constant + distance) - self._half_log_det

    def entropy(self) -> Any:
        n = self._event_shape[0]
        return (0.5 * n * (1.0 + math.log(2 * math.pi)) + self._half_log_det).expand(
            self._batch_shape
        )
