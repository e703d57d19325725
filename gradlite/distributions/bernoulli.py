"""The distribution of a coin."""

from __future__ import annotations

import math
from typing import Any

from gradlite.description import Size
from gradlite.distributions import constraints
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.exp_family import ExponentialFamily
from gradlite.distributions.utils import (
    broadcast_all,
    lazy_property,
    logits_to_probs,
    probs_to_logits,
)
from gradlite.grad_mode import no_grad
from gradlite.ops.chances import bernoulli
from gradlite.ops.choose import where
from gradlite.ops.creation import arange
from gradlite.ops.loss import binary_cross_entropy_with_logits
from gradlite.ops.special import logit

__all__ = ["Bernoulli"]


class OfProbability(Distribution):
    """Base of the distributions of coins, which are told probabilities or log odds."""

    def _set(self, probs: Any, logits: Any, *others: Any) -> Any:
        """Keep what is given, broadcast with other parameters, which are returned."""
        if (probs is None) == (logits is None):
            raise ValueError("Either `probs` or `logits` must be specified, but not both.")
        if probs is not None:
            *others, self.probs = broadcast_all(*others, probs)  # type: ignore[assignment]
        else:
            *others, self.logits = broadcast_all(*others, logits)  # type: ignore[assignment]
        return others

    @lazy_property
    def logits(self) -> Any:
        """The log odds."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Any:
        """The probabilities."""
        return logits_to_probs(self.logits, is_binary=True)

    @property
    def _param(self) -> Any:
        return self.__dict__["probs" if "probs" in self.__dict__ else "logits"]

    @property
    def param_shape(self) -> Size:
        """The shape of the parameters."""
        return self._param.size()


class Bernoulli(OfProbability, ExponentialFamily):
    """1 with a probability, else 0.

    Args:
        probs: the probability of 1, a number or a tensor.
        logits: or its log odds.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> d = gradlite.distributions.Bernoulli(logits=gradlite.tensor([0.0, 2.0]))
    >>> d.log_prob(gradlite.tensor(1.0))
    tensor([-0.6931, -0.1269])
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.boolean
    has_enumerate_support = True
    _mean_carrier_measure = 0
    _expands = {"probs": 0, "logits": 0}

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._set(probs, logits)
        super().__init__(self._param.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return self.probs

    @property
    def mode(self) -> Any:
        """0 or 1; NaN where both are as likely."""
        probs = self.probs
        return where(probs == 0.5, math.nan, (probs >= 0.5).to(probs.dtype))

    @property
    def variance(self) -> Any:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Any:
        with no_grad():
            return bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return -binary_cross_entropy_with_logits(logits, value, reduction="none")  # type: ignore[operator]

    def entropy(self) -> Any:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Any:
        values: Any = arange(2, dtype=self._param.dtype, device=self._param.device)
        values = values.view(-1, *[1] * len(self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values

    @property
    def _natural_params(self) -> tuple[Any, ...]:  # type: ignore[override]
        return (logit(self.probs),)

    def _log_normalizer(self, x: Any) -> Any:  # type: ignore[override]
        return x.exp().log1p()
