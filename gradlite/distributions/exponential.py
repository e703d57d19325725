"""The exponential distribution."""

from __future__ import annotations

from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.exp_family import ExponentialFamily
from gradlite.distributions.utils import broadcast_all
from gradlite.ops.like import zeros_like
from gradlite.ops.random import rand

__all__ = ["Exponential"]


class Exponential(ExponentialFamily):
    """The exponential distribution, of waiting times.

    Args:
        rate: one over the mean, a number or a tensor.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.Exponential(2.0).log_prob(gradlite.tensor([0.0, 1.0]))
    tensor([ 0.6931, -1.3069])
    """

    arg_constraints = {"rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _mean_carrier_measure = 0
    _expands = {"rate": 0}

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return self.rate.reciprocal()

    @property
    def mode(self) -> Any:
        return zeros_like(self.rate)

    @property
    def stddev(self) -> Any:
        return self.rate.reciprocal()

    @property
    def variance(self) -> Any:
        return self.rate**-2

    def rsample(self, sample_shape: Any = ()) -> Any:
        shape = self._extended_shape(sample_shape)
        u: Any = rand(*shape, dtype=self.rate.dtype, device=self.rate.device)
        return -(-u).log1p() / self.rate

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        return self.rate.log() - self.rate * value

    def cdf(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        return 1 - (-self.rate * value).exp()

    def icdf(self, value: Any) -> Any:
        return -(-value).log1p() / self.rate

    def entropy(self) -> Any:
        return 1.0 - self.rate.log()

    @property
    def _natural_params(self) -> tuple[Any, ...]:  # type: ignore[override]
        return (-self.rate,)

    def _log_normalizer(self, x: Any) -> Any:  # type: ignore[override]
        return -(-x).log()
