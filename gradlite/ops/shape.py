"""Views and copies in another shape: reshape, transpose, expand, join, split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.binary import sum_to
from gradlite.ops.dispatch import apply, apply1, output_grads, same_device
from gradlite.ops.inplace import check_inplace
from gradlite.ops.op import Op
from gradlite.ops.operands import cast
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.ops.views import apply_view, link_views
from gradlite.tensor import Tensor

__all__ = [
    "broadcast_to",
    "cat",
    "chunk",
    "concat",
    "concatenate",
    "diagonal",
    "flatten",
    "flip",
    "moveaxis",
    "movedim",
    "narrow",
    "permute",
    "reshape",
    "select",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "swapdims",
    "t",
    "transpose",
    "unbind",
    "unflatten",
    "unsqueeze",
]


def wrap_dim(dim: int, ndim: int) -> int:
    """A dimension counted from the front.

    Raises:
        IndexError: it is out of range.
    """
    n = ndim or 1
    if not -n <= dim < n:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], but got {dim})"
        )
    return int(dim) % n


def sizes(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = tuple(args[0])
    return tuple(int(a) for a in args)


# ----------------------------------------------------------------------- reshape family
def infer_shape(shape: tuple[int, ...], numel: int) -> tuple[int, ...]:
    """Fill in a -1 of a shape; RuntimeError when the elements do not fit."""
    known = 1
    unknown = None
    for place, n in enumerate(shape):
        if n == -1:
            if unknown is not None:
                raise RuntimeError("only one dimension can be inferred")
            unknown = place
        elif n < 0:
            raise RuntimeError(f"invalid shape dimension {n}")
        else:
            known *= n
    if unknown is not None:
        if known == 0:
            if numel == 0:
                raise RuntimeError(
                    f"cannot reshape tensor of 0 elements into shape {list(shape)} because the "
                    "unspecified dimension size -1 can be any value and is ambiguous"
                )
            raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {numel}")
        if numel % known:
            raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {numel}")
        return (*shape[:unknown], numel // known, *shape[unknown + 1 :])
    if known != numel:
        raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {numel}")
    return shape


def _without_copy(x: Any, shape: tuple[int, ...]) -> bool:
    """Whether the strides allow a shape as a view."""
    if x.flags.c_contiguous or x.size == 0:
        return True
    try:
        if isinstance(x, np.ndarray):
            np.reshape(x, shape, copy=False)
            return True
        probe = x.view()
        probe.shape = shape
        return True
    except (ValueError, AttributeError):
        return False


class View(Op):
    """The same elements in another shape."""

    def forward(xp: Any, x: Any, shape: tuple[int, ...]) -> Any:
        return x.reshape(shape)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (grad.reshape(ctx.shapes[0]),)


class ReshapeAlias(View):
    """A reshape of strided elements that needed no copy."""


class UnsafeView(View):
    """A reshape that had to copy."""

    grad_name = "UnsafeViewBackward0"


@public(
    samples=lambda: [S(normal(2, 6), 3, 4), S(normal(12), 3, -1), S(normal(), 1, 1)],
    torch="Tensor.view",
    method=True,
)
def view(input: Tensor, *shape: Any) -> Tensor:
    """A view in another shape; one size may be -1.

    >>> import gradlite
    >>> gradlite.arange(4).view(2, -1)
    tensor([[0, 1],
            [2, 3]])

    Raises:
        RuntimeError: the sizes do not fit, or the strides do not allow a view (use `reshape`).
    """
    if len(shape) == 1 and not isinstance(shape[0], (int, tuple, list)):
        raise TypeError(f"view(): argument 'size' must be tuple of ints, not {shape[0]!r}")
    target = infer_shape(sizes(shape), input.array.size)
    if not _without_copy(input.array, target):
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one "
            "dimension spans across two contiguous subspaces). Use .reshape(...) instead."
        )
    return apply_view(View, input, target)


@public(
    samples=lambda: [S(normal(2, 6), (3, 4)), S(normal(2, 3, 2), (-1,)), S(normal(0, 3), (3, 0))]
)
def reshape(input: Tensor, shape: Sequence[int]) -> Tensor:
    """The same elements in another shape: a view where strides allow it, else a copy.

    >>> import gradlite
    >>> gradlite.reshape(gradlite.arange(4), (2, -1))
    tensor([[0, 1],
            [2, 3]])
    """
    target = infer_shape(
        sizes((shape,)) if not isinstance(shape, int) else (shape,), input.array.size
    )
    if input.array.flags.c_contiguous:
        return apply_view(View, input, target)
    if _without_copy(input.array, target):
        return apply_view(ReshapeAlias, input, target)
    return apply1(UnsafeView, input.clone(), target)


def _reshape_method(self: Tensor, *shape: Any) -> Tensor:
    return reshape(self, sizes(shape))


@public(
    samples=lambda: [
        S(normal(2, 3, 4)),
        S(normal(2, 3, 4), 1),
        S(normal(2, 3, 4), 0, 1),
        S(normal()),
    ],
    method=True,
)
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merge the dimensions from ``start_dim`` to ``end_dim``.

    >>> import gradlite
    >>> gradlite.flatten(gradlite.ones(2, 3, 4), 1).shape
    gradlite.Size([2, 12])
    """
    shape = input.array.shape
    if not shape:
        return reshape(input, (1,))
    start, end = wrap_dim(start_dim, len(shape)), wrap_dim(end_dim, len(shape))
    if start > end:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if start == end:
        return input
    merged = 1
    for n in shape[start : end + 1]:
        merged *= n
    return reshape(input, (*shape[:start], merged, *shape[end + 1 :]))


@public(samples=lambda: [S(normal(2, 12), 1, (3, 4)), S(normal(12), 0, (-1, 4))], method=True)
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Split one dimension into several.

    >>> import gradlite
    >>> gradlite.unflatten(gradlite.ones(2, 12), 1, (3, 4)).shape
    gradlite.Size([2, 3, 4])
    """
    shape = input.array.shape
    d = wrap_dim(dim, len(shape))
    inner = infer_shape(tuple(sizes), shape[d])
    return view(input, (*shape[:d], *inner, *shape[d + 1 :]))


class Squeeze(View):
    grad_name = "SqueezeBackward0"


class Unsqueeze(Op):
    def forward(xp: Any, x: Any, dim: int) -> Any:
        return xp.expand_dims(x, dim)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (grad.reshape(ctx.shapes[0]),)


class SqueezeDim(View):
    grad_name = "SqueezeBackward1"
    fname = "squeeze_dim"


@public(
    samples=lambda: [
        S(normal(2, 1, 3, 1)),
        S(normal(2, 1, 3), 1),
        S(normal(2, 3), 0),
        S(normal(1, 2, 1), (0, 2)),
        S(normal(), 0),
    ],
    method=True,
)
def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Drop dimensions of size 1: all, or only those named.

    >>> import gradlite
    >>> gradlite.squeeze(gradlite.ones(2, 1, 3)).shape
    gradlite.Size([2, 3])
    """
    shape = input.array.shape
    if dim is None:
        return apply_view(Squeeze, input, tuple(n for n in shape if n != 1))
    dims = [wrap_dim(d, len(shape)) for d in ([dim] if isinstance(dim, int) else dim)]
    return apply_view(
        SqueezeDim, input, tuple(n for d, n in enumerate(shape) if n != 1 or d not in dims)
    )


@public(
    samples=lambda: [S(normal(2, 3), 0), S(normal(2, 3), 1), S(normal(2, 3), -1), S(normal(), 0)],
    method=True,
)
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """Insert a dimension of size 1.

    >>> import gradlite
    >>> gradlite.unsqueeze(gradlite.ones(2, 3), 1).shape
    gradlite.Size([2, 1, 3])
    """
    return apply_view(Unsqueeze, input, wrap_dim(dim, input.array.ndim + 1))


# --------------------------------------------------------------------- order of the dims
class Transpose(Op):
    def forward(xp: Any, x: Any, dim0: int, dim1: int) -> Any:
        return x.swapaxes(dim0, dim1) if x.ndim else x[()]

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.transpose(grad, *ctx.attrs),)


class T(Transpose):
    grad_name = "TBackward0"


class Permute(Op):
    def forward(xp: Any, x: Any, dims: tuple[int, ...]) -> Any:
        return x.transpose(dims)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (dims,) = ctx.attrs
        inverse = sorted(range(len(dims)), key=dims.__getitem__)
        return (F.permute(grad, tuple(inverse)),)


@public(
    samples=lambda: [S(normal(2, 3), 0, 1), S(normal(2, 3, 4), -1, 0), S(normal(2, 3), 1, 1)],
    method=True,
)
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """A view with two dimensions swapped.

    >>> import gradlite
    >>> gradlite.transpose(gradlite.ones(2, 3), 0, 1).shape
    gradlite.Size([3, 2])
    """
    n = input.array.ndim
    if n == 0:
        wrap_dim(dim0, n), wrap_dim(dim1, n)
        return apply_view(View, input, ())
    return apply_view(Transpose, input, wrap_dim(dim0, n), wrap_dim(dim1, n))


@public(samples=lambda: [S(normal(2, 3)), S(normal(3)), S(normal())], method=True)
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors and 0-d tensors stay as they are.

    >>> import gradlite
    >>> gradlite.t(gradlite.ones(2, 3)).shape
    gradlite.Size([3, 2])
    """
    n = input.array.ndim
    if n > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {n}D")
    if n < 2:
        return apply_view(View, input, input.array.shape)
    return apply_view(T, input, 0, 1)


@public(samples=lambda: [S(normal(2, 3, 4), (2, 0, 1)), S(normal(2, 3), (-1, 0))])
def permute(input: Tensor, dims: Sequence[int]) -> Tensor:
    """A view with its dimensions in another order.

    >>> import gradlite
    >>> gradlite.permute(gradlite.ones(2, 3, 4), (2, 0, 1)).shape
    gradlite.Size([4, 2, 3])
    """
    n = input.array.ndim
    if len(dims) != n:
        raise RuntimeError(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the "
            f"length of the desired ordering of dimensions i.e. input.dim() = {n} is not equal to "
            f"len(dims) = {len(dims)}"
        )
    order = tuple(wrap_dim(d, n) for d in dims)
    if len(set(order)) != n:
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    return apply_view(Permute, input, order)


def _permute_method(self: Tensor, *dims: Any) -> Tensor:
    return permute(self, sizes(dims))


@public(samples=lambda: [S(normal(2, 3, 4), 0, 2), S(normal(2, 3, 4), (0, 1), (2, 0))], method=True)
def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Move dimensions to other places; the rest keep their order.

    >>> import gradlite
    >>> gradlite.movedim(gradlite.ones(2, 3, 4), 0, 2).shape
    gradlite.Size([3, 4, 2])
    """
    n = input.array.ndim
    src = [wrap_dim(d, n) for d in ([source] if isinstance(source, int) else source)]
    dst = [wrap_dim(d, n) for d in ([destination] if isinstance(destination, int) else destination)]
    order = [d for d in range(n) if d not in src]
    for d, s in sorted(zip(dst, src)):
        order.insert(d, s)
    return permute(input, order)


# -------------------------------------------------------------------------------- expand
class Expand(Op):
    def forward(xp: Any, x: Any, shape: tuple[int, ...]) -> Any:
        if tuple(shape) == x.shape:
            return x.view()
        if xp is np and x.flags.writeable:  # so that in-place checks, not NumPy, decide
            lead = len(shape) - x.ndim
            strides = (0,) * lead + tuple(
                0 if m == 1 != n else s for n, m, s in zip(shape[lead:], x.shape, x.strides)
            )
            return np.lib.stride_tricks.as_strided(x, shape, strides)
        return xp.broadcast_to(x, shape)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (sum_to(F, grad, tuple(ctx.shapes[0])),)


@public(
    samples=lambda: [
        S(normal(3, 1), 3, 4),
        S(normal(3), 2, 3),
        S(normal(3, 1), -1, 4),
        S(normal(), 2),
    ],
    torch="Tensor.expand",
    method=True,
)
def expand(input: Tensor, *shape: Any) -> Tensor:
    """A view with dimensions of size 1 repeated; -1 keeps a size.

    >>> import gradlite
    >>> gradlite.tensor([[1], [2]]).expand(2, 3)
    tensor([[1, 1, 1],
            [2, 2, 2]])
    """
    target = list(sizes(shape))
    own = input.array.shape
    lead = len(target) - len(own)
    if lead < 0:
        raise RuntimeError(
            f"expand(gradlite.{input.dtype.name}{{{list(own)}}}, size={target}): the number of "
            f"sizes provided ({len(target)}) must be greater or equal to the number of dimensions "
            f"in the tensor ({len(own)})"
        )
    for place, n in enumerate(target):
        have = own[place - lead] if place >= lead else None
        if n == -1:
            if have is None:
                raise RuntimeError(
                    f"The expanded size of the tensor ({n}) isn't allowed in a leading, "
                    f"non-existing dimension {place}"
                )
            target[place] = have
        elif have is not None and have != n and have != 1:
            raise RuntimeError(
                f"The expanded size of the tensor ({n}) must match the existing size ({have}) at "
                f"non-singleton dimension {place}.  Target sizes: {target}.  Tensor sizes: "
                f"{list(own)}"
            )
    return apply_view(Expand, input, tuple(target))


@public(samples=lambda: [S(normal(3, 1), (3, 4)), S(normal(3), (2, 3))], method=True)
def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """`expand` with the shape as one argument.

    >>> import gradlite
    >>> gradlite.broadcast_to(gradlite.tensor([1, 2]), (2, 2))
    tensor([[1, 2],
            [1, 2]])
    """
    return expand(input, *size)


@public(
    samples=lambda: [S(normal(3, 2), 2, 3), S(normal(3), 2, 2), S(normal(3), 0)],
    torch="Tensor.repeat",
    method=True,
)
def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """Copies of the tensor side by side, ``repeats`` of them along each dimension.

    >>> import gradlite
    >>> gradlite.tensor([1, 2]).repeat(2, 2)
    tensor([[1, 2, 1, 2],
            [1, 2, 1, 2]])
    """
    times = sizes(repeats)
    shape = input.array.shape
    if len(times) < len(shape):
        raise RuntimeError(
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of "
            "tensor"
        )
    return apply1(Repeat, input, times)


class Repeat(Op):
    """Copies side by side; the gradient sums over them."""

    def forward(xp: Any, x: Any, times: tuple[int, ...]) -> Any:
        return xp.tile(x, times)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (times,) = ctx.attrs
        shape = tuple(ctx.shapes[0])
        lead = len(times) - len(shape)
        split = [n for pair in zip(times, (1,) * lead + shape) for n in pair]
        total = F.sum(grad.reshape(split), tuple(range(0, len(split), 2)), False)
        return (total.reshape(shape),)


# ---------------------------------------------------------------------- joining, splitting
class Cat(Op):
    variadic = True

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
        RuntimeError: no tensor, or sizes that differ outside ``dim``.
    """
    parts = list(tensors)
    if not parts:
        raise RuntimeError("expected a non-empty list of Tensors")
    for place, part in enumerate(parts):
        if not isinstance(part, Tensor):
            raise TypeError(
                f"expected Tensor as element {place} in argument 0, but got "
                f"{part.__class__.__name__}"
            )
    dim = dim if axis is None else axis
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


class Stack(Op):
    variadic = True

    def forward(xp: Any, arrays: list[Any], dim: int) -> Any:
        return xp.stack(arrays, axis=dim)

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
    parts = list(tensors)
    if not parts:
        raise RuntimeError("stack expects a non-empty TensorList")
    same_device(*parts)
    first = parts[0].array.shape
    for place, p in enumerate(parts):
        if p.array.shape != first:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(first)} at entry 0 "
                f"and {list(p.array.shape)} at entry {place}"
            )
    common = dtypes.result_dtype([p.array for p in parts])
    return apply(  # type: ignore[no-any-return]
        Stack, [cast(p, common) for p in parts], wrap_dim(dim, len(first) + 1)
    )


class Split(Op):
    """Pieces along a dimension, each a view."""

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
        return (F.cat(output_grads(ctx, grads, F, like), ctx.attrs[1]),)


class SplitWithSizes(Split):
    """`Split` into pieces of given sizes."""


class Narrow(Op):
    """One piece of a split, as an entry of a view's chain."""

    grad_name = "SliceBackward0"

    def forward(xp: Any, x: Any, dim: int, start: int, length: int) -> Any:
        return x[(*(slice(None),) * dim, slice(start, start + length))]

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        dim, start, length = ctx.attrs
        shape = tuple(ctx.shapes[0])
        before = F.zeros((*shape[:dim], start, *shape[dim + 1 :]), grad)
        after = F.zeros((*shape[:dim], shape[dim] - start - length, *shape[dim + 1 :]), grad)
        return (F.cat([before, grad, after], dim),)


@public(
    samples=lambda: [S(normal(5, 2), 2), S(normal(2, 5), [2, 3], 1), S(normal(4), 4)], method=True
)
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
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
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
    outputs = 0
    multiple_views = True

    def forward(xp: Any, x: Any, dim: int) -> Any:
        before = (slice(None),) * dim
        return tuple(x[(*before, i, ...)] for i in range(x.shape[dim]))

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        like = next(g for g in (grads if isinstance(grads, list) else [grads]) if g is not None)
        return (F.stack(output_grads(ctx, grads, F, like), ctx.attrs[0]),)


class Select(Op):
    """One index of a dimension, as a view."""

    def forward(xp: Any, x: Any, dim: int, index: int) -> Any:
        return x[(*(slice(None),) * dim, index, ...)]

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        dim, index = ctx.attrs
        shape = tuple(ctx.shapes[0])
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


@public(samples=lambda: [S(normal(3, 2), 0, 1), S(normal(3, 2), 1, -1)], method=True)
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
    if not -n <= index < n:
        raise IndexError(
            f"select(): index {index} out of range for tensor of size {list(input.array.shape)} "
            f"at dimension {d}"
        )
    return apply_view(Select, input, d, int(index))


@public(samples=lambda: [S(normal(4, 2), 0, 1, 2), S(normal(2, 4), 1, -3, 2)], method=True)
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """A view of ``length`` consecutive indices of a dimension.

    >>> import gradlite
    >>> gradlite.narrow(gradlite.arange(5), 0, 1, 3)
    tensor([1, 2, 3])
    """
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
    return apply_view(Narrow, input, d, int(start), int(length))


@public(
    samples=lambda: [S(normal(3, 4)), S(normal(3, 4), 1), S(normal(2, 3, 3), 0, 1, 2)], method=True
)
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the diagonal of two dimensions, appended as the last dimension.

    >>> import gradlite
    >>> gradlite.diagonal(gradlite.arange(4).view(2, 2))
    tensor([0, 3])
    """
    n = input.array.ndim
    return apply_view(Diagonal, input, offset, wrap_dim(dim1, n), wrap_dim(dim2, n))


class Diagonal(Op):
    def forward(xp: Any, x: Any, offset: int, dim1: int, dim2: int) -> Any:
        result = xp.diagonal(x, offset, dim1, dim2)
        if isinstance(result, np.ndarray) and x.flags.writeable:
            result.flags.writeable = True
        return result

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.diagonal_scatter(grad, tuple(ctx.shapes[0]), *ctx.attrs),)


class DiagonalScatter(Op):
    """Zeros with a diagonal written into them: the gradient of `diagonal`."""

    def forward(xp: Any, x: Any, shape: Any, offset: int, dim1: int, dim2: int) -> Any:
        out = xp.zeros(shape, x.dtype)
        Diagonal.forward(xp, out, offset, dim1, dim2)[...] = x
        return out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.diagonal(grad, *ctx.attrs[1:]),)


class Flip(Op):
    def forward(xp: Any, x: Any, dims: tuple[int, ...]) -> Any:
        return xp.flip(x, dims).copy()

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.flip(grad, *ctx.attrs),)


@public(samples=lambda: [S(normal(2, 3), (0,)), S(normal(2, 3), (0, -1))])
def flip(input: Tensor, dims: Any) -> Tensor:
    """A copy with some dimensions reversed.

    >>> import gradlite
    >>> gradlite.flip(gradlite.arange(3), (0,))
    tensor([2, 1, 0])
    """
    n = input.array.ndim
    given = (dims,) if isinstance(dims, int) else tuple(dims)
    return apply1(Flip, input, tuple(wrap_dim(d, n) for d in given))


class Contiguous(Op):
    grad_name = "CloneBackward0"

    def forward(xp: Any, x: Any) -> Any:
        return xp.ascontiguousarray(x).reshape(x.shape)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (grad,)


@public(samples=lambda: [S(normal(2, 3))], torch="Tensor.contiguous", method=True)
def contiguous(input: Tensor) -> Tensor:
    """The tensor itself when its elements lie in row-major order, else such a copy.

    >>> import gradlite
    >>> gradlite.ones(2, 3).t().contiguous().stride()
    (2, 1)
    """
    return input if input.array.flags.c_contiguous else apply1(Contiguous, input)


def _attach() -> None:
    m: Any = Tensor
    m.reshape, m.permute = _reshape_method, _permute_method
    m.view_as = lambda self, other: view(self, other.array.shape)
    m.reshape_as = lambda self, other: reshape(self, other.array.shape)
    m.expand_as = lambda self, other: expand(self, *other.array.shape)
    m.flip = lambda self, *dims: flip(self, sizes(dims))
    m.swapaxes = m.swapdims = transpose
    m.T = property(lambda self: permute(self, range(self.array.ndim)[::-1]))
    m.mT = property(_matrix_transpose)
    m.ravel = lambda self: flatten(contiguous(self))
    m.__iter__ = _iterate
    m.unsqueeze_, m.squeeze_ = _metadata(unsqueeze), _metadata(squeeze)
    m.t_, m.transpose_ = _metadata(t), _metadata(transpose)


def _metadata(function: Any) -> Any:
    """In-place forms that change only the shape."""

    def method(self: Tensor, *args: Any) -> Tensor:
        check_inplace(self)
        result = function(self, *args)
        self.array, self._edge, self._requires_grad = (
            result.array,
            result._edge,
            result._requires_grad,
        )
        self._bump()
        return self

    return method


def _matrix_transpose(self: Tensor) -> Tensor:
    if self.array.ndim < 2:
        raise RuntimeError(
            "tensor.mT is only supported on matrices or batches of matrices. "
            f"Got {self.array.ndim}-D tensor."
        )
    return transpose(self, -2, -1)


def _iterate(self: Tensor) -> Any:
    if self.array.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(unbind(self, 0))


_attach()
swapaxes = swapdims = transpose
moveaxis = movedim
Tensor.moveaxis = movedim  # type: ignore[assignment, method-assign]
