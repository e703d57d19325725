"""Functions with kernels (see ``kernels/README.md``) for ops that need no more than a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def fused_map(K: Any, kernel: str, x: Any, *parameters: float) -> Any:
    """``kernel(x, out, n, *parameters)`` over the elements of an array."""
    if not K.takes(x):
        return NotImplemented
    x = K.dense(x)
    out = K.empty_like(x)
    K.elementwise(kernel, x.dtype, x.size, x, out, x.size, *map(float, parameters))
    return out


def fused_slope(K: Any, kernel: str, grad: Any, saved: Any, *parameters: float) -> Any:
    """``kernel(grad, saved, dx, n, *parameters)`` over the elements of two arrays of a shape."""
    if not K.takes(grad, saved) or grad.shape != saved.shape:
        return NotImplemented
    grad, saved = K.dense(grad), K.dense(saved)
    dx = K.empty_like(saved)
    K.elementwise(kernel, saved.dtype, dx.size, grad, saved, dx, dx.size, *map(float, parameters))
    return dx


def activation_kernels(name: str) -> tuple[Callable[..., Any], ...]:
    """``fused_forward`` and ``fused_backward`` of an elementwise op with one input.

    They launch ``{name}_forward`` and ``{name}_backward`` with the op's attrs as parameters; the
    second reads the one value that the op saves.
    """

    def fused_forward(K: Any, x: Any, *attrs: float) -> Any:
        return fused_map(K, f"{name}_forward", x, *attrs)

    fused_forward.activation = name  # type: ignore[attr-defined]

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        dx = fused_slope(K, f"{name}_backward", grad, ctx.saved[0], *ctx.attrs)
        return dx if dx is NotImplemented else (dx,)

    return fused_forward, fused_backward
