"""Repeating elements: views with `expand` and `unfold`, copies with `repeat`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite.ops.binary import sum_to
from gradlite.ops.dims import sizes, wrap_dim
from gradlite.ops.dispatch import apply1
from gradlite.ops.op import Op
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.ops.views import apply_view
from gradlite.tensor import Tensor

__all__ = ["broadcast_to"]


class Expand(Op):
    moves = True

    def forward(xp: Any, x: Any, shape: tuple[int, ...]) -> Any:
        if tuple(shape) == x.shape:
            return x.view()
        if xp is np and x.flags.writeable:  # so that in-place checks, not NumPy, decide
            lead = len(shape) - x.ndim
            strides = [0 if m == 1 != n else s for n, m, s in zip(shape[lead:], x.shape, x.strides)]
            for d in range(lead - 1, -1, -1):  # what is not repeated is a new dimension
                strides.insert(0, strides[0] * shape[d + 1] if x.ndim and shape[d] == 1 else 0)
            if (
                x.__class__ is np.ndarray
                and x.size
                and x.flags.c_contiguous
                and x.dtype.kind in "fiub"
            ):
                return np.ndarray(shape, x.dtype, x, 0, strides)  # as `as_strided`, but at once
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


def _expand_as(self: Tensor, other: Tensor) -> Tensor:
    return expand(self, *other.array.shape)  # type: ignore[no-any-return]


Tensor.expand_as = _expand_as  # type: ignore[assignment, method-assign]


# ------------------------------------------------------------------------------- windows
class Unfold(Op):
    """A view of the windows along a dimension, whose elements become the last one."""

    moves = True

    def forward(xp: Any, x: Any, dim: int, size: int, step: int) -> Any:
        if x.ndim == 0:
            return x.reshape(1)[:size]
        shape = (*x.shape[:dim], (x.shape[dim] - size) // step + 1, *x.shape[dim + 1 :], size)
        strides = list(x.strides)
        strides[dim] *= step
        return xp.lib.stride_tricks.as_strided(x, shape, (*strides, x.strides[dim]))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.unfold_grad(grad, tuple(ctx.shapes[0]), *ctx.attrs),)


class UnfoldGrad(Op):
    """Each window's gradient added to where the window came from."""

    delegates = True
    grad_name = "UnfoldBackwardBackward0"

    def forward(xp: Any, g: Any, shape: tuple[int, ...], dim: int, size: int, step: int) -> Any:
        if not shape:
            return xp.asarray(g.sum())
        out = xp.zeros(shape, g.dtype)
        before = (slice(None),) * dim
        count = g.shape[dim]
        if size <= count:
            for k in range(size):
                out[(*before, slice(k, k + (count - 1) * step + 1, step))] += g[..., k]
        else:
            windows = xp.moveaxis(g, -1, dim + 1)
            for k in range(count):
                out[(*before, slice(k * step, k * step + size))] += windows[(*before, k)]
        return out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.unfold(grad, *ctx.attrs[1:]),)


@public(
    samples=lambda: [
        S(normal(7), 0, 2, 1),
        S(normal(7), 0, 3, 2),
        S(normal(2, 6, 3), 1, 2, 4),
        S(normal(2, 6), -1, 5, 1),
        S(normal(2, 3), 0, 2, 5),
        S(normal(3, 2), 0, 0, 1),
        S(normal(), 0, 1, 1),
    ],
    torch="Tensor.unfold",
    method="unfold",
    errors=lambda: [
        S(normal(4), 0, 5, 1),
        S(normal(4), 0, -1, 1),
        S(normal(4), 0, 2, 0),
        S(normal(4), 1, 2, 1),
    ],
)
def unfold_dimension(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """`Tensor.unfold`: a view of all windows of ``size`` elements along a dimension.

    Windows start every ``step`` elements; the elements of each are the last dimension.

    >>> import gradlite
    >>> gradlite.arange(4).unfold(0, 2, 1)
    tensor([[0, 1],
            [1, 2],
            [2, 3]])

    Raises:
        RuntimeError: the windows are larger than the dimension, or the step is not positive.
    """
    shape = input.array.shape
    d = wrap_dim(dimension, len(shape))
    n = shape[d] if shape else 1
    if size > n:
        raise RuntimeError(f"maximum size for tensor at dimension {d} is {n} but size is {size}")
    if size < 0:
        raise RuntimeError(f"size is {size} but must be >= 0")
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    return apply_view(Unfold, input, d, int(size), int(step))
