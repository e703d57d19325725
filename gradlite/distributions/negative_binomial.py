"""The negative binomial distribution."""

from __future__ import annotations

from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.bernoulli import OfProbability
from gradlite.distributions.gamma import Gamma
from gradlite.grad_mode import no_grad
from gradlite.ops.activation import logsigmoid
from gradlite.ops.choose import where
from gradlite.ops.variates import poisson

__all__ = ["NegativeBinomial"]


class NegativeBinomial(OfProbability):
    """How many times a coin shows 1 before it has shown 0 a number of times.

    Args:
        total_count: how many times 0, a number or a tensor; it need not be whole.
        probs: the probability of 1, below 1, a number or a tensor.
        logits: or its log odds.
        validate_args: see `Distribution`.

    A sample is one of a Poisson distribution whose rate is a sample of a gamma distribution.

    >>> import gradlite
    >>> gradlite.distributions.NegativeBinomial(3, 0.5).log_prob(gradlite.tensor([0.0, 1.0]))
    tensor([-2.0794, -1.6740])
    """

    arg_constraints = {
        "total_count": constraints.greater_than_eq(0),
        "probs": constraints.half_open_interval(0.0, 1.0),
        "logits": constraints.real,
    }
    support = constraints.nonnegative_integer
    _expands = {"total_count": 0, "probs": 0, "logits": 0}

    def __init__(
        self,
        total_count: Any,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        (count,) = self._set(probs, logits, total_count)
        self.total_count = count.to(self._param.dtype)
        super().__init__(self._param.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return self.total_count * self.logits.exp()

    @property
    def mode(self) -> Any:
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self) -> Any:
        return self.mean / (-self.logits).sigmoid()

    def sample(self, sample_shape: Any = ()) -> Any:
        with no_grad():
            rates = Gamma(self.total_count, (-self.logits).exp(), validate_args=False)
            return poisson(rates.sample(sample_shape))

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        count, logits = self.total_count, self.logits
        coins: Any = count * logsigmoid(-logits) + value * logsigmoid(logits)
        ways = (count + value).lgamma() - (value + 1).lgamma() - count.lgamma()
        # There is one way to see 0 no times, where the gamma functions are infinite.
        return coins + where(count + value == 0, 0.0, ways)
