"""Products of raw arrays for rules that multiply in the middle of something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite.graph import leaf_at
from gradlite.ops import guard
from gradlite.ops.namespaces import NAMESPACES


def product_of(xp: Any) -> Callable[..., Any]:
    """What multiplies the matrices of an array library: a function ``(a, b, out=None)``."""
    return np.matmul if xp is np else product


def product(a: Any, b: Any, out: Any = None, alpha: float = 1.0) -> Any:
    """``alpha * a @ b`` for stacks of matrices, on a GPU with its backend's `gemm`."""
    F = NAMESPACES[a.__class__]
    if F.launcher is not None and F.launcher.multiplies:
        result = F.launcher.gemm.matmul(a, b, out, alpha)
        if result is not NotImplemented:
            return result
    result = F.xp.matmul(a, b, out=out)
    if alpha != 1.0:
        result *= a.dtype.type(alpha)
    return result


def known_gradient(ctx: Any, place: int, *operands: Any) -> Any:
    """The ``.grad`` of an input, as a Tensor, to which the product of arrays may be added.

    None where there is none, or where it lies in the memory of an operand. Whoever adds to it
    calls its ``_bump`` and returns None as the gradient.
    """
    leaf = leaf_at(ctx, place)
    known = None if leaf is None or leaf._view is not None else leaf._grad
    if known is None or leaf._edge is not None or not leaf._requires_grad:
        return None
    array, like = known.array, operands[0]
    if array.__class__ is not like.__class__ or array.dtype != like.dtype:
        return None
    if array.shape != ctx.shapes[place] or (guard.several and array.device != like.device):
        return None
    low, high = _span(array)
    spans = [_span(operand) for operand in operands]
    return known if all(high <= start or end <= low for start, end in spans) else None


def _span(array: Any) -> tuple[int, int]:
    """The addresses between which the elements of an array lie."""
    low = high = int(array.data.ptr)
    for size, stride in zip(array.shape, array.strides):
        if stride < 0:
            low += (size - 1) * stride
        else:
            high += (size - 1) * stride
    return low, high + array.dtype.itemsize
