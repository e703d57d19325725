"""Repeating elements along dimensions: views with `expand`, copies with `repeat`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite.ops.binary import sum_to
from gradlite.ops.dims import sizes
from gradlite.ops.dispatch import apply1
from gradlite.ops.op import Op
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.ops.views import apply_view
from gradlite.tensor import Tensor

__all__ = ["broadcast_to"]


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


def _expand_as(self: Tensor, other: Tensor) -> Tensor:
    return expand(self, *other.array.shape)  # type: ignore[no-any-return]


Tensor.expand_as = _expand_as  # type: ignore[assignment, method-assign]
