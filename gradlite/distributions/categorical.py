"""The distribution of a class among several."""

from __future__ import annotations

import math
from typing import Any

from gradlite import dtypes
from gradlite.description import Size
from gradlite.distributions import constraints
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.utils import lazy_property, logits_to_probs, probs_to_logits
from gradlite.grad_mode import no_grad
from gradlite.ops.assemble import broadcast_tensors
from gradlite.ops.chances import multinomial
from gradlite.ops.creation import arange, full

__all__ = ["Categorical"]


class Categorical(Distribution):
    """Class numbers 0 to K - 1, each with its probability.

    Args:
        probs: nonnegative weights along the last dimension; they are divided by their sum.
        logits: or log probabilities up to a constant.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> d = gradlite.distributions.Categorical(gradlite.tensor([1.0, 1.0, 2.0]))
    >>> d.log_prob(gradlite.tensor([0, 2]))
    tensor([-1.3863, -0.6931])
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True
    _expands = {"probs": 1, "logits": 1}

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        if (probs is None) == (logits is None):
            raise ValueError("Either `probs` or `logits` must be specified, but not both.")
        given = logits if probs is None else probs
        if given.dim() < 1:
            name = "logits" if probs is None else "probs"
            raise ValueError(f"`{name}` parameter must be at least one-dimensional.")
        if probs is not None:
            self.probs = probs / probs.sum(-1, keepdim=True)
        else:
            self.logits = logits - logits.logsumexp(-1, keepdim=True)
        super().__init__(given.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The class numbers."""
        return constraints.integer_interval(0, self._num_events - 1)

    @lazy_property
    def logits(self) -> Any:
        """The log probabilities."""
        return probs_to_logits(self.probs)

    @lazy_property
    def probs(self) -> Any:
        """The probabilities."""
        return logits_to_probs(self.logits)

    @property
    def _param(self) -> Any:
        return self.__dict__["probs" if "probs" in self.__dict__ else "logits"]

    @property
    def _num_events(self) -> int:
        return self._param.shape[-1]

    @property
    def param_shape(self) -> Size:
        """The shape of the parameters: the batch's, and the number of classes."""
        return self._param.size()

    @property
    def mean(self) -> Any:
        """NaN: class numbers have no mean."""
        return full(
            self._extended_shape(), math.nan, dtype=self._param.dtype, device=self._param.device
        )

    @property
    def mode(self) -> Any:
        return self.probs.argmax(-1)

    @property
    def variance(self) -> Any:
        """NaN: class numbers have no variance."""
        return self.mean

    def sample(self, sample_shape: Any = ()) -> Any:
        with no_grad():
            rows = self.probs.reshape(-1, self._num_events)
            drawn: Any = multinomial(rows, Size(sample_shape).numel(), replacement=True)
            return drawn.T.reshape(self._extended_shape(sample_shape))

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        index, logits = value.to(dtypes.int64).unsqueeze(-1), self.logits
        if index.shape[:-1] != logits.shape[:-1]:
            index, logits = broadcast_tensors(index, logits)
            index = index[..., :1]
        return logits.gather(-1, index).squeeze(-1)

    def entropy(self) -> Any:
        logits = self.logits.clamp(min=dtypes.finfo(self.logits.dtype).min)
        return -(logits * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Any:
        values: Any = arange(self._num_events, dtype=dtypes.int64, device=self._param.device)
        values = values.view(-1, *[1] * len(self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values
