"""The distribution of the absolute value of a Cauchy one."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from gradlite.distributions import constraints
from gradlite.distributions.cauchy import Cauchy
from gradlite.distributions.transformed_distribution import TransformedDistribution
from gradlite.distributions.transforms import AbsTransform
from gradlite.ops.choose import where
from gradlite.ops.creation import as_tensor
from gradlite.ops.like import zeros_like

__all__ = ["HalfCauchy"]


class HalfCauchy(TransformedDistribution):
    """\\|x|, where x has a Cauchy distribution around 0.

    Args:
        scale: that of x, and the median of its absolute value, a number or a tensor.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.HalfCauchy(2.0).cdf(gradlite.tensor(2.0))
    tensor(0.5000)
    """

    arg_constraints = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _expands: ClassVar[dict[str, int]] = {}

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        base = Cauchy(0, scale, validate_args=False)
        super().__init__(base, AbsTransform(), validate_args=validate_args)

    @property
    def scale(self) -> Any:
        """The scale of the Cauchy distribution."""
        return self.base_dist.scale  # type: ignore[attr-defined]

    @property
    def mean(self) -> Any:
        """Infinite."""
        return self.variance

    @property
    def mode(self) -> Any:
        return zeros_like(self.scale)

    @property
    def variance(self) -> Any:
        """Infinite."""
        return self.base_dist.variance

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        value = as_tensor(value, dtype=self.scale.dtype, device=self.scale.device)
        return where(value >= 0, self.base_dist.log_prob(value) + math.log(2), -math.inf)

    def cdf(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        return 2 * self.base_dist.cdf(value) - 1

    def icdf(self, value: Any) -> Any:
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Any:
        return self.base_dist.entropy() - math.log(2)
