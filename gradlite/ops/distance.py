"""Distances and lengths of vectors, written with other ops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import unit_vectors
from gradlite.ops.norms import norm
from gradlite.ops.op import type_name
from gradlite.ops.operands import promoted
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["cosine_similarity", "normalize", "pairwise_distance"]


def _at_least(value: Any, least: float) -> Any:
    """A lower bound for the value, through which the gradient passes all the same."""
    return value + (value.detach().clamp(min=least) - value.detach())


@public(
    samples=lambda: [
        S(normal(3, 4), normal(3, 4)),
        S(normal(3, 4), normal(4), dim=-1),
        S(normal(2, 3, 4), normal(2, 1, 4), 2, 1e-3),
        S(normal(3), normal(3), dim=0),
    ],
    errors=lambda: [S(np.ones((2, 2), np.int64), np.ones((2, 2), np.int32))],
    torch="nn.functional.cosine_similarity",
    autocast=("", "float32"),
)
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between two tensors' vectors along a dimension, which disappears.

    x1 · x2 / (max(|x1|, eps) max(|x2|, eps)); the tensors may broadcast.

    >>> import gradlite
    >>> F = gradlite.nn.functional
    >>> F.cosine_similarity(gradlite.tensor([[1.0, 0.0]]), gradlite.tensor([[1.0, 1.0]]))
    tensor([0.7071])
    """
    a, b = promoted(x1, x2)
    if a.array.dtype not in dtypes.FLOATING:
        raise RuntimeError(
            "expected common dtype to be floating point, yet common dtype is "
            f"{type_name(a.array.dtype)}"
        )
    shape = (a.detach() * b.detach()).shape
    a, b = a.broadcast_to(shape), b.broadcast_to(shape)
    first = a / _at_least(norm(a, 2, dim, True), eps)
    second = b / _at_least(norm(b, 2, dim, True), eps)
    return (first * second).sum(dim)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(3, 4), normal(3, 4)),
        S(normal(3, 4), normal(4), 1.0),
        S(normal(3, 4), normal(3, 4), 3.0, 1e-3, True),
        S(normal(3, 4), normal(3, 4), p=math.inf),
        S(normal(4), normal(4)),
    ],
    torch="nn.functional.pairwise_distance",
)
def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """|x1 - x2 + eps| in the p-norm along the last dimension.

    >>> import gradlite
    >>> F = gradlite.nn.functional
    >>> F.pairwise_distance(gradlite.zeros(1, 2), gradlite.tensor([[3.0, 4.0]]))
    tensor([5.0000])
    """
    difference: Any = x1 - x2  # type: ignore[operator]
    return norm(difference + eps, p, -1, keepdim)


@public(
    samples=lambda: [
        S(normal(3, 4)),
        S(normal(3, 4), 1.0, 0),
        S(normal(2, 3, 4), p=3.0, dim=-1, eps=1e-3),
        S(normal(4), dim=0),
    ],
    torch="nn.functional.normalize",
    autocast=("", "float32"),  # as the norm is
)
def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """The input divided by its p-norm along a dimension, or by eps where that is larger.

    >>> import gradlite
    >>> gradlite.nn.functional.normalize(gradlite.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """
    if p == 2 and isinstance(dim, int):
        fused = unit_vectors.with_kernels(input, dim, eps)
        if fused is not None:
            return fused
    length: Any = norm(input, p, dim, True)
    return input / length.clamp(min=eps)  # type: ignore[operator, no-any-return]
