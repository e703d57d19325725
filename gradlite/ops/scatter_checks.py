"""What scatter, index_add and their like check of their arguments, with PyTorch's messages."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops import indexing
from gradlite.ops.dims import wrap_dim
from gradlite.ops.gather import check_bounds, check_tensor
from gradlite.ops.op import type_name
from gradlite.tensor import Tensor


def check_scatter(input: Tensor, dim: int, index: Tensor, src: Any, beside: Any = None) -> int:
    """The dimension counted from the front, with sizes, dtypes and bounds checked.

    ``beside``: an array that a kernel, where it takes that, writes to and looks at the index; True:
    it does.
    """
    check_tensor("scatter", "index", 3, index)
    x, i = input.array, index.array
    d = wrap_dim(dim, x.ndim)
    if i.dtype not in (np.int64, np.int32):
        raise RuntimeError("scatter(): Expected dtype int32/int64 for index")
    if i.size == 0:
        return d
    if (i.ndim or 1) != (x.ndim or 1):
        raise RuntimeError("Index tensor must have the same number of dimensions as self tensor")
    too_large = any(k != d and n > m for k, (n, m) in enumerate(zip(i.shape, x.shape)))
    if isinstance(src, Tensor):
        s = src.array
        if (i.ndim or 1) != (s.ndim or 1):
            raise RuntimeError("Index tensor must have the same number of dimensions as src tensor")
        if too_large or any(n > m for n, m in zip(i.shape, s.shape)):
            other = f" and to be no larger size than src {list(s.shape)}"
            raise RuntimeError(_too_large(i.shape, x.shape, d) + other)
        if s.dtype != x.dtype:
            raise RuntimeError("scatter(): Expected self.dtype to be equal to src.dtype")
    elif too_large:
        raise RuntimeError(_too_large(i.shape, x.shape, d))
    if beside is not None and beside is not True:
        by_kernel = indexing.inside(x.shape, i.shape, d) and i.size < indexing.MOST
        beside = beside if by_kernel else None
    check_bounds("scatter", i, d, x.shape[d] if x.ndim else 1, beside=beside)
    return d


def _too_large(index: tuple[int, ...], own: tuple[int, ...], dim: int) -> str:
    return (
        f"Expected index {list(index)} to be no larger than self {list(own)} apart from "
        f"dimension {dim}"
    )


def cut(src: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The part of a source that an index of a shape reads."""
    if src.array.shape == shape:
        return src
    if not src.array.ndim or not shape:
        return src.reshape(shape)
    return src[tuple(slice(0, n) for n in shape)]


def check_vector(name: str, index: Tensor) -> None:
    """IndexError unless an index has one dimension at most."""
    if index.array.ndim > 1:
        raise IndexError(
            f"{name}(): Index is supposed to be a vector, but got dim: {index.array.ndim} with "
            f"type: {type_name(index.array.dtype)} and size: {list(index.array.shape)}"
        )


def check_slices(name: str, input: Tensor, dim: int, index: Tensor, source: Tensor) -> int:
    """The dimension along which a vector of indices names slices, where the source fits them."""
    check_tensor(name, "index", 3, index)
    check_tensor(name, "source", 4, source)
    x, i, s = input.array, index.array, source.array
    d = wrap_dim(dim, x.ndim)
    check_vector(f"{name}_", index)
    if i.dtype not in (np.int64, np.int32):
        raise RuntimeError(
            f"{name}_(): Expected dtype int32/int64 for index but got: {type_name(i.dtype)}"
        )
    if x.dtype != s.dtype:
        raise RuntimeError(
            f"{name}_(): self ({type_name(x.dtype)}) and source ({type_name(s.dtype)}) must "
            "have the same scalar type"
        )
    if x.ndim != s.ndim or any(k != d and n != m for k, (n, m) in enumerate(zip(x.shape, s.shape))):
        raise RuntimeError(
            "source tensor shape must match self tensor shape, excluding the specified dimension. "
            f"Got self.shape = {list(x.shape)} source.shape = {list(s.shape)}"
        )
    if i.size != (s.shape[d] if s.ndim else 1):
        raise RuntimeError(
            f"{name}_(): Number of indices ({i.size}) should be equal to source.size(dim): "
            f"({s.shape[d] if s.ndim else 1}), for dim: {d}"
        )
    check_bounds(
        name, i, d, x.shape[d] if x.ndim else 1, IndexError if x.ndim < 2 else RuntimeError, "", x
    )
    return d
