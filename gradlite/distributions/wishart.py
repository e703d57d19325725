"""The Wishart distribution of positive definite matrices."""

from __future__ import annotations

import math
import warnings
from typing import Any

from gradlite import dtypes
from gradlite.distributions import constraints
from gradlite.distributions.chi2 import Chi2
from gradlite.distributions.distribution import Message
from gradlite.distributions.exp_family import ExponentialFamily
from gradlite.distributions.matrices import OfCovariance, only_one, square
from gradlite.functions import broadcast_shapes
from gradlite.ops import shortcuts
from gradlite.ops.choose import where
from gradlite.ops.creation import arange, tensor
from gradlite.ops.linear_systems import slogdet
from gradlite.ops.matmul import matmul
from gradlite.ops.random import randn
from gradlite.ops.special import mvlgamma
from gradlite.ops.triangular import cholesky_solve
from gradlite.tensor import Tensor

__all__ = ["Wishart"]


class _TooFew(Message):
    """What is wrong with degrees of freedom."""

    def __call__(self, array: Any) -> str:
        return _too_few(self._wrapped(array), self._constraint.lower_bound)


def _too_few(df: Any, least: int) -> str:
    return f"Value of df={df} expected to be greater than ndim - 1 = {least}."


class Wishart(OfCovariance, ExponentialFamily):
    """The Wishart distribution, of the sum of ``df`` products x x^T of normal vectors.

    Args:
        df: the degrees of freedom, more than n - 1, a number or a tensor.
        covariance_matrix: the covariance C of the vectors, (*, n, n).
        precision_matrix: or its inverse.
        scale_tril: or the lower triangular L with a positive diagonal and C = L L^T.
        validate_args: see `Distribution`.

    A sample is singular in its precision once in a while where there are few degrees of freedom:
    its log probability is then infinite.

    Raises:
        AssertionError: not one matrix.
        ValueError: one of fewer than two dimensions, or too few degrees of freedom.

    >>> import gradlite
    >>> gradlite.distributions.Wishart(3, gradlite.eye(2)).mean
    tensor([[3., 0.],
            [0., 3.]])
    """

    support = constraints.positive_definite
    has_rsample = True
    _mean_carrier_measure = 0
    _expands = {"df": 0, "covariance_matrix": 2, "precision_matrix": 2, "scale_tril": 2}

    def __init__(
        self,
        df: Any,
        covariance_matrix: Any = None,
        precision_matrix: Any = None,
        scale_tril: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        name, matrix = only_one(
            AssertionError,
            covariance_matrix=covariance_matrix,
            precision_matrix=precision_matrix,
            scale_tril=scale_tril,
        )
        if matrix.dim() < 2:
            raise ValueError(
                "scale_tril must be at least two-dimensional, with optional leading batch "
                "dimensions"
            )
        batch, n = matrix.shape[:-2], matrix.shape[-1]
        if isinstance(df, Tensor):
            batch = broadcast_shapes(batch, df.shape)
            self.df: Any = df.expand(batch)
        else:
            self.df = tensor(df, dtype=matrix.dtype, device=matrix.device)
        enough, least = (self.df > n - 1).all().array, constraints.greater_than(n - 1)
        if isinstance(df, Tensor):
            message = _TooFew(self, "df", least, df)
            shortcuts.verify(enough, ValueError, message, df.array)
        else:
            shortcuts.verify(enough, ValueError, _too_few(df, n - 1))
        setattr(self, name, matrix.expand(*batch, -1, -1))
        if shortcuts.allowed((self.df < n).any().array):
            warnings.warn(
                "Low df values detected. Singular samples are highly likely to occur for ndim - 1 "
                "< df < ndim.",
                stacklevel=2,
            )
        super().__init__(batch, matrix.shape[-2:], validate_args=validate_args)
        self._factor(name, matrix)
        below: Any = arange(n, dtype=matrix.dtype, device=matrix.device)
        self._chi2 = Chi2(self.df.expand(batch).unsqueeze(-1) - below)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new._narrow_scale = self._narrow_scale
        new._chi2 = self._chi2.expand((*batch_shape, self._event_shape[-1]))
        return new

    @property
    def arg_constraints(self) -> Any:  # type: ignore[override]
        return {
            "covariance_matrix": constraints.positive_definite,
            "precision_matrix": constraints.positive_definite,
            "scale_tril": constraints.lower_cholesky,
            "df": constraints.greater_than(self._event_shape[-1] - 1),
        }

    @property
    def _of_matrices(self) -> Any:
        """The degrees of freedom, to multiply matrices with."""
        return self.df[..., None, None]

    @property
    def mean(self) -> Any:
        return self._of_matrices * self.covariance_matrix

    @property
    def mode(self) -> Any:
        """NaN where there are no more than n + 1 degrees of freedom."""
        more = self._of_matrices - self._event_shape[-1] - 1
        return where(more <= 0, math.nan, more) * self.covariance_matrix

    @property
    def variance(self) -> Any:
        """Of each element."""
        covariance = self.covariance_matrix
        diagonal = covariance.diagonal(dim1=-2, dim2=-1)
        products = diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2)
        return self._of_matrices * (covariance**2 + products)

    def rsample(self, sample_shape: Any = ()) -> Any:
        """Squares of L A, where A is lower triangular, with normal numbers below its diagonal and
        roots of chi-squared ones on it.

        Bartlett's decomposition: Odell and Feiveson, "A numerical procedure to generate a sample
        covariance matrix", 1966.
        """
        roots = self._chi2.rsample(sample_shape).sqrt()
        roots = roots.clamp(min=dtypes.finfo(roots.dtype).eps)
        shape = self._extended_shape(sample_shape)
        below: Any = randn(*shape, dtype=roots.dtype, device=roots.device)
        return square(matmul(self._narrow_scale, below.tril(-1) + roots.diag_embed()))

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        df, n = self.df, self._event_shape[-1]
        solved: Any = cholesky_solve(value, self._narrow_scale)
        trace = solved.diagonal(dim1=-2, dim2=-1).sum(-1)
        power = (df - n - 1) / 2 * slogdet(value)[1]
        return power - trace / 2 - df * self._scale_term - mvlgamma(df / 2, n)

    @property
    def _scale_term(self) -> Any:
        """Half the logarithm of the determinant of 2 C."""
        return self._event_shape[-1] * math.log(2) / 2 + self._half_log_det

    def entropy(self) -> Any:
        df, n = self.df, self._event_shape[-1]
        places: Any = arange(n, dtype=df.dtype, device=df.device)
        digammas = (df.unsqueeze(-1) / 2 - places / 2).digamma().sum(-1)
        rest = df * n / 2 - (df - n - 1) / 2 * digammas
        return (n + 1) * self._scale_term + mvlgamma(df / 2, n) + rest

    @property
    def _natural_params(self) -> tuple[Any, ...]:  # type: ignore[override]
        return -self.precision_matrix / 2, (self.df - self._event_shape[-1] - 1) / 2

    def _log_normalizer(self, x: Any, y: Any) -> Any:  # type: ignore[override]
        n = self._event_shape[-1]
        half = y + (n + 1) / 2
        return half * (n * math.log(2) - slogdet(-2 * x)[1]) + mvlgamma(half, n)
