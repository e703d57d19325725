"""The distribution of the absolute value of a normal one."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from gradlite.distributions import constraints
from gradlite.distributions.normal import Normal
from gradlite.distributions.transformed_distribution import TransformedDistribution
from gradlite.distributions.transforms import AbsTransform
from gradlite.ops.choose import where
from gradlite.ops.like import zeros_like

__all__ = ["HalfNormal"]


class HalfNormal(TransformedDistribution):
    """\\|x|, where x is normal with the mean 0.

    Args:
        scale: the standard deviation of x, a number or a tensor.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.HalfNormal(1.0).mean
    tensor(0.7979)
    """

    arg_constraints = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _expands: ClassVar[dict[str, int]] = {}

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        base = Normal(0, scale, validate_args=False)
        super().__init__(base, AbsTransform(), validate_args=validate_args)

    @property
    def scale(self) -> Any:
        """The standard deviation of the normal distribution."""
        return self.base_dist.scale  # type: ignore[attr-defined]

    @property
    def mean(self) -> Any:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def mode(self) -> Any:
        return zeros_like(self.scale)

    @property
    def variance(self) -> Any:
        return self.scale**2 * (1 - 2 / math.pi)

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        return where(value >= 0, self.base_dist.log_prob(value) + math.log(2), -math.inf)

    def cdf(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        return 2 * self.base_dist.cdf(value) - 1

    def icdf(self, value: Any) -> Any:
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Any:
        return self.base_dist.entropy() - math.log(2)
