"""The Pareto distribution."""

from __future__ import annotations

from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.exponential import Exponential
from gradlite.distributions.transformed_distribution import TransformedDistribution
from gradlite.distributions.transforms import AffineTransform, ExpTransform
from gradlite.distributions.utils import broadcast_all

__all__ = ["Pareto"]


class Pareto(TransformedDistribution):
    """The Pareto distribution: what is larger than x has a probability of (scale / x) ** alpha.

    Args:
        scale: the smallest value, a number or a tensor.
        alpha: its shape.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.Pareto(1.0, 2.0).cdf(gradlite.tensor([1.0, 2.0]))
    tensor([0.0000, 0.7500])
    """

    arg_constraints = {"alpha": constraints.positive, "scale": constraints.positive}
    _expands = {"scale": 0, "alpha": 0}

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None) -> None:
        self.scale, self.alpha = broadcast_all(scale, alpha)
        base = Exponential(self.alpha, validate_args=validate_args)
        transforms: Any = [ExpTransform(), AffineTransform(0, self.scale)]
        super().__init__(base, transforms, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """The numbers from the scale on."""
        return constraints.greater_than_eq(self.scale)

    @property
    def mean(self) -> Any:
        """Infinite up to an alpha of 1."""
        a = self.alpha.clamp(min=1)
        return a * self.scale / (a - 1)

    @property
    def mode(self) -> Any:
        return self.scale

    @property
    def variance(self) -> Any:
        """Infinite up to an alpha of 2."""
        a = self.alpha.clamp(min=2)
        return self.scale**2 * a / ((a - 1) ** 2 * (a - 2))

    def entropy(self) -> Any:
        return (self.scale / self.alpha).log() + 1 + self.alpha.reciprocal()
