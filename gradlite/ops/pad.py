"""Padding: borders of a constant, or of what is inside, mirrored, repeated or wrapped around."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gradlite.ops.dispatch import apply1
from gradlite.ops.indexing import MOST
from gradlite.ops.op import Op
from gradlite.ops.operands import filling
from gradlite.ops.pad_sources import longest_run, sources
from gradlite.ops.samples import S, integers, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["pad"]

Sides = tuple[tuple[int, int], ...]


# ---------------------------------------------------------------------------------- ops
class ConstantPadNd(Op):
    """Borders of a constant; a negative number of elements cuts them off instead."""

    moves = True

    def forward(xp: Any, x: Any, sides: Sides, value: Any) -> Any:
        shape = tuple(n + before + after for n, (before, after) in zip(x.shape, sides))
        out = xp.full(shape, value, x.dtype) if value else xp.zeros(shape, x.dtype)
        kept, source = [], []
        for n, (before, after) in zip(x.shape, sides):
            kept.append(slice(max(before, 0), n + before + min(after, 0)))
            source.append(slice(max(-before, 0), n + min(after, 0)))
        out[tuple(kept)] = x[tuple(source)]
        return out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        back = tuple((-before, -after) for before, after in ctx.attrs[0])
        return (F.constant_pad_nd(grad, back, 0),)


class BorderPad(Op):
    """Borders taken from the inside; ``sources`` says for each padded dimension from where.

    ``geometry`` says the same to the kernels.
    """

    moves = True

    def forward(xp: Any, x: Any, sources: tuple[Any, ...], geometry: tuple[int, ...]) -> Any:
        for dim, source in sources:
            x = x.take(xp.asarray(source), axis=dim)
        return x

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.border_pad_grad(grad, tuple(ctx.shapes[0]), *ctx.attrs),)

    def fused_forward(K: Any, x: Any, sources: tuple[Any, ...], geometry: tuple[int, ...]) -> Any:
        shape = list(x.shape)
        for dim, source in sources:
            shape[dim] = len(source)
        if not 0 < math.prod(shape) < MOST or not K.takes(x):
            return NotImplemented
        out = K.empty(tuple(shape), x.dtype)
        K.elementwise("border_pad", x.dtype, out.size, K.dense(x), out, *geometry)
        return out


class BorderPadGrad(Op):
    """Each element's gradient added to where the element came from."""

    def forward(
        xp: Any, g: Any, shape: tuple[int, ...], sources: tuple[Any, ...], geometry: tuple[int, ...]
    ) -> Any:
        for dim, source in reversed(sources):
            n = shape[dim]
            before = (slice(None),) * dim
            out = xp.zeros((*g.shape[:dim], n, *g.shape[dim + 1 :]), g.dtype)
            # The long run in order at once, the borders one by one: they may meet in one place.
            start, first, count = longest_run(source)
            out[(*before, slice(first, first + count))] = g[(*before, slice(start, start + count))]
            for place, target in enumerate(source):
                if not start <= place < start + count:
                    out[(*before, int(target))] += g[(*before, place)]
            g = out
        return g

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.border_pad(grad, *ctx.attrs[1:]),)

    def fused_forward(
        K: Any, g: Any, shape: tuple[int, ...], sources: tuple[Any, ...], geometry: tuple[int, ...]
    ) -> Any:
        if not g.size < MOST or not K.takes(g):
            return NotImplemented
        out = K.empty(shape, g.dtype)
        K.elementwise("border_pad_backward", g.dtype, out.size, K.dense(g), out, *geometry)
        return out


class ReflectionPad1d(BorderPad):
    grad_name = "ReflectionPad1DBackward0"


class ReflectionPad2d(BorderPad):
    grad_name = "ReflectionPad2DBackward0"


class ReflectionPad3d(BorderPad):
    grad_name = "ReflectionPad3DBackward0"


class ReplicationPad1d(BorderPad):
    grad_name = "ReplicationPad1DBackward0"


class ReplicationPad2d(BorderPad):
    grad_name = "ReplicationPad2DBackward0"


class ReplicationPad3d(BorderPad):
    grad_name = "ReplicationPad3DBackward0"


class CircularPad(BorderPad):
    grad_name = "CopySlices"


_OPS: dict[str, tuple[Any, ...]] = {
    "reflect": (ReflectionPad1d, ReflectionPad2d, ReflectionPad3d),
    "replicate": (ReplicationPad1d, ReplicationPad2d, ReplicationPad3d),
    "circular": (CircularPad,) * 3,
}


# ----------------------------------------------------------------------------- functions
def _widths(pad: Any) -> list[int]:
    if not isinstance(pad, Sequence) or isinstance(pad, str):
        raise TypeError(
            "pad(): argument 'pad' (position 2) must be tuple of ints, "
            f"not {pad.__class__.__name__}"
        )
    for place, item in enumerate(pad):
        if not hasattr(item, "__index__"):
            raise TypeError(
                "pad(): argument 'pad' (position 2) must be tuple of ints, but found element of "
                f"type {item.__class__.__name__} at pos {place}"
            )
    return [int(item) for item in pad]


def _check_border(mode: str, shape: tuple[int, ...], pads: list[tuple[int, int]]) -> None:
    """RuntimeError when borders cannot be taken from the inside; pads from the last dim on."""
    dims = len(pads)
    if mode == "circular":
        for (before, after), n in zip(pads, reversed(shape)):
            if n + before + after < 0:
                raise RuntimeError("Negative padding value is resulting in an empty dimension")
            if max(before, after) > n + min(before, 0) + min(after, 0):
                raise RuntimeError("Padding value causes wrapping around more than once.")
        return
    if (
        0 in shape[len(shape) - dims :]
        or (len(shape) == dims + 2 and shape[1] == 0)
        or (len(shape) == dims + 1 and shape[0] == 0)
    ):
        raise RuntimeError(
            f"Expected {dims + 1}D or {dims + 2}D (batch mode) tensor with possibly 0 batch size "
            f"and other non-zero dimensions for input, but got: {list(shape)}"
        )
    if mode == "reflect":
        for place, ((before, after), n) in enumerate(zip(pads, reversed(shape))):
            if before >= n or after >= n:
                raise RuntimeError(
                    f"Argument #{4 + 2 * place}: Padding size should be less than the "
                    f"corresponding input dimension, but got: padding ({before}, {after}) at "
                    f"dimension {len(shape) - 1 - place} of input {list(shape)}"
                )
    names = "WHD"[:dims]
    outputs = [n + sum(side) for side, n in zip(pads, reversed(shape))]
    if min(outputs) < 0 < max(outputs):
        sizes = [*shape[: len(shape) - dims], *outputs[::-1]]
        raise RuntimeError(
            f"Trying to create tensor with negative dimension {min(outputs)}: {sizes}"
        )
    if max(outputs) < 1:
        own = " ".join(f"{a}: {n}" for a, n in zip(names[::-1], shape[len(shape) - dims :]))
        new = " ".join(f"{a}: {n}" for a, n in zip(names[::-1], outputs[::-1]))
        raise RuntimeError(f"input ({own}) is too small. Calculated output {new}")


def _geometry(shape: tuple[int, ...], pads: list[tuple[int, int]], kind: int) -> tuple[int, ...]:
    """What the kernels are told: how many slices there are, and size and borders of three dims.

    Dimensions that are missing have one element; ``pads`` are from the last dimension on.
    """
    padded = [(n, *side) for side, n in zip(pads, reversed(shape))]
    padded += [(1, 0, 0)] * (3 - len(padded))
    outer = math.prod(shape[: len(shape) - len(pads)])
    return (outer, kind, *(number for sizes in reversed(padded) for number in sizes))


def _cpu_policy(
    input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> str:
    """PyTorch casts these of its paddings on the CPU."""
    cast = mode == "replicate" or (mode == "reflect" and len(pad) < 6)
    return "float32" if cast else ""


@public(
    samples=lambda: [
        S(normal(2, 3), (1, 2)),
        S(normal(2, 3, 4), (1, 0, 2, 1), "constant", 1.5),
        S(normal(2, 3), (-1, 2, 1, -1)),
        S(normal(3), ()),
        S(integers(0, 5, 2, 3), (1, 1), value=7),
        S(normal(2, 3, 4), (1, 3), "reflect"),
        S(normal(2, 3, 4), (1, 2, 2, 0), "reflect"),
        S(normal(2, 2, 3, 4), (2, -1, 1, 2), "replicate"),
        S(normal(3, 4), (5, 2), "replicate"),
        S(normal(1, 2, 3, 4), (4, 2, 1, 3), "circular"),
        S(normal(2, 2, 3, 4), (1, 1, 0, 2, 1, 1), "reflect"),
        S(normal(0, 3, 4), (1, 1), "reflect"),
    ],
    torch="nn.functional.pad",
    errors=lambda: [
        S(normal(2, 3), (1,)),
        S(normal(2, 3), (1, 2, 3, 4, 5, 6)),
        S(normal(2, 3), (-2, -2)),
        S(normal(2, 3), (1, 3), "reflect"),
        S(normal(3), (1, 1), "reflect"),
        S(normal(2, 3), (1, 4), "circular"),
        S(normal(2, 3), (1, 1), "mirror"),
    ],
    autocast=(_cpu_policy, ""),
)
def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Borders around a tensor.

    Args:
        pad: elements to add before and after: (before, after) of the last dimension, then of
            the one before it, and so on. Negative numbers cut elements off.
        mode: "constant" (any number of dimensions); or for the last one, two or three
            dimensions of a tensor with one or two more: "reflect" (mirrored at the edge
            element), "replicate" (the edge element again), "circular" (from the other end).
        value: the constant, 0 by default.

    >>> import gradlite
    >>> x = gradlite.tensor([[1.0, 2.0, 3.0]])
    >>> gradlite.nn.functional.pad(x, (2, 1), "reflect")
    tensor([[3., 2., 1., 2., 3., 2.]])

    Raises:
        RuntimeError: too many numbers, or borders that the input is too small for.
        NotImplementedError: an unknown mode, or one that does not do this many dimensions.
    """
    if not isinstance(input, Tensor):
        raise TypeError(
            f"pad(): argument 'input' (position 1) must be Tensor, not {input.__class__.__name__}"
        )
    widths = _widths(pad)
    shape = input.array.shape
    if len(widths) % 2:
        raise RuntimeError("Padding length must be divisible by 2")
    if len(widths) > 2 * len(shape):
        raise RuntimeError(
            "Padding length should be less than or equal to two times the input dimension but got "
            f"padding length {len(widths)} and input of dimension {len(shape)}"
        )
    pads = list(zip(widths[::2], widths[1::2]))
    untouched = ((0, 0),) * (len(shape) - len(pads))
    if mode == "constant":
        for n, (before, after) in zip(reversed(shape), pads):
            if n + min(before, 0) + min(after, 0) < 0:
                raise RuntimeError("narrow(): length must be non-negative.")
        border = filling(float(value), input.array.dtype) if value else 0
        return apply1(ConstantPadNd, input, (*untouched, *pads[::-1]), border)
    if value is not None and value != 0:
        raise RuntimeError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if mode not in _OPS:
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    dims = len(pads)
    if dims not in (1, 2, 3) or len(shape) not in (dims + 1, dims + 2):
        raise NotImplementedError(
            f"Padding size {len(widths)} is not supported for {len(shape)}D input tensor.\n"
            "Supported combinations for non-constant padding:\n"
            "  - 2D or 3D input: padding size = 2 (pads last dimension)\n"
            "  - 3D or 4D input: padding size = 4 (pads last 2 dimensions)\n"
            "  - 4D or 5D input: padding size = 6 (pads last 3 dimensions)"
        )
    _check_border(mode, shape, pads)
    borders = tuple(
        (len(shape) - 1 - place, sources(mode, shape[-1 - place], before, after))
        for place, (before, after) in enumerate(pads)
    )
    kinds = tuple(_OPS)
    return apply1(_OPS[mode][dims - 1], input, borders, _geometry(shape, pads, kinds.index(mode)))
