"""The Dirichlet distribution."""

from __future__ import annotations

from typing import Any

from gradlite import dtypes
from gradlite.distributions import constraints
from gradlite.distributions.exp_family import ExponentialFamily
from gradlite.ops.choose import where
from gradlite.ops.creation import arange
from gradlite.ops.special import xlogy
from gradlite.ops.variates import standard_gamma

__all__ = ["Dirichlet"]


class Dirichlet(ExponentialFamily):
    """The Dirichlet distribution of vectors with the sum 1.

    A sample is a vector of gamma samples over their sum, and has their gradients.

    Args:
        concentration: positive numbers along the last dimension.
        validate_args: see `Distribution`.

    Raises:
        ValueError: a concentration without dimensions.

    >>> import gradlite
    >>> d = gradlite.distributions.Dirichlet(gradlite.tensor([1.0, 1.0, 2.0]))
    >>> d.mean
    tensor([0.2500, 0.2500, 0.5000])
    """

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True
    _expands = {"concentration": 1}

    def __init__(self, concentration: Any, validate_args: bool | None = None) -> None:
        if concentration.dim() < 1:
            raise ValueError("`concentration` parameter must be at least one-dimensional.")
        self.concentration = concentration
        shape = concentration.shape
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return self.concentration / self.concentration.sum(-1, keepdim=True)

    @property
    def mode(self) -> Any:
        """Of the corners the one with the largest concentration, where all are below 1."""
        above = (self.concentration - 1).clamp(min=0.0)
        inside = above / above.sum(-1, keepdim=True)
        classes: Any = arange(self._event_shape[0], device=above.device)
        corner = inside.argmax(-1).unsqueeze(-1) == classes
        cornered = (self.concentration < 1).all(-1).unsqueeze(-1)
        return where(cornered, corner.to(above.dtype), inside)

    @property
    def variance(self) -> Any:
        total = self.concentration.sum(-1, keepdim=True)
        return self.concentration * (total - self.concentration) / (total**2 * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Any:
        concentration = self.concentration.expand(self._extended_shape(sample_shape))
        # In double precision, where samples of small concentrations are no zeros.
        samples: Any = standard_gamma(concentration.to(dtypes.float64))
        shares = (samples / samples.sum(-1, keepdim=True)).to(concentration.dtype)
        # Those that are rounded to 0 or 1 lie beside them, where the density is finite.
        limits = dtypes.finfo(concentration.dtype)
        rounded = shares.detach()
        return shares + (rounded.clamp(limits.tiny, 1.0 - limits.eps / 2) - rounded)

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        a = self.concentration
        powers: Any = xlogy(a - 1.0, value)
        return powers.sum(-1) + a.sum(-1).lgamma() - a.lgamma().sum(-1)

    def entropy(self) -> Any:
        a = self.concentration
        total = a.sum(-1)
        rest = (total - a.size(-1)) * total.digamma() - ((a - 1.0) * a.digamma()).sum(-1)
        return a.lgamma().sum(-1) - total.lgamma() + rest

    @property
    def _natural_params(self) -> tuple[Any, ...]:  # type: ignore[override]
        return (self.concentration,)

    def _log_normalizer(self, x: Any) -> Any:  # type: ignore[override]
        return x.lgamma().sum(-1) - x.sum(-1).lgamma()
