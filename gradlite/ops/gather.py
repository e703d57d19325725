"""Reading elements that index tensors and masks name: gather, index_select, take, nonzero."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops import indexing, positions, shortcuts
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import apply
from gradlite.ops.guard import on_its_device
from gradlite.ops.layout import row_major
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import same_device_or_scalar
from gradlite.ops.samples import S, bools, integers, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "argwhere",
    "gather",
    "index_select",
    "masked_select",
    "nonzero",
    "take",
    "take_along_dim",
]


# --------------------------------------------------------------------------- primitives
class Along(Op):
    """Elements whose place along a dimension an index tensor names."""

    moves = True
    reads: tuple[tuple[int, ...], ...] = ((1,), ())
    constants = (1,)

    def forward(xp: Any, x: Any, index: Any, dim: int) -> Any:
        flat = positions.along(xp, x.shape, index, dim)
        return x.reshape(-1).take(flat)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        index = ctx.saved[-1]
        zeros = F.zeros(tuple(ctx.shapes[0]), grad)
        return F.scatter_add(zeros, index, grad, ctx.attrs[0]), None

    def fused_forward(K: Any, x: Any, index: Any, dim: int) -> Any:
        moved = indexing.movable(x)
        if not K.takes(moved) or not 0 < index.size < indexing.MOST:
            return NotImplemented
        if not indexing.inside(x.shape, index.shape, dim):
            return NotImplemented
        out = indexing.take_along(K, "gather", moved, index, dim)
        return out if moved is x else out.view(x.dtype)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        index, shape, (dim,) = ctx.saved[-1], tuple(ctx.shapes[0]), ctx.attrs
        if not indexing.inside(shape, index.shape, dim) or not indexing.adds(K, shape, dim, grad):
            return NotImplemented
        out = K.zeros(shape, grad.dtype)
        indexing.add_along(K, "gather", out, index, grad, dim)
        return out, None


class Gather(Along):
    """`Along`, which as PyTorch's own notices edits of the input too."""

    reads = ((0, 1), ())
    native_from = native_backward_from = 1 << 12


class IndexSelect(Op):
    """Slices along a dimension."""

    moves = True
    reads = ((1,), ())
    constants = (1,)

    def forward(xp: Any, x: Any, index: Any, dim: int) -> Any:
        return x.take(index.reshape(-1), axis=dim) if x.ndim else x.copy()

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (index,) = ctx.saved
        shape = tuple(ctx.shapes[0])
        if not shape:
            return grad.reshape(()), None
        return F.index_add(F.zeros(shape, grad), index, grad, ctx.attrs[0], 1), None

    def fused_forward(K: Any, x: Any, index: Any, dim: int) -> Any:
        if K.serial or not x.ndim or not index.size or not K.takes(x):
            return NotImplemented
        shape = (*x.shape[:dim], index.size, *x.shape[dim + 1 :])
        return indexing.take_slices(K, "index_select", x, index, dim, shape)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        shape = tuple(ctx.shapes[0])
        (dim,) = ctx.attrs
        if not shape or not indexing.adds(K, shape, dim, grad):
            return NotImplemented
        out = K.zeros(shape, grad.dtype)
        indexing.add_slices(K, "index_select", out, ctx.saved[0], grad, dim)
        return out, None


class MaskedSelect(Op):
    """The elements where a mask holds, in one row."""

    moves = True
    reads = ((1,), ())
    constants = (1,)

    def forward(xp: Any, x: Any, mask: Any) -> Any:
        return x[mask] if x.ndim else x.reshape(1)[mask.reshape(1)]

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (mask,) = ctx.saved
        return F.masked_scatter(F.zeros(tuple(ctx.shapes[0]), grad), mask, grad), None


# ------------------------------------------------------------------------ preparation
def check_tensor(name: str, argument: str, position: int, value: Any) -> None:
    """TypeError unless an argument is a Tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}(): argument '{argument}' (position {position}) must be Tensor, "
            f"not {value.__class__.__name__}"
        )


def within(index: np.ndarray[Any, Any], size: int) -> Any:
    """Whether no int32 or int64 index is negative or too large."""
    if not index.size:
        return True
    if index.__class__ is np.ndarray and 0 in index.strides:  # expanded: each number once
        index = index[tuple([slice(0, 1 if step == 0 else None) for step in index.strides])]
    # A negative number is a huge unsigned one: one pass.
    return positions.most(index.view(_UNSIGNED[index.itemsize])) < size


_UNSIGNED = {4: np.dtype(np.uint32), 8: np.dtype(np.uint64)}
_INDICES = frozenset((np.dtype(np.int32), np.dtype(np.int64)))


def _out_of_bounds(index: np.ndarray[Any, Any], dim: int, size: int, name: str) -> str:
    bad = int(index.max()) if int(index.max()) >= size else int(index.min())
    return f"{name}index {bad} is out of bounds for dimension {dim} with size {size}"


def check_bounds(
    op: str,
    index: Any,
    dim: int,
    size: int,
    error: type[Exception] = RuntimeError,
    name: str = "",
    beside: Any = None,
    text: str = "",
) -> None:
    """An error unless 0 <= index < size; of a GPU's array it comes late, as that of an assert.

    Where kernels take the array ``beside``, they look at the index by themselves; True: they do.
    """
    if isinstance(index, np.ndarray):
        said = text or _out_of_bounds
        shortcuts.require(within(index, size), error, said, index, dim, size, name)
    elif not size and index.size:  # nor may anything be written there before the error comes
        raise error(_out_of_bounds(index, dim, size, name))
    else:
        K = NAMESPACES[index.__class__].launcher
        if K is not None and beside is not True and (beside is None or not K.takes(beside)):
            indexing.check(K, op, index, 0, size)


def counted_from_front(op: str, xp: Any, index: Any, size: int) -> Any:
    """An index array without negative numbers; a GPU is not asked whether there are any."""
    if xp is np and (not index.size or shortcuts.allowed(positions.least(index) >= 0)):
        return index
    K = NAMESPACES[index.__class__].launcher
    if K is not None and not K.serial and index.size:
        return indexing.counted_from_front(K, op, index, size)
    return xp.where(index < 0, index + size, index)


@public(
    samples=lambda: [
        S(normal(3, 4), 1, integers(0, 4, 3, 2)),
        S(normal(3, 4), 0, integers(0, 3, 5, 2)),
        S(normal(2, 3, 4), -2, integers(0, 3, 2, 5, 4)),
        S(normal(4), 0, integers(0, 4, 6)),
        S(normal(), 0, np.array(0)),
        S(normal(3, 4), 1, integers(0, 4, 0, 2)),
        S(normal(3, 4), 1, integers(0, 4, 3, 1).astype(np.int32)),
    ],
    method=True,
    errors=lambda: [
        S(normal(3, 4), 1, np.array([[4]])),
        S(normal(3, 4), 1, np.array([[-1]])),
        S(normal(3, 4), 1, np.array([0])),
        S(normal(3, 4), 1, np.zeros((4, 1), np.int64)),
        S(normal(3, 4), 2, np.array([[0]])),
        S(normal(3, 4), 1, np.array([[0.0]])),
    ],
)
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """``out[i][j] = input[i][index[i][j]]`` for ``dim=1``, and so on; the shape is the index's.

    >>> import gradlite
    >>> logits = gradlite.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> gradlite.gather(logits, 1, gradlite.tensor([[1], [0]]))
    tensor([[2.],
            [3.]])

    Raises:
        RuntimeError: an index is negative or too large, or its sizes exceed those of the input
            apart from ``dim``.
        NotImplementedError: ``sparse_grad``.
    """
    if sparse_grad:
        raise NotImplementedError("gather: there are no sparse gradients")
    check_tensor("gather", "index", 3, index)
    x, i = input.array, index.array
    d = wrap_dim(dim, x.ndim)
    if i.dtype not in _INDICES and i.size:
        raise RuntimeError("gather(): Expected dtype int32/int64 for index")
    if i.size == 0:
        return input.new_zeros(i.shape) if not input.requires_grad else _nothing(input, i.shape)
    if (i.ndim or 1) != (x.ndim or 1):
        raise RuntimeError("Index tensor must have the same number of dimensions as input tensor")
    for k, (n, m) in enumerate(zip(i.shape, x.shape)):
        if k != d and n > m:
            raise RuntimeError(
                f"Size does not match at dimension {k} expected index {list(i.shape)} to be no "
                f"larger than self {list(x.shape)} apart from dimension {d}"
            )
    read_by_kernel = None
    if not isinstance(i, np.ndarray) and indexing.inside(x.shape, i.shape, d):
        read_by_kernel = indexing.movable(x)
    check_bounds("gather", i, d, x.shape[d] if x.ndim else 1, beside=read_by_kernel)
    return apply(Gather, (input, index), d)  # type: ignore[no-any-return]


def _nothing(input: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An empty tensor of a shape that stays in the input's graph."""
    return input.reshape(-1)[:0].reshape(shape)


@public(
    samples=lambda: [
        S(normal(3, 4), 1, integers(0, 4, 6)),
        S(normal(3, 4), 0, integers(0, 3, 2)),
        S(normal(2, 3, 4), -2, integers(0, 3, 5)),
        S(normal(3, 4), 0, np.array(1)),
        S(normal(3, 4), 0, np.zeros(0, np.int64)),
        S(normal(), 0, np.array([0])),
    ],
    method=True,
    errors=lambda: [
        S(normal(3, 4), 1, np.array([4])),
        S(normal(3, 4), 1, np.array([-1])),
        S(normal(3, 4), 1, np.array([[0]])),
        S(normal(3, 4), 1, np.array([0.0])),
        S(normal(), 0, np.array([0, 0])),
        S(normal(), 0, np.array([1])),
        S(normal(2, 0), 1, np.array([1])),
    ],
)
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """A copy of the slices along ``dim`` that a vector of indices names.

    >>> import gradlite
    >>> gradlite.index_select(gradlite.tensor([[1, 2], [3, 4]]), 0, gradlite.tensor([1, 1]))
    tensor([[3, 4],
            [3, 4]])
    """
    check_tensor("index_select", "index", 3, index)
    x, i = input.array, index.array
    d = wrap_dim(dim, x.ndim)
    if i.ndim > 1:
        raise IndexError("index_select(): Index is supposed to be a vector")
    if i.dtype not in _INDICES:
        raise RuntimeError("index_select(): Expected dtype int32 or int64 for index")
    if x.ndim == 0 and i.size != 1:
        raise RuntimeError(
            f"index_select(): Index to scalar can have only 1 value, got {i.size} value(s)"
        )
    if not x.ndim:
        check_bounds("index_select", i, 0, 1, IndexError, text="index out of range in self")
    else:
        if not x.shape[d]:
            check_not_empty(i)
        if isinstance(i, np.ndarray):
            shortcuts.require(within(i, x.shape[d]), RuntimeError, _outside, i, x.shape[d])
    return apply(IndexSelect, (input, index), d)  # type: ignore[no-any-return]


def check_not_empty(index: Any) -> None:
    """RuntimeError if an index reads slices of a dimension, of which there are none."""
    if index.size:
        raise RuntimeError("index_select(): self indexing axis dim should be positive")


def _outside(i: np.ndarray[Any, Any], n: int) -> str:
    bad = i[(i < 0) | (i >= n)].flat[0] if i.ndim else int(i)
    return f"INDICES element is out of DATA bounds, id={bad} axis_dim={n}"


@public(
    samples=lambda: [
        S(normal(3, 4), bools(3, 4)),
        S(normal(3, 4), bools(4)),
        S(normal(4), bools(3, 4)),
        S(normal(), np.array(True)),
        S(normal(3), np.zeros(3, bool)),
    ],
    method=True,
    errors=lambda: [S(normal(3), np.ones(3)), S(normal(3), np.ones(2, bool))],
)
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where a bool mask holds, as a vector; input and mask broadcast.

    >>> import gradlite
    >>> x = gradlite.tensor([1.0, -2.0, 3.0])
    >>> gradlite.masked_select(x, x > 0)
    tensor([1., 3.])
    """
    check_tensor("masked_select", "mask", 2, mask)
    if mask.array.dtype != np.bool_:
        raise RuntimeError("masked_select: expected BoolTensor for mask")
    shape = broadcast_shape(mask.array.shape, input.array.shape)
    mask, _ = same_device_or_scalar(mask, input)
    if input.array.shape != shape:
        input = input.expand(shape)
    if mask.array.shape != shape:
        mask = mask.expand(shape)
    return apply(MaskedSelect, (input, mask))  # type: ignore[no-any-return]


def broadcast_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape two shapes broadcast to; RuntimeError naming the sizes that differ."""
    if a == b or not b:
        return a
    if not a:
        return b
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        pass
    ndim = max(len(a), len(b))
    wide = [(1,) * (ndim - len(s)) + tuple(s) for s in (a, b)]
    for d in range(ndim - 1, -1, -1):
        n, m = wide[0][d], wide[1][d]
        if n != m and 1 not in (n, m):
            break
    raise RuntimeError(
        f"The size of tensor a ({n}) must match the size of tensor b ({m}) at non-singleton "
        f"dimension {d}"
    )


@public(
    samples=lambda: [S(normal(3, 4), integers(-12, 12, 2, 3)), S(normal(5), np.array(2))],
    method=True,
    errors=lambda: [
        S(normal(3), np.array([3])),
        S(normal(3), np.array([0.0])),
        S(normal(0), np.array([0])),
    ],
)
@on_its_device
def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements of the input read as one row; the result has the index's shape.

    >>> import gradlite
    >>> gradlite.take(gradlite.tensor([[1, 2], [3, 4]]), gradlite.tensor([0, -1]))
    tensor([1, 4])
    """
    check_tensor("take", "index", 2, index)
    i, n = index.array, input.array.size
    if i.dtype != np.int64:
        raise RuntimeError(
            f"take(): Expected a long tensor for index, but got {type_name(i.dtype)}"
        )
    if not n and i.size:
        raise IndexError("take(): tried to take from an empty tensor")
    if (
        isinstance(i, np.ndarray)
        and i.size
        and not (-n <= positions.least(i) and positions.most(i) < n)
    ):
        bad = int(i.max()) if int(i.max()) >= n else int(i.min())
        raise IndexError(f"out of range: tried to access index {bad} on a tensor of {n} elements.")
    flat = wrap(counted_from_front("take", NAMESPACES[i.__class__].xp, i, n).reshape(-1))
    found = gather(input if input.array.ndim == 1 else input.reshape(-1), 0, flat)
    return found if i.ndim == 1 else found.reshape(i.shape)


@public(
    samples=lambda: [
        S(normal(3, 4), integers(0, 4, 3, 2), 1),
        S(normal(3, 4), integers(0, 3, 2, 1), dim=0),
        S(normal(1, 4), integers(-4, 4, 3, 2), 1),
        S(normal(3, 4), integers(0, 12, 5)),
    ],
    method=True,
    errors=lambda: [S(normal(3, 4), np.array([0]), 1)],
)
@on_its_device
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` whose operands broadcast; without ``dim``, from the input as one row.

    >>> import gradlite
    >>> x = gradlite.tensor([[3, 1], [2, 5]])
    >>> gradlite.take_along_dim(x, x.argsort(dim=1), 1)
    tensor([[1, 3],
            [2, 5]])
    """
    check_tensor("take_along_dim", "indices", 2, indices)
    if dim is None:
        return take_along_dim(input.reshape(-1), indices.reshape(-1), 0)
    x, i = input.array, indices.array
    if i.dtype != np.int64:
        raise RuntimeError(
            "gradlite.take_along_dim(): dtype of indices should be Long but got "
            f"{type_name(i.dtype)}"
        )
    if x.ndim != i.ndim:
        raise RuntimeError(
            "gradlite.take_along_dim(): input and indices should have the same number of "
            f"dimensions, but got {x.ndim} dimensions for input, and {i.ndim} dimensions for "
            "indices"
        )
    d = wrap_dim(dim, x.ndim)
    both = list(
        broadcast_shape((*x.shape[:d], 1, *x.shape[d + 1 :]), (*i.shape[:d], 1, *i.shape[d + 1 :]))
    )
    source = input.expand((*both[:d], x.shape[d], *both[d + 1 :]))
    if not x.shape[d]:  # before the numbers are counted from the front
        check_bounds("take_along_dim", i, d, 0)
    i = counted_from_front("take_along_dim", NAMESPACES[i.__class__].xp, i, x.shape[d])
    index = wrap(i).expand((*both[:d], i.shape[d], *both[d + 1 :]))
    return gather(source, d, index)


@public(
    samples=lambda: [
        S(integers(0, 2, 3, 4)),
        S(bools(5)),
        S(np.array(3)),
        S(np.array(0)),
        S(np.zeros((2, 3))),
        S(integers(0, 2, 3, 4), as_tuple=True),
        S(np.array(3), as_tuple=True),
    ],
    method=True,
    differentiable=False,
)
@on_its_device
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The indices of all nonzero elements: rows (count, ndim), or one vector per dimension.

    >>> import gradlite
    >>> gradlite.nonzero(gradlite.tensor([[0, 1], [2, 0]]))
    tensor([[0, 1],
            [1, 0]])
    """
    array = input.array
    xp = NAMESPACES[array.__class__].xp
    if as_tuple:
        return tuple(wrap(row_major(i)) for i in xp.atleast_1d(array).nonzero())
    if array.ndim == 0:
        return wrap(xp.zeros((1 if array else 0, 0), np.int64))
    return wrap(xp.stack(array.nonzero()).T)


@public(
    samples=lambda: [S(integers(0, 2, 3, 4)), S(np.array(2))], method=True, differentiable=False
)
@on_its_device
def argwhere(input: Tensor) -> Tensor:
    """The indices of all nonzero elements, one row each.

    >>> import gradlite
    >>> gradlite.argwhere(gradlite.tensor([0, 7, 0, 8]))
    tensor([[1],
            [3]])
    """
    return nonzero(input)  # type: ignore[no-any-return]
