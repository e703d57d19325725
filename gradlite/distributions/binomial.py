"""The binomial distribution."""

from __future__ import annotations

from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.bernoulli import OfProbability
from gradlite.grad_mode import no_grad
from gradlite.ops.creation import arange
from gradlite.ops.variates import binomial

__all__ = ["Binomial"]


class Binomial(OfProbability):
    """How many of several coins show 1.

    Args:
        total_count: how many coins there are, a number or a tensor.
        probs: the probability of 1, a number or a tensor.
        logits: or its log odds.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.Binomial(2, 0.5).log_prob(gradlite.tensor([0.0, 1.0, 2.0]))
    tensor([-1.3863, -0.6931, -1.3863])
    """

    arg_constraints = {
        "total_count": constraints.nonnegative_integer,
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }
    has_enumerate_support = True
    _expands = {"total_count": 0, "probs": 0, "logits": 0}

    def __init__(
        self,
        total_count: Any = 1,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        (count,) = self._set(probs, logits, total_count)
        self.total_count = count.to(self._param.dtype)
        self._number = total_count if isinstance(total_count, int) else None
        super().__init__(self._param.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new._number = self._number
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The integers from 0 to the total count."""
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Any:
        return self.total_count * self.probs

    @property
    def mode(self) -> Any:
        return ((self.total_count + 1) * self.probs).floor().clamp(max=self.total_count)

    @property
    def variance(self) -> Any:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Any:
        shape = self._extended_shape(sample_shape)
        with no_grad():
            return binomial(self.total_count.expand(shape), self.probs.expand(shape))

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        n, logits = self.total_count, self.logits
        # max(logits, 0), with half the gradient at 0.
        positive = (logits.clamp(min=0) + logits - logits.clamp(max=0)) / 2
        normalizer = n * positive + n * (-logits.abs()).exp().log1p() - (n + 1).lgamma()
        ways = (value + 1).lgamma() + (n - value + 1).lgamma()
        return value * logits - ways - normalizer

    def _one_count(self, what: str) -> int:
        if self._number is not None:
            return self._number
        most = int(self.total_count.max())
        if int(self.total_count.min()) != most:
            raise NotImplementedError(f"Inhomogeneous total count not supported by `{what}`.")
        return most

    def entropy(self) -> Any:
        self._one_count("entropy")
        log_prob = self.log_prob(self.enumerate_support(False))
        return -(log_prob.exp() * log_prob).sum(0)

    def enumerate_support(self, expand: bool = True) -> Any:
        most, like = self._one_count("enumerate_support"), self._param
        values: Any = arange(most + 1, dtype=like.dtype, device=like.device)
        values = values.view(-1, *[1] * len(self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values
