"""Mixtures of distributions of one family."""

from __future__ import annotations

from typing import Any, ClassVar

from gradlite.distributions import constraints
from gradlite.distributions.categorical import Categorical
from gradlite.distributions.distribution import Distribution
from gradlite.grad_mode import no_grad

__all__ = ["MixtureSameFamily"]


class MixtureSameFamily(Distribution):
    """A value of one of several distributions, drawn by a `Categorical`.

    Args:
        mixture_distribution: a `Categorical` over the components.
        component_distribution: the components, along the last dimension of its batch.
        validate_args: see `Distribution`.

    Raises:
        ValueError: something else, or shapes that do not fit.

    >>> import gradlite
    >>> from gradlite.distributions import Categorical, Normal
    >>> parts = Normal(gradlite.tensor([-1.0, 1.0]), 1.0)
    >>> MixtureSameFamily(Categorical(gradlite.ones(2)), parts).variance
    tensor(2.)
    """

    arg_constraints: dict[str, Any] = {}
    _expands: ClassVar[dict[str, int]] = {}

    def __init__(
        self,
        mixture_distribution: Categorical,
        component_distribution: Distribution,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(mixture_distribution, Categorical):
            raise ValueError(
                " The Mixture distribution needs to be an  instance of "
                "gradlite.distributions.Categorical"
            )
        if not isinstance(component_distribution, Distribution):
            raise ValueError(
                "The Component distribution needs to be an instance of "
                "gradlite.distributions.Distribution"
            )
        mixture = mixture_distribution.batch_shape
        *batch, components = component_distribution.batch_shape
        kept = component_distribution.batch_shape[:-1]
        if any(a != b and 1 not in (a, b) for a, b in zip(reversed(mixture), reversed(batch))):
            raise ValueError(
                f"`mixture_distribution.batch_shape` ({mixture}) is not compatible with "
                f"`component_distribution.batch_shape`({kept})"
            )
        weights = mixture_distribution.logits.shape[-1]
        if weights != components:
            raise ValueError(
                f"`mixture_distribution component` ({weights}) does not equal "
                f"`component_distribution.batch_shape[-1]` ({components})"
            )
        self._mixture, self._components = mixture_distribution, component_distribution
        super().__init__(kept, component_distribution.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        count = self._components.batch_shape[-1]
        new._components = self._components.expand((*batch_shape, count))
        new._mixture = self._mixture.expand(batch_shape)
        return new

    @constraints.dependent_property
    def support(self) -> Any:
        """What the components give."""
        return constraints.MixtureSameFamilyConstraint(self._components.support)

    @property
    def mixture_distribution(self) -> Categorical:
        """What draws the component."""
        return self._mixture

    @property
    def component_distribution(self) -> Distribution:
        """The components."""
        return self._components

    @property
    def _along(self) -> int:
        """The dimension of the components."""
        return -1 - len(self._event_shape)

    def _weights(self) -> Any:
        probs = self._mixture.probs
        return probs.reshape(*probs.shape, *[1] * len(self._event_shape))

    @property
    def mean(self) -> Any:
        return (self._weights() * self._components.mean).sum(self._along)

    @property
    def variance(self) -> Any:
        weights, means = self._weights(), self._components.mean
        inside = (weights * self._components.variance).sum(self._along)
        between = (weights * (means - self.mean.unsqueeze(self._along)) ** 2).sum(self._along)
        return inside + between

    def cdf(self, value: Any) -> Any:
        parts = self._components.cdf(value.unsqueeze(self._along))
        return (parts * self._mixture.probs).sum(-1)

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        parts = self._components.log_prob(value.unsqueeze(self._along))
        return (parts + self._mixture.logits.log_softmax(-1)).logsumexp(-1)

    def sample(self, sample_shape: Any = ()) -> Any:
        with no_grad():
            dim = len(sample_shape) + len(self._batch_shape)
            drawn = self._mixture.sample(sample_shape)
            values = self._components.sample(sample_shape)
            ones = [1] * (len(self._event_shape) + 1)
            index = drawn.reshape(*drawn.shape, *ones).expand(
                *values.shape[:dim], 1, *self._event_shape
            )
            return values.gather(dim, index).squeeze(dim)

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self._mixture},\n  {self._components})"
