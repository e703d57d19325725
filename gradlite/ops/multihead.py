"""Multi-head attention as a function of all its weights, written with other ops."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from gradlite.ops.attention import scaled_dot_product_attention
from gradlite.ops.casting import lowered
from gradlite.ops.choose import where
from gradlite.ops.creation import zeros
from gradlite.ops.dropout import dropout
from gradlite.ops.joining import cat
from gradlite.ops.matmul import linear
from gradlite.ops.samples import S, normal
from gradlite.ops.softmax import softmax
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["multi_head_attention_forward"]


def _additive(mask: Tensor | None, name: str, dtype: Any) -> Any:
    """A mask as floats to add: -inf where a bool mask is True."""
    if mask is None or mask.is_floating_point():
        return mask
    if mask.array.dtype != bool:
        raise AssertionError(f"only bool and floating types of {name} are supported")
    return where(mask, float("-inf"), zeros(mask.shape, dtype=dtype, device=mask.device))


def _check_shapes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    attn_mask: Tensor | None,
) -> None:
    if query.dim() not in (2, 3):
        raise AssertionError(
            "query should be unbatched 2D or batched 3D tensor but received "
            f"{query.dim()}-D query tensor"
        )
    dims, form = query.dim(), "batched" if query.dim() == 3 else "unbatched"
    if key.dim() != dims or value.dim() != dims:
        raise AssertionError(
            f"For {form} ({dims}-D) `query`, expected `key` and `value` to be {dims}-D "
            f"but found {key.dim()}-D and {value.dim()}-D tensors respectively"
        )
    if key_padding_mask is not None and key_padding_mask.dim() != dims - 1:
        raise AssertionError(
            f"For {form} ({dims}-D) `query`, expected `key_padding_mask` to be `None` or "
            f"{dims - 1}-D but found {key_padding_mask.dim()}-D tensor instead"
        )
    if attn_mask is not None and attn_mask.dim() not in (2, 3):
        raise AssertionError(
            f"For {form} ({dims}-D) `query`, expected `attn_mask` to be `None`, 2-D or 3-D "
            f"but found {attn_mask.dim()}-D tensor instead"
        )


def _project(query: Any, key: Any, value: Any, weights: tuple[Any, ...], bias: Any) -> list[Any]:
    """Queries, keys and values through their weights and their thirds of the bias."""
    biases = (None, None, None) if bias is None else bias.chunk(3)
    return [
        linear(x, weight, b)
        for x, weight, b in zip((query, key, value), weights, biases, strict=True)
    ]


def _attn_mask(attn_mask: Any, dtype: Any, batch_heads: int, t: int, s: int) -> Any:
    mask = _additive(attn_mask, "attn_mask", dtype)
    expected = (t, s) if mask.dim() == 2 else (batch_heads, t, s)
    if mask.shape != expected:
        raise RuntimeError(
            f"The shape of the {mask.dim()}D attn_mask is {mask.shape}, but should be {expected}."
        )
    return mask.unsqueeze(0) if mask.dim() == 2 else mask


def _static(name: str, given: Any, heads: int, head_dim: int) -> Any:
    """Keys or values that were projected before."""
    for place, expected in ((0, heads), (2, head_dim)):
        if given.shape[place] != expected:
            raise AssertionError(
                f"expecting {name}.size({place}) of {expected}, but got {given.shape[place]}"
            )
    return given


@public(
    samples=lambda: [
        S(
            *(normal(3, 2, 4), normal(5, 2, 4), normal(5, 2, 4), 4, 2),
            *(normal(12, 4), normal(12), None, None, False, 0.0, normal(4, 4), normal(4)),
        ),
        S(
            *(normal(3, 4), normal(5, 4), normal(5, 4), 4, 2),
            *(normal(12, 4), None, normal(1, 1, 4), normal(1, 1, 4), True, 0.0),
            *(normal(4, 4), None),
            attn_mask=np.triu(np.full((3, 5), -np.inf), 3),
            average_attn_weights=False,
        ),
        S(
            *(normal(3, 2, 4), normal(5, 2, 3), normal(5, 2, 6), 4, 2),
            *(None, normal(12), None, None, False, 0.0, normal(4, 4), normal(4)),
            key_padding_mask=np.array([[False] * 5, [False] * 3 + [True] * 2]),
            use_separate_proj_weight=True,
            q_proj_weight=normal(4, 4),
            k_proj_weight=normal(4, 3),
            v_proj_weight=normal(4, 6),
        ),
        S(
            *(normal(3, 2, 4), normal(3, 2, 4), normal(3, 2, 4), 4, 2),
            *(normal(12, 4), normal(12), None, None, False, 0.0, normal(4, 4), normal(4)),
            need_weights=False,
            attn_mask=np.triu(np.ones((3, 3), bool), 1),
            is_causal=True,
        ),
    ],
    torch="nn.functional.multi_head_attention_forward",
)
def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention (Vaswani et al., 2017); `nn.MultiheadAttention` holds the weights.

    Args:
        query: ``(T, N, E)`` or ``(T, E)``.
        key, value: ``(S, N, *)`` or ``(S, *)``.
        in_proj_weight: ``(3 E, E)``, or None with ``use_separate_proj_weight``, when
            ``q_proj_weight``, ``k_proj_weight`` and ``v_proj_weight`` take its place.
        bias_k, bias_v: a key and a value put after the others.
        add_zero_attn: put zeros after them too.
        static_k, static_v: projected keys and values ``(N * num_heads, S, E / num_heads)``.

    Returns:
        The output ``(T, N, E)`` and, when ``need_weights``, the attention weights ``(N, T, S)``,
        or ``(N, num_heads, T, S)`` without ``average_attn_weights``.

    >>> from gradlite import eye, ones
    >>> x = ones(2, 1, 4)
    >>> output, weights = multi_head_attention_forward(
    ...     x, x, x, 4, 2, ones(12, 4), None, None, None, False, 0.0, eye(4), None
    ... )
    >>> output.shape, weights
    (gradlite.Size([2, 1, 4]), tensor([[[0.5000, 0.5000],
             [0.5000, 0.5000]]]))

    Raises:
        AssertionError: tensors whose dimensions or sizes do not fit together.
        RuntimeError: a mask of another shape, or ``is_causal`` without a mask.
    """
    _check_shapes(query, key, value, key_padding_mask, attn_mask)
    q: Any = query
    k: Any = key
    v: Any = value
    batched = q.dim() == 3
    if not batched:
        itself = k is q and v is q
        q = q.unsqueeze(1)
        k, v = (q, q) if itself else (k.unsqueeze(1), v.unsqueeze(1))
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)  # type: ignore[attr-defined]
    t, batch, embed_dim = q.shape
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module "
            "method `generate_square_subsequent_mask` to create this mask."
        )
    if embed_dim != embed_dim_to_check:
        raise AssertionError(
            f"was expecting embedding dimension of {embed_dim_to_check}, but got {embed_dim}"
        )
    head_dim = embed_dim // num_heads
    if head_dim * num_heads != embed_dim:
        raise AssertionError(f"embed_dim {embed_dim} not divisible by num_heads {num_heads}")
    shapes = (k.shape[:2], v.shape[:2]) if use_separate_proj_weight else (k.shape, v.shape)
    if shapes[0] != shapes[1]:
        if use_separate_proj_weight:
            raise AssertionError(
                f"key's sequence and batch dims {shapes[0]} do not match value's {shapes[1]}"
            )
        raise AssertionError(f"key shape {k.shape} does not match value shape {v.shape}")

    if use_separate_proj_weight:
        separate = q_proj_weight, k_proj_weight, v_proj_weight
        q, k, v = _project(q, k, v, separate, in_proj_bias)
    elif k is q and v is q:
        q, k, v = linear(q, in_proj_weight, in_proj_bias).chunk(3, -1)  # type: ignore[arg-type, attr-defined]
    else:
        q, k, v = _project(q, k, v, in_proj_weight.chunk(3), in_proj_bias)  # type: ignore[union-attr]

    hint_only = is_causal and key_padding_mask is None and not need_weights
    mask: Any = None
    if attn_mask is not None and not hint_only:
        mask = _attn_mask(attn_mask, q.dtype, batch * num_heads, t, k.shape[0])
    if key_padding_mask is not None:
        if attn_mask is not None and key_padding_mask.dtype is not attn_mask.dtype:
            warnings.warn(
                "Support for mismatched key_padding_mask and attn_mask is deprecated. "
                "Use same type for both instead.",
                stacklevel=2,
            )
        padding = _additive(key_padding_mask, "key_padding_mask", q.dtype)
    else:
        padding = None

    def extend_masks() -> None:
        """Make room for one more key, which no mask hides."""
        nonlocal mask, padding
        if mask is not None:
            mask = cat([mask, mask.new_zeros((*mask.shape[:-1], 1))], -1)
        if padding is not None:
            padding = cat([padding, padding.new_zeros((*padding.shape[:-1], 1))], -1)

    if bias_k is not None and bias_v is not None:
        if static_k is not None:
            raise AssertionError("bias cannot be added to static key.")
        if static_v is not None:
            raise AssertionError("bias cannot be added to static value.")
        shape = (1, batch, embed_dim)
        k = cat([k, bias_k.expand(shape)])  # type: ignore[attr-defined]
        v = cat([v, bias_v.expand(shape)])  # type: ignore[attr-defined]
        extend_masks()
    q = q.reshape(t, batch * num_heads, head_dim).transpose(0, 1)
    k, v = (
        x.reshape(x.shape[0], batch * num_heads, head_dim).transpose(0, 1)
        if given is None
        else _static(name, given, batch * num_heads, head_dim)
        for name, x, given in (("static_k", k, static_k), ("static_v", v, static_v))
    )
    if add_zero_attn:
        zero = k.new_zeros((batch * num_heads, 1, head_dim))
        k, v = cat([k, zero], 1), cat([v, zero], 1)
        extend_masks()
    s = k.shape[1]
    if padding is not None:
        if padding.shape != (batch, s):
            if padding.shape[0] != batch:
                raise AssertionError(
                    f"Expected key_padded_mask.shape[0] to be {batch}, but got {padding.shape[0]}"
                )
            raise AssertionError(
                f"Expected key_padded_mask.shape[1] to be {s}, but got {padding.shape[1]}"
            )
        padding = padding.reshape(batch, 1, 1, s).expand(batch, num_heads, 1, s)
        padding = padding.reshape(batch * num_heads, 1, s)
        mask = padding if mask is None else mask + padding

    p = dropout_p if training else 0.0
    weights = None
    if need_weights:
        scores = (q * math.sqrt(1.0 / head_dim)) @ k.transpose(1, 2)
        if mask is not None:
            scores = scores + lowered(mask)[0]
        weights = softmax(scores, -1)
        weights = dropout(weights, p) if p > 0 else weights
        heads = weights @ v  # type: ignore[operator]
        weights = weights.reshape(batch, num_heads, t, s)  # type: ignore[attr-defined]
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        if mask is not None:
            heads_of_all = (batch, num_heads, *mask.shape[1:])
            mask = mask.reshape(heads_of_all) if mask.shape[0] != 1 else mask
        q, k, v = (x.reshape(batch, num_heads, x.shape[1], head_dim) for x in (q, k, v))
        heads = scaled_dot_product_attention(q, k, v, mask, p, hint_only)
        heads = heads.reshape(batch * num_heads, t, head_dim)
    joined = heads.transpose(0, 1).reshape(t, batch, embed_dim)
    output: Any = linear(joined, out_proj_weight, out_proj_bias)
    if not batched:
        output = output.squeeze(1)
        weights = None if weights is None else weights.squeeze(0)
    return output, weights
