"""The generalised Pareto distribution, of what lies beyond a high threshold."""

from __future__ import annotations

import math
from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.utils import broadcast_all
from gradlite.ops.choose import where
from gradlite.ops.random import rand
from gradlite.ops.special import xlog1py

__all__ = ["GeneralizedPareto"]


class GeneralizedPareto(Distribution):
    """The generalised Pareto distribution, with z = (x - loc) / scale and the shape k.

    What is larger than x has a probability of (1 + k z) ** (-1 / k), and of exp(-z) where k is 0.

    Args:
        loc, scale: the smallest value, and the scale, numbers or tensors.
        concentration: k; a negative one bounds the values.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.GeneralizedPareto(0.0, 1.0, 0.5).mean
    tensor(2.)
    """

    arg_constraints = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "concentration": constraints.real,
    }
    has_rsample = True
    _expands = {"loc": 0, "scale": 0, "concentration": 0}

    def __init__(
        self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """From the smallest value to infinity, or to where a negative concentration ends it."""
        k = self.concentration
        end = where(k < 0, self.loc - self.scale / k, math.inf)
        return constraints.interval(self.loc, end)

    @property
    def mean(self) -> Any:
        """NaN from a concentration of 1 on."""
        k = where(self.concentration < 1, self.concentration, 0.5)
        return where(self.concentration < 1, self.loc + self.scale / (1 - k), math.nan)

    @property
    def mode(self) -> Any:
        return self.loc

    @property
    def variance(self) -> Any:
        """NaN from a concentration of 1/2 on."""
        k = where(self.concentration < 0.5, self.concentration, 0.25)
        variance = self.scale**2 / ((1 - k) ** 2 * (1 - 2 * k))
        return where(self.concentration < 0.5, variance, math.nan)

    def rsample(self, sample_shape: Any = ()) -> Any:
        shape, like = self._extended_shape(sample_shape), self.loc
        return self.icdf(rand(*shape, dtype=like.dtype, device=like.device))

    def _shape(self) -> tuple[Any, Any]:
        """Where the concentration is nearly 0, and the concentration with 1 there."""
        none = self.concentration.abs() <= 1e-8
        return none, where(none, 1.0, self.concentration)

    def _z(self, value: Any) -> Any:
        return (value - self.loc) / self.scale

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        z = self._z(value)
        none, k = self._shape()
        # A concentration of -1 is the uniform distribution, at its end, too.
        return -self.scale.log() - where(none, z, xlog1py(1 / k + 1, k * z))

    def log_survival_function(self, value: Any) -> Any:
        """The logarithm of the probability of what is larger than the values."""
        if self._validate_args:
            self._validate_sample(value)
        z = self._z(value)
        none, k = self._shape()
        return where(none, -z, -(k * z).log1p() / k)

    def log_cdf(self, value: Any) -> Any:
        """The logarithm of `cdf`."""
        return (-self.log_survival_function(value).exp()).log1p()

    def cdf(self, value: Any) -> Any:
        return self.log_cdf(value).exp()

    def icdf(self, value: Any) -> Any:
        none, k = self._shape()
        log = (-value).log1p()
        return self.loc + self.scale * where(none, -log, (-k * log).expm1() / k)

    def entropy(self) -> Any:
        return self.scale.log() + self.concentration + 1
