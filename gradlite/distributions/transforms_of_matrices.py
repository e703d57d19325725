"""Transforms onto matrices: Cholesky factors, positive definite and correlation matrices."""

from __future__ import annotations

import math
from typing import Any

from gradlite import dtypes
from gradlite.distributions import constraints
from gradlite.distributions.transform import OfNothing, Transform, at_least
from gradlite.distributions.utils import tril_matrix_to_vec, vec_to_tril_matrix
from gradlite.ops.activation import softplus
from gradlite.ops.creation import eye
from gradlite.ops.linear_systems import cholesky
from gradlite.ops.matmul import matmul
from gradlite.ops.pad import pad

__all__ = ["CorrCholeskyTransform", "LowerCholeskyTransform", "PositiveDefiniteTransform"]


class LowerCholeskyTransform(OfNothing):
    """Matrices onto lower triangular ones with a positive diagonal."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.lower_cholesky

    def _call(self, x: Any) -> Any:
        return x.tril(-1) + x.diagonal(dim1=-2, dim2=-1).exp().diag_embed()

    def _inverse(self, y: Any) -> Any:
        return y.tril(-1) + y.diagonal(dim1=-2, dim2=-1).log().diag_embed()


class PositiveDefiniteTransform(OfNothing):
    """Matrices onto positive definite ones: L L^T, where L is that of `LowerCholeskyTransform`."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.positive_definite

    def _call(self, x: Any) -> Any:
        factor = LowerCholeskyTransform()(x)
        return matmul(factor, factor.swapaxes(-2, -1))

    def _inverse(self, y: Any) -> Any:
        return LowerCholeskyTransform().inv(cholesky(y))


class CorrCholeskyTransform(Transform):
    """Vectors of n (n - 1) / 2 numbers onto Cholesky factors of n x n correlation matrices.

    Each row of a factor has the length 1. The tanh of each number says how much of what the row
    has left a place below the diagonal takes (the diagonal has the rest), row by row.

    >>> import gradlite
    >>> CorrCholeskyTransform()(gradlite.tensor([0.0]))
    tensor([[1., 0.],
            [0., 1.]])
    """

    domain = constraints.real_vector
    codomain = constraints.corr_cholesky
    bijective = True

    def _call(self, x: Any) -> Any:
        eps = dtypes.finfo(x.dtype).eps
        part = vec_to_tril_matrix(x.tanh().clamp(min=eps - 1, max=1 - eps), diag=-1)
        left = _shifted((1 - part**2).sqrt().cumprod(-1))
        identity: Any = eye(part.shape[-1], dtype=part.dtype, device=part.device)
        return (part + identity) * left

    def _inverse(self, y: Any) -> Any:
        left = _shifted(1 - (y * y).cumsum(-1))
        return (tril_matrix_to_vec(y, diag=-1) / tril_matrix_to_vec(left, diag=-1).sqrt()).atanh()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Of the numbers below the diagonal."""
        left = tril_matrix_to_vec(_shifted(1 - (y * y).cumsum(-1)), diag=-1)
        of_tanh = 2.0 * (math.log(2.0) - x - softplus(-2.0 * x)).sum(-1)
        return 0.5 * left.log().sum(-1) + of_tanh

    def forward_shape(self, shape: Any) -> Any:
        at_least(1, shape)
        count = shape[-1]
        n = math.isqrt(2 * count) + 1
        if n * (n - 1) != 2 * count:
            raise ValueError("Input is not a flattened lower-diagonal number")
        return (*shape[:-1], n, n)

    def inverse_shape(self, shape: Any) -> Any:
        at_least(2, shape)
        if shape[-2] != shape[-1]:
            raise ValueError("Input is not square")
        return (*shape[:-2], shape[-1] * (shape[-1] - 1) // 2)


def _shifted(shares: Any) -> Any:
    """What each column is left by those before it."""
    return pad(shares[..., :-1], [1, 0], value=1.0)
