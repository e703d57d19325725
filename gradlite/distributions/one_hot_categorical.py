"""The distribution of a class among several, as a vector of zeros and a single 1."""

from __future__ import annotations

from typing import Any, ClassVar

from gradlite.description import Size
from gradlite.distributions import constraints
from gradlite.distributions.categorical import Categorical
from gradlite.distributions.distribution import Distribution
from gradlite.ops.creation import arange, eye

__all__ = ["OneHotCategorical", "OneHotCategoricalStraightThrough"]


class OneHotCategorical(Distribution):
    """One-hot vectors, the place of whose 1 has the distribution `Categorical`.

    Args:
        probs: nonnegative weights along the last dimension; they are divided by their sum.
        logits: or log probabilities up to a constant.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> d = gradlite.distributions.OneHotCategorical(gradlite.tensor([1.0, 1.0, 2.0]))
    >>> d.log_prob(gradlite.tensor([0.0, 0.0, 1.0]))
    tensor(-0.6931)
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.one_hot
    has_enumerate_support = True
    _expands: ClassVar[dict[str, int]] = {}

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._categorical = Categorical(probs, logits)
        super().__init__(
            self._categorical.batch_shape,
            self._categorical.param_shape[-1:],
            validate_args=validate_args,
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new._categorical = self._categorical.expand(batch_shape)
        return new

    @property
    def _param(self) -> Any:
        return self._categorical._param

    @property
    def probs(self) -> Any:
        """The probabilities."""
        return self._categorical.probs

    @property
    def logits(self) -> Any:
        """The log probabilities."""
        return self._categorical.logits

    @property
    def param_shape(self) -> Size:
        """The shape of the parameters."""
        return self._categorical.param_shape

    @property
    def mean(self) -> Any:
        return self.probs

    @property
    def mode(self) -> Any:
        return self._encoded(self.probs.argmax(-1))

    @property
    def variance(self) -> Any:
        return self.probs * (1 - self.probs)

    def _encoded(self, index: Any) -> Any:
        classes: Any = arange(self._event_shape[0], device=self._param.device)
        return (index.unsqueeze(-1) == classes).to(self._param.dtype)

    def sample(self, sample_shape: Any = ()) -> Any:
        return self._encoded(self._categorical.sample(sample_shape))

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        return self._categorical.log_prob(value.argmax(-1))

    def entropy(self) -> Any:
        return self._categorical.entropy()

    def enumerate_support(self, expand: bool = True) -> Any:
        n = self._event_shape[0]
        values: Any = eye(n, dtype=self._param.dtype, device=self._param.device)
        values = values.view(n, *[1] * len(self._batch_shape), n)
        return values.expand(n, *self._batch_shape, n) if expand else values


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """`OneHotCategorical` whose samples have the gradient of the probabilities.

    Bengio et al., "Estimating or propagating gradients through stochastic neurons", 2013.

    >>> import gradlite
    >>> weights = gradlite.ones(3, requires_grad=True)
    >>> d = gradlite.distributions.OneHotCategoricalStraightThrough(weights)
    >>> d.rsample().requires_grad
    True
    """

    has_rsample = True
    _expands: ClassVar[dict[str, int]] = {}

    def rsample(self, sample_shape: Any = ()) -> Any:
        probs = self.probs
        return self.sample(sample_shape) + (probs - probs.detach())
