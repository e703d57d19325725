"""The products of multi-head attention, its heads being parts of rows that stay where they are.

Queries, keys and values are (heads of all samples, rows, size), parts of (rows, samples, width):
neighbouring heads are ``size`` elements apart, so that a product takes them as one stack without a
copy, and what a GPU makes of them is laid out likewise, for what joins the heads again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops import products
from gradlite.ops.op import Op


def _joinable(K: Any, a: Any, b: Any, scale: float = 1.0) -> Any:
    """The products of two stacks of matrices, laid out as (rows, matrices, columns)."""
    out = K.empty((a.shape[1], a.shape[0], b.shape[2]), a.dtype).swapaxes(0, 1)
    found = K.gemm.matmul(a, b, out, scale)
    return products.product(a, b, None, scale) if found is NotImplemented else found


class HeadScores(Op):
    """The products of queries and keys, times a number."""

    reads = ((1,), (0,))
    grad_name = "BmmBackward0"
    multiplies = True

    def forward(xp: Any, q: Any, k: Any, scale: float) -> Any:
        if xp is np:
            return products.matmul(q * q.dtype.type(scale), k.swapaxes(1, 2))
        return products.product(q, k.swapaxes(1, 2), None, scale)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        q, k = ctx.saved
        (scale,) = ctx.attrs
        return (
            None if k is None else F.matmul(grad, k) * scale,
            None if q is None else F.matmul(grad.swapaxes(1, 2), q * scale),
        )

    def fused_forward(K: Any, q: Any, k: Any, scale: float) -> Any:
        return K.gemm.matmul(q, k.swapaxes(1, 2), None, scale) if K.takes(q, k) else NotImplemented

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        q, k = ctx.saved
        (scale,) = ctx.attrs
        if not K.takes(grad):
            return NotImplemented
        return (
            None if k is None else _joinable(K, grad, k, scale),
            None if q is None else _joinable(K, grad.swapaxes(1, 2), q, scale),
        )


class HeadOutputs(Op):
    """The products of attention's weights and values."""

    reads = ((1,), (0,))
    grad_name = "BmmBackward0"
    multiplies = True

    def forward(xp: Any, weights: Any, v: Any) -> Any:
        return products.matmul(weights, v) if xp is np else products.product(weights, v)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        weights, v = ctx.saved
        return (
            None if v is None else F.matmul(grad, v.swapaxes(1, 2)),
            None if weights is None else F.matmul(weights.swapaxes(1, 2), grad),
        )

    def fused_forward(K: Any, weights: Any, v: Any) -> Any:
        return _joinable(K, weights, v) if K.takes(weights, v) else NotImplemented

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        weights, v = ctx.saved
        if not K.takes(grad):
            return NotImplemented
        return (
            None if v is None else products.product(grad, v.swapaxes(1, 2)),
            None if weights is None else _joinable(K, weights.swapaxes(1, 2), grad),
        )


class Parts(Op):
    """What projections side by side consist of, (count, rows, samples, width) as ``count`` arrays.

    The projections are (rows, samples, count * width), or with ``turned`` (samples, rows, ...).
    """

    moves = True
    outputs = 0
    grad_name = "UnbindBackward0"

    def forward(xp: Any, x: Any, count: int, turned: bool) -> Any:
        order = (2, 1, 0, 3) if turned else (2, 0, 1, 3)
        first, second, width = x.shape
        parts = x.reshape((first, second, count, width // count)).transpose(order)
        return tuple(xp.ascontiguousarray(parts))

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        count, turned = ctx.attrs
        first, second, width = ctx.shapes[0]
        shape = (second, first, width // count) if turned else (first, second, width // count)
        like = next(g for g in grads if g is not None)
        parts = [F.zeros(shape, like) if g is None else g for g in grads]
        return (F.cat([g.swapaxes(0, 1) if turned else g for g in parts], 2),)
