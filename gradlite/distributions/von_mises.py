"""The von Mises distribution of angles."""

from __future__ import annotations

import math
from typing import Any

from gradlite import dtypes
from gradlite.distributions import constraints
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.utils import broadcast_all, lazy_property
from gradlite.grad_mode import no_grad
from gradlite.ops.bessel import i0e, i1e
from gradlite.ops.bivariate import hypot
from gradlite.ops.choose import where
from gradlite.ops.like import ones_like, zeros_like
from gradlite.ops.random import rand

__all__ = ["VonMises"]

# At least 65 of 100 are accepted: that none is happens once in more than 10^10 samples.
_CANDIDATES = 24


class VonMises(Distribution):
    """The von Mises distribution of angles.

    Args:
        loc: its middle, an angle in radians, a tensor.
        concentration: how narrow it is, about one over the variance.
        validate_args: see `Distribution`.

    Samples lie from -pi to pi; values may be any numbers, which count modulo 2 pi.

    >>> import gradlite
    >>> d = gradlite.distributions.VonMises(gradlite.tensor(0.0), gradlite.tensor(1.0))
    >>> d.log_prob(gradlite.tensor([0.0, 2 * 3.1415927]))
    tensor([-1.0738, -1.0738])
    """

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real
    _expands = {"loc": 0, "concentration": 0}

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        """The circular mean."""
        return self.loc

    @property
    def mode(self) -> Any:
        return self.loc

    @lazy_property
    def variance(self) -> Any:  # type: ignore[override]
        """The circular variance: 1 - the mean of the cosine of the distance from the middle."""
        return 1 - i1e(self.concentration) / i0e(self.concentration)  # type: ignore[operator]

    def sample(self, sample_shape: Any = ()) -> Any:
        """Angles of a wrapped Cauchy distribution, accepted so that the others' are left.

        Best and Fisher, "Efficient simulation of the von Mises distribution", 1979; here with the
        tangent of half the angle, which is precise for every concentration.
        """
        shape = self._extended_shape(sample_shape)
        with no_grad():
            twice = 2 * self.concentration.to(dtypes.float64)
            root: Any = hypot(ones_like(twice), twice)
            many = (_CANDIDATES, *shape)
            u: Any = 2 * rand(*many, dtype=dtypes.float64, device=twice.device) - 1  # type: ignore[operator]
            v: Any = rand(*many, dtype=dtypes.float64, device=twice.device)
            angles = 2 * ((math.pi / 2 * u).tan() * (root + twice).rsqrt()).atan()
            ratio = 1 / (1 + (math.pi * u).cos() * twice / (1 + root))
            accepted = v.log() <= ratio.log() + 1 - ratio
            angle: Any = zeros_like(angles[0])
            for candidate, fine in zip(angles.flip(0).unbind(0), accepted.flip(0).unbind(0)):
                angle = where(fine, candidate, angle)
            wrapped = (angle + math.pi + self.loc.to(dtypes.float64)) % (2 * math.pi) - math.pi
            return wrapped.to(self.loc.dtype)

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        kappa = self.concentration
        normalizer = math.log(2 * math.pi) + kappa + i0e(kappa).log()  # type: ignore[attr-defined]
        return kappa * (value - self.loc).cos() - normalizer
