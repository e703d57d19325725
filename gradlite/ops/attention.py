"""Scaled dot-product attention as one node."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends import sdp
from gradlite.backends.strides import collapse
from gradlite.ops import attention_compiled, shortcuts
from gradlite.ops.attention_weights import (
    AttentionWeights,
    causal_ones,
    mask_arguments,
    weights_gradient,
)
from gradlite.ops.binary import mismatch
from gradlite.ops.dispatch import apply, gradients_of
from gradlite.ops.dropout import dropout
from gradlite.ops.layout import row_major
from gradlite.ops.matmul_errors import broadcast
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import cast
from gradlite.ops.positions import least, most
from gradlite.ops.products import product, product_of
from gradlite.ops.reduce import ones
from gradlite.ops.samples import S, bools, constant, normal
from gradlite.ops.softmax import row_max
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["scaled_dot_product_attention"]


class Attention(Op):
    """softmax(scale q kᵀ + mask) v, causal or not; the mask, if any, is as in AttentionWeights."""

    reads = ((0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3), ())
    grad_name = "ScaledDotProductFlashAttentionForCpuBackward0"
    has_aux = True

    def forward(xp: Any, q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool) -> Any:
        if xp is np and attention_compiled.worth(q, k, v):
            found = _by_heads(q, k, v, mask, scale, causal)
            if found is not None:
                return found
        if xp is np and mask is None:
            p = _weights(xp.matmul(q * q.dtype.type(scale), k.swapaxes(-1, -2)), causal)
        else:
            s = product(q, k.swapaxes(-1, -2), None, scale)
            p = NAMESPACES[q.__class__].attention_weights(s, mask, 1.0, causal)
        if xp is not np:
            out = row_major(product(p, v))
            return out, (p, out, None, None)
        shape, strides = (*q.shape[:-1], v.shape[-1]), q.strides
        if q.ndim < 4 or not strides[-1] == q.itemsize <= strides[-3] < strides[-2]:
            out = xp.empty(shape, q.dtype)
        else:  # parts of wider rows: what joins the heads behind it then needs no copy
            out = _heads_outside(_heads_inside(xp, shape, q.dtype), shape[:-2])
        xp.matmul(p, v, out=out)
        return out, (p, out, None, None)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        q, k, v, mask = ctx.saved
        scale, causal = ctx.attrs
        if F.tensors:
            wanted = [e is not None for e in ctx.edges[:3]]
            found = gradients_of(
                lambda q, k, v: (_composed(q, k, v, mask, scale, causal),),
                (q, k, v),
                (grad,),
                wanted,
            )
            return *found, None
        p, out, _, kept = ctx.aux
        if p is None and F.xp is np:
            made = _heads_backward(ctx, grad, kept)
            if made is not None:
                return made
        if p is None:  # what there is of them is in another form
            scores = product(q, k.swapaxes(-1, -2), None, scale)
            p = F.attention_weights(scores, mask, 1.0, causal)
        matmul = product_of(F.xp)
        fused = F.launcher is not None and F.launcher.takes(grad, p)
        along = None if fused else (grad * out).sum(-1, keepdims=True)
        grad = row_major(grad)  # once, for two products
        grad_v = matmul(p.swapaxes(-1, -2), grad) if ctx.edges[2] is not None else None
        s = matmul(grad, v.swapaxes(-1, -2))
        if along is None:
            s = weights_gradient(F.launcher, s, p, scale)
        else:
            s -= along
            s *= p
            s *= q.dtype.type(scale)
        grad_q = matmul(s, k) if ctx.edges[0] is not None else None
        grad_k = matmul(s.swapaxes(-1, -2), q) if ctx.edges[1] is not None else None
        return grad_q, grad_k, grad_v, None

    def fused_forward(K: Any, q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool) -> Any:
        size = kernel_size(K, q, k, v)
        lead, queries, keys = q.shape[:-2], q.shape[-2], k.shape[-2]
        found = mask_arguments(K, mask, (*lead, queries, keys), q.dtype)
        if not size or found is None:
            return NotImplemented
        out = _heads_inside(K, (*lead, queries, v.shape[-1]), q.dtype)
        rest = K.empty_like(out) if q.dtype in dtypes.HALVES else None  # that rounding takes
        logs = K.empty((*lead, queries), K.acc(q.dtype))
        added, allowed, *strides = found
        (q, *of_q), (k, *of_k), (v, *of_v) = layout_of(K, q), layout_of(K, k), layout_of(K, v)
        arrays = K.reach(q), K.reach(k), K.reach(v), added, allowed, out, rest, logs
        problems, tile = math.prod(lead), tile_of(size, q.dtype)
        heads = lead[-1] if lead else 1
        sizes = problems, heads, queries, keys, q.shape[-1], v.shape[-1], *of_q, *of_k, *of_v
        grid = (min(problems * -(-queries // tile), 1 << 30),)
        arguments = *arrays, *sizes, *strides, int(causal), float(scale)
        K.launch(f"attention_forward_{size}", q.dtype, grid, (128,), *arguments)
        out = _heads_outside(out, lead)
        return out, (None, out, rest, logs)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        q, k, v, mask = ctx.saved
        p, out, rest, logs = ctx.aux
        if p is not None or not K.takes(grad, q):
            return NotImplemented
        scale, causal = ctx.attrs
        lead, queries, keys = q.shape[:-2], q.shape[-2], k.shape[-2]
        size = padded_size(q, v)
        found = mask_arguments(K, mask, (*lead, queries, keys), q.dtype)
        added, allowed, *strides = found
        gradients = tuple(_heads_inside(K, a.shape, a.dtype) for a in (q, k, v))
        (grad, *of_grad), (q, *of_q) = layout_of(K, grad), layout_of(K, q)
        (k, *of_k), (v, *of_v) = layout_of(K, k), layout_of(K, v)
        read = K.reach(grad), K.reach(q), K.reach(k), K.reach(v), K.reach(out), rest, logs
        problems, tile = math.prod(lead), tile_of(size, q.dtype)
        heads = lead[-1] if lead else 1
        sizes = problems, heads, queries, keys, q.shape[-1], v.shape[-1]
        grid = (min(problems * (-(-queries // tile) + -(-keys // tile)), 1 << 30),)
        arrays = *read, added, allowed, *gradients
        layouts = *of_grad, *of_q, *of_k, *of_v
        arguments = *arrays, *sizes, *layouts, *strides, int(causal), float(scale)
        K.launch(f"attention_backward_{size}", q.dtype, grid, (128,), *arguments)
        return *(_heads_outside(g, lead) for g in gradients), None


def _by_heads(q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool) -> Any:
    """The forward, compiled; None where it does not take the arrays."""
    lead, queries, keys = q.shape[:-2], q.shape[-2], k.shape[-2]
    if mask is not None:
        mask = np.broadcast_to(mask, (*lead, queries, keys))
    size = attention_compiled.room(queries, keys, causal)
    strips = np.empty((math.prod(lead) * size,), q.dtype)
    out = _heads_outside(_heads_inside(np, (*q.shape[:-1], v.shape[-1]), q.dtype), lead)
    if not attention_compiled.attend(np, q, k, v, strips, out, causal, scale, mask):
        return None
    return out, (None, out, None, strips)


def _heads_backward(ctx: Any, grad: Any, strips: Any) -> Any:
    q, k, v, _ = ctx.saved
    scale, causal = ctx.attrs
    lead, (rows, size) = q.shape[:-2], q.shape[-2:]
    alike = q.__class__ is np.ndarray and q.shape == k.shape == v.shape
    made: Any
    if lead and alike and None not in ctx.edges[:3]:
        # Side by side, as the rows that they were parts of: see `joining.side_by_side`.
        whole = np.empty((*lead[:-1], rows, 3, lead[-1], size), q.dtype)
        made = (whole[..., i, :, :].swapaxes(-3, -2) for i in range(3))
    else:
        made = (
            None if e is None else _heads_outside(_heads_inside(np, x.shape, x.dtype), lead)
            for x, e in zip((q, k, v), ctx.edges)
        )
    dq, dk, dv = made
    if not attention_compiled.gradients(np, grad, q, k, v, strips, dq, dk, dv, causal, scale):
        return None
    return dq, dk, dv, None


# Above so many multiplications the products of a library, which fill the device and on halves run
# on tensor cores, make up for their launches and for the weights in memory; above so many bytes of
# weights it is the memory that counts. An estimate: no GPU has measured it.
MOST_PRODUCTS = 1 << 27
MOST_BYTES = 1 << 28


def layout_of(K: Any, array: Any) -> tuple[Any, int, int, int]:
    """How (samples..., heads, rows, size) lies, for the kernels, in elements.

    Returns:
        The array, or a row-major copy where it lies otherwise; the strides of samples, of heads
        and of rows.
    """
    if array.strides[-1] != array.itemsize and array.shape[-1] > 1:
        array = K.dense(array)
    lead, (*steps, rows, _) = array.shape[:-2], (s // array.itemsize for s in array.strides)
    sample = collapse(lead[:-1], steps[:-1])
    head = steps[-1] if lead else 0
    if sample is None or head < 0 or rows < 0:
        array = K.dense(array)
        rows = array.shape[-1]
        head = array.shape[-2] * rows
        sample = head * (lead[-1] if lead else 1)
    return array, sample, head, rows


def _heads_inside(K: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """A new array (samples..., rows, heads, size) for values (samples..., heads, rows, size)."""
    if len(shape) > 2:
        *samples, heads, rows, size = shape
        shape = (*samples, rows, heads, size)
    return K.empty(shape, dtype)


def _heads_outside(array: Any, lead: tuple[int, ...]) -> Any:
    return array.swapaxes(-3, -2) if lead else array


def padded_size(q: Any, v: Any) -> int:
    """The head size that kernels pad to; 0 where there is none."""
    largest = max(q.shape[-1], v.shape[-1])
    return next((size for size in (32, 64, 128) if largest <= size), 0)


def tile_of(size: int, dtype: Any) -> int:
    """How many queries or keys a block of the kernels takes (``TILE_OF`` in attention.cu)."""
    return 16 if size > 64 or dtype == np.float64 else 32


def kernel_size(K: Any, q: Any, k: Any, v: Any) -> int:
    """The head size of the kernel that serves these arrays; 0 where products do better."""
    size = padded_size(q, v)
    if not size or not K.takes(q, k, v) or (size > 64 and q.dtype == np.float64):
        return 0
    weights = math.prod(q.shape[:-1]) * k.shape[-2]
    small = weights * size <= MOST_PRODUCTS or weights * q.dtype.itemsize > MOST_BYTES
    return size if small else 0


def _weights(s: Any, causal: bool) -> Any:
    """The softmax of NumPy's scores, written into them."""
    rows, columns = s.shape[-2:]
    high, low = most(s), least(s)
    if shortcuts.allowed(high - low < 40):  # one shift for all: e**-40 loses no float32 digits
        s -= high
    else:
        if causal:
            s[..., causal_ones(rows, columns, s.dtype) == 0] = -np.inf
        flat = s.reshape(-1, columns)
        flat -= row_max(flat)[:, None]
    np.exp(s, out=s)
    if causal:
        s *= causal_ones(rows, columns, s.dtype)
    total = s.dot(ones(columns, s.dtype))
    np.reciprocal(total, out=total)
    s *= total[..., None]
    return s


def _check_mask(q: Any, k: Any, mask: Any) -> None:
    """RuntimeError unless a mask broadcasts to the scores; nothing where there are none."""
    lead, others = tuple(q.shape[:-2]), tuple(k.shape[:-2])
    if q.shape[-1] != k.shape[-1] or not broadcast(lead, others):
        return
    shape = (*np.broadcast_shapes(lead, others), q.shape[-2], k.shape[-2])
    if not broadcast(shape, mask.shape):
        raise RuntimeError(mismatch(shape, mask.shape))
    whole = np.broadcast_shapes(shape, mask.shape)
    if whole != shape:
        raise RuntimeError(
            f"output with shape {list(shape)} doesn't match the broadcast shape {list(whole)}"
        )


def _composed(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, causal: bool, p: float = 0.0
) -> Tensor:
    scores = (q * scale) @ k.swapaxes(-1, -2)  # type: ignore[attr-defined]
    weights = apply(AttentionWeights, (scores, mask), 1.0, causal)
    if p > 0.0:
        weights = dropout(weights, p)
    return weights @ v  # type: ignore[no-any-return]


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
    autocast="lower",
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
    if q.dtype not in dtypes.FLOATING:
        raise RuntimeError(f"Expected query, key, and value to be floating, but got {query.dtype}")
    if min(q.ndim, k.ndim, v.ndim) < 2:
        raise RuntimeError(
            "Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: "
            f"{q.ndim} key.dim: {k.ndim} and value.dim: {v.ndim} instead."
        )
    if enable_gqa and q.ndim > 2 and q.shape[-3] != k.shape[-3]:
        groups = q.shape[-3] // k.shape[-3]
        key, value = (
            t.unsqueeze(-3)  # type: ignore[attr-defined]
            .expand(*t.shape[:-2], groups, *t.shape[-2:])
            .flatten(-4, -3)
            for t in (key, value)
        )
    factor = 1 / math.sqrt(q.shape[-1] or 1) if scale is None else scale
    mask = attn_mask
    if mask is not None and mask.array.dtype not in (np.bool_, q.dtype):
        if mask.array.dtype not in dtypes.FLOATING:
            raise RuntimeError(
                "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
                f"attn_mask.dtype: {type_name(mask.array.dtype).lower()} and  query.dtype: "
                f"{type_name(q.dtype).lower()} instead."
            )
        mask = cast(mask, q.dtype)
    if mask is not None and mask.array.shape != (*q.shape[:-1], k.shape[-2]):
        _check_mask(query.array, key.array, mask.array)
    one_node = (
        dropout_p == 0.0
        and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
        # Kernels are told each size once; products say which of two does not fit.
        and q.shape[-1] == k.shape[-1]
        and k.shape[-2] == v.shape[-2]
        and q.size > 0 < k.size
        and (mask is None or not mask.requires_grad)
    )
    if not sdp.as_usual:
        one_node = sdp.chosen(q.__class__ is not np.ndarray, one_node) is not sdp.SDPBackend.MATH
    elif isinstance(q, np.ndarray) and mask is not None and q.dtype not in dtypes.HALVES:
        one_node = one_node and attention_compiled.worth_masked(np, q, k, v, mask.array)
    if one_node:
        return apply(Attention, (query, key, value, mask), factor, is_causal)  # type: ignore[no-any-return]
    return _composed(query, key, value, mask, factor, is_causal, dropout_p)
