"""The logistic normal distribution of vectors with the sum 1."""

from __future__ import annotations

from typing import Any, ClassVar

from gradlite.distributions import constraints
from gradlite.distributions.normal import Normal
from gradlite.distributions.transformed_distribution import TransformedDistribution
from gradlite.distributions.transforms import StickBreakingTransform

__all__ = ["LogisticNormal"]


class LogisticNormal(TransformedDistribution):
    """Normal vectors onto the simplex of one dimension more, by `StickBreakingTransform`.

    Args:
        loc, scale: mean and standard deviation of the normal numbers, (*, n) or numbers.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> d = gradlite.distributions.LogisticNormal(gradlite.zeros(2), gradlite.ones(2))
    >>> d.sample().shape
    gradlite.Size([3])
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.simplex
    has_rsample = True
    _expands: ClassVar[dict[str, int]] = {}

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        base = Normal(loc, scale, validate_args=validate_args)
        if not base.batch_shape:
            base = base.expand([1])
        super().__init__(base, StickBreakingTransform(), validate_args=validate_args)

    @property
    def loc(self) -> Any:
        """The mean of the normal numbers."""
        return self.base_dist.base_dist.loc  # type: ignore[attr-defined]

    @property
    def scale(self) -> Any:
        """Their standard deviation."""
        return self.base_dist.base_dist.scale  # type: ignore[attr-defined]
