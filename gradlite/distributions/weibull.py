"""The Weibull distribution."""

from __future__ import annotations

from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.exponential import Exponential
from gradlite.distributions.transformed_distribution import TransformedDistribution
from gradlite.distributions.transforms import AffineTransform, PowerTransform
from gradlite.distributions.utils import broadcast_all, euler_constant
from gradlite.ops.like import ones_like

__all__ = ["Weibull"]


class Weibull(TransformedDistribution):
    """The Weibull distribution, of waiting times whose rate is a power of the time.

    Args:
        scale: its scale, a number or a tensor.
        concentration: its shape; 1 is the exponential distribution.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.Weibull(2.0, 1.0).mean
    tensor(2.)
    """

    arg_constraints = {"scale": constraints.positive, "concentration": constraints.positive}
    support = constraints.positive
    _expands = {"scale": 0, "concentration": 0, "concentration_reciprocal": 0}

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.scale, self.concentration = broadcast_all(scale, concentration)
        self.concentration_reciprocal = self.concentration.reciprocal()
        base = Exponential(ones_like(self.scale), validate_args=validate_args)
        transforms: Any = [
            PowerTransform(self.concentration_reciprocal),
            AffineTransform(0, self.scale),
        ]
        super().__init__(base, transforms, validate_args=validate_args)

    def _moment(self, n: int) -> Any:
        return self.scale**n * (1 + n * self.concentration_reciprocal).lgamma().exp()

    @property
    def mean(self) -> Any:
        return self._moment(1)

    @property
    def mode(self) -> Any:
        """NaN where the concentration is below 1."""
        inverse = self.concentration_reciprocal
        return self.scale * (1 - inverse) ** inverse

    @property
    def variance(self) -> Any:
        return self._moment(2) - self._moment(1) ** 2

    def entropy(self) -> Any:
        inverse = self.concentration_reciprocal
        return euler_constant * (1 - inverse) + (self.scale * inverse).log() + 1
