"""Tensors put together from others: block_diag, combinations, vander, slices put into copies."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.creation import empty
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import apply, same_device
from gradlite.ops.expansion import expand
from gradlite.ops.gather import broadcast_shape
from gradlite.ops.guard import on_its_device
from gradlite.ops.index import index_put
from gradlite.ops.joining import select, stack
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, number, type_name
from gradlite.ops.operands import cast
from gradlite.ops.samples import S, constant, integers, normal
from gradlite.ops.shape import contiguous, diagonal
from gradlite.ops.stacking import parts_of
from gradlite.ops.table import public
from gradlite.ops.triangle import diag_embed
from gradlite.tensor import Tensor, wrap

__all__ = [
    "block_diag",
    "broadcast_tensors",
    "combinations",
    "diagflat",
    "diagonal_scatter",
    "put",
    "ravel",
    "select_scatter",
    "slice_scatter",
    "unravel_index",
    "vander",
]


# -------------------------------------------------------------------------------- blocks
class BlockDiag(Op):
    """Matrices along the diagonal of one."""

    variadic = True

    def forward(xp: Any, arrays: list[Any]) -> Any:
        rows, columns = (sum(a.shape[d] for a in arrays) for d in (0, 1))
        out = xp.zeros((rows, columns), arrays[0].dtype)
        for a, (row, column) in zip(arrays, _corners([a.shape for a in arrays])):
            out[row : row + a.shape[0], column : column + a.shape[1]] = a
        return out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return tuple(
            grad[row : row + shape[0], column : column + shape[1]] if edge is not None else None
            for edge, shape, (row, column) in zip(ctx.edges, ctx.shapes, _corners(ctx.shapes))
        )


def _corners(shapes: Any) -> list[tuple[int, int]]:
    """Where each block starts."""
    corners = [(0, 0)]
    for rows, columns in shapes:
        corners.append((corners[-1][0] + rows, corners[-1][1] + columns))
    return corners[:-1]


@public(
    samples=lambda: [
        S(normal(2, 3), normal(1, 2)),
        S(normal(3), normal(), normal(2, 1)),
        S(integers(0, 9, 2, 2), normal(1, 1)),
    ],
    errors=lambda: [S(normal(2, 2, 2))],
)
def block_diag(*tensors: Tensor) -> Tensor:
    """A matrix with matrices along its diagonal; vectors are rows of one.

    >>> import gradlite
    >>> gradlite.block_diag(gradlite.tensor([[1, 2]]), gradlite.tensor(3))
    tensor([[1, 2, 0],
            [0, 0, 3]])
    """
    parts: list[Any] = parts_of(tensors) or [empty(1, 0)]
    same_device(*parts)
    for place, part in enumerate(parts):
        if part.array.ndim > 2:
            raise RuntimeError(
                "gradlite.block_diag: Input tensors must have 2 or fewer dimensions. "
                f"Input {place} has {part.array.ndim} dimensions"
            )
    common = dtypes.result_dtype([p.array for p in parts])
    blocks = [p if p.array.ndim == 2 else p.reshape(1, -1) for p in parts]
    return apply(BlockDiag, [cast(b, common) for b in blocks])  # type: ignore[no-any-return]


@public(
    samples=lambda: [S(normal(3, 1), normal(4)), S(normal(), normal(2, 1), normal(1, 3))],
    errors=lambda: [S(normal(3), normal(4))],
)
def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Views of all tensors in the shape to which they broadcast; one that has it is itself.

    >>> import gradlite
    >>> a, b = gradlite.broadcast_tensors(gradlite.ones(2, 1), gradlite.ones(3))
    >>> a.shape, b.shape
    (gradlite.Size([2, 3]), gradlite.Size([2, 3]))

    Raises:
        RuntimeError: they do not broadcast.
    """
    parts = parts_of(tensors)
    shape: tuple[int, ...] = ()
    for part in parts:
        shape = broadcast_shape(shape, part.array.shape)
    return tuple(p if p.array.shape == shape else expand(p, *shape) for p in parts)


@public(
    samples=lambda: [S(normal(4)), S(normal(4), 3), S(integers(0, 9, 3), 2, True), S(normal(2), 3)],
    errors=lambda: [S(normal(2, 2)), S(normal(3), -1)],
)
@on_its_device
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All combinations of ``r`` elements of a vector, one row each.

    >>> import gradlite
    >>> gradlite.combinations(gradlite.tensor([1, 2, 3]))
    tensor([[1, 2],
            [1, 3],
            [2, 3]])
    """
    if input.array.ndim != 1:
        raise RuntimeError("Expect a 1D vector, but got shape " + str(list(input.array.shape)))
    if r < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    if r == 0:
        return input.new_empty(0)  # type: ignore[attr-defined,no-any-return]
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(choose(range(input.array.size), r)), np.int64).reshape(-1, r)
    xp = NAMESPACES[input.array.__class__].xp
    return input[wrap(xp.asarray(rows))]  # type: ignore[index,no-any-return]


# PyTorch has no gradient for it.
@public(
    samples=lambda: [
        S(constant(normal(4))),
        S(constant(normal(4)), 3),
        S(integers(0, 5, 3), increasing=True),
        S(constant(normal(3)), 0),
    ],
    errors=lambda: [S(normal(2, 2)), S(normal(2), -1)],
    autocast=("", "float32"),
)
def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The Vandermonde matrix: each row the powers of an element, the highest first.

    >>> import gradlite
    >>> gradlite.vander(gradlite.tensor([1, 2, 3]))
    tensor([[1, 1, 1],
            [4, 2, 1],
            [9, 3, 1]])
    """
    if x.array.ndim != 1:
        raise RuntimeError("x must be a one-dimensional tensor.")
    if x.array.dtype.kind in "iub":
        x = cast(x, np.int64)
    count = x.array.size if N is None else N
    if count < 0:
        raise RuntimeError(f"N must be non-negative, got {count}")
    one: Any = x.new_ones(x.array.size)
    powers = [one]
    for _ in range(count - 1):
        powers.append(powers[-1] * x)
    if count == 0:
        return x.new_empty(x.array.size, 0)  # type: ignore[no-any-return]
    return stack(powers if increasing else powers[::-1], 1)


@public(
    samples=lambda: [S(normal(3)), S(normal(2, 2), 1), S(normal(), -1)],
    method=True,
)
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with all elements of a tensor on a diagonal.

    >>> import gradlite
    >>> gradlite.diagflat(gradlite.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    """
    return diag_embed(contiguous(input).view(-1), offset)


@public(
    samples=lambda: [S(normal(2, 3)), S(normal())],
)
def ravel(input: Tensor) -> Tensor:
    """All elements as a vector: a view where they lie in row-major order.

    >>> import gradlite
    >>> gradlite.ravel(gradlite.tensor([[1, 2], [3, 4]]))
    tensor([1, 2, 3, 4])
    """
    return contiguous(input).view(-1)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(np.array([5, 7, 0]), (2, 4)),
        S(np.array([[11]]), (3, 2, 2)),
        S(np.array(3), 4),
    ],
    differentiable=False,
)
def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Places in a tensor read as one row, as one index for each dimension of a shape.

    >>> import gradlite
    >>> gradlite.unravel_index(gradlite.tensor([5]), (2, 4))
    (tensor([1]), tensor([1]))
    """
    if indices.is_floating_point() or indices.array.dtype == np.bool_:
        raise TypeError(f"expected 'indices' to be integer dtype, but got {indices.dtype}")
    if not isinstance(shape, (int, Sequence)):
        raise TypeError(f"expected 'shape' to be int or sequence of ints, but got {type(shape)}")
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    for n in sizes:
        if not isinstance(n, int):
            raise TypeError(f"expected 'shape' sequence to only contain ints, but got {type(n)}")
    if any(n < 0 for n in sizes):
        raise ValueError(f"'shape' cannot have negative values, but got {sizes}")
    places: Any = cast(indices, np.int64)
    parts = []
    for n in reversed(sizes):
        parts.append(places % n)
        places = places // n
    return tuple(reversed(parts))


# --------------------------------------------------------------- slices put into copies
def _put_into(name: str, part: Any, whole: Tensor, src: Tensor) -> Tensor:
    if tuple(part.shape) != tuple(src.shape):
        raise RuntimeError(
            f"expected src to have a size equal to the slice of self. src size = "
            f"{list(src.shape)}, slice size = {list(part.shape)}"
        )
    part.copy_(src)
    return whole


@public(
    samples=lambda: [S(normal(3, 4), normal(4), 0, 1), S(normal(3, 4), normal(3), -1, -2)],
    method=True,
    errors=lambda: [S(normal(3, 4), normal(3), 0, 1), S(normal(3), normal(), 0, 3)],
)
@on_its_device
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy of the input with one index of a dimension replaced by ``src``.

    >>> import gradlite
    >>> gradlite.select_scatter(gradlite.zeros(2, 2), gradlite.ones(2), 0, 1)
    tensor([[0., 0.],
            [1., 1.]])
    """
    whole: Tensor = input.clone()
    return _put_into("select_scatter", select(whole, dim, index), whole, src)


@public(
    samples=lambda: [
        S(normal(4, 2), normal(2, 2), 0, 1, 3),
        S(normal(2, 5), normal(2, 3), 1, step=2),
        S(normal(4), normal(2), start=-2),
        S(normal(4), normal(4)),
    ],
    method=True,
    errors=lambda: [S(normal(4), normal(3), 0, 1, 3)],
)
@on_its_device
def slice_scatter(
    input: Tensor,
    src: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    """A copy of the input with a slice along a dimension replaced by ``src``.

    >>> import gradlite
    >>> gradlite.slice_scatter(gradlite.zeros(4), gradlite.ones(2), 0, 1, 3)
    tensor([0., 1., 1., 0.])
    """
    whole: Any = input.clone()
    before = (slice(None),) * wrap_dim(dim, input.array.ndim)
    return _put_into("slice_scatter", whole[(*before, slice(start, end, step))], whole, src)


@public(
    samples=lambda: [
        S(normal(3, 4), normal(3)),
        S(normal(3, 4), normal(2), -1),
        S(normal(2, 3, 3), normal(2, 2), 1, 1, 2),
    ],
    method=True,
    errors=lambda: [S(normal(3, 4), normal(4))],
)
@on_its_device
def diagonal_scatter(
    input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """A copy of the input with a diagonal replaced by ``src``.

    >>> import gradlite
    >>> gradlite.diagonal_scatter(gradlite.zeros(2, 2), gradlite.ones(2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    whole: Tensor = input.clone()
    return _put_into("diagonal_scatter", diagonal(whole, offset, dim1, dim2), whole, src)


@public(
    samples=lambda: [
        S(normal(3, 4), np.array([0, 5, -1]), normal(3)),
        S(normal(3, 4), np.array([[0, 5], [0, 2]]), normal(4), True),
    ],
    method=True,
    inplace="composed",
    errors=lambda: [
        S(normal(3), np.array([3]), normal(1)),
        S(normal(3), np.array([0, 1]), normal(1)),
        S(normal(3), np.array([0.0]), normal(1)),
        S(normal(0), np.array([0]), normal(1)),
    ],
)
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of the input with values written, or added, at places of it read as one row.

    >>> import gradlite
    >>> gradlite.put(gradlite.zeros(2, 2), gradlite.tensor([1, 2]), gradlite.ones(2))
    tensor([[0., 1.],
            [1., 0.]])
    """
    places, values = index.array, source.array
    if places.dtype != np.int64:
        raise RuntimeError(
            f"put_(): Expected a long tensor for index, but got {type_name(places.dtype)}"
        )
    if values.dtype != input.array.dtype:
        raise RuntimeError(
            "put_(): self and source expected to have the same dtype, but got self.dtype = "
            f"{type_name(input.array.dtype)} and source.dtype = {type_name(values.dtype)}"
        )
    if places.size != values.size:
        raise IndexError(
            "put_(): Expected source and index to have the same number of elements, but got "
            f"source.numel() = {values.size}, index.numel() = {places.size}"
        )
    n = input.array.size
    if not n and places.size:
        raise IndexError("put_(): Tried to put elements into an empty tensor")
    if isinstance(places, np.ndarray) and places.size:
        high, low = places.max(), places.min()
        if not (-n <= low and high < n):
            raise IndexError(
                f"out of range: tried to access index {number(high if high >= n else low)} on a "
                f"tensor of {n} elements."
            )
    row: Any = input.reshape(-1)
    filled = index_put(row, (index.reshape(-1),), source.reshape(-1), accumulate)
    return filled.reshape(input.array.shape)  # type: ignore[no-any-return]
