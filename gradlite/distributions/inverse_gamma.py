"""The distribution of what is one over a gamma sample."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from gradlite.distributions import constraints
from gradlite.distributions.gamma import Gamma
from gradlite.distributions.transformed_distribution import TransformedDistribution
from gradlite.distributions.transforms import PowerTransform
from gradlite.ops.choose import where

__all__ = ["InverseGamma"]


class InverseGamma(TransformedDistribution):
    """1 / x, where x has a gamma distribution.

    Args:
        concentration, rate: those of x, numbers or tensors.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.InverseGamma(3.0, 4.0).mean
    tensor(2.)
    """

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.positive
    has_rsample = True
    _expands: ClassVar[dict[str, int]] = {}

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        base = Gamma(concentration, rate, validate_args=validate_args)
        minus_one = -base.rate.new_ones(())
        super().__init__(base, PowerTransform(minus_one), validate_args=validate_args)

    @property
    def concentration(self) -> Any:
        """The gamma distribution's shape."""
        return self.base_dist.concentration  # type: ignore[attr-defined]

    @property
    def rate(self) -> Any:
        """One over the gamma distribution's scale."""
        return self.base_dist.rate  # type: ignore[attr-defined]

    @property
    def mean(self) -> Any:
        """Infinite up to a concentration of 1."""
        a = self.concentration
        return where(a > 1, self.rate / (a - 1), math.inf)

    @property
    def mode(self) -> Any:
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Any:
        """Infinite up to a concentration of 2."""
        a = self.concentration
        return where(a > 2, self.rate**2 / ((a - 1) ** 2 * (a - 2)), math.inf)

    def entropy(self) -> Any:
        a = self.concentration
        return a + self.rate.log() + a.lgamma() - (1 + a) * a.digamma()
