"""Look-up tables of rows: embedding and one_hot."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops import indexing, positions, shortcuts
from gradlite.ops.dispatch import apply, same_device
from gradlite.ops.gather import check_not_empty, check_tensor, within
from gradlite.ops.guard import on_its_device
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.norms import vector_norm_of
from gradlite.ops.op import Op, type_name
from gradlite.ops.positions import least, most
from gradlite.ops.samples import S, integers, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["embedding", "one_hot"]


class Embedding(Op):
    """Rows of a table: (rows, size), index (*) -> (*, size)."""

    moves = True
    reads = ((1,), ())
    constants = (1,)

    def forward(xp: Any, weight: Any, index: Any, padding_idx: int, by_freq: bool) -> Any:
        return weight.take(index, axis=0)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (index,) = ctx.saved
        rows = ctx.shapes[0][0]
        return F.embedding_dense_backward(grad, index, rows, *ctx.attrs), None

    def fused_forward(K: Any, weight: Any, index: Any, padding_idx: int, by_freq: bool) -> Any:
        if K.serial or not index.size or not K.takes(weight):  # NumPy takes rows as fast
            return NotImplemented
        return indexing.take_slices(
            K, "embedding", weight, index, 0, (*index.shape, weight.shape[1])
        )


def _by_frequency(xp: Any, out: Any, index: Any) -> Any:
    """Divide each row of sums by how often it was read."""
    count = positions.counts(xp, index, len(out))
    out /= xp.maximum(count, 1)[:, None].astype(out.dtype)
    return out


class EmbeddingDenseBackward(Op):
    """The gradient of a table: each row's gradients added up.

    The row ``padding_idx`` stays 0; ``by_freq`` divides each row by how often it was read.
    """

    delegates = True
    native_from = 1 << 13
    reads = ((1,), ())
    constants = (1,)

    def forward(xp: Any, grad: Any, index: Any, rows: int, padding_idx: int, by_freq: bool) -> Any:
        size = grad.shape[-1]
        out = xp.zeros((rows, size), grad.dtype)
        if grad.size:
            positions.add_rows(xp, out, index, grad.reshape(-1, size))
        if by_freq:
            _by_frequency(xp, out, index)
        if padding_idx >= 0:
            out[padding_idx] = 0
        return out

    def fused_forward(
        K: Any, grad: Any, index: Any, rows: int, padding_idx: int, by_freq: bool
    ) -> Any:
        if not K.takes(grad):
            return NotImplemented
        out = K.zeros((rows, grad.shape[-1]), grad.dtype)
        indexing.add_rows(K, "embedding", out, index, grad, skipped=padding_idx)
        return _by_frequency(K.xp, out, index) if by_freq else out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (index,) = ctx.saved
        rows, padding_idx, by_freq = ctx.attrs
        places = F.array(index)
        xp = NAMESPACES[places.__class__].xp
        result = F.embedding(grad, index, padding_idx, by_freq)
        if by_freq:
            count = positions.counts(xp, places, rows)[places]
            result = result / count[..., None].astype(F.array(grad).dtype)
        if padding_idx >= 0:
            result = F.where((places != padding_idx)[..., None], result, F.zero_beside(grad))
        return result, None


@public(
    samples=lambda: [
        S(integers(0, 5, 3, 4), normal(5, 2)),
        S(np.array([1, 1, 0, 1]), normal(5, 3), padding_idx=1, smooth=False),
        S(np.array([1, 4, 0, 1]), normal(5, 3), -1, smooth=False),
        S(np.array([1, 1, 0, 1]), normal(5, 3), scale_grad_by_freq=True, smooth=False),
        S(np.array(2), normal(5, 3)),
        S(np.zeros((0, 2), np.int64), normal(5, 3)),
        S(np.array([1, 2], np.int32), normal(5, 3)),
    ],
    torch="nn.functional.embedding",
    errors=lambda: [
        S(np.array([5]), normal(5, 2)),
        S(np.array([-1]), normal(5, 2)),
        S(np.array([1.0]), normal(5, 2)),
        S(np.array([1]), normal(5, 2), padding_idx=5),
        S(np.array([1]), normal(5)),
        S(np.array([1]), normal(0, 2)),
    ],
)
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of ``weight`` that integer indices name: (*) -> (*, size).

    The row ``padding_idx`` gets no gradient; with ``max_norm``, rows that are read and whose
    norm exceeds it are first scaled down to it, in place.

    >>> import gradlite
    >>> table = gradlite.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
    >>> gradlite.nn.functional.embedding(gradlite.tensor([2, 1]), table)
    tensor([[3., 4.],
            [1., 2.]])

    Raises:
        IndexError: an index is negative or not below the number of rows.
    """
    check_tensor("embedding", "indices", 2, input)
    check_tensor("embedding", "weight", 1, weight)
    index, table = input.array, weight.array
    if table.ndim != 2:
        raise RuntimeError("'weight' must be 2-D")
    if index.dtype not in (np.int64, np.int32):
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: "
            f"Long, Int; but got gradlite.{type_name(index.dtype)}Tensor instead (while checking "
            "arguments for embedding)"
        )
    if sparse:
        raise NotImplementedError("embedding: sparse gradients are not supported")
    rows = table.shape[0]
    if padding_idx is None:
        padding_idx = -1
    elif not -rows <= padding_idx < rows:
        raise AssertionError("Padding_idx must be within num_embeddings")
    else:
        padding_idx %= rows
    same_device(weight, input)
    if not rows:
        check_not_empty(index)
    if isinstance(index, np.ndarray):
        shortcuts.require(within(index, rows), IndexError, "index out of range in self")
    if max_norm is not None:
        limit_rows(weight, index, max_norm, norm_type)
    return apply(Embedding, (weight, input), padding_idx, scale_grad_by_freq)  # type: ignore[no-any-return]


@on_its_device
def limit_rows(weight: Tensor, index: Any, max_norm: float, norm_type: float) -> None:
    """Scale the rows that an index reads down to a norm, outside the graph."""
    xp = NAMESPACES[index.__class__].xp
    # A row that is read twice is written twice, with the same values: to find out which ones those
    # are would make a GPU, and a recorded step, wait for the values.
    read = index.reshape(-1)
    rows = weight.array[read]
    size = vector_norm_of(wrap(rows), norm_type, 1, True, None).array
    scale = xp.where(size > max_norm, max_norm / (size + 1e-7), 1).astype(rows.dtype)
    weight.array[read] = rows * scale
    weight._bump()


@public(
    samples=lambda: [
        S(np.array([0, 2, 1])),
        S(integers(0, 3, 2, 4), 5),
        S(np.array(1), 3),
        S(np.zeros(0, np.int64), 3),
    ],
    torch="nn.functional.one_hot",
    differentiable=False,
    errors=lambda: [
        S(np.array([0, 2]), 2),
        S(np.array([-1])),
        S(np.array([0.0])),
        S(np.zeros(0, np.int64)),
    ],
)
@on_its_device
def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """int64 rows with a 1 at each index: (*) -> (*, num_classes).

    ``num_classes=-1`` means one more than the largest index.

    >>> import gradlite
    >>> gradlite.nn.functional.one_hot(gradlite.tensor([0, 2]))
    tensor([[1, 0, 0],
            [0, 0, 1]])
    """
    index = input.array
    if index.dtype != np.int64:
        raise RuntimeError("one_hot is only applicable to index tensor of type LongTensor.")
    F = NAMESPACES[index.__class__]
    if index.size == 0:
        if num_classes <= 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
    elif num_classes > 0 and F.launcher is not None and F.xp is not np:
        return wrap(indexing.one_hot(F.launcher, index, num_classes))
    elif least(index) < 0:
        raise RuntimeError("Class values must be non-negative.")
    elif num_classes == -1:
        num_classes = int(most(index)) + 1
    elif most(index) >= num_classes:
        raise RuntimeError("Class values must be smaller than num_classes.")
    rows = index[..., None] == F.xp.arange(num_classes)
    return wrap(rows.astype(np.int64, order="C"))
