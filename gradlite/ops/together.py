"""Elementwise kernels of several operands that broadcast: read where they lie, gradients summed."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from gradlite.ops.binary import broadcast_dims, sum_to
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.reductions import merged


@lru_cache(maxsize=4096)
def _cells(shape: tuple[int, ...], own: tuple[int, ...]) -> tuple[int, int] | None:
    """(inner, size), where element ``i // inner % size`` stands beside element i of a shape."""
    form = merged(shape, broadcast_dims(shape, own))
    if len(form) > 3 or [spread for _, spread in form] == [False, True, False]:
        return None
    size = inner = 1
    for n, spread in reversed(form):
        if not spread:
            size = n
        elif size == 1:
            inner = n
    return (inner, size) if size > 1 else (1, 1)


def read_in_place(array: Any, shape: tuple[int, ...]) -> bool:
    """Whether a kernel finds the elements of a shape in an array without a copy of it."""
    return bool(array.flags.c_contiguous) and _cells(shape, array.shape) is not None


def operand(K: Any, array: Any, shape: tuple[int, ...]) -> tuple[Any, int, int]:
    """A row-major array, and how a kernel finds the elements of a shape in it."""
    if array is None:
        return None, 1, 1
    if array.flags.c_contiguous and array.shape == shape:
        return array, 1, array.size
    if K.serial:  # whose loops are faster on what needs no division
        return K.dense(K.xp.broadcast_to(array, shape)), 1, math.prod(shape)
    if array.size and 0 in array.strides:  # spread already
        array = array[
            tuple(
                slice(0, 1) if step == 0 and n > 1 else slice(None)
                for step, n in zip(array.strides, array.shape)
            )
        ]
    cells = _cells(shape, array.shape)
    total = math.prod(shape)
    if cells is None or (cells != (1, total) and total >= 1 << 31):
        return K.dense(K.xp.broadcast_to(array, shape)), 1, total
    return K.dense(array), *cells


def _read(K: Any, operands: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[list[Any], list[int]]:
    """The arrays that a kernel reads, and behind each other how it finds elements in them."""
    found = [operand(K, a, shape) for a in operands]
    return [array for array, *_ in found], [n for _, *cells in found for n in cells]


def forward(K: Any, kernel: str, operands: tuple[Any, ...], *numbers: float) -> Any:
    """What a kernel makes of operands, which are None where they are left out."""
    given = [a for a in operands if a is not None]
    if not K.takes(*given):
        return NotImplemented
    shape = np.broadcast_shapes(*(a.shape for a in given))
    arrays, places = _read(K, operands, shape)
    out = K.empty(shape, given[0].dtype)
    K.elementwise(kernel, out.dtype, out.size, *arrays, out, out.size, *numbers, *places)
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
    arrays, places = _read(K, (out, *operands), out.shape)
    K.elementwise(kernel, out.dtype, out.size, *arrays, out, out.size, *numbers, *places)
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
    arrays, places = _read(K, (grad, *operands), shape)
    outs = [None if own is None else K.empty(shape, dtype) for own in wanted]
    K.elementwise(kernel, dtype, grad.size, *arrays, *outs, grad.size, *numbers, *places)
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
