"""Vectors divided by their norm, as one op for where they run with kernels (`normalize.cu`).

Elsewhere `gradlite.ops.distance.normalize` composes the same of other ops.
"""

from __future__ import annotations

from typing import Any

from gradlite.ops.dispatch import apply
from gradlite.ops.layout import order_of_result
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.natively import launcher
from gradlite.ops.op import Op
from gradlite.ops.softmax import extent, strips
from gradlite.tensor import Tensor, wrap


class Normalize(Op):
    """x / max(|x|, eps), |x| being the p-norm along one dimension, for p = 1 or 2."""

    grad_name = "DivBackward0"
    reads = ((0,),)
    native_from = native_backward_from = 1 << 10

    def forward(xp: Any, x: Any, dim: int, eps: float, p: int) -> Any:
        total = (abs(x) if p == 1 else x * x).sum(dim, keepdims=True)
        length = total if p == 1 else xp.sqrt(total)
        return x / xp.maximum(length, x.dtype.type(eps))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        dim, eps, p = ctx.attrs
        total = F.sum(F.abs(x) if p == 1 else x * x, (dim,), True)
        raw = F.array(total)
        # A vector that is shorter, one of zeros above all, has no derivative of its length.
        kept: Any = ~((raw if p == 1 else NAMESPACES[raw.__class__].xp.sqrt(raw)) < eps)
        kept = wrap(kept) if F.tensors else kept
        zero = F.zeros((), x)
        known = F.where(kept, total, zero + 1)
        length = F.where(kept, known if p == 1 else F.sqrt(known), zero + eps)
        product = F.sum(grad * x, (dim,), True)
        lost = F.where(kept, product / length / length, zero)
        return (grad / length - (F.sign(x) * lost if p == 1 else x * (lost / length)),)

    def fused_forward(K: Any, x: Any, dim: int, eps: float, p: int) -> Any:
        order = None if x.flags.c_contiguous else order_of_result((x.shape, x.strides))
        if order is not None:  # the result lies as x does
            out = Normalize.fused_forward(K, x.transpose(order), order.index(dim), eps, p)
            return out.transpose(sorted(range(x.ndim), key=order.__getitem__))
        x = K.dense(x)
        out = K.empty_like(x)
        outer, n, inner = extent(x.shape, dim)
        if inner == 1:
            K.kept_rows("normalize_forward", x.dtype, outer, n, 1, x, out, outer, n, eps, p)
        else:
            grid = strips(outer, n, inner)
            K.launch("normalize_strided_forward", x.dtype, *grid, x, out, outer, n, inner, eps, p)
        return out

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved
        dim, eps, p = ctx.attrs
        if not K.takes(grad, x):
            return NotImplemented
        grad, x = K.dense(grad), K.dense(x)
        dx = K.empty_like(x)
        outer, n, inner = extent(x.shape, dim)
        arrays = grad, x, dx
        if inner == 1:
            K.kept_rows("normalize_backward", x.dtype, outer, n, 2, *arrays, outer, n, eps, p)
        else:
            grid, sizes = strips(outer, n, inner), (outer, n, inner)
            K.launch("normalize_strided_backward", x.dtype, *grid, *arrays, *sizes, eps, p)
        return (dx,)


def with_kernels(input: Tensor, p: int, dim: int, eps: float) -> Tensor | None:
    """The vectors along a dimension divided by their p-norm, or None where no kernel does it."""
    x = input.array
    F = NAMESPACES[x.__class__]
    K = F.launcher or launcher(Normalize, F.xp, x)
    if K is None or not K.takes(x) or not -x.ndim <= dim < x.ndim:
        return None
    least = float(x.dtype.type(eps))  # which is 0 in half precision
    return apply(Normalize, (input,), dim % x.ndim, least, p)  # type: ignore[no-any-return]
