"""The weights of attention: a softmax of masked scores that hides a query without keys."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from gradlite.ops.binary import sum_to
from gradlite.ops.dispatch import OUT
from gradlite.ops.op import Op
from gradlite.ops.softmax import values_rows


@lru_cache(maxsize=16)
def causal_ones(rows: int, columns: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Ones on and below the diagonal."""
    return np.tril(np.ones((rows, columns), dtype))


class AttentionWeights(Op):
    """softmax(scale * scores + mask) over the keys, and 0 where no key is left.

    The mask, which may be None, is bool (True takes part) or floating (added), broadcast to the
    scores (..., queries, keys); causal queries see the keys up to their own place.
    """

    reads = ((OUT,), (OUT,))
    grad_name = "SoftmaxBackward0"

    def forward(xp: Any, scores: Any, mask: Any, scale: float, causal: bool) -> Any:
        if not scores.size:
            return scores.copy()
        wide = scores.astype(np.float32) if scores.dtype == np.float16 else scores
        kind = wide.dtype.type
        s = wide * kind(scale)
        if mask is not None and mask.dtype == np.bool_:
            s = xp.where(mask, s, kind(-np.inf))
        elif mask is not None:
            s += mask
        if causal:
            seen = causal_ones(*s.shape[-2:], np.dtype(np.bool_))
            s = xp.where(xp.asarray(seen), s, kind(-np.inf))
        top = s.max(-1, keepdims=True)
        s -= xp.where(xp.isfinite(top), top, kind(0))
        xp.exp(s, out=s)
        total = s.sum(-1, keepdims=True)
        s /= xp.where(total == 0, kind(1), total)
        return s.astype(scores.dtype, copy=False)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (y,) = ctx.saved
        slope = (grad - F.sum(grad * y, (y.ndim - 1,), True)) * y
        right = None
        if ctx.edges[1] is not None:
            right = sum_to(F, slope, tuple(ctx.shapes[1]))
        return slope * ctx.attrs[0], right

    def fused_forward(K: Any, scores: Any, mask: Any, scale: float, causal: bool) -> Any:
        if not (scores.size and K.takes(scores)):
            return NotImplemented
        found = mask_arguments(K, mask, scores.shape, scores.dtype)
        if found is None:
            return NotImplemented
        scores = K.dense(scores)
        out = K.empty_like(scores)
        queries, keys = scores.shape[-2:]
        rows = scores.size // keys
        added, allowed, *strides = found
        arguments = scores, added, allowed, out, rows, keys, queries, *strides, int(causal)
        kernel = "attention_weights_forward"
        values_rows(K, kernel, scores.dtype, rows, keys, *arguments, float(scale), kept=2)
        return out

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        (y,) = ctx.saved
        if ctx.edges[1] is not None or not (y.size and K.takes(grad, y)):
            return NotImplemented
        return weights_gradient(K, grad, y, ctx.attrs[0]), None


def weights_gradient(K: Any, grad: Any, weights: Any, scale: float) -> Any:
    """The gradient of the scores, by a kernel."""
    grad, weights = K.dense(grad), K.dense(weights)
    dx = K.empty_like(weights)
    keys = weights.shape[-1]
    rows = weights.size // keys
    arguments = grad, weights, dx, rows, keys, float(scale)
    values_rows(K, "softmax_backward", weights.dtype, rows, keys, *arguments, kept=2)
    return dx


def mask_arguments(K: Any, mask: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """A mask as kernels take it, for scores of a shape (..., queries, keys).

    Returns:
        The added mask or None, the bool mask or None, and how to find a query's part of it: the
        problems are (outer, inner); ``inner``, and the strides of outer, inner and query. None
        where no kernel can read the mask.
    """
    if mask is None:
        return None, None, 1, 0, 0, 0
    if mask.__class__ is not K.array or mask.dtype not in (dtype, np.bool_):
        return None
    lead, keys = shape[:-2], shape[-1]
    form = (1,) * (len(shape) - mask.ndim) + tuple(mask.shape)
    strides = mask_strides(form, lead) if form[-1] == keys else None
    if strides is None:
        mask, form = K.xp.broadcast_to(mask, shape), shape
        strides = math.prod(lead), 0, 1
    mask = K.dense(mask)
    inner, outer_stride, inner_stride = strides
    plane = form[-2] * keys
    query_stride = keys if form[-2] > 1 else 0
    found = (None, mask) if mask.dtype == np.bool_ else (mask, None)
    return (*found, inner, outer_stride * plane, inner_stride * plane, query_stride)


@lru_cache(maxsize=256)
def mask_strides(form: tuple[int, ...], lead: tuple[int, ...]) -> tuple[int, int, int] | None:
    """The problems ``lead`` of a mask as (outer, inner): inner's size and the strides of both, in
    planes of the mask. None where its broadcast dimensions take more than these two."""
    there = [n == 1 or m == n for m, n in zip(form, lead)]  # and not broadcast
    absent = [n == 1 or m == 1 for m, n in zip(form, lead)]
    for cut in range(len(lead) + 1):
        inner = math.prod(lead[cut:])
        for outer_there in (True, False):
            for inner_there in (True, False):
                if all((there if outer_there else absent)[:cut]) and all(
                    (there if inner_there else absent)[cut:]
                ):
                    planes = inner if inner_there else 1
                    return inner, planes if outer_there else 0, 1 if inner_there else 0
    return None
