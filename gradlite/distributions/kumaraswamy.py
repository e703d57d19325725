"""The Kumaraswamy distribution."""

from __future__ import annotations

import math
from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.transformed_distribution import TransformedDistribution
from gradlite.distributions.transforms import AffineTransform, PowerTransform
from gradlite.distributions.uniform import Uniform
from gradlite.distributions.utils import broadcast_all, euler_constant
from gradlite.ops.choose import where
from gradlite.ops.like import ones_like, zeros_like

__all__ = ["Kumaraswamy"]


class Kumaraswamy(TransformedDistribution):
    """The Kumaraswamy distribution of numbers from 0 to 1: that of (1 - u^(1/b))^(1/a).

    It is much like the beta distribution, with a distribution function of powers alone.

    Args:
        concentration1, concentration0: its shape parameters a and b, numbers or tensors.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.Kumaraswamy(2.0, 1.0).cdf(gradlite.tensor(0.5))
    tensor(0.2500)
    """

    arg_constraints = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
    }
    support = constraints.unit_interval
    has_rsample = True
    _expands = {"concentration1": 0, "concentration0": 0}

    def __init__(
        self, concentration1: Any, concentration0: Any, validate_args: bool | None = None
    ) -> None:
        a, b = broadcast_all(concentration1, concentration0)
        self.concentration1, self.concentration0 = a, b
        base = Uniform(zeros_like(b), ones_like(b), validate_args=validate_args)
        transforms: Any = [
            PowerTransform(b.reciprocal()),
            AffineTransform(1.0, -1.0),
            PowerTransform(a.reciprocal()),
        ]
        super().__init__(base, transforms, validate_args=validate_args)

    def _moment(self, n: int) -> Any:
        b, first = self.concentration0, 1 + n / self.concentration1
        return b * (first.lgamma() + b.lgamma() - (first + b).lgamma()).exp()

    @property
    def mean(self) -> Any:
        return self._moment(1)

    @property
    def mode(self) -> Any:
        """NaN where a concentration is below 1."""
        a, b = self.concentration1, self.concentration0
        log = b.reciprocal() * (-b).log1p() - (-b * a).log1p()
        return where((a < 1) | (b < 1), math.nan, log).exp()

    @property
    def variance(self) -> Any:
        return self._moment(2) - self._moment(1) ** 2

    def entropy(self) -> Any:
        a, b = self.concentration1, self.concentration0
        harmonic = (b + 1).digamma() + euler_constant
        return (1 - b.reciprocal()) + (1 - a.reciprocal()) * harmonic - a.log() - b.log()
