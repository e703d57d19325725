"""The distances between all rows of two matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.dispatch import OUT, apply
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.norms import VectorNorm, norm_gradient, vector_norm_of
from gradlite.ops.op import Op
from gradlite.ops.operands import promoted
from gradlite.ops.samples import S, distinct, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["cdist"]


class Cdist(Op):
    """The p-norms of the differences of all rows, (*, n, d), (*, m, d) -> (*, n, m).

    As PyTorch has it, a NaN counts nothing in p = inf, of which every one of the largest elements
    has the whole gradient.
    """

    reads = ((0, 1, OUT), (0, 1, OUT))
    row_major = True
    native_from = native_backward_from = 1 << 8

    def forward(xp: Any, x: Any, y: Any, p: float) -> Any:
        apart = x[..., None, :] - y[..., None, :, :]
        if p == math.inf:
            if not x.shape[-1]:
                return xp.zeros(apart.shape[:-1], x.dtype)
            apart = xp.abs(apart)
            return xp.where(apart == apart, apart, 0).max(axis=-1).astype(x.dtype)
        return VectorNorm.forward(xp, apart, p, (apart.ndim - 1,), False)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, y, out = ctx.saved
        (p,) = ctx.attrs
        given: Any = wrap if F.tensors else lambda array: array
        shapes = tuple(x.shape), tuple(y.shape)
        apart = x.reshape((*shapes[0][:-1], 1, shapes[0][-1])) - y.reshape(
            (*shapes[1][:-2], 1, *shapes[1][-2:])
        )
        raw = F.array(apart)
        if p == 0:
            slope = F.zeros(apart.shape, apart)
        elif p == 1:
            # The sign of NaN is NaN here, and 0 in the gradient of a norm.
            signs = F.where(given(raw == raw), F.sign(apart), apart)
            slope = signs * grad.reshape((*grad.shape, 1))
        elif p == math.inf:
            xp = NAMESPACES[raw.__class__].xp
            size = xp.where(raw == raw, abs(raw), 0)  # not as `out` may have rounded it
            gap = abs(raw) - size.max(axis=-1, keepdims=True)
            reached = xp.where(gap == gap, gap == 0, gap)
            signs = F.sign(apart) * given(reached.astype(raw.dtype))
            slope = signs * grad.reshape((*grad.shape, 1))
        else:
            slope = norm_gradient(F, grad, apart, out, p, (apart.ndim - 1,))
            if p < 1:
                slope = F.where(given(raw == 0), F.zero_beside(grad), slope)
        axis = len(shapes[0])
        dx = None if ctx.edges[0] is None else F.sum(slope, (axis - 1,), False)
        dy = None if ctx.edges[1] is None else F.sum(slope, (axis - 2,), False) * -1
        return dx, dy

    def fused_forward(K: Any, x: Any, y: Any, p: float) -> Any:
        if not K.takes(x, y) or p == 0:
            return NotImplemented
        (*batch, n, columns), m = x.shape, y.shape[-2]
        batches = math.prod(batch)
        out = K.empty((*batch, n, m), x.dtype)
        tiles = batches * -(-n // TILE) * -(-m // TILE)
        K.launch(
            "cdist_forward", x.dtype, (min(tiles, 1 << 16),), (256,),
            K.dense(x), K.dense(y), out, batches, n, m, columns, p,
        )  # fmt: skip
        return out

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, y, out = ctx.saved
        (p,) = ctx.attrs
        if p == 0 or not K.takes(grad, x, y, out):
            return NotImplemented
        (*batch, n, columns), m = x.shape, y.shape[-2]
        sides = zip(ctx.edges, (x, y))
        dx, dy = (None if edge is None else K.empty(a.shape, a.dtype) for edge, a in sides)
        K.elementwise(
            "cdist_backward", x.dtype, 4 * max(x.size, y.size), K.dense(grad), K.dense(x),
            K.dense(y), K.dense(out), dx, dy, math.prod(batch), n, m, columns, p,
        )  # fmt: skip
        return dx, dy


TILE = 32  # the rows of either side that a block has: TILE_I and TILE_J of kernels/cdist.cu


@public(
    samples=lambda: [
        S(normal(3, 4), normal(5, 4)),
        S(normal(3, 4), normal(5, 4), 1),
        S(normal(2, 3, 4), normal(5, 4), 3.0),
        S(distinct(3, 4), distinct(2, 4) + 0.05, math.inf),
        S(np.ones((2, 3)), np.ones((1, 3)), smooth=False),
    ],
    errors=lambda: [S(normal(3, 4), normal(5, 3)), S(normal(3), normal(5, 3))],
    autocast="float32",
)
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
    """The p-norm distances between all rows of two matrices, (*, n, d), (*, m, d) -> (*, n, m).

    >>> import gradlite
    >>> gradlite.cdist(gradlite.tensor([[0.0, 0.0]]), gradlite.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor([[5., 1.]])
    """
    for name, x in (("X1", x1), ("X2", x2)):
        if x.array.ndim < 2:
            raise RuntimeError(
                f"cdist only supports at least 2D tensors, {name} got: {x.array.ndim}D"
            )
    a, b = x1.array.shape[-1], x2.array.shape[-1]
    if a != b:
        raise RuntimeError(f"X1 and X2 must have the same number of columns. X1: {a} X2: {b}")
    if p < 0:
        raise RuntimeError("cdist only supports non-negative p values")
    first, second = promoted(x1, x2)
    if first.array.dtype not in dtypes.FLOATING:
        return vector_norm_of(first.unsqueeze(-2) - second.unsqueeze(-3), p, -1, False, None)
    shapes = first.array.shape[:-2], second.array.shape[:-2]
    if shapes[0] != shapes[1]:
        batch = np.broadcast_shapes(*shapes)
        first, second = (t.expand(*batch, *t.array.shape[-2:]) for t in (first, second))
    return apply(Cdist, (first, second), float(p))  # type: ignore[no-any-return]
