"""Multi-head attention as a function of all its weights, written with other ops."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from gradlite import autocast_mode
from gradlite.backends import sdp
from gradlite.description import Size
from gradlite.ops.attention import scaled_dot_product_attention
from gradlite.ops.attention_weights import AttentionWeights
from gradlite.ops.casting import lowered
from gradlite.ops.creation import zeros
from gradlite.ops.dispatch import apply
from gradlite.ops.dropout import dropout
from gradlite.ops.heads import HeadOutputs, HeadScores, Parts
from gradlite.ops.joining import cat
from gradlite.ops.matmul import check_operands, linear
from gradlite.ops.operands import cast
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
    added: Any = zeros(mask.shape, dtype=dtype, device=mask.device)
    return added.masked_fill(mask, float("-inf"))


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


def _with_ends(
    name: str, x: Any, given: Any, ends: list[Any], lead: tuple[int, ...], size: int, turned: bool
) -> Any:
    """The heads of keys or values and of what comes behind them, which is zeros for given ones."""
    if given is None:
        return _heads(cat([x, *ends]) if ends else x, lead, size, turned)
    given = _static(name, given, math.prod(lead), size)
    if ends:
        given = cat([given, given.new_zeros((given.shape[0], len(ends), size))], 1)
    return given.reshape(*lead, given.shape[1], size)


def _rows_first(shape: Any, turned: bool) -> Any:
    """A shape (rows, samples, width), of (samples, rows, width) if turned."""
    return Size((shape[1], shape[0], *shape[2:])) if turned else shape


def _heads(x: Any, lead: tuple[int, ...], size: int, turned: bool) -> Any:
    """The heads of rows, (*lead, rows, size)."""
    if len(lead) == 1:
        return x.reshape(x.shape[0], *lead, size).transpose(0, 1)
    x = x.reshape(*x.shape[:2], lead[1], size)
    return x.transpose(1, 2) if turned else x.permute(1, 2, 0, 3)


def _joined(heads: Any, shape: tuple[int, int, int], turned: bool) -> Any:
    """Heads as rows again, of a shape (rows, samples, width)."""
    if heads.dim() == 3:
        return heads.transpose(0, 1).reshape(shape)
    if turned:
        return heads.transpose(1, 2).reshape(shape[1], shape[0], shape[2])
    return heads.permute(2, 0, 1, 3).reshape(shape)


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
    weights = (in_proj_weight, in_proj_bias, bias_k, bias_v, add_zero_attn, dropout_p)
    return attend(
        *(query, key, value, embed_dim_to_check, num_heads, *weights),
        *(out_proj_weight, out_proj_bias, training, key_padding_mask, need_weights, attn_mask),
        *(use_separate_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight),
        *(static_k, static_v, average_attn_weights, is_causal),
    )


def attend(
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
    training: bool,
    key_padding_mask: Tensor | None,
    need_weights: bool,
    attn_mask: Tensor | None,
    use_separate_proj_weight: bool,
    q_proj_weight: Tensor | None,
    k_proj_weight: Tensor | None,
    v_proj_weight: Tensor | None,
    static_k: Tensor | None,
    static_v: Tensor | None,
    average_attn_weights: bool,
    is_causal: bool,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`multi_head_attention_forward`, also of ``(N, T, E)``, which stay so where they can."""
    _check_shapes(query, key, value, key_padding_mask, attn_mask)
    q: Any = query
    k: Any = key
    v: Any = value
    batched = q.dim() == 3
    if not batched:
        alike = k is q and v is q
        q = q.unsqueeze(1)
        k, v = (q, q) if alike else (k.unsqueeze(1), v.unsqueeze(1))
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)  # type: ignore[attr-defined]
    p = dropout_p if training else 0.0
    packed = k is q and v is q and not use_separate_proj_weight
    one_node = not need_weights and (p == 0.0 or not sdp.as_usual or q.is_cpu)
    longer = add_zero_attn or any(x is not None for x in (bias_k, bias_v, static_k, static_v))
    turned = batch_first and batched and (packed or one_node) and not longer
    if batch_first and batched and not turned:
        swapped = {id(x): x.transpose(0, 1) for x in (q, k, v)}
        q, k, v = (swapped[id(x)] for x in (q, k, v))
    q_shape, k_shape, v_shape = (_rows_first(x.shape, turned) for x in (q, k, v))
    t, batch, embed_dim = q_shape
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
    if use_separate_proj_weight:
        shapes = k_shape[:2], v_shape[:2]
    else:
        shapes = k_shape, v_shape
    if shapes[0] != shapes[1]:
        if use_separate_proj_weight:
            raise AssertionError(
                f"key's sequence and batch dims {shapes[0]} do not match value's {shapes[1]}"
            )
        raise AssertionError(f"key shape {k_shape} does not match value shape {v_shape}")

    if use_separate_proj_weight:
        separate = q_proj_weight, k_proj_weight, v_proj_weight
        q, k, v = _project(q, k, v, separate, in_proj_bias)
    elif k is v:
        weight: Any = in_proj_weight
        bias: Any = in_proj_bias
        parts: list[Any] = []
        if not packed:
            sizes = [embed_dim, 2 * embed_dim]
            own, weight = weight.split(sizes)
            of_own, bias = (None, None) if bias is None else bias.split(sizes)
            parts = [linear(q, own, of_own)]
        joint: Any = linear(k, weight, bias)
        count = 3 - len(parts)
        parts += joint.chunk(count, -1) if one_node else apply(Parts, (joint,), count, turned)
        q, k, v = parts
    else:
        q, k, v = _project(q, k, v, in_proj_weight.chunk(3), in_proj_bias)  # type: ignore[union-attr]

    hint_only = is_causal and key_padding_mask is None and not need_weights
    mask: Any = None
    if attn_mask is not None and not hint_only:
        mask = _attn_mask(attn_mask, q.dtype, batch * num_heads, t, k_shape[0])
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

    ends: list[tuple[Any, Any]] = []  # keys and values behind the others, which no mask hides
    shape = (1, batch, embed_dim)
    if bias_k is not None and bias_v is not None:
        if static_k is not None:
            raise AssertionError("bias cannot be added to static key.")
        if static_v is not None:
            raise AssertionError("bias cannot be added to static value.")
        ends.append((bias_k.expand(shape), bias_v.expand(shape)))  # type: ignore[attr-defined]
    if add_zero_attn:
        zero = k.new_zeros(shape)
        ends.append((zero, zero))
    if ends:
        mask, padding = (
            m if m is None else cat([m, m.new_zeros((*m.shape[:-1], len(ends)))], -1)
            for m in (mask, padding)
        )
    # All heads of all samples in one dimension, or in two, which are then read where they lie.
    lead = (batch, num_heads) if one_node else (batch * num_heads,)
    q = _heads(q, lead, head_dim, turned)
    k = _with_ends("static_k", k, static_k, [end[0] for end in ends], lead, head_dim, turned)
    v = _with_ends("static_v", v, static_v, [end[1] for end in ends], lead, head_dim, turned)
    s = k.shape[-2]
    if mask is not None and mask.shape[0] != 1:
        mask = mask.reshape(batch, num_heads, *mask.shape[1:])
    if padding is not None:
        if padding.shape != (batch, s):
            if padding.shape[0] != batch:
                raise AssertionError(
                    f"Expected key_padded_mask.shape[0] to be {batch}, but got {padding.shape[0]}"
                )
            raise AssertionError(
                f"Expected key_padded_mask.shape[1] to be {s}, but got {padding.shape[1]}"
            )
        padding = padding.reshape(batch, 1, 1, s)
        mask = padding if mask is None else mask + padding

    weights = None
    if one_node:
        heads = scaled_dot_product_attention(q, k, v, mask, p, hint_only)
    else:
        if autocast_mode.used:
            q, k, v = lowered(q, k, v)
        check_operands("bmm", q, k)
        scores = apply(HeadScores, (q, k), math.sqrt(1.0 / head_dim)).view(batch, num_heads, t, s)
        if not need_weights:
            mask = None if mask is None else cast(mask, scores.array.dtype)
            weights = apply(AttentionWeights, (scores, mask), 1.0, hint_only)
        else:
            scores = scores if mask is None else scores + lowered(mask)[0]
            weights = softmax(scores, -1)
        weights = dropout(weights, p) if p > 0 else weights
        of_heads = weights.view(*lead, t, s)
        if autocast_mode.used:
            of_heads, v = lowered(of_heads, v)
        check_operands("bmm", of_heads, v)
        heads = apply(HeadOutputs, (of_heads, v))
        if not need_weights:
            weights = None
        elif average_attn_weights:
            weights = weights.mean(1)
    output: Any = linear(
        _joined(heads, (t, batch, embed_dim), turned and one_node), out_proj_weight, out_proj_bias
    )
    if not batched:
        output = output.squeeze(1)
        weights = None if weights is None else weights.squeeze(0)
    elif batch_first and not (turned and one_node):
        output = output.transpose(0, 1)
    return output, weights
