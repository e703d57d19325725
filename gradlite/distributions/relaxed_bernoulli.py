"""Coins that show something between 0 and 1, and so have gradients."""

from __future__ import annotations

from typing import Any, ClassVar

from gradlite.distributions import constraints
from gradlite.distributions.bernoulli import OfProbability
from gradlite.distributions.transformed_distribution import TransformedDistribution
from gradlite.distributions.transforms import SigmoidTransform
from gradlite.distributions.utils import broadcast_all, clamp_probs
from gradlite.ops.random import rand

__all__ = ["LogitRelaxedBernoulli", "RelaxedBernoulli"]


class LogitRelaxedBernoulli(OfProbability):
    """The log odds of `RelaxedBernoulli`.

    Args:
        temperature: a tensor; the higher, the farther from 0 and 1.
        probs: the probability of 1, a number or a tensor.
        logits: or its log odds.
        validate_args: see `Distribution`.
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.real
    _expands = {"probs": 0, "logits": 0}

    def __init__(
        self,
        temperature: Any,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        self.temperature = temperature
        self._set(probs, logits)
        super().__init__(self._param.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new.temperature = self.temperature
        return new

    def rsample(self, sample_shape: Any = ()) -> Any:
        probs = clamp_probs(self.probs)
        shape = self._extended_shape(sample_shape)
        u = clamp_probs(rand(*shape, dtype=probs.dtype, device=probs.device))
        logistic = u.log() - (-u).log1p()
        return (logistic + probs.log() - (-probs).log1p()) / self.temperature

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        distance = logits - value * self.temperature
        return self.temperature.log() + distance - 2 * distance.exp().log1p()


class RelaxedBernoulli(TransformedDistribution):
    """Numbers between 0 and 1 that become coins as the temperature falls.

    Maddison, Mnih and Teh, "The concrete distribution", 2016.

    Args:
        temperature: a tensor; the higher, the farther from 0 and 1.
        probs: the probability of 1, a number or a tensor.
        logits: or its log odds.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> d = gradlite.distributions.RelaxedBernoulli(gradlite.tensor(0.5), gradlite.tensor([0.3]))
    >>> d.log_prob(gradlite.tensor([0.5]))
    tensor([-0.8675])
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    _expands: ClassVar[dict[str, int]] = {}

    def __init__(
        self,
        temperature: Any,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        base = LogitRelaxedBernoulli(temperature, probs, logits)
        super().__init__(base, SigmoidTransform(), validate_args=validate_args)

    @property
    def temperature(self) -> Any:
        """The temperature."""
        return self.base_dist.temperature  # type: ignore[attr-defined]

    @property
    def probs(self) -> Any:
        """The probability of 1 of the coin."""
        return self.base_dist.probs  # type: ignore[attr-defined]

    @property
    def logits(self) -> Any:
        """Its log odds."""
        return self.base_dist.logits  # type: ignore[attr-defined]
