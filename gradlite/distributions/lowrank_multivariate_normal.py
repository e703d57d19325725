"""The normal distribution of vectors whose covariance is a diagonal and a few directions more."""

from __future__ import annotations

import math
from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.matrices import log_diagonal, product, square
from gradlite.distributions.utils import lazy_property
from gradlite.functions import broadcast_shapes
from gradlite.ops.creation import eye
from gradlite.ops.linear_systems import cholesky
from gradlite.ops.matmul import matmul
from gradlite.ops.random import randn
from gradlite.ops.triangular import solve_triangular

__all__ = ["LowRankMultivariateNormal"]


class LowRankMultivariateNormal(Distribution):
    """The normal distribution of vectors with the covariance C = W W^T + D.

    Args:
        loc: the mean, (*, n).
        cov_factor: W, (*, n, m), where m is the rank.
        cov_diag: the diagonal of D, (*, n).
        validate_args: see `Distribution`.

    What is factored is the m x m matrix I + W^T D^-1 W alone (Woodbury's identity).

    Raises:
        ValueError: a scalar mean, and shapes that do not fit.

    >>> import gradlite
    >>> W = gradlite.tensor([[1.0], [0.0]])
    >>> d = gradlite.distributions.LowRankMultivariateNormal(gradlite.zeros(2), W, gradlite.ones(2))
    >>> d.covariance_matrix
    tensor([[2., 0.],
            [0., 1.]])
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "cov_factor": constraints.independent(constraints.real, 2),
        "cov_diag": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True
    _expands = {"loc": 1, "cov_factor": 2, "cov_diag": 1}

    def __init__(
        self, loc: Any, cov_factor: Any, cov_diag: Any, validate_args: bool | None = None
    ) -> None:
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        event = loc.shape[-1:]
        if cov_factor.dim() < 2:
            raise ValueError(
                "cov_factor must be at least two-dimensional, with optional leading batch "
                "dimensions"
            )
        if cov_factor.shape[-2:-1] != event:
            raise ValueError(f"cov_factor must be a batch of matrices with shape {event[0]} x m")
        if cov_diag.shape[-1:] != event:
            raise ValueError(f"cov_diag must be a batch of vectors with shape {event}")
        try:
            batch = broadcast_shapes(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        except RuntimeError as error:
            raise ValueError(
                f"Incompatible batch shapes: loc {loc.shape}, cov_factor {cov_factor.shape}, "
                f"cov_diag {cov_diag.shape}"
            ) from error
        self.loc, self.cov_diag = loc.expand(*batch, -1), cov_diag.expand(*batch, -1)
        self.cov_factor = cov_factor.expand(*batch, -1, -1)
        self._narrow = cov_factor, cov_diag
        self._over_diag = cov_factor.swapaxes(-2, -1) / cov_diag.unsqueeze(-2)  # W^T D^-1
        self._capacitance = cholesky(_with_identity(matmul(self._over_diag, cov_factor)))
        super().__init__(batch, event, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new._narrow, new._over_diag = self._narrow, self._over_diag
        new._capacitance = self._capacitance
        return new

    def _wide(self, matrix: Any) -> Any:
        return matrix.expand(*self._batch_shape, *self._event_shape, *self._event_shape)

    @property
    def mean(self) -> Any:
        return self.loc

    @property
    def mode(self) -> Any:
        return self.loc

    @lazy_property
    def variance(self) -> Any:  # type: ignore[override]
        """The diagonal of C."""
        factor, diag = self._narrow
        return ((factor**2).sum(-1) + diag).expand(*self._batch_shape, *self._event_shape)

    @lazy_property
    def covariance_matrix(self) -> Any:
        """C."""
        factor, diag = self._narrow
        return self._wide(square(factor) + diag.diag_embed())

    @lazy_property
    def scale_tril(self) -> Any:
        """The lower triangular L with a positive diagonal and C = L L^T."""
        factor, diag = self._narrow
        root = diag.sqrt().unsqueeze(-1)
        # The eigenvalues of this matrix are no smaller than 1.
        return self._wide(root * cholesky(_with_identity(square(factor / root))))

    @lazy_property
    def precision_matrix(self) -> Any:
        """The inverse of C."""
        inner: Any = solve_triangular(self._capacitance, self._over_diag, upper=False)
        diag = self._narrow[1].reciprocal().diag_embed()
        return self._wide(diag - square(inner.swapaxes(-2, -1)))

    # What divergences ask for.
    @property
    def _half_log_det(self) -> Any:
        return log_diagonal(self._capacitance) + 0.5 * self._narrow[1].log().sum(-1)

    @property
    def _roots(self) -> list[Any]:
        """Matrices whose squares have the covariance as their sum."""
        factor, diag = self._narrow
        return [factor, diag.sqrt().diag_embed()]

    def _distance(self, columns: Any) -> Any:
        """The sum of x^T C^-1 x over the columns x of matrices."""
        inner: Any = matmul(self._over_diag, columns)
        less: Any = solve_triangular(self._capacitance, inner, upper=False)
        plain = (columns**2 / self._narrow[1].unsqueeze(-1)).sum((-2, -1))
        return plain - (less**2).sum((-2, -1))

    def rsample(self, sample_shape: Any = ()) -> Any:
        factor, diag = self._narrow
        shape = self._extended_shape(sample_shape)
        like = {"dtype": self.loc.dtype, "device": self.loc.device}
        along: Any = randn(*shape[:-1], factor.shape[-1], **like)
        apart: Any = randn(*shape, **like)
        return self.loc + product(factor, along) + diag.sqrt() * apart

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        distance = self._distance((value - self.loc).unsqueeze(-1))
        constant = self._event_shape[0] * math.log(2 * math.pi)
        return -0.5 * (constant + distance) - self._half_log_det

    def entropy(self) -> Any:
        n = self._event_shape[0]
        constant = 0.5 * n * (1.0 + math.log(2 * math.pi))
        return (constant + self._half_log_det).expand(self._batch_shape)


def _with_identity(matrix: Any) -> Any:
    return matrix + eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
