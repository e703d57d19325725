"""The Poisson distribution."""

from __future__ import annotations

from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.exp_family import ExponentialFamily
from gradlite.distributions.utils import broadcast_all
from gradlite.grad_mode import no_grad
from gradlite.ops.special import xlogy
from gradlite.ops.variates import poisson

__all__ = ["Poisson"]


class Poisson(ExponentialFamily):
    """The Poisson distribution, of counts of rare events.

    Args:
        rate: the mean, a number or a tensor.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.Poisson(2.0).log_prob(gradlite.tensor([0.0, 1.0]))
    tensor([-2.0000, -1.3069])
    """

    arg_constraints = {"rate": constraints.nonnegative}
    support = constraints.nonnegative_integer
    _expands = {"rate": 0}

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return self.rate

    @property
    def mode(self) -> Any:
        return self.rate.floor()

    @property
    def variance(self) -> Any:
        return self.rate

    def sample(self, sample_shape: Any = ()) -> Any:
        with no_grad():
            return poisson(self.rate.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        rate, value = broadcast_all(self.rate, value)
        return xlogy(value, rate) - rate - (value + 1).lgamma()

    @property
    def _natural_params(self) -> tuple[Any, ...]:  # type: ignore[override]
        return (self.rate.log(),)

    def _log_normalizer(self, x: Any) -> Any:  # type: ignore[override]
        return x.exp()
