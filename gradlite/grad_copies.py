"""Copies of gradients for `.grad`: arrays of their own that lie in memory as their leaves do."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.backends import cuda
from gradlite.memory_format import is_dense


def copy(grad: Any, like: Any) -> Any:
    """A row-major array of its own with a gradient's values."""
    if isinstance(like, np.ndarray):
        return np.array(grad, dtype=like.dtype, order="C")
    with like.device:
        result = cuda.module().empty(like.shape, like.dtype)
        result[...] = grad
    return result


def copy_for(leaf: Any, grad: Any) -> Any:
    """The same in the order of the leaf's elements, unless there are gaps between those."""
    if leaf.flags.c_contiguous or not is_dense(leaf):
        return copy(grad, leaf)
    order = sorted(range(leaf.ndim), key=leaf.strides.__getitem__, reverse=True)
    copied = copy(grad.transpose(order), leaf.transpose(order))
    return copied.transpose(sorted(range(leaf.ndim), key=order.__getitem__))
