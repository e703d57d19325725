"""The distribution of Lewandowski, Kurowicka and Joe of correlation matrices."""

from __future__ import annotations

import math
from typing import Any

from gradlite import dtypes
from gradlite.distributions import constraints
from gradlite.distributions.beta import Beta
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.utils import broadcast_all
from gradlite.grad_mode import no_grad
from gradlite.ops.creation import arange
from gradlite.ops.random import randn
from gradlite.ops.special import mvlgamma

__all__ = ["LKJCholesky"]


class LKJCholesky(Distribution):
    """Cholesky factors L of correlation matrices L L^T with a density of det(L L^T)^(c - 1).

    Args:
        dim: how many rows a matrix has, 2 or more.
        concentration: c, a number or a tensor; 1 makes all correlation matrices as likely.
        validate_args: see `Distribution`.

    The density is that of the factors, and that of the matrices is the one named above.

    Raises:
        ValueError: fewer than 2 rows.

    >>> import gradlite
    >>> d = gradlite.distributions.LKJCholesky(2, 1.0)
    >>> d.log_prob(gradlite.eye(2))
    tensor(-0.6931)
    """

    arg_constraints = {"concentration": constraints.positive}
    support = constraints.corr_cholesky
    _expands = {"concentration": 0}

    def __init__(
        self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None
    ) -> None:
        if dim < 2:
            raise ValueError(
                f"Expected dim to be an integer greater than or equal to 2. Found dim={dim}."
            )
        self.dim = dim
        (self.concentration,) = broadcast_all(concentration)
        like = self.concentration
        # How much of its length each row has left of the diagonal: the first none of it, which
        # `sample` sees to, and the others as their correlations with the rows above say.
        above: Any = (arange(dim, dtype=like.dtype, device=like.device) - 1).clamp(min=0)
        rest = like.unsqueeze(-1) + 0.5 * (dim - 2) - 0.5 * above
        self._beta = Beta(above + 0.5, rest)
        super().__init__(like.shape, (dim, dim), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new.dim, new._beta = self.dim, self._beta.expand((*batch_shape, self.dim))
        return new

    def sample(self, sample_shape: Any = ()) -> Any:
        """Row by row, a point of a sphere of random radius and what is left for the diagonal.

        The onion method of Lewandowski, Kurowicka and Joe, "Generating random correlation matrices
        based on vines and extended onion method", 2009.
        """
        with no_grad():
            radius = self._beta.sample(sample_shape).unsqueeze(-1).sqrt()
            shape = self._extended_shape(sample_shape)
            normal: Any = randn(*shape, dtype=radius.dtype, device=radius.device)
            normal = normal.tril(-1)
            length = (normal**2).sum(-1, keepdim=True).sqrt()
            # The first row has nothing left of the diagonal.
            limits = dtypes.finfo(radius.dtype)
            left = radius * normal / length.clamp(min=limits.tiny)
            diagonal = (1 - (left**2).sum(-1)).clamp(min=limits.tiny).sqrt()
            return left + diagonal.diag_embed()

    def log_prob(self, value: Any) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        c, rest = self.concentration, self.dim - 1
        logs = value.diagonal(dim1=-2, dim2=-1)[..., 1:].log()
        rows: Any = arange(2, self.dim + 1, device=c.device)
        powers = 2 * (c - 1).unsqueeze(-1) + self.dim - rows
        middle = c + 0.5 * rest
        # The multivariate gamma function holds pi^(n (n - 1) / 4), and this constant the rest.
        constant = 0.5 * rest * math.log(math.pi)
        normalizer: Any = constant + mvlgamma(middle - 0.5, rest) - rest * middle.lgamma()
        return (powers * logs).sum(-1) - normalizer
