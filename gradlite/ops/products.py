"""Products of raw arrays: `mm` for two matrices, others for rules that multiply in between.

On the CPU large ones of single and double precision are the business of compiled code where there
is a compiler (`gradlite.backends.multiply`). Which ones that are depends on shapes, strides and
dtype alone; ``python -m benchmarks.products`` measures where it is faster than NumPy's BLAS.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite.backends import launches, multiply
from gradlite.graph import leaf_at
from gradlite.ops import guard
from gradlite.ops.namespaces import NAMESPACES

# With fewer elements in the first operand nobody asks further.
LEAST_SIZE = 1 << 10
# Up to so many multiplications BLAS works on operands where they are, and is as fast or faster;
# but not on a second operand that lies the other way round, unless there are few rows or columns.
SMALL, SMALL_TURNED = 1_000_000, 1 << 18
TURNED_ROWS, TURNED_COLUMNS = 32, 64
# Operands that are read where they are have to stay in the caches: sums so long or operands so
# large, and so much in all.
MOST_SUMMED, MOST_READ, MOST = 512, 1 << 18, 1 << 28
FEW_COLUMNS = 4  # for them BLAS has better ways


def mm(a: Any, b: Any, bias: Any = None) -> Any:
    """The product of two matrices of any array library, plus a vector for every row."""
    if a.size >= LEAST_SIZE and isinstance(a, np.ndarray) and worth(a, b):
        return multiplied(np, a, b) if bias is None else multiplied(np, a, b, bias=bias)
    out = a.dot(b)  # a third faster than np.dot(a, b) where the matrices are small
    if bias is not None:
        out += bias
    return out


def matmul(a: Any, b: Any, out: Any = None) -> Any:
    """The products of two stacks of NumPy's matrices, as those of ``np.matmul``."""
    if _worth_stacks(a, b):
        return multiplied(np, a, b, out=out)
    return np.matmul(a, b, out=out)


def _worth_stacks(a: Any, b: Any) -> bool:
    shape = a.shape[:-2]
    return a.size >= LEAST_SIZE and shape == b.shape[:-2] and worth(a, b, math.prod(shape))


def worth(a: Any, b: Any, matrices: int = 1) -> bool:
    """Whether compiled code is faster than BLAS, and there is any."""
    rows, summed = a.shape[-2:]
    columns = b.shape[-1]
    work = rows * summed * columns
    least = SMALL
    if matrices > 1:  # for each of which NumPy calls BLAS anew
        least //= matrices
    elif b.strides[0] == b.itemsize:
        if rows >= TURNED_ROWS and columns >= TURNED_COLUMNS and a.strides[1] == a.itemsize:
            least = SMALL_TURNED - 1
    elif summed > MOST_SUMMED and summed * max(rows, columns) > MOST_READ:
        return False
    if not least < work <= MOST or rows < 2 or columns <= FEW_COLUMNS:
        return False
    return multiply.function(a.dtype.char) is not None


def multiplied(xp: Any, a: Any, b: Any, out: Any = None, bias: Any = None) -> Any:
    """The product of matrices, or of two stacks of as many, by compiled code where it takes them.

    Recorded as one call, which a replay of array calls makes with a place for the result.
    """
    made = np.empty((*a.shape[:-1], b.shape[-1]), a.dtype) if out is None else out
    run = multiply.function(a.dtype.char)
    if run is None or not run(a, b, made, bias):
        return by_numpy(xp, a, b, out, bias)
    if launches.recordings:
        launches.note("multiply")
    return made


def by_numpy(xp: Any, a: Any, b: Any, out: Any = None, bias: Any = None) -> Any:
    """`multiplied` as compiled plans record it: they have products of their own."""
    out = a.dot(b) if out is None and a.ndim == 2 else np.matmul(a, b, out=out)
    if bias is not None:
        out += bias
    return out


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
