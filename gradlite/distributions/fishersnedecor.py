"""The F-distribution of Fisher and Snedecor."""

from __future__ import annotations

import math
from typing import Any

from gradlite import dtypes
from gradlite.distributions import constraints
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.gamma import Gamma
from gradlite.distributions.utils import broadcast_all
from gradlite.ops.choose import where

__all__ = ["FisherSnedecor"]


class FisherSnedecor(Distribution):
    """The F-distribution, of the ratio of two chi-squared numbers, each over its df.

    Args:
        df1, df2: the degrees of freedom above and below, numbers or tensors.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.FisherSnedecor(3.0, 4.0).mean
    tensor(2.)
    """

    arg_constraints = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive
    has_rsample = True
    _expands = {"df1": 0, "df2": 0}

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None) -> None:
        self.df1, self.df2 = broadcast_all(df1, df2)
        self._gammas = [Gamma(df * 0.5, df) for df in (self.df1, self.df2)]
        super().__init__(self.df1.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new._gammas = [gamma.expand(batch_shape) for gamma in self._gammas]
        return new

    def _above(self, least: int) -> Any:
        """The degrees of freedom below where they are more than this, and NaN where not."""
        return where(self.df2 <= least, math.nan, self.df2)

    @property
    def mean(self) -> Any:
        """NaN where there are no more than 2 degrees of freedom below."""
        df2 = self._above(2)
        return df2 / (df2 - 2)

    @property
    def mode(self) -> Any:
        """NaN where there are no more than 2 degrees of freedom above."""
        mode = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return where(self.df1 <= 2, math.nan, mode)

    @property
    def variance(self) -> Any:
        """NaN where there are no more than 4 degrees of freedom below."""
        df1, df2 = self.df1, self._above(4)
        return 2 * df2**2 * (df1 + df2 - 2) / (df1 * (df2 - 2) ** 2 * (df2 - 4))

    def rsample(self, sample_shape: Any = ()) -> Any:
        above, below = (gamma.rsample(sample_shape) for gamma in self._gammas)
        tiny = dtypes.finfo(below.dtype).tiny
        return (above / below.clamp(min=tiny)).clamp(min=tiny)

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        a, b, ratio = self.df1 * 0.5, self.df2 * 0.5, self.df1 / self.df2
        normalizer = a.lgamma() + b.lgamma() - (a + b).lgamma()
        power = a * ratio.log() + (a - 1) * value.log()
        return power - (a + b) * (ratio * value).log1p() - normalizer
