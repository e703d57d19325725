"""residual + dropout(x + bias) as one op: how the blocks of a transformer end.

With kernels both ways read and write memory once, no mask is kept, and the gradient of the bias is
summed on the way of the backward pass (``kernels/dropout.cu``).
"""

from __future__ import annotations

import math
from typing import Any

from gradlite.ops.binary import sum_to
from gradlite.ops.column_sums import sum_parts, total
from gradlite.ops.dispatch import apply
from gradlite.ops.draws import place, threshold
from gradlite.ops.dropout import Dropout
from gradlite.ops.op import Op
from gradlite.random import default_generator
from gradlite.tensor import Tensor


class BiasDropoutAdd(Op):
    """residual + (x + bias) * mask, the bias a vector along the last dimension, or None.

    Its attrs are the mask's shape (x's), the probability of an element to be kept, and the scale.
    """

    reads = ((), (), ())
    has_aux = True
    grad_name = "AddBackward0"

    def forward(xp: Any, x: Any, bias: Any, residual: Any, *attrs: Any) -> Any:
        out, mask = Dropout.forward(xp, x if bias is None else x + bias, *attrs)
        return residual + out, mask

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (left,) = Dropout.backward(ctx, grad, F)
        wanted = ctx.edges[1] is not None
        return left, sum_to(F, left, tuple(ctx.shapes[1])) if wanted else None, grad

    def fused_forward(
        K: Any, x: Any, bias: Any, residual: Any, shape: Any, p: float, scale: float
    ) -> Any:
        arrays = [a for a in (x, bias, residual) if a is not None]
        if not K.takes(*arrays):
            return NotImplemented
        where = place(default_generator, math.prod(shape), 8)
        x, residual = K.dense(x), K.dense(residual)
        out, n = K.empty_like(x), x.size
        K.elementwise(
            "bias_dropout_add_forward", x.dtype, n,
            x, None if bias is None else K.dense(bias), residual, out,
            *where, n, x.shape[-1], threshold(p), scale,
        )  # fmt: skip
        return out, where

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        if not isinstance(ctx.aux, tuple) or not K.takes(grad):
            return NotImplemented
        if ctx.edges[1] is None:
            return (*Dropout.fused_backward(K, ctx, grad), None, grad)
        _, p, scale = ctx.attrs
        dense = K.dense(grad)
        dx, dtype = K.empty_like(dense), grad.dtype
        (columns,) = ctx.shapes[1]
        arguments = dense, dx, *ctx.aux, threshold(p), scale
        rows, kernel = dx.size // columns, "bias_dropout_add_backward"
        partials, _ = sum_parts(K, kernel, dtype, 1, rows, columns, *arguments)
        db = K.empty((columns,), dtype)
        total(K, dtype, partials, db)
        return dx, db, grad


def bias_dropout_add(x: Tensor, bias: Tensor | None, residual: Tensor, p: float) -> Tensor:
    """``residual + dropout(x + bias, p)`` in training, for 0 < p < 1.

    Args:
        x: (*, columns); residual: the same shape and dtype.
        bias: (columns,), or None.
        p: probability of an element to be dropped.

    >>> import gradlite
    >>> _ = gradlite.manual_seed(0)
    >>> bias_dropout_add(gradlite.zeros(4), gradlite.ones(4), gradlite.ones(4), 0.5)
    tensor([3., 3., 1., 3.])
    """
    inputs, shape = (x, bias, residual), x.array.shape
    return apply(BiasDropoutAdd, inputs, shape, 1.0 - p, 1.0 / (1.0 - p))  # type: ignore[no-any-return]
