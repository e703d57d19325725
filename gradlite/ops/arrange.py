"""Rearranging and repeating: roll, rot90, flips, tile, repeat_interleave, meshgrid."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite.memory_format import contiguous_format
from gradlite.ops.dims import sizes, wrap_dim
from gradlite.ops.dispatch import apply1
from gradlite.ops.gather import index_select
from gradlite.ops.guard import on_its_device
from gradlite.ops.joining import cat, narrow, stack
from gradlite.ops.logic import logical_xor
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.samples import S, integers, normal
from gradlite.ops.shape import contiguous, flatten, flip, transpose, unsqueeze
from gradlite.ops.stacking import parts_of
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "cartesian_prod",
    "diff",
    "fliplr",
    "flipud",
    "meshgrid",
    "repeat_interleave",
    "roll",
    "rot90",
    "tile",
]


# -------------------------------------------------------------------- moving elements
class Roll(Op):
    """Elements shifted along dimensions, those that fall off entering at the other end."""

    moves = True
    row_major = True

    def forward(xp: Any, x: Any, shifts: tuple[int, ...], dims: tuple[int, ...] | None) -> Any:
        if xp is not np or len(shifts) > 1:
            return xp.roll(x, shifts if dims is not None else shifts[0], dims)
        whole, dim = (x.reshape(-1), 0) if dims is None else (x, dims[0])
        n, before = whole.shape[dim], (slice(None),) * dim  # as NumPy's roll, without its checks
        first = -shifts[0] % n if n else 0
        parts = whole[(*before, slice(first, n))], whole[(*before, slice(0, first))]
        return np.concatenate(parts, dim).reshape(x.shape)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        shifts, dims = ctx.attrs
        return (F.roll(grad, tuple(-s for s in shifts), dims),)


@public(
    samples=lambda: [
        S(normal(5), 1),
        S(normal(2, 3), 2),
        S(normal(2, 3), (1, -1), (0, 1)),
        S(normal(2, 3), 1, -1),
        S(normal(2, 3), shifts=4, dims=1),
        S(normal(0, 3), 1, 1),
    ],
    method=True,
    errors=lambda: [S(normal(2, 3), (1, 1)), S(normal(2, 3), 1, (0, 1)), S(normal(3), 1, 1)],
)
def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """The elements shifted along dimensions; without ``dims``, of the tensor as one row.

    >>> import gradlite
    >>> gradlite.roll(gradlite.arange(4), 1)
    tensor([3, 0, 1, 2])
    """
    steps = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    given = () if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
    if not steps:
        raise RuntimeError("`shifts` required")
    if not given and len(steps) == 1:
        return apply1(Roll, input, steps, None)
    if len(given) != len(steps):
        raise RuntimeError(
            f"shifts and dimensions must align. shifts: {len(steps)}, dims:{len(given)}"
        )
    if input.array.ndim == 0:
        raise IndexError(f"Dimension specified as {given[0]} but tensor has no dimensions")
    return apply1(Roll, input, steps, tuple(wrap_dim(d, input.array.ndim) for d in given))


@public(
    samples=lambda: [
        S(normal(2, 3)),
        S(normal(2, 3), 2),
        S(normal(2, 3, 4), -1, (1, 2)),
        S(normal(2, 3), 4),
    ],
    method=True,
    errors=lambda: [S(normal(2, 3), 1, (0, 0)), S(normal(2, 3), 1, (0,)), S(normal(3), 1)],
)
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """A rotation by ``k`` quarter turns from the first to the second of two dimensions.

    >>> import gradlite
    >>> gradlite.rot90(gradlite.tensor([[1, 2], [3, 4]]))
    tensor([[2, 4],
            [1, 3]])
    """
    n = input.array.ndim
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if n < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {n}")
    if dims[0] == dims[1] or abs(dims[0] - dims[1]) == n:
        raise RuntimeError(
            f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}"
        )
    first, second = (wrap_dim(d, n) for d in dims)
    turns = k % 4
    if turns == 0:
        return contiguous(input.clone())  # type: ignore[attr-defined]
    if turns == 2:
        return flip(input, (first, second))
    if turns == 1:
        return transpose(flip(input, (second,)), first, second)
    return flip(transpose(input, first, second), (second,))


@public(samples=lambda: [S(normal(2, 3))], method=True, errors=lambda: [S(normal(3))])
def fliplr(input: Tensor) -> Tensor:
    """A copy with the second dimension reversed.

    >>> import gradlite
    >>> gradlite.fliplr(gradlite.tensor([[1, 2], [3, 4]]))
    tensor([[2, 1],
            [4, 3]])
    """
    if input.array.ndim < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return flip(input, (1,))


@public(samples=lambda: [S(normal(2, 3)), S(normal(3))], method=True, errors=lambda: [S(normal())])
def flipud(input: Tensor) -> Tensor:
    """A copy with the first dimension reversed.

    >>> import gradlite
    >>> gradlite.flipud(gradlite.tensor([[1, 2], [3, 4]]))
    tensor([[3, 4],
            [1, 2]])
    """
    if input.array.ndim < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return flip(input, (0,))


# --------------------------------------------------------------------------- repeating
@public(
    samples=lambda: [
        S(normal(3), (2,)),
        S(normal(2, 2), (2,)),
        S(normal(2), (2, 3)),
        S(normal(), (2,)),
    ]
)
def tile(input: Tensor, dims: Sequence[int]) -> Tensor:
    """Copies side by side, ``dims`` of them along each of the last dimensions.

    >>> import gradlite
    >>> gradlite.tile(gradlite.tensor([1, 2]), (2,))
    tensor([1, 2, 1, 2])
    """
    times = sizes((dims,))
    missing = input.array.ndim - len(times)
    return input.repeat(*((1,) * missing), *times)  # type: ignore[attr-defined,no-any-return]


def _tile_method(self: Tensor, *dims: Any) -> Tensor:
    return tile(self, sizes(dims))


@public(
    samples=lambda: [
        S(normal(3), 2),
        S(normal(2, 3), 2),
        S(normal(2, 3), 3, dim=1),
        S(normal(2, 3), np.array([1, 2]), dim=0),
        S(normal(2, 3), np.array([1, 0, 2]), 1),
        S(normal(3), np.array([2])),
        S(np.array([1, 0, 2])),
        S(normal(2), np.array([1, 2]), output_size=3),
    ],
    method=True,
    errors=lambda: [
        S(normal(2, 2), np.array([1, 2, 3]), dim=0),
        S(normal(3), np.array([1.0])),
        S(normal(3), np.array([1, 0, 2], np.int8)),
        S(np.array([True, False])),
        S(normal(3), -1),
        S(normal(3), 2, 1),
    ],
)
@on_its_device
def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element (or slice along ``dim``) repeated, ``repeats`` times or as often as it says.

    Of a single tensor of counts: the indices 0, 1, ..., each repeated as often as its count.

    >>> import gradlite
    >>> gradlite.repeat_interleave(gradlite.tensor([1, 2]), 2)
    tensor([1, 1, 2, 2])
    """
    if repeats is None:
        count = input.array
        xp = NAMESPACES[count.__class__].xp
        return wrap(xp.repeat(xp.arange(count.size), _counts(count)))
    if dim is None:
        input, dim = flatten(input), 0
    d = wrap_dim(dim, input.array.ndim)
    shape = input.array.shape
    if isinstance(repeats, int):
        if repeats < 0:
            raise RuntimeError("Repeats must be non-negative")
        wide = unsqueeze(input, d + 1)
        wide = wide.expand(*shape[: d + 1], repeats, *shape[d + 1 :])  # type: ignore[attr-defined]
        return flatten(wide.clone(memory_format=contiguous_format), d, d + 1)
    count = _counts(repeats.array)
    if count.size not in (1, shape[d]):
        raise RuntimeError(
            "repeats must have the same size as input along dim, but got repeats.size(0) = "
            f"{count.size} and input.size({d}) = {shape[d]}"
        )
    xp = NAMESPACES[count.__class__].xp
    if count.size == 1:
        count = xp.broadcast_to(count.reshape(-1), (shape[d],))
    return index_select(input, d, wrap(xp.repeat(xp.arange(shape[d]), count)))


def _counts(array: Any) -> Any:
    if array.dtype not in (np.int64, np.int32):
        raise NotImplementedError(
            f"\"repeat_interleave_cpu\" not implemented for '{type_name(array.dtype)}'"
        )
    if array.ndim > 1:
        raise RuntimeError("repeat_interleave only accept 1D vector as repeat")
    if array.size and array.min() < 0:
        raise RuntimeError("repeats can not be negative")
    return array


@public(
    samples=lambda: [
        S(normal(2), normal(3), indexing="ij"),
        S([normal(2), normal(3), normal(4)], indexing="xy"),
        S(normal(2), normal(), indexing="ij"),
        S(integers(0, 3, 2), indexing="xy"),
    ],
    errors=lambda: [
        S(normal(2), normal(3), indexing="zz"),
        S(normal(2), np.arange(3), indexing="ij"),
        S(normal(2, 2), indexing="ij"),
    ],
)
def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Views of vectors spread over the grid that they span, one dimension for each.

    ``indexing="xy"`` swaps the first two dimensions.

    >>> import gradlite
    >>> gradlite.meshgrid(gradlite.arange(2), gradlite.arange(2), indexing="ij")
    (tensor([[0, 0],
            [1, 1]]), tensor([[0, 1],
            [0, 1]]))
    """
    parts = parts_of(tensors)
    if indexing is None:
        warnings.warn(
            "gradlite.meshgrid: in an upcoming release, it will be required to pass the indexing "
            "argument.",
            UserWarning,
            stacklevel=2,
        )
        indexing = "ij"
    if not parts:
        raise RuntimeError("meshgrid expects a non-empty TensorList")
    for part in parts:
        if part.array.ndim > 1:
            raise RuntimeError(
                "gradlite.meshgrid: Expected 0D or 1D tensor in the tensor list but got shape "
                f"{list(part.array.shape)}"
            )
        if part.array.dtype != parts[0].array.dtype:
            raise RuntimeError("meshgrid expects all tensors to have the same dtype")
    if indexing not in ("ij", "xy"):
        raise RuntimeError(
            f'gradlite.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}'
        )
    n = len(parts)
    shape = tuple(part.array.size for part in parts)
    grids: list[Any] = []
    for d, part in enumerate(parts):
        column: Any = part.view((1,) * d + (shape[d],) + (1,) * (n - 1 - d))  # type: ignore[attr-defined]
        grids.append(column.expand(shape))
    if indexing == "xy" and n > 1:
        grids = [transpose(grid, 0, 1) for grid in grids]
    return tuple(grids)


@public(samples=lambda: [S(normal(2), normal(3)), S(normal(2))])
def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of the elements of vectors, one row each.

    >>> import gradlite
    >>> gradlite.cartesian_prod(gradlite.tensor([1, 2]), gradlite.tensor([3, 4]))
    tensor([[1, 3],
            [1, 4],
            [2, 3],
            [2, 4]])
    """
    if len(tensors) == 1:
        return tensors[0]
    grids: Any = meshgrid(*tensors, indexing="ij")
    return stack([grid.reshape(-1) for grid in grids], 1)


@public(
    samples=lambda: [
        S(normal(5)),
        S(normal(5), 2),
        S(normal(2, 3), dim=0),
        S(normal(3), prepend=normal(1), append=normal(2)),
        S(normal(2), 5),
        S(normal(3), 0),
        S(np.array([True, False, False])),
    ],
    method=True,
    errors=lambda: [S(normal()), S(normal(3), 1, 1)],
)
def diff(
    input: Tensor,
    n: int = 1,
    dim: int = -1,
    prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:
    """Differences of neighbours along a dimension, ``n`` times over.

    >>> import gradlite
    >>> gradlite.diff(gradlite.tensor([1, 4, 9]))
    tensor([3, 5])
    """
    if input.array.ndim == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    d = wrap_dim(dim, input.array.ndim)
    if n == 0:
        return input.clone()  # type: ignore[attr-defined,no-any-return]
    parts = [t for t in (prepend, input, append) if t is not None]
    result: Any = cat(parts, d) if len(parts) > 1 else input
    for _ in range(min(n, result.array.shape[d])):
        size = result.array.shape[d] - 1
        first, second = narrow(result, d, 0, size), narrow(result, d, 1, size)
        if result.array.dtype == np.bool_:
            result = logical_xor(second, first)
        else:
            result = second - first  # type: ignore[operator]
    return result.clone() if result is input else result  # type: ignore[no-any-return]


def _attach() -> None:
    t: Any = Tensor
    t.tile = _tile_method


_attach()
