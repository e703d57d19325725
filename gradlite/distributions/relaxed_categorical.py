"""One-hot vectors that are smoothed, and so have gradients."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from gradlite.distributions import constraints
from gradlite.distributions.categorical import Categorical
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.transformed_distribution import TransformedDistribution
from gradlite.distributions.transforms import ExpTransform
from gradlite.distributions.utils import broadcast_all, clamp_probs
from gradlite.ops.random import rand

__all__ = ["ExpRelaxedCategorical", "RelaxedOneHotCategorical"]


class ExpRelaxedCategorical(Distribution):
    """The logarithms of `RelaxedOneHotCategorical`.

    Args:
        temperature: a tensor; the higher, the smoother.
        probs: nonnegative weights of the classes along the last dimension.
        logits: or log probabilities up to a constant.
        validate_args: see `Distribution`.
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.real_vector  # of which it fills a surface
    has_rsample = True
    _expands: ClassVar[dict[str, int]] = {}

    def __init__(
        self,
        temperature: Any,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        self._categorical = Categorical(probs, logits)
        self.temperature = temperature
        shape = self._categorical.param_shape
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new.temperature = self.temperature
        new._categorical = self._categorical.expand(batch_shape)
        return new

    @property
    def param_shape(self) -> Any:
        """The shape of the parameters."""
        return self._categorical.param_shape

    @property
    def probs(self) -> Any:
        """The probabilities of the classes."""
        return self._categorical.probs

    @property
    def logits(self) -> Any:
        """Their logarithms."""
        return self._categorical.logits

    def rsample(self, sample_shape: Any = ()) -> Any:
        shape, logits = self._extended_shape(sample_shape), self.logits
        u = clamp_probs(rand(*shape, dtype=logits.dtype, device=logits.device))
        scores = (logits - (-u.log()).log()) / self.temperature
        return scores - scores.logsumexp(-1, keepdim=True)

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        classes = self._event_shape[0]
        logits, value = broadcast_all(self.logits, value)
        scale = math.lgamma(classes) + (classes - 1) * self.temperature.log()
        score = logits - value * self.temperature
        return (score - score.logsumexp(-1, keepdim=True)).sum(-1) + scale


class RelaxedOneHotCategorical(TransformedDistribution):
    """Vectors on the simplex that become one-hot as the temperature falls.

    Jang, Gu and Poole, "Categorical reparameterization with Gumbel-softmax", 2016.

    Args:
        temperature: a tensor; the higher, the smoother.
        probs: nonnegative weights of the classes along the last dimension.
        logits: or log probabilities up to a constant.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> logits = gradlite.zeros(3, requires_grad=True)
    >>> d = gradlite.distributions.RelaxedOneHotCategorical(gradlite.tensor(0.5), logits=logits)
    >>> d.rsample().requires_grad
    True
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.simplex
    has_rsample = True
    _expands: ClassVar[dict[str, int]] = {}

    def __init__(
        self,
        temperature: Any,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        base = ExpRelaxedCategorical(temperature, probs, logits, validate_args=validate_args)
        super().__init__(base, ExpTransform(), validate_args=validate_args)

    @property
    def temperature(self) -> Any:
        """The temperature."""
        return self.base_dist.temperature  # type: ignore[attr-defined]

    @property
    def probs(self) -> Any:
        """The probabilities of the classes."""
        return self.base_dist.probs  # type: ignore[attr-defined]

    @property
    def logits(self) -> Any:
        """Their logarithms."""
        return self.base_dist.logits  # type: ignore[attr-defined]
