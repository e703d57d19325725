"""Elementwise kernels of several operands that broadcast: given in full, their gradients summed."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops.binary import sum_to
from gradlite.ops.namespaces import NAMESPACES


def in_full(K: Any, array: Any, shape: tuple[int, ...]) -> Any:
    """A row-major array, broadcast to a shape."""
    return K.dense(array if array.shape == shape else K.xp.broadcast_to(array, shape))


def forward(K: Any, kernel: str, operands: tuple[Any, ...], *numbers: float) -> Any:
    """What a kernel makes of operands, which are None where they are left out."""
    given = [a for a in operands if a is not None]
    if not K.takes(*given):
        return NotImplemented
    shape = np.broadcast_shapes(*(a.shape for a in given))
    full = [None if a is None else in_full(K, a, shape) for a in operands]
    out = K.empty(shape, given[0].dtype)
    K.elementwise(kernel, out.dtype, out.size, *full, out, out.size, *numbers)
    return out


def write(K: Any, kernel: str, out: Any, operands: tuple[Any, ...], *numbers: float) -> Any:
    """The same into the first operand; NotImplemented where that cannot be.

    An operand that shares memory with it may lie askew, and be read after it was written.
    """
    given = [a for a in operands if a is not None]
    if not K.takes(out, *given) or not out.flags.c_contiguous:
        return NotImplemented
    if any(a is not out and _owner(a) is _owner(out) for a in given):
        return NotImplemented
    full = [None if a is None else in_full(K, a, out.shape) for a in operands]
    K.elementwise(kernel, out.dtype, out.size, out, *full, out, out.size, *numbers)
    return out


def gradients(
    K: Any,
    kernel: str,
    grad: Any,
    operands: tuple[Any, ...],
    wanted: tuple[Any, ...],
    *numbers: Any,
) -> Any:
    """The gradients that a kernel makes of one and the operands, which are None where not read.

    Args:
        wanted: the shape of each gradient, None where it is not wanted.
    """
    floating = [a for a in operands if a is not None and a.dtype != np.bool_]
    if not K.takes(grad, *floating):
        return NotImplemented
    shape, dtype = grad.shape, grad.dtype
    full = [None if a is None else in_full(K, a, shape) for a in operands]
    outs = [None if own is None else K.empty(shape, dtype) for own in wanted]
    K.elementwise(kernel, dtype, grad.size, K.dense(grad), *full, *outs, grad.size, *numbers)
    F = NAMESPACES[grad.__class__]
    return tuple(
        None if out is None else sum_to(F, out, tuple(own)) for out, own in zip(outs, wanted)
    )


def wanted_shapes(ctx: Any, grad: Any) -> tuple[Any, ...]:
    """The shapes of the inputs of a node that want a gradient, None for the others."""
    shapes = ctx.shapes or (grad.shape,) * len(ctx.edges)
    return tuple(None if edge is None else own for edge, own in zip(ctx.edges, shapes))


def _owner(array: Any) -> Any:
    """The array whose memory an array lies in."""
    return getattr(array, "plain", array) if array.base is None else array.base
