"""The gamma distribution."""

from __future__ import annotations

from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.exp_family import ExponentialFamily
from gradlite.distributions.utils import broadcast_all
from gradlite.ops.creation import as_tensor
from gradlite.ops.incomplete_gamma import igamma
from gradlite.ops.special import xlogy
from gradlite.ops.variates import standard_gamma

__all__ = ["Gamma"]


class Gamma(ExponentialFamily):
    """The gamma distribution.

    Args:
        concentration: its shape, a number or a tensor.
        rate: one over its scale.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.Gamma(2.0, 1.0).log_prob(gradlite.tensor([1.0, 2.0]))
    tensor([-1.0000, -1.3069])
    """

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _mean_carrier_measure = 0
    _expands = {"concentration": 0, "rate": 0}

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return self.concentration / self.rate

    @property
    def mode(self) -> Any:
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Any:
        return self.concentration / self.rate**2

    def rsample(self, sample_shape: Any = ()) -> Any:
        shape = self._extended_shape(sample_shape)
        samples: Any = standard_gamma(self.concentration.expand(shape))
        return samples / self.rate

    def log_prob(self, value: Any) -> Any:
        value = as_tensor(value, dtype=self.rate.dtype, device=self.rate.device)
        if self._validate_args:
            self._validate_sample(value)
        a, rate = self.concentration, self.rate
        return xlogy(a, rate) + xlogy(a - 1, value) - rate * value - a.lgamma()  # type: ignore[operator]

    def cdf(self, value: Any) -> Any:
        """Differentiable by the rate and the value, and not by the concentration."""
        if self._validate_args:
            self._validate_sample(value)
        return igamma(self.concentration, self.rate * value)

    def entropy(self) -> Any:
        a = self.concentration
        return a - self.rate.log() + a.lgamma() + (1.0 - a) * a.digamma()

    @property
    def _natural_params(self) -> tuple[Any, ...]:  # type: ignore[override]
        return self.concentration - 1, -self.rate

    def _log_normalizer(self, x: Any, y: Any) -> Any:  # type: ignore[override]
        return (x + 1).lgamma() - (x + 1) * (-y).log()
