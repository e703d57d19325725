"""Sums, means and maxima of rows of a look-up table, bag by bag."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import shortcuts
from gradlite.ops.dispatch import apply, same_device
from gradlite.ops.embedding import limit_rows
from gradlite.ops.embedding_bag_kernels import EmbeddingBag
from gradlite.ops.gather import check_tensor, within
from gradlite.ops.guard import on_its_device
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import tensor_type
from gradlite.ops.samples import S, distinct, integers, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["embedding_bag"]


def _starts(
    input: Tensor, offsets: Tensor | None, include_last: bool, by_kernel: bool = False
) -> Any:
    """Where each bag starts in the row of all indices: an array of the host, but for kernels.

    None for bags of one length.
    """
    n = input.array.ndim
    if n == 2:
        if offsets is not None:
            raise ValueError(
                "if input is 2D, then offsets has to be None, as input is treated is a "
                "mini-batch of fixed length sequences. However, found offsets of type "
                f"{type(offsets)}"
            )
        return None
    if n != 1:
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {n}")
    if offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    if offsets.array.ndim != 1:
        raise ValueError("offsets has to be a 1D Tensor")
    starts = offsets.array
    if include_last and not starts.size:
        raise RuntimeError("include_last_offset: numBags should be at least 1")
    if not isinstance(starts, np.ndarray):
        if by_kernel:  # which looks at them
            return starts
        starts = starts.get()
    size = input.array.size
    if starts.size:
        first, last = starts[0], starts[-1]
        shortcuts.require(first == 0, RuntimeError, _wrong_start, first)
        shortcuts.require(last <= size, RuntimeError, _wrong_end, last, size)
    return starts[:-1] if include_last else starts


def _wrong_start(first: Any) -> str:
    return (
        "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from "
        f"position 0. However, got {first}"
    )


def _wrong_end(last: Any, size: int) -> str:
    return (
        "offsets[-1] can not be greater than input's length, but got offsets[-1] of "
        f"{last}, and input's length is {size}"
    )


def _invalid_index(index: Any, rows: int) -> str:
    place = int(np.flatnonzero((index < 0) | (index >= rows))[0])
    return (
        f"Index {place} of input takes value {index[place]} which is not in the valid range "
        f"[0, {rows})"
    )


def _invalid_in_max(index: Any, rows: int) -> str:
    wrong = index[(index < 0) | (index >= rows)][0]
    return f"embedding_bag: Expected idx >= 0 && idx < num_embeddings but found idx to be {wrong}"


def _pooled(weight: Tensor, index: Tensor, starts: Any, factors: Any, attrs: Any) -> Tensor:
    """The op on operands as its kernels read them."""
    xp = NAMESPACES[weight.array.__class__].xp
    operands = [index.array if starts is None else xp.asarray(starts), index.array]
    first, numbers = [xp.ascontiguousarray(a.astype(np.int64, copy=False)) for a in operands]
    inputs = (
        weight,
        index if numbers is index.array else wrap(numbers),
        None if starts is None else wrap(first),
        None if factors is None else factors.reshape(-1).contiguous(),
    )
    return apply(EmbeddingBag, inputs, *attrs)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(integers(0, 5, 3, 4), normal(5, 2)),
        S(integers(0, 5, 7), normal(5, 2), np.array([0, 2, 2, 5])),
        S(integers(0, 5, 7), normal(5, 2), np.array([0, 2, 2, 7]), include_last_offset=True),
        S(integers(0, 5, 3, 4), normal(5, 2), mode="sum", per_sample_weights=normal(3, 4)),
        S(integers(0, 5, 7), normal(5, 3), np.array([0, 4]), mode="sum", padding_idx=1),
        S(np.array([1, 1, 0, 2, 1]), normal(5, 3), np.array([0, 1, 4]), padding_idx=1),
        S(np.array([1, 1, 0, 1]), normal(5, 3), np.array([0, 2]), None, 2.0, True, smooth=False),
        S(integers(0, 5, 3, 4), distinct(5, 2), mode="max"),
        S(np.array([1, 4, 0, 3, 2]), distinct(5, 3), np.array([0, 2, 2]), mode="max"),
        S(np.array([1, 4, 1, 3]), distinct(5, 3), np.array([0, 3]), mode="max", padding_idx=-4),
        S(np.array([1, 1]), distinct(5, 3), np.array([0, 0]), mode="max", padding_idx=1),
    ],
    torch="nn.functional.embedding_bag",
    errors=lambda: [
        S(np.array([1, 2]), normal(5, 2)),
        S(np.array([[1, 2]]), normal(5, 2), np.array([0])),
        S(np.array([1, 2]), normal(5, 2), np.array([1])),
        S(np.array([1, 2]), normal(5, 2), np.array([0, 3])),
        S(np.array([1, 2]), normal(5, 2), np.array([0, 3]), include_last_offset=True),
        S(np.array([[1, 2]]), normal(5, 2), mode="min"),
        S(np.array([[1, 2]]), normal(5, 2), mode="sum", per_sample_weights=normal(2)),
        S(np.array([[1, 2]]), normal(5, 2), mode="max", scale_grad_by_freq=True),
        S(np.array([[1, 2]]), normal(5)),
        S(np.array([[1, 5]]), normal(5, 2)),
        S(np.array([[1, -1]]), normal(5, 2), mode="max"),
        S(np.array([[1, 2]]), normal(5, 2), padding_idx=5),
        S(np.array([[1, 2]]), normal(5, 2), padding_idx=-6),
        S(np.array([[1.0, 2.0]]), normal(5, 2)),
        S(np.array([1, 2]), normal(5, 2), np.array([0.0])),
        S(np.array([[1, 2]]), integers(0, 5, 5, 2)),
        S(np.array([[1, 2]]), normal(0, 2)),
    ],
)
@on_its_device
def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The sum, mean or maximum of the rows of ``weight`` that each bag of indices names.

    Args:
        input: (bags, length), or all bags in one row, which start at ``offsets``.
        mode: "sum", "mean" or "max"; empty bags give zeros.
        per_sample_weights: factors of the rows, in the shape of ``input``, for "sum" alone.
        include_last_offset: whether ``offsets`` ends with the length of ``input``.
        padding_idx: an index that is left out, as if it were not in its bag.
        max_norm, norm_type, scale_grad_by_freq: as in `embedding`.

    >>> import gradlite
    >>> table = gradlite.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
    >>> indices, offsets = gradlite.tensor([1, 2, 2]), gradlite.tensor([0, 2])
    >>> gradlite.nn.functional.embedding_bag(indices, table, offsets)
    tensor([[2., 3.],
            [3., 4.]])

    Raises:
        ValueError, RuntimeError: shapes or offsets that do not fit, or an unknown mode.
    """
    check_tensor("embedding_bag", "indices", 2, input)
    check_tensor("embedding_bag", "weight", 1, weight)
    factors: Any = per_sample_weights
    if factors is not None and factors.array.shape != input.array.shape:
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({factors.shape}) is not None, then it must "
            f"have the same shape as the input ({input.shape})"
        )
    if weight.array.ndim != 2:
        raise ValueError(
            f"weight has to be a 2D Tensor, but got Tensor of dimension {weight.array.ndim}"
        )
    for given in (input, offsets):
        if given is not None and given.array.dtype not in (np.int64, np.int32):
            raise RuntimeError(
                "Expected tensor for argument #1 'indices' to have one of the following scalar "
                f"types: Long, Int; but got {tensor_type(given.array)} instead (while checking "
                "arguments for embedding_bag)"
            )
    if weight.array.dtype not in dtypes.FLOATING:
        raise RuntimeError(
            "Expected tensor for argument #1 'weight' to have one of the following scalar types: "
            f"Half, BFloat16, Float, Double; but got {tensor_type(weight.array)} instead (while "
            "checking arguments for embedding_bag)"
        )
    K = NAMESPACES[weight.array.__class__].launcher
    by_kernel = (
        K is not None
        and K.takes(weight.array)
        and input.array.__class__ is weight.array.__class__
        and 0 not in input.array.shape
        and 0 not in weight.array.shape
        and (offsets is None or offsets.array.size > 0)
    )
    starts = _starts(input, offsets, include_last_offset, by_kernel)
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if factors is not None and mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported "
            f"for mode='sum' (got mode='{mode}'). Please open a feature request on GitHub."
        )
    rows_of_table = weight.array.shape[0]
    if padding_idx is not None and not -rows_of_table <= padding_idx < rows_of_table:
        raise RuntimeError(
            f"padding_idx must be within the number of embeddings, -{rows_of_table} through "
            f"{rows_of_table - 1}, but got {padding_idx}"
        )
    if factors is not None and factors.array.dtype != weight.array.dtype:
        raise RuntimeError(
            "Expected tensor for argument #1 'weight' to have the same type as tensor for argument "
            f"#1 'per_sample_weights'; but type {tensor_type(weight.array)} does not equal "
            f"{tensor_type(factors.array)} (while checking arguments for embedding_bag)"
        )
    if sparse:
        raise NotImplementedError("embedding_bag: sparse gradients are not supported")
    same_device(weight, input)
    index: Any = input.reshape(-1)  # type: ignore[attr-defined]
    wrong = _invalid_in_max if mode == "max" else _invalid_index
    if isinstance(index.array, np.ndarray):
        inside = within(index.array, rows_of_table)
        shortcuts.require(inside, RuntimeError, wrong, index.array, rows_of_table)
    elif not rows_of_table and index.array.size:
        raise RuntimeError(wrong(index.array.get(), rows_of_table))
    if max_norm is not None:
        limit_rows(weight, index.array, max_norm, norm_type)
    count = input.array.shape[0] if starts is None else starts.size
    if by_kernel and include_last_offset and not isinstance(starts, np.ndarray):
        count -= 1
    padding = -1 if padding_idx is None else padding_idx % rows_of_table
    return _pooled(weight, index, starts, factors, (count, padding, mode, scale_grad_by_freq))
