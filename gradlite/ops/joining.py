"""Joining tensors, and cutting one into views: cat, stack, split, chunk, unbind, select, narrow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.graph import add_part
from gradlite.ops import guard
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import apply, output_grads, same_device
from gradlite.ops.keywords import other_keywords
from gradlite.ops.op import Op
from gradlite.ops.operands import cast
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.ops.views import apply_view, link_views
from gradlite.tensor import Tensor

__all__ = [
    "cat",
    "chunk",
    "concat",
    "concatenate",
    "narrow",
    "select",
    "split",
    "stack",
    "unbind",
]

NO_SEQUENCE = "{}(): argument 'tensors' (position 1) must be tuple of Tensors, not Tensor"


class Cat(Op):
    moves = True
    variadic = True
    row_major = True

    def forward(xp: Any, arrays: list[Any], dim: int) -> Any:
        # PyTorch skips empty vectors whatever the other shapes are.
        return xp.concatenate([a for a in arrays if a.shape != (0,)] or arrays, axis=dim)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (dim,) = ctx.attrs
        grads, start = [], 0
        skip = grad.ndim > 1
        for edge, shape in zip(ctx.edges, ctx.shapes):
            if skip and shape == (0,):
                grads.append(F.zeros(shape, grad))
                continue
            stop = start + shape[dim]
            index = (slice(None),) * dim + (slice(start, stop),)
            grads.append(grad[index] if edge is not None else None)
            start = stop
        return tuple(grads)


@public(
    samples=lambda: [
        S([normal(2, 3), normal(1, 3)]),
        S([normal(2, 3), normal(2, 2), normal(2, 0)], 1),
        S([normal(2, 3)], dim=-1),
        S([normal(0), normal(2, 3)], 0),
    ]
)
def cat(tensors: Sequence[Tensor], dim: int = 0, *, axis: int | None = None) -> Tensor:
    """Join tensors along an existing dimension; dtypes promote.

    >>> import gradlite
    >>> gradlite.cat([gradlite.tensor([1, 2]), gradlite.tensor([3])])
    tensor([1, 2, 3])

    Raises:
        ValueError: no tensor.
        RuntimeError: sizes that differ outside ``dim``.
    """
    if isinstance(tensors, Tensor):
        raise TypeError(NO_SEQUENCE.format("cat"))
    parts = list(tensors)
    if not parts:
        raise ValueError("gradlite.cat(): expected a non-empty list of Tensors")
    dim = dim if axis is None else axis
    if dim.__class__ is int and guard.several is None and _fit(parts, dim):
        return apply(Cat, parts, dim % parts[0].array.ndim)  # type: ignore[no-any-return]
    for place, part in enumerate(parts):
        if not isinstance(part, Tensor):
            raise TypeError(
                f"expected Tensor as element {place} in argument 0, but got "
                f"{part.__class__.__name__}"
            )
    real = [p for p in parts if p.array.shape != (0,)] or parts[:1]
    if any(p.array.ndim == 0 for p in real):
        place = next(i for i, p in enumerate(parts) if p.array.ndim == 0)
        raise RuntimeError(f"zero-dimensional tensor (at position {place}) cannot be concatenated")
    same_device(*real)
    d = wrap_dim(dim, real[0].array.ndim)
    common = dtypes.result_dtype([p.array for p in parts])
    first = real[0].array.shape
    for place, p in enumerate(real):
        if p.array.ndim != len(first):
            raise RuntimeError(
                f"Tensors must have same number of dimensions: got {len(first)} and {p.array.ndim}"
            )
        for k, (m, n) in enumerate(zip(first, p.array.shape)):
            if k != d and m != n:
                raise RuntimeError(
                    f"Sizes of tensors must match except in dimension {d}. Expected size {m} but "
                    f"got size {n} for tensor number {place} in the list."
                )
    return apply(Cat, [cast(p, common) for p in parts], d)  # type: ignore[no-any-return]


concat = concatenate = cat


def _fit(parts: Sequence[Any], dim: int) -> bool:
    """Whether these are tensors of one dtype, and of one shape but for a dimension of the first."""
    if not isinstance(parts[0], Tensor):
        return False
    first = parts[0].array
    shape, kind, library = first.shape, first.dtype, first.__class__
    if not -len(shape) <= dim < len(shape):
        return False
    dim %= len(shape)
    others = shape[:dim], shape[dim + 1 :]
    for part in parts:
        if not isinstance(part, Tensor):
            return False
        array = part.array
        own = array.shape
        if array.dtype != kind or array.__class__ is not library:
            return False
        if own != shape and (len(own) != len(shape) or (own[:dim], own[dim + 1 :]) != others):
            return False
    return True


def _all_alike(parts: Sequence[Tensor]) -> bool:
    """Whether tensors have one shape, one dtype and one library, as what is joined mostly has."""
    first = parts[0].array
    shape, kind, library = first.shape, first.dtype, first.__class__
    for part in parts:
        array = part.array
        if array.shape != shape or array.dtype != kind or array.__class__ is not library:
            return False
    return True


class Stack(Op):
    moves = True
    variadic = True
    row_major = True

    def forward(xp: Any, arrays: list[Any], dim: int) -> Any:
        if xp is not np:
            return xp.stack(arrays, axis=dim)
        shape = arrays[0].shape
        if dim == len(shape):
            return np.concatenate([a[..., None] for a in arrays], dim)
        # One after the other along the dimension itself, which is then divided.
        return np.concatenate(arrays, dim).reshape((*shape[:dim], len(arrays), *shape[dim:]))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (dim,) = ctx.attrs
        before = (slice(None),) * dim
        return tuple(
            grad[(*before, place)] if edge is not None else None
            for place, edge in enumerate(ctx.edges)
        )


@public(
    samples=lambda: [
        S([normal(2, 3), normal(2, 3)]),
        S([normal(2), normal(2)], -1),
        S([normal()], 0),
    ]
)
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors of one shape along a new dimension.

    >>> import gradlite
    >>> gradlite.stack([gradlite.tensor([1, 2]), gradlite.tensor([3, 4])])
    tensor([[1, 2],
            [3, 4]])
    """
    if isinstance(tensors, Tensor):
        raise TypeError(NO_SEQUENCE.format("stack"))
    parts = list(tensors)
    if not parts:
        raise RuntimeError("stack expects a non-empty TensorList")
    first = parts[0].array.shape
    if guard.several is not None or not _all_alike(parts):
        same_device(*parts)
        for place, p in enumerate(parts):
            if p.array.shape != first:
                raise RuntimeError(
                    f"stack expects each tensor to be equal size, but got {list(first)} at entry 0 "
                    f"and {list(p.array.shape)} at entry {place}"
                )
        common = dtypes.result_dtype([p.array for p in parts])
        parts = [cast(p, common) for p in parts]
    return apply(Stack, parts, wrap_dim(dim, len(first) + 1))  # type: ignore[no-any-return]


def side_by_side(parts: list[Any], dim: int) -> Any:
    """The array that NumPy's arrays are parts of, one behind the other; None if they are not."""
    first = parts[0]
    base, strides, shape = first.base, first.strides, list(first.shape)
    if base.__class__ is not np.ndarray or not base.flags.c_contiguous:
        return None
    start = next_place = first.__array_interface__["data"][0]
    shape[dim] = 0
    for part in parts:
        if part.base is not base or part.strides != strides or part.dtype != base.dtype:
            return None
        if part.__array_interface__["data"][0] != next_place:
            return None
        next_place += part.shape[dim] * strides[dim]
        shape[dim] += part.shape[dim]
    start -= base.__array_interface__["data"][0]
    return np.ndarray(tuple(shape), base.dtype, base, start, strides)


class Split(Op):
    """Pieces along a dimension, each a view."""

    moves = True
    outputs = 0
    multiple_views = True

    def forward(xp: Any, x: Any, lengths: tuple[int, ...], dim: int) -> Any:
        pieces, start = [], 0
        before = (slice(None),) * dim
        for n in lengths:
            pieces.append(x[(*before, slice(start, start + n))])
            start += n
        return tuple(pieces)

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        like = next(g for g in (grads if isinstance(grads, list) else [grads]) if g is not None)
        parts, dim = output_grads(ctx, grads, F, like), ctx.attrs[1]
        whole = side_by_side(parts, dim) if like.__class__ is np.ndarray else None
        return (F.cat(parts, dim) if whole is None else whole,)


class SplitWithSizes(Split):
    """`Split` into pieces of given sizes."""


class Narrow(Op):
    """One piece of a split, as an entry of a view's chain."""

    moves = True
    grad_name = "SliceBackward0"

    def forward(xp: Any, x: Any, dim: int, start: int, length: int) -> Any:
        return x[(*(slice(None),) * dim, slice(start, start + length))]

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        dim, start, length = ctx.attrs
        shape = tuple(ctx.shapes[0])
        place = (*(slice(None),) * dim, slice(start, start + length))
        if not F.tensors and length < shape[dim] and add_part(ctx, 0, grad, place):
            return (None,)
        if F.array(grad).__class__ is not np.ndarray:  # two launches, not three
            return (F.basic_scatter(grad, shape, place),)
        before = F.zeros((*shape[:dim], start, *shape[dim + 1 :]), grad)
        after = F.zeros((*shape[:dim], shape[dim] - start - length, *shape[dim + 1 :]), grad)
        return (F.cat([before, grad, after], dim),)


@public(
    samples=lambda: [S(normal(5, 2), 2), S(normal(2, 5), [2, 3], 1), S(normal(4), 4)], method=True
)
@other_keywords(split_size="split_size_or_sections")  # a method's
def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive pieces: of one size, or of the sizes in a list.

    >>> import gradlite
    >>> gradlite.split(gradlite.arange(5), 2)
    (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    """
    d = wrap_dim(dim, tensor.array.ndim)
    n = tensor.array.shape[d]
    if isinstance(split_size_or_sections, int):
        size = split_size_or_sections
        if size < 0:
            raise RuntimeError(
                f"split expects split_size be non-negative, but got split_size={size}"
            )
        if size == 0 and n != 0:
            raise RuntimeError(
                f"split_size can only be 0 if dimension size is 0, but got dimension size of {n}"
            )
        lengths = [min(size, n - s) for s in range(0, n, size)] if n else [0]
    else:
        lengths = [int(s) for s in split_size_or_sections]
        if sum(lengths) != n:
            raise RuntimeError(
                f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size "
                f"at dimension {d}), but got split_sizes={lengths}"
            )
    op = Split if isinstance(split_size_or_sections, int) else SplitWithSizes
    results = apply(op, (tensor,), tuple(lengths), d)
    starts = [0, *accumulate(lengths)]
    link_views(results, tensor, Narrow, lambda i: (d, starts[i], lengths[i]))
    return results  # type: ignore[no-any-return]


@public(samples=lambda: [S(normal(5, 2), 2), S(normal(2, 6), 3, -1), S(normal(3), 5)], method=True)
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` views of equal size, the last one possibly smaller.

    >>> import gradlite
    >>> gradlite.chunk(gradlite.arange(5), 2)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    n = input.array.shape[wrap_dim(dim, input.array.ndim)]
    size = -(-n // chunks)
    return split(input, [0] * chunks if size == 0 else size, dim)


class Unbind(Op):
    moves = True
    outputs = 0
    multiple_views = True

    def forward(xp: Any, x: Any, dim: int) -> Any:
        before = (slice(None),) * dim
        return tuple([x[(*before, i, ...)] for i in range(x.shape[dim])])

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        like = next(g for g in (grads if isinstance(grads, list) else [grads]) if g is not None)
        return (F.stack(output_grads(ctx, grads, F, like), ctx.attrs[0]),)


class Select(Op):
    """One index of a dimension, as a view."""

    moves = True

    def forward(xp: Any, x: Any, dim: int, index: int) -> Any:
        return x[(*(slice(None),) * dim, index, ...)]

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        dim, index = ctx.attrs
        shape = tuple(ctx.shapes[0])
        place = (*(slice(None),) * dim, index, ...)
        if not F.tensors and shape[dim] > 1 and add_part(ctx, 0, grad, place):
            return (None,)
        inner = F.unsqueeze(grad, dim)
        return Narrow.backward(_SelectContext(shape, dim, index % shape[dim]), inner, F)  # type: ignore[no-any-return]


class _SelectContext:
    __slots__ = ("attrs", "shapes")

    def __init__(self, shape: tuple[int, ...], dim: int, index: int) -> None:
        self.attrs, self.shapes = (dim, index, 1), (shape,)


@public(samples=lambda: [S(normal(3, 2)), S(normal(2, 3), 1), S(normal(1, 2))], method=True)
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of all slices along a dimension, which they lose.

    >>> import gradlite
    >>> gradlite.unbind(gradlite.tensor([[1, 2], [3, 4]]))
    (tensor([1, 2]), tensor([3, 4]))
    """
    if input.array.ndim == 0:
        raise IndexError("Dimension specified as 0 but tensor has no dimensions")
    d = wrap_dim(dim, input.array.ndim)
    results = apply(Unbind, (input,), d)
    link_views(results, input, Select, lambda i: (d, i))
    return results  # type: ignore[no-any-return]


@public(
    samples=lambda: [S(normal(3, 2), 0, 1), S(normal(3, 2), 1, -1)],
    method=True,
    errors=lambda: [
        S(normal(3, 2), 0, 3),
        S(normal(), 0, 0),
        S(normal(3), 0, np.array([1, 0])),
        S(normal(3), 0, np.array(1.0)),
    ],
)
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """A view of one index of a dimension, which it loses.

    >>> import gradlite
    >>> gradlite.select(gradlite.tensor([[1, 2], [3, 4]]), 0, 1)
    tensor([3, 4])
    """
    if input.array.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    d = wrap_dim(dim, input.array.ndim)
    n = input.array.shape[d]
    if isinstance(index, Tensor):
        index = _as_int(index)
    if not -n <= index < n:
        raise IndexError(
            f"select(): index {index} out of range for tensor of size {list(input.array.shape)} "
            f"at dimension {d}"
        )
    return apply_view(Select, input, d, int(index))


def _as_int(index: Tensor) -> int:
    if index.array.dtype.kind not in "iu" or index.array.size != 1:
        raise TypeError("select(): argument 'index' (position 2) must be int, not Tensor")
    return int(index.item())


@public(samples=lambda: [S(normal(4, 2), 0, 1, 2), S(normal(2, 4), 1, -3, 2)], method=True)
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """A view of ``length`` consecutive indices of a dimension.

    >>> import gradlite
    >>> gradlite.narrow(gradlite.arange(5), 0, 1, 3)
    tensor([1, 2, 3])
    """
    if isinstance(start, float):
        raise TypeError("narrow(): argument 'start' (position 2) must be int, not float")
    if isinstance(start, Tensor) and (start.array.ndim or start.array.dtype.kind not in "iu"):
        raise RuntimeError("start must be an 0-dim integral Tensor.")
    start = int(start)
    if input.array.ndim == 0:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    d = wrap_dim(dim, input.array.ndim)
    n = input.array.shape[d]
    if not -n <= start <= n:
        raise IndexError(
            f"start out of range (expected to be in range of [{-n}, {n}], but got {start})"
        )
    start += n if start < 0 else 0
    if start + length > n:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({n}).")
    return apply_view(Narrow, input, d, start, int(length))


def _iterate(self: Tensor) -> Any:
    if self.array.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(unbind(self, 0))


Tensor.__iter__ = _iterate  # type: ignore[assignment, method-assign]
