"""The geometric distribution."""

from __future__ import annotations

from typing import Any

from gradlite import dtypes
from gradlite.distributions import constraints
from gradlite.distributions.bernoulli import OfProbability
from gradlite.distributions.distribution import Message
from gradlite.distributions.utils import broadcast_all
from gradlite.grad_mode import no_grad
from gradlite.ops.choose import where
from gradlite.ops.like import zeros_like
from gradlite.ops.loss import binary_cross_entropy_with_logits
from gradlite.ops.random import rand
from gradlite.tensor import wrap

__all__ = ["Geometric"]


class _NotPositive(Message):
    """What is wrong with a probability of 0."""

    def __call__(self, array: Any) -> str:
        shape, distribution, _ = self._parts(array)
        return (
            f"Expected parameter {self._name} {shape} of distribution {distribution} to be "
            f"positive but found invalid values:\n{wrap(array[~(array > 0)])}"
        )


class Geometric(OfProbability):
    """How often a coin shows 0 before its first 1.

    Args:
        probs: the probability of 1, a number or a tensor.
        logits: or its log odds.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.Geometric(0.5).log_prob(gradlite.tensor([0.0, 1.0]))
    tensor([-0.6931, -1.3863])
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.nonnegative_integer
    _expands = {"probs": 0, "logits": 0}

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._set(probs, logits)
        super().__init__(self._param.shape, validate_args=validate_args)
        if self._validate_args and probs is not None:
            self._require(_NotPositive, "probs", constraints.positive, self.probs)

    @property
    def mean(self) -> Any:
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Any:
        return zeros_like(self.probs)

    @property
    def variance(self) -> Any:
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Any = ()) -> Any:
        shape, probs = self._extended_shape(sample_shape), self.probs.detach()
        with no_grad():
            u: Any = rand(*shape, dtype=probs.dtype, device=probs.device)
            u = u.clamp(min=dtypes.finfo(probs.dtype).tiny)
            return (u.log() / (-probs).log1p()).floor()

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        value, probs = broadcast_all(value, self.probs)
        certain = (probs == 1) & (value == 0)  # 0 log(0)
        return value * (-where(certain, 0.0, probs)).log1p() + self.probs.log()

    def entropy(self) -> Any:
        entropy: Any = binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")
        return entropy / self.probs
