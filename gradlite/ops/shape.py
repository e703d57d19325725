"""Views and copies in another shape: reshape, transpose, squeeze, diagonal, flip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.memory_format import contiguous_format, memory_format
from gradlite.ops.dims import infer_shape, sizes, wrap_dim, wrap_dims
from gradlite.ops.dispatch import apply1
from gradlite.ops.layout import copy_order, laid_out
from gradlite.ops.op import Op, type_name
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.ops.views import apply_view
from gradlite.tensor import Tensor, wrap

__all__ = [
    "diagonal",
    "flatten",
    "flip",
    "moveaxis",
    "movedim",
    "permute",
    "reshape",
    "squeeze",
    "swapaxes",
    "swapdims",
    "t",
    "transpose",
    "unflatten",
    "unsqueeze",
]


def _without_copy(x: Any, shape: tuple[int, ...]) -> bool:
    """Whether the strides allow a shape as a view."""
    if x.flags.c_contiguous or x.size == 0:
        return True
    if not isinstance(x, np.ndarray):  # strides decide: any memory will do, nobody reads it
        x = np.lib.stride_tricks.as_strided(np.empty(1, np.uint8), x.shape, x.strides)
    try:
        np.reshape(x, shape, copy=False)
        return True
    except ValueError:
        return False


def _as_dtype(input: Tensor, dtype: dtypes.dtype) -> Tensor:
    """The same bytes as elements of another dtype, without a gradient as in PyTorch."""
    x, to = input.array, dtype.numpy
    if to.itemsize != x.itemsize:
        told = f"to view {type_name(x.dtype)} as {type_name(to)} (different element sizes)"
        if not x.ndim:
            raise RuntimeError(f"self.dim() cannot be 0 {told}")
        times = to.itemsize // x.itemsize or 1  # 1: each element becomes several
        strides = input.stride()
        for part, number, unit in (
            ("self.size(-1)", x.shape[-1], times),
            ("self.storage_offset()", input.storage_offset(), times),
            ("self.stride(-1)", strides[-1], None),
            *((f"self.stride({d})", strides[d], times) for d in range(x.ndim - 1)),
        ):
            if unit is None and number != 1:
                raise RuntimeError(f"{part} must be 1 {told}, but got {number}")
            if unit is not None and number % unit:
                raise RuntimeError(f"{part} must be divisible by {unit} {told}, but got {number}")
    result = wrap(x.view(to))
    result._counter = input._counter
    return result


class View(Op):
    """The same elements in another shape."""

    moves = True

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
def view(input: Tensor, *shape: Any, dtype: dtypes.dtype | None = None) -> Tensor:
    """A view in another shape, one size of which may be -1; or the same bytes as another dtype.

    >>> import gradlite
    >>> gradlite.arange(4).view(2, -1)
    tensor([[0, 1],
            [2, 3]])
    >>> gradlite.tensor([1.0, -0.0]).view(gradlite.int32)
    tensor([ 1065353216, -2147483648], dtype=gradlite.int32)

    Raises:
        RuntimeError: the sizes do not fit, or the strides do not allow a view (use `reshape`).
    """
    if dtype is not None or (len(shape) == 1 and isinstance(shape[0], dtypes.dtype)):
        return _as_dtype(input, dtype or shape[0])
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
    return _reshaped(input, sizes((shape,)) if not isinstance(shape, int) else (shape,))


def _reshaped(input: Tensor, shape: tuple[int, ...]) -> Tensor:
    target = infer_shape(shape, input.array.size)
    if input.array.flags.c_contiguous:
        return apply_view(View, input, target)
    if _without_copy(input.array, target):
        return apply_view(ReshapeAlias, input, target)
    return apply1(UnsafeView, input.clone(), target)


def _reshape_method(self: Tensor, *shape: Any) -> Tensor:
    return _reshaped(self, sizes(shape))


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
        return _reshaped(input, (1,))
    start, end = wrap_dim(start_dim, len(shape)), wrap_dim(end_dim, len(shape))
    if start > end:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if start == end:
        return input
    merged = 1
    for n in shape[start : end + 1]:
        merged *= n
    return _reshaped(input, (*shape[:start], merged, *shape[end + 1 :]))


@public(samples=lambda: [S(normal(2, 12), 1, (3, 4)), S(normal(12), 0, (-1, 4))], method=True)
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Split one dimension into several.

    >>> import gradlite
    >>> gradlite.unflatten(gradlite.ones(2, 12), 1, (3, 4)).shape
    gradlite.Size([2, 3, 4])
    """
    shape = input.array.shape
    d = wrap_dim(dim, len(shape))
    if not len(sizes):
        raise RuntimeError("unflatten: sizes must be non-empty")
    try:
        inner = infer_shape(tuple(sizes), shape[d])
    except RuntimeError as error:
        if "is invalid for input" not in str(error):
            raise
        raise RuntimeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {d} "
            f"({shape[d]}) in the input tensor"
        ) from None
    return view(input, (*shape[:d], *inner, *shape[d + 1 :]))


class Squeeze(View):
    grad_name = "SqueezeBackward0"


class Unsqueeze(Op):
    moves = True

    def forward(xp: Any, x: Any, dim: int) -> Any:
        if xp is np:  # what NumPy's expand_dims does, without its checks; an index None is no
            shape = x.shape  # substitute, as it gives the new dimension the stride 0
            return x.reshape((*shape[:dim], 1, *shape[dim:]))
        return xp.expand_dims(x, dim)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (grad.reshape(ctx.shapes[0]),)


class SqueezeDim(View):
    grad_name = "SqueezeBackward1"
    fname = "squeeze_dim"


class SqueezeDims(View):
    grad_name = "SqueezeBackward2"
    fname = "squeeze_dims"


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
        return apply_view(Squeeze, input, tuple([n for n in shape if n != 1]))
    op = SqueezeDim if isinstance(dim, int) else SqueezeDims
    return apply_view(op, input, squeezed(shape, dim))


def squeezed(shape: tuple[int, ...], dim: int | Sequence[int]) -> tuple[int, ...]:
    """A shape without those of the named dimensions that have size 1."""
    dims = wrap_dims([dim] if isinstance(dim, int) else dim, len(shape))
    return tuple([n for d, n in enumerate(shape) if n != 1 or d not in dims])


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
    moves = True

    def forward(xp: Any, x: Any, dim0: int, dim1: int) -> Any:
        return x.swapaxes(dim0, dim1) if x.ndim else x.view()

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.transpose(grad, *ctx.attrs),)


class T(Transpose):
    grad_name = "TBackward0"


class Permute(Op):
    moves = True

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
    order = tuple([wrap_dim(d, n) for d in dims])
    if len(set(order)) != n:
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    return apply_view(Permute, input, order)


def _permute_method(self: Tensor, *dims: Any) -> Tensor:
    return permute(self, sizes(dims))


@public(
    samples=lambda: [
        S(normal(2, 3, 4), 0, 2), S(normal(2, 3, 4), (0, 1), (2, 0)), S(normal(), 0, -1),
    ],
    method=True,
)  # fmt: skip
def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Move dimensions to other places; the rest keep their order.

    >>> import gradlite
    >>> gradlite.movedim(gradlite.ones(2, 3, 4), 0, 2).shape
    gradlite.Size([3, 4, 2])
    """
    n = input.array.ndim
    given = [[d] if isinstance(d, int) else list(d) for d in (source, destination)]
    if len(given[0]) != len(given[1]):
        raise RuntimeError(
            f"movedim: Invalid source or destination dims: source ({given[0]} dims) should contain "
            f"the same number of dims as destination ({given[1]} dims)"
        )
    src, dst = ([wrap_dim(d, n) for d in dims] for dims in given)
    for name, wrapped, dims in zip(("source", "destination"), (src, dst), given):
        if len(set(wrapped)) != len(wrapped):
            raise RuntimeError(f"movedim: repeated dim in `{name}` ({dims})")
    order = [d for d in range(n) if d not in src]
    for d, s in sorted(zip(dst, src)):
        order.insert(d, s)
    return permute(input, order[:n])  # of a number, which takes the dimensions 0 and -1


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
    first, second = wrap_dim(dim1, n), wrap_dim(dim2, n)
    if first == second:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return apply_view(Diagonal, input, offset, first, second)


class Diagonal(Op):
    moves = True

    def forward(xp: Any, x: Any, offset: int, dim1: int, dim2: int) -> Any:
        result = xp.diagonal(x, offset, dim1, dim2)
        if isinstance(result, np.ndarray) and x.flags.writeable:
            result.setflags(write=True)
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
    moves = True

    def forward(xp: Any, x: Any, dims: tuple[int, ...]) -> Any:
        return xp.flip(x, dims).copy(copy_order(x))

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
    reversed_dims = wrap_dims((dims,) if isinstance(dims, int) else dims, n)
    return apply1(Flip, input, reversed_dims if n else ())


def _flip(self: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """A copy with some dimensions reversed."""
    args = args or (() if dims is None else (dims,))
    if not args:
        raise TypeError('flip() missing 1 required positional arguments: "dims"')
    return flip(self, sizes(args))


class Contiguous(Op):
    moves = True
    grad_name = "CloneBackward0"

    def forward(xp: Any, x: Any, order: tuple[int, ...] | None = None) -> Any:
        if order is not None:
            return laid_out(xp, x, order)
        return xp.ascontiguousarray(x).reshape(x.shape)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (grad,)


@public(samples=lambda: [S(normal(2, 3))], torch="Tensor.contiguous", method=True)
def contiguous(input: Tensor, memory_format: memory_format = contiguous_format) -> Tensor:
    """The tensor itself when its elements lie in row-major order, else such a copy.

    ``memory_format=gradlite.channels_last`` stands for that order of four dimensions.

    >>> import gradlite
    >>> gradlite.ones(2, 3).t().contiguous().stride()
    (2, 1)
    """
    if memory_format is not contiguous_format:
        if memory_format.fits(input.array):
            return input
        return apply1(Contiguous, input, memory_format.order_of(input.array.ndim))
    return input if input.array.flags.c_contiguous else apply1(Contiguous, input)


def _attach() -> None:
    m: Any = Tensor
    m.reshape, m.permute = _reshape_method, _permute_method
    m.view_as = lambda self, other: view(self, other.array.shape)
    m.reshape_as = lambda self, other: reshape(self, other.array.shape)
    m.flip = _flip
    m.__reversed__ = lambda self: flip(self, (0,)) if self.array.ndim else self
    m.swapdims = transpose
    m.T = property(lambda self: permute(self, range(self.array.ndim)[::-1]))
    m.mT = property(_matrix_transpose)
    m.ravel = lambda self: flatten(contiguous(self))


def _matrix_transpose(self: Tensor) -> Tensor:
    if self.array.ndim < 2:
        raise RuntimeError(
            "tensor.mT is only supported on matrices or batches of matrices. "
            f"Got {self.array.ndim}-D tensor."
        )
    return transpose(self, -2, -1)


@public(samples=lambda: [S(normal(2, 3), 0, 1), S(normal(2, 3, 4), axis1=-1, axis0=0)], method=True)
def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose` by NumPy's names.

    >>> import gradlite
    >>> gradlite.swapaxes(gradlite.ones(2, 3), axis0=0, axis1=1).shape
    gradlite.Size([3, 2])
    """
    return transpose(input, axis0, axis1)


_attach()
swapdims = transpose
moveaxis = movedim
Tensor.moveaxis = movedim  # type: ignore[assignment, method-assign]
