"""Losses of rows as one op each: triplets of them and pairs of embeddings.

With kernels (``kernels/triplet.cu`` and ``kernels/cosine.cu``) a pass is one launch, and a mean or
a sum one or two more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops.loss_kernels import total_loss
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.norms import VectorNorm, norm_gradient
from gradlite.ops.op import Op
from gradlite.tensor import wrap


def reduced_array(xp: Any, losses: Any, reduction: str) -> Any:
    """The mean or sum of raw losses, or the losses themselves."""
    if reduction == "none":
        return losses
    return xp.asarray(losses.mean() if reduction == "mean" else losses.sum()).astype(losses.dtype)


def of_each(grad: Any, rows: int, reduction: str) -> Any:
    """What a loss's gradient is for each row."""
    return grad / rows if reduction == "mean" else grad


def scale_of(rows: int, reduction: str) -> float:
    """The same for a kernel, which multiplies by it."""
    return 1 / rows if reduction == "mean" else 1.0


def launch_rows(
    K: Any, name: str, dtype: Any, shape: tuple[int, ...], columns: int, kept: int,
    reduction: str, inputs: tuple[Any, ...], *parameters: Any,
) -> Any:  # fmt: skip
    """Launch a forward kernel that writes losses of ``shape``, and reduce them.

    Its arguments are the inputs, an array for the losses, another one for losses that a sum
    follows, of which one is None, the numbers of rows and of columns, and the parameters.
    """
    if reduction == "none":
        out = K.empty(shape, dtype)
        rows = out.size
        K.kept_rows(
            name, dtype, rows, columns, kept, *inputs, out, None, rows, columns, *parameters
        )
        return out
    rows = int(np.prod(shape))
    losses = K.empty((rows,), K.acc(dtype))
    K.kept_rows(name, dtype, rows, columns, kept, *inputs, None, losses, rows, columns, *parameters)
    return total_loss(K, dtype, losses, rows, scale_of(rows, reduction))[0]


class TripletMarginLoss(Op):
    """max(0, margin + |a - p| - |a - n|) of rows, or with the smaller of |a - n| and |p - n|."""

    grad_name = "MeanBackward0"
    reads = ((0, 1, 2), (0, 1, 2), (0, 1, 2))
    native_from = native_backward_from = 1 << 8

    def forward(
        xp: Any, a: Any, b: Any, c: Any, margin: float, p: float, eps: float, swap: bool,
        reduction: str,
    ) -> Any:  # fmt: skip
        def distance(x: Any, y: Any) -> Any:
            return VectorNorm.forward(xp, x - y + eps, p, (x.ndim - 1,), False)

        apart = distance(a, c)
        if swap:
            apart = xp.minimum(apart, distance(b, c))
        losses = xp.maximum(margin + distance(a, b) - apart, 0)
        return reduced_array(xp, losses, reduction)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b, c = ctx.saved
        margin, p, eps, swap, reduction = ctx.attrs
        given: Any = wrap if F.tensors else lambda array: array
        last = len(a.shape) - 1

        def distance(x: Any, y: Any) -> Any:
            return F.vector_norm(x - y + eps, p, (last,), False)

        near, far = distance(a, b), distance(a, c)
        raw = F.array(far)
        xp, shares = NAMESPACES[raw.__class__].xp, (1.0, 0.0)
        if swap:
            cross = distance(b, c)
            crossed = F.array(cross)
            mine = (raw < crossed) + 0.5 * (raw == crossed)
            shares = given(mine.astype(raw.dtype)), given((1 - mine).astype(raw.dtype))
            raw = xp.minimum(raw, crossed)
        counts = (margin + F.array(near) - raw >= 0).astype(raw.dtype)
        grad = of_each(grad, raw.size, reduction) * given(counts)

        def slope(x: Any, y: Any, length: Any, share: Any) -> Any:
            return norm_gradient(F, grad * share, x - y + eps, length, p, (last,))

        if p == 0:
            return None, None, None
        by_near, by_far = slope(a, b, near, 1.0), slope(a, c, far, shares[0])
        da, db, dc = by_near - by_far, by_near * -1, by_far
        if swap:
            by_cross = slope(b, c, cross, shares[1])
            db, dc = db - by_cross, dc + by_cross
        return tuple(None if e is None else d for e, d in zip(ctx.edges, (da, db, dc)))

    def fused_forward(
        K: Any, a: Any, b: Any, c: Any, margin: float, p: float, eps: float, swap: bool,
        reduction: str,
    ) -> Any:  # fmt: skip
        if p <= 0 or not K.takes(a, b, c):
            return NotImplemented
        inputs = K.dense(a), K.dense(b), K.dense(c)
        return launch_rows(
            K, "triplet_forward", a.dtype, a.shape[:-1], a.shape[-1], 3, reduction, inputs,
            int(swap), margin, p, eps,
        )  # fmt: skip

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        a, b, c = ctx.saved
        margin, p, eps, swap, reduction = ctx.attrs
        if p <= 0 or not K.takes(grad, a, b, c):
            return NotImplemented
        columns = a.shape[-1]
        rows = a.size // columns
        grads = tuple(None if e is None else K.empty(a.shape, a.dtype) for e in ctx.edges)
        K.kept_rows(
            "triplet_backward", a.dtype, rows, columns, 3, K.dense(grad), K.dense(a), K.dense(b),
            K.dense(c), *grads, rows, columns, int(swap), int(reduction == "none"), margin, p, eps,
            scale_of(rows, reduction),
        )  # fmt: skip
        return grads


class CosineEmbeddingLoss(Op):
    """1 - cos(x, y) where the target is 1, max(0, cos(x, y) - margin) where it is -1."""

    grad_name = "MeanBackward0"
    reads = ((0, 1, 2), (0, 1, 2), ())
    constants = (2,)
    native_from = native_backward_from = 1 << 8

    def forward(xp: Any, x: Any, y: Any, target: Any, margin: float, reduction: str) -> Any:
        first, second = ((a * a).sum(-1) + 1e-12 for a in (x, y))
        cosine = (x * y).sum(-1) / xp.sqrt(first * second)
        losses = xp.where(target == 1, 1 - cosine, 0)
        losses = xp.where(target == -1, xp.maximum(cosine - margin, 0), losses).astype(x.dtype)
        return reduced_array(xp, losses, reduction)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, y, target = ctx.saved
        margin, reduction = ctx.attrs
        given: Any = wrap if F.tensors else lambda array: array
        raw, last = F.array(target), (len(x.shape) - 1,)
        squares = [F.sum(a * a, last, True) + 1e-12 for a in (x, y)]
        length = F.sqrt(squares[0] * squares[1])
        cosine = F.sum(x * y, last, True) / length
        raw = raw.reshape((*raw.shape, 1))
        near, apart = raw == 1, (raw == -1) & (F.array(cosine) - margin >= 0)
        signs = apart.astype(F.array(x).dtype) - near
        if reduction == "none":
            grad = grad.reshape((*grad.shape, 1))
        grad = of_each(grad, raw.size, reduction) * given(signs.astype(F.array(x).dtype))
        along = grad * cosine / length / length
        return tuple(
            None if edge is None else grad / length * other - along * square * own
            for edge, own, other, square in zip(ctx.edges, (x, y), (y, x), reversed(squares))
        ) + (None,)

    def fused_forward(K: Any, x: Any, y: Any, target: Any, margin: float, reduction: str) -> Any:
        if not K.takes(x, y):
            return NotImplemented
        inputs = K.dense(x), K.dense(y), *_targets(K, target, x.dtype)
        return launch_rows(
            K, "cosine_embedding_forward", x.dtype, x.shape[:-1], x.shape[-1], 2, reduction,
            inputs, margin,
        )  # fmt: skip

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, y, target = ctx.saved
        margin, reduction = ctx.attrs
        if not K.takes(grad, x, y):
            return NotImplemented
        columns = x.shape[-1]
        rows = x.size // columns
        dx, dy = (None if edge is None else K.empty(x.shape, x.dtype) for edge in ctx.edges[:2])
        K.kept_rows(
            "cosine_embedding_backward", x.dtype, rows, columns, 2, K.dense(grad), K.dense(x),
            K.dense(y), *_targets(K, target, x.dtype), dx, dy, rows, columns,
            int(reduction == "none"), margin, scale_of(rows, reduction),
        )  # fmt: skip
        return dx, dy, None


def _targets(K: Any, target: Any, dtype: Any) -> tuple[Any, Any]:
    """Targets as a kernel reads them: whole numbers, or numbers of the rows' dtype."""
    if target.dtype == dtype:
        return None, K.dense(target)
    if target.dtype == np.int64:
        return K.dense(target), None
    whole = target.dtype.kind in "iub"
    return (K.dense(target.astype(np.int64)), None) if whole else (None, target.astype(dtype))
