"""Distances and lengths of vectors; kernels are in ``kernels/distance.cu`` and ``cosine.cu``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import unit_vectors
from gradlite.ops.assemble import broadcast_tensors
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import OUT, apply
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.norms import VectorNorm, norm, norm_gradient
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import promoted
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["cosine_similarity", "normalize", "pairwise_distance"]


def _as_rows(K: Any, array: Any, dim: int) -> Any:
    """A row-major array with a dimension moved to the end."""
    return K.dense(array if dim == array.ndim - 1 else K.xp.moveaxis(array, dim, -1))


def _from_rows(K: Any, rows: Any, dim: int) -> Any:
    """Undo `_as_rows`."""
    return rows if dim == rows.ndim - 1 else K.dense(K.xp.moveaxis(rows, -1, dim))


class PairwiseDistance(Op):
    """The p-norm of x - y + eps along the last dimension."""

    grad_name = "NormBackward1"
    reads = ((0, 1, OUT), (0, 1, OUT))
    row_major = True
    native_from = native_backward_from = 1 << 8

    def forward(xp: Any, x: Any, y: Any, p: float, eps: float, keepdim: bool) -> Any:
        return VectorNorm.forward(xp, x - y + eps, p, (x.ndim - 1,), keepdim)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, y, out = ctx.saved
        p, eps, _ = ctx.attrs
        if p == 0:
            return None, None
        apart, last = x - y + eps, (len(x.shape) - 1,)
        if math.isinf(p):  # which element it is, the output may have rounded away
            out = F.vector_norm(apart, p, last, False)
        dx = norm_gradient(F, grad, apart, out, p, last)
        return dx if ctx.edges[0] is not None else None, -dx if ctx.edges[1] is not None else None

    def fused_forward(K: Any, x: Any, y: Any, p: float, eps: float, keepdim: bool) -> Any:
        if p <= 0 or not K.takes(x, y):
            return NotImplemented
        columns = x.shape[-1]
        rows = x.size // columns
        out = K.empty((*x.shape[:-1], 1) if keepdim else x.shape[:-1], x.dtype)
        K.kept_rows(
            "distance_forward", x.dtype, rows, columns, 2,
            K.dense(x), K.dense(y), out, rows, columns, p, eps,
        )  # fmt: skip
        return out

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, y, out = ctx.saved
        p, eps, _ = ctx.attrs
        if p <= 0 or not K.takes(grad, x, y, out):
            return NotImplemented
        columns = x.shape[-1]
        rows = x.size // columns
        dx, dy = (None if edge is None else K.empty(x.shape, x.dtype) for edge in ctx.edges)
        K.kept_rows(
            "distance_backward", x.dtype, rows, columns, 2, K.dense(grad), K.dense(x), K.dense(y),
            K.dense(out), dx, dy, rows, columns, p, eps,
        )  # fmt: skip
        return dx, dy


class CosineSimilarity(Op):
    """The cosine of vectors along a dimension, of lengths that are eps at least.

    The gradient passes through that bound all the same.
    """

    grad_name = "SumBackward1"
    reads = ((0, 1), (0, 1))
    row_major = True
    native_from = native_backward_from = 1 << 8

    def forward(xp: Any, x: Any, y: Any, dim: int, eps: float) -> Any:
        first, second = (
            a / xp.maximum(VectorNorm.forward(xp, a, 2.0, (dim,), True), eps) for a in (x, y)
        )
        return xp.asarray((first * second).sum(axis=dim)).astype(x.dtype)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, y = ctx.saved
        dim, eps = ctx.attrs
        shape = tuple(x.shape)
        grad = grad.reshape((*shape[:dim], 1, *shape[dim + 1 :]))
        lengths = [F.vector_norm(a, 2.0, (dim,), True) for a in (x, y)]
        divisors = [_at_least(F, length, eps) for length in lengths]
        units = [a / divisor for a, divisor in zip((x, y), divisors)]
        along = F.sum(units[0] * units[1], (dim,), True) * grad
        return tuple(
            None
            if edge is None
            else (other * grad - norm_gradient(F, along, a, length, 2, (dim,))) / divisor
            for edge, a, length, divisor, other in zip(
                ctx.edges, (x, y), lengths, divisors, reversed(units)
            )
        )

    def fused_forward(K: Any, x: Any, y: Any, dim: int, eps: float) -> Any:
        if not K.takes(x, y):
            return NotImplemented
        x, y = (_as_rows(K, a, dim) for a in (x, y))
        out = K.empty(x.shape[:-1], x.dtype)
        rows, columns = out.size, x.shape[-1]
        K.kept_rows("cosine_forward", x.dtype, rows, columns, 2, x, y, out, rows, columns, eps)
        return out

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, y = ctx.saved
        dim, eps = ctx.attrs
        if not K.takes(grad, x, y):
            return NotImplemented
        x, y = (_as_rows(K, a, dim) for a in (x, y))
        rows, columns = grad.size, x.shape[-1]
        dx, dy = (None if edge is None else K.empty_like(x) for edge in ctx.edges)
        K.kept_rows(
            "cosine_backward", x.dtype, rows, columns, 2,
            K.dense(grad), x, y, dx, dy, rows, columns, eps,
        )  # fmt: skip
        return tuple(None if d is None else _from_rows(K, d, dim) for d in (dx, dy))


def _at_least(F: Any, value: Any, least: float) -> Any:
    """A lower bound for the value, through which the gradient passes all the same."""
    raw = F.array(value)
    missing = NAMESPACES[raw.__class__].xp.where(raw < least, least - raw, 0)
    return value + (wrap(missing) if F.tensors else missing)


def _number(p: Any) -> bool:
    return p.__class__ is float or p.__class__ is int


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
    a, b = broadcast_tensors(a, b)
    if not a.array.ndim:
        return cosine_similarity(a.reshape(1), b.reshape(1), dim, eps)
    return apply(CosineSimilarity, (a, b), wrap_dim(dim, a.array.ndim), float(eps))  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(3, 4), normal(3, 4)),
        S(normal(3, 4), normal(4), 1.0),
        S(normal(3, 4), normal(3, 4), 3.0, 1e-3, True),
        S(normal(3, 4), normal(3, 4), p=math.inf),
        S(normal(4), normal(4)),
    ],
    torch="nn.functional.pairwise_distance",
    autocast=("", "float32"),  # as norms are
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
    if isinstance(x1, Tensor) and isinstance(x2, Tensor) and _number(p):
        a, b = broadcast_tensors(*promoted(x1, x2))
        if a.array.ndim and a.array.dtype in dtypes.FLOATING and (p > 0 or a.array.size):
            return apply(PairwiseDistance, (a, b), float(p), float(eps), bool(keepdim))  # type: ignore[no-any-return]
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
    if p in (1, 2) and isinstance(dim, int):
        fused = unit_vectors.with_kernels(input, int(p), dim, eps)
        if fused is not None:
            return fused
    length: Any = norm(input, p, dim, True)
    return input / length.clamp(min=eps)  # type: ignore[operator, no-any-return]
