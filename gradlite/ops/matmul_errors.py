"""What is said of a product of matrices whose sizes do not fit."""

from __future__ import annotations

import math

import numpy as np

from gradlite.ops.binary import mismatch
from gradlite.tensor import Tensor


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two batches of matrices, of these shapes, broadcast."""
    return a == b or all(n == m or n == 1 or m == 1 for n, m in zip(a[::-1], b[::-1]))


def refusal(input: Tensor, other: Tensor) -> str:
    """PyTorch's message, which names the sizes of what it would have multiplied.

    These are a matrix and a matrix or vector where the matrices of the larger operand can be the
    rows of one, which may be those of the transposed product; else two batches.
    """
    a, b = tuple(input.array.shape), tuple(other.array.shape)
    if len(a) > 2 >= len(b):
        return _of_rows(a, b)
    if len(b) > 2 >= len(a) and input.requires_grad:  # no gradient as large as all of its copies
        return _of_rows((*b[:-2], b[-1], b[-2]), a[::-1])
    if len(b) == 1 or len(a) <= 2 >= len(b):
        return _of_rows((1, *a)[-2:], b)
    if not broadcast(a[:-2], b[:-2]):
        return mismatch(a[:-2], b[:-2])
    count = math.prod(np.broadcast_shapes(a[:-2], b[:-2]))
    return (
        "Expected size for first two dimensions of batch2 tensor to be: "
        f"[{count}, {a[-1]}] but got: [{count}, {b[-2]}]."
    )


def _of_rows(a: tuple[int, ...], b: tuple[int, ...]) -> str:
    rows, columns = math.prod(a[:-1]), a[-1]
    if len(b) == 1:
        return f"size mismatch, got input ({rows}), mat ({rows}x{columns}), vec ({b[0]})"
    return f"mat1 and mat2 shapes cannot be multiplied ({rows}x{columns} and {b[0]}x{b[1]})"
