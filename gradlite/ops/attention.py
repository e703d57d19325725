"""Scaled dot-product attention as one node."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.choose import where
from gradlite.ops.dispatch import apply, gradients_of
from gradlite.ops.dropout import dropout
from gradlite.ops.layout import row_major
from gradlite.ops.op import Op, type_name
from gradlite.ops.products import product, product_of
from gradlite.ops.reduce import ones
from gradlite.ops.samples import S, bools, constant, normal
from gradlite.ops.softmax import row_max, softmax
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["scaled_dot_product_attention"]


@lru_cache(maxsize=16)
def _causal(rows: int, columns: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Ones on and below the diagonal."""
    return np.tril(np.ones((rows, columns), dtype))


class Attention(Op):
    """softmax(scale q kᵀ) v, causal or not."""

    reads = ((0, 1, 2), (0, 1, 2), (0, 1, 2))
    grad_name = "ScaledDotProductFlashAttentionForCpuBackward0"
    has_aux = True

    def forward(xp: Any, q: Any, k: Any, v: Any, scale: float, causal: bool) -> Any:
        kind = q.dtype.type
        if xp is not np:
            s = product(q, k.swapaxes(-1, -2), None, scale)
        else:
            s = xp.matmul(q * kind(scale), k.swapaxes(-1, -2))
        rows, columns = s.shape[-2:]
        if xp is np:
            high, low = s.max(), s.min()
            if high - low < 40:  # one shift for all rows: e**-40 loses no float32 precision
                s -= high
            else:
                if causal:
                    s[..., _causal(rows, columns, s.dtype) == 0] = -np.inf
                flat = s.reshape(-1, columns)
                flat -= row_max(flat)[:, None]
            np.exp(s, out=s)
            if causal:
                s *= _causal(rows, columns, s.dtype)
            total = s.dot(ones(columns, s.dtype))
            np.reciprocal(total, out=total)
            s *= total[..., None]
        else:
            if causal:
                s = xp.where(xp.tril(xp.ones((rows, columns), bool)), s, kind(-np.inf))
            s = xp.exp(s - s.max(-1, keepdims=True))
            s /= s.sum(-1, keepdims=True)
        out = row_major(product_of(xp)(s, v))
        return out, (s, out)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        q, k, v = ctx.saved
        scale, causal = ctx.attrs
        if F.tensors:
            wanted = [e is not None for e in ctx.edges]
            return gradients_of(
                lambda q, k, v: (_composed(q, k, v, scale, causal),), (q, k, v), (grad,), wanted
            )
        p, out = ctx.aux
        matmul = product_of(F.xp)
        grad = row_major(grad)  # once, for two products
        grad_v = matmul(p.swapaxes(-1, -2), grad) if ctx.edges[2] is not None else None
        s = matmul(grad, v.swapaxes(-1, -2))
        s -= (grad * out).sum(-1, keepdims=True)
        s *= p
        s *= q.dtype.type(scale)
        grad_q = matmul(s, k) if ctx.edges[0] is not None else None
        grad_k = matmul(s.swapaxes(-1, -2), q) if ctx.edges[1] is not None else None
        return grad_q, grad_k, grad_v


def _composed(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
    scores = (q * scale) @ k.swapaxes(-1, -2)  # type: ignore[attr-defined]
    if causal:
        scores = scores + _causal_bias(scores)
    return softmax(scores, -1) @ v


def _causal_bias(scores: Tensor) -> Tensor:
    rows, columns = scores.array.shape[-2:]
    bias = np.where(_causal(rows, columns, scores.array.dtype) > 0, 0.0, -np.inf)
    return wrap(bias.astype(scores.array.dtype)).to(scores.device)  # type: ignore[attr-defined,no-any-return]


@public(
    samples=lambda: [
        S(normal(2, 2, 4, 3), normal(2, 2, 4, 3), normal(2, 2, 4, 3)),
        S(normal(2, 2, 4, 3), normal(2, 2, 4, 3), normal(2, 2, 4, 3), is_causal=True),
        S(normal(2, 4, 3) * 20, normal(2, 4, 3), normal(2, 4, 5), is_causal=True),
        S(normal(2, 4, 3), normal(2, 5, 3), normal(2, 5, 6), scale=0.3),
        S(normal(2, 4, 3), normal(2, 5, 3), normal(2, 5, 6), constant(normal(4, 5))),
        S(
            normal(2, 4, 3),
            normal(2, 5, 3),
            normal(2, 5, 6),
            bools(4, 5) | np.eye(4, 5, dtype=bool),
        ),
    ],
    torch="nn.functional.scaled_dot_product_attention",
)
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(query @ key.mT * scale + mask) @ value`` (Vaswani et al. 2017).

    Args:
        query: (..., L, E); key: (..., S, E); value: (..., S, V).
        attn_mask: bool (True takes part) or floating (added), broadcast to (..., L, S).
        dropout_p: probability of dropping an attention weight.
        is_causal: let position i see positions up to i only; excludes ``attn_mask``.
        scale: default ``1 / sqrt(E)``.

    >>> import gradlite
    >>> q = gradlite.zeros(1, 2, 4)
    >>> gradlite.nn.functional.scaled_dot_product_attention(q, q, q + 1).shape
    gradlite.Size([1, 2, 4])

    Raises:
        RuntimeError: different dtypes, shapes that do not fit, or mask and ``is_causal`` both.
    """
    q, k, v = query.array, key.array, value.array
    if not q.dtype == k.dtype == v.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{type_name(q.dtype).lower()} key.dtype: {type_name(k.dtype).lower()} and "
            f"value.dtype: {type_name(v.dtype).lower()} instead."
        )
    if is_causal and attn_mask is not None:
        raise RuntimeError(
            "_scaled_dot_product_attention: Explicit attn_mask should not be set when "
            "is_causal=True"
        )
    if q.dtype not in dtypes.FLOATING or min(q.ndim, k.ndim, v.ndim) < 2:
        raise RuntimeError(
            "Expected query, key, and value to all be at least 2 dimensional floating tensors, but "
            f"got {q.ndim}, {k.ndim} and {v.ndim} dimensions of {query.dtype}"
        )
    if enable_gqa and q.ndim > 2 and q.shape[-3] != k.shape[-3]:
        groups = q.shape[-3] // k.shape[-3]
        key, value = (
            t.unsqueeze(-3)  # type: ignore[attr-defined]
            .expand(*t.shape[:-2], groups, *t.shape[-2:])
            .flatten(-4, -3)
            for t in (key, value)
        )
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    plain = attn_mask is None and dropout_p == 0.0 and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
    if plain and q.size and k.size and q.dtype != np.float16:
        return apply(Attention, (query, key, value), factor, is_causal)  # type: ignore[no-any-return]
    scores = (query * factor) @ key.swapaxes(-1, -2)  # type: ignore[attr-defined]
    if is_causal:
        scores = scores + _causal_bias(scores)
    elif attn_mask is not None:
        if attn_mask.array.dtype == np.bool_:
            scores = where(attn_mask, scores, -math.inf)
        else:
            scores = scores + attn_mask
    weights = softmax(scores, -1)
    if dropout_p > 0.0:
        weights = dropout(weights, dropout_p)
    return weights @ value  # type: ignore[no-any-return]
