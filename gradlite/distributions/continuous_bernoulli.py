"""The continuous Bernoulli distribution."""

from __future__ import annotations

import math
from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.bernoulli import OfProbability
from gradlite.distributions.exp_family import ExponentialFamily
from gradlite.distributions.utils import (
    broadcast_all,
    clamp_probs,
    lazy_property,
    logits_to_probs,
)
from gradlite.ops import shortcuts
from gradlite.ops.choose import where
from gradlite.ops.loss import binary_cross_entropy_with_logits
from gradlite.ops.random import rand

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(OfProbability, ExponentialFamily):
    """Numbers from 0 to 1 with a density in proportion to probs^x (1 - probs)^(1 - x).

    Loaiza-Ganem and Cunningham, "The continuous Bernoulli: fixing a pervasive error in variational
    autoencoders", 2019.

    Args:
        probs: its parameter, kept off 0 and 1, a number or a tensor; it is no mean.
        logits: or its log odds.
        lims: bounds around 1/2 between which Taylor's series are taken.
        validate_args: see `Distribution`.

    Raises:
        ValueError: neither or both parameters, or wrong ones.

    >>> import gradlite
    >>> gradlite.distributions.ContinuousBernoulli(0.5).log_prob(gradlite.tensor([0.2, 0.9]))
    tensor([0., 0.])
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    _mean_carrier_measure = 0
    _expands = {"probs": 0, "logits": 0}

    def __init__(
        self,
        probs: Any = None,
        logits: Any = None,
        lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ) -> None:
        self._set(probs, logits)
        if probs is not None:
            # Before they are limited: then the check below refuses none.
            if validate_args is not None:
                valid = constraints.unit_interval.check(self.probs).all()
                shortcuts.verify(valid.array, ValueError, "The parameter probs has invalid values")
            self.probs = clamp_probs(self.probs)
        self._lims = lims
        super().__init__(self._param.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new._lims = self._lims
        return new

    @lazy_property
    def probs(self) -> Any:
        """The parameter."""
        return clamp_probs(logits_to_probs(self.logits, is_binary=True))

    def _outside(self) -> Any:
        """Where the formulas are taken and not the series."""
        return (self.probs <= self._lims[0]) | (self.probs > self._lims[1])

    def _cut(self) -> tuple[Any, Any, Any]:
        """Where the formulas are taken, the parameters there, and their log odds."""
        outside = self._outside()
        probs = where(outside, self.probs, self._lims[0])
        return outside, probs, probs.log() - (-probs).log1p()

    def _log_norm(self) -> Any:
        """The logarithm of the factor that makes the density of the products."""
        outside, probs, odds = self._cut()
        square = (self.probs - 0.5) ** 2
        series = math.log(2) + (4 / 3 + 104 / 45 * square) * square
        return where(outside, odds.abs().log() - (2 * probs - 1).abs().log(), series)

    @property
    def mean(self) -> Any:
        outside, probs, odds = self._cut()
        shift = self.probs - 0.5
        series = 0.5 + (1 / 3 + 16 / 45 * shift**2) * shift
        return where(outside, probs / (2 * probs - 1) - 1 / odds, series)

    @property
    def variance(self) -> Any:
        outside, probs, odds = self._cut()
        square = (self.probs - 0.5) ** 2
        series = 1 / 12 - (1 / 15 - 128 / 945 * square) * square
        return where(outside, probs * (probs - 1) / (1 - 2 * probs) ** 2 + 1 / odds**2, series)

    def rsample(self, sample_shape: Any = ()) -> Any:
        shape, like = self._extended_shape(sample_shape), self.probs
        return self.icdf(rand(*shape, dtype=like.dtype, device=like.device))

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        losses: Any = binary_cross_entropy_with_logits(logits, value, reduction="none")
        return self._log_norm() - losses

    def cdf(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        outside, probs, _ = self._cut()
        product = probs**value * (1 - probs) ** (1 - value)
        inside = where(outside, (product + probs - 1) / (2 * probs - 1), value)
        return where(value <= 0, 0.0, where(value >= 1, 1.0, inside))

    def icdf(self, value: Any) -> Any:
        outside, probs, odds = self._cut()
        shift = (value * (2 * probs - 1) - probs).log1p() - (-probs).log1p()
        return where(outside, shift / odds, value)

    def entropy(self) -> Any:
        rest = (-self.probs).log1p()
        return self.mean * (rest - self.probs.log()) - self._log_norm() - rest

    @property
    def _natural_params(self) -> tuple[Any, ...]:  # type: ignore[override]
        return (self.logits,)

    def _log_normalizer(self, x: Any) -> Any:  # type: ignore[override]
        low, high = (limit - 0.5 for limit in self._lims)
        outside = (x <= low) | (x > high)
        cut = where(outside, x, low)
        series = 0.5 * x + x**2 / 24 - x**4 / 2880
        return where(outside, (cut.expm1() / cut).log(), series)
