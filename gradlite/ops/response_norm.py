"""Normalisation across channels: of other ops, and as one op where it runs with kernels.

The kernels are in ``kernels/response_norm.cu``.
"""

from __future__ import annotations

import math
from typing import Any

from gradlite.ops.dispatch import apply, gradients_of
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.ops.pad import pad
from gradlite.ops.pool import avg_pool2d
from gradlite.tensor import Tensor


def composed(input: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """x / (k + alpha m)^beta, m being the mean square of neighbouring channels."""
    x: Any = input
    shape = x.shape
    squares = (x * x).reshape(shape[0], 1, shape[1], math.prod(shape[2:]))
    squares = pad(squares, (0, 0, size // 2, (size - 1) // 2))
    means: Any = avg_pool2d(squares, (size, 1), stride=1)
    return x / (means.reshape(shape) * alpha + k) ** beta  # type: ignore[no-any-return]


def _sizes(shape: Any) -> tuple[int, int, int]:
    return shape[0], shape[1], math.prod(shape[2:])


def _over_channels(xp: Any, values: Any, before: int, after: int) -> Any:
    """The sums over the neighbours of each channel of (samples, channels, length)."""
    channels = values.shape[1]
    total = xp.zeros(values.shape, values.dtype)
    for step in range(-before, after + 1):
        count = max(channels - abs(step), 0)
        to, source = max(-step, 0), max(step, 0)
        total[:, to : to + count] += values[:, source : source + count]
    return total


class LocalResponseNorm(Op):
    """x / (k + alpha m)^beta, m being the mean square of neighbours; aux: what the power is of."""

    grad_name = "DivBackward0"
    reads = ((0,),)
    has_aux = True

    def forward(xp: Any, x: Any, size: int, alpha: float, beta: float, k: float) -> Any:
        rows = x.reshape(_sizes(x.shape))
        squares = _over_channels(xp, rows * rows, size // 2, (size - 1) // 2)
        divisors = squares * (alpha / size) + k
        return (rows / divisors**beta).reshape(x.shape), divisors

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        size, alpha, beta, k = ctx.attrs
        if F.tensors:
            found = gradients_of(
                lambda t: (composed(t, size, alpha, beta, k),), (x,), (grad,), (True,)
            )
            return (found[0],)
        xp = NAMESPACES[x.__class__].xp
        shape = _sizes(x.shape)
        rows, divisors = x.reshape(shape), ctx.aux.reshape(shape)
        divided = grad.reshape(shape) / divisors**beta
        along = _over_channels(xp, divided * rows / divisors, (size - 1) // 2, size // 2)
        return ((divided - (2 * alpha * beta / size) * rows * along).reshape(x.shape),)

    def fused_forward(K: Any, x: Any, size: int, alpha: float, beta: float, k: float) -> Any:
        x = K.dense(x)
        out, divisors = K.empty_like(x), K.empty(x.shape, K.acc(x.dtype))
        K.elementwise(
            "response_norm_forward", x.dtype, 4 * x.size,
            x, out, divisors, *_sizes(x.shape), size // 2, (size - 1) // 2, alpha, beta, k,
        )  # fmt: skip
        return out, divisors

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved
        size, alpha, beta, _ = ctx.attrs
        if not K.takes(grad, x) or ctx.aux.dtype != K.acc(x.dtype):
            return NotImplemented
        x, dx = K.dense(x), K.empty(x.shape, x.dtype)
        K.elementwise(
            "response_norm_backward", x.dtype, 4 * x.size,
            K.dense(grad), x, ctx.aux, dx, *_sizes(x.shape), size // 2, (size - 1) // 2,
            alpha, beta,
        )  # fmt: skip
        return (dx,)


def with_kernels(input: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor | None:
    """The normalised input, or None where no kernel does it."""
    x = input.array
    K = NAMESPACES[x.__class__].launcher
    if K is None or not K.takes(x) or x.size >= 1 << 31 or size < 1:
        return None
    attrs = int(size), float(alpha), float(beta), float(k)
    return apply(LocalResponseNorm, (input,), *attrs)  # type: ignore[no-any-return]
