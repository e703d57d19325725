"""Filling and copying: copy_, fill_, zero_, and masked_fill, masked_scatter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite.grad_mode import NO_GRAD, current_mode
from gradlite.ops import guard, indexing
from gradlite.ops.binary import mismatch, sum_to
from gradlite.ops.chosen import chosen
from gradlite.ops.dispatch import apply, apply1, node_of_edit
from gradlite.ops.gather import broadcast_shape, check_tensor
from gradlite.ops.guard import on_its_device
from gradlite.ops.inplace import assign, check_inplace, rebase, refuse_overlap
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import (
    as_number,
    filling,
    number_of,
    promote,
    same_device_or_scalar,
)
from gradlite.ops.samples import S, bools, constant, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["masked_fill", "masked_scatter"]


class CopyInto(Op):
    """A source's values in the shape and dtype of a destination."""

    reads = ((), ())
    has_aux = True
    used_up = False
    grad_name = "CopyBackwards"

    def forward(xp: Any, x: Any, source: Any) -> Any:
        return xp.broadcast_to(source.astype(x.dtype), x.shape), source.dtype

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        left = right = None
        if ctx.edges[0] is not None:
            left = F.zeros(grad.shape, grad)
        if ctx.edges[1] is not None:
            right = sum_to(F, grad, tuple(ctx.shapes[1]))
            if right.dtype != ctx.aux:
                right = F.to_copy(right, ctx.aux)
        return left, right


class FillTensor(CopyInto):
    """A 0-d tensor's value in all elements."""

    grad_name = "FillBackward3"


class Fill(Op):
    """A constant in the shape of the input: no gradient but zeros."""

    grad_name = "FillBackward2"

    def forward(xp: Any, x: Any, value: Any) -> Any:
        return xp.full_like(x, value)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.zeros(grad.shape, grad),)


class FillFrom(Fill):
    """A constant written by ``x[:] = value``."""

    grad_name = "FillBackward3"


class Zero(Fill):
    grad_name = "ZeroBackward0"


def copy_(self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """Write a tensor's values, broadcast and converted, into this one."""
    check_inplace(self)
    if not isinstance(src, Tensor):
        raise TypeError(
            f"copy_(): argument 'other' (position 1) must be Tensor, not {src.__class__.__name__}"
        )
    array, value = self.array, src.array
    if value.shape != array.shape and (
        value.ndim > array.ndim or not fits(value.shape, array.shape)
    ):
        raise RuntimeError(_copy_message(array, value))
    refuse_overlap(self, src)
    if value.__class__ is not array.__class__ or (guard.several and src.device != self.device):
        # On the CPU the values are read at once.
        later = non_blocking and not self.is_cpu
        src = src.to(self.device, non_blocking=later)  # type: ignore[attr-defined]
        value = src.array
    if current_mode() & NO_GRAD or not (self.requires_grad or src.requires_grad):
        guard.fill(array, value)
        self._bump()
        return self
    result = apply(CopyInto, (self, src))
    return assign(self, result)


def fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether a shape broadcasts to another one, but for more dimensions in front."""
    return all(n == 1 or n == m for n, m in zip(reversed(shape), reversed(target)))


def _copy_message(array: Any, value: Any) -> str:
    try:
        broadcast = np.broadcast_shapes(array.shape, value.shape)
    except ValueError:
        return mismatch(array.shape, value.shape)
    return (
        f"output with shape {list(array.shape)} doesn't match the broadcast shape {list(broadcast)}"
    )


def fill_(self: Tensor, value: Any) -> Tensor:
    """Set all elements to one value."""
    if isinstance(value, Tensor):
        if value.array.ndim:
            raise RuntimeError(
                "fill_ only supports 0-dimension value tensor but got tensor with "
                f"{value.array.ndim} dimensions."
            )
        if value.requires_grad:
            return copy_(self, value)
        if not self.requires_grad:
            return copy_(self, value.clone())  # which may be an element of this one
        value = number_of(value)
    return set_all(self, as_number(value), Fill)


def zero_(self: Tensor) -> Tensor:
    """Set all elements to 0."""
    return set_all(self, 0, Zero)


def set_all(self: Tensor, value: Any, op: Any) -> Tensor:
    """Set all elements to a number, recorded as a `Fill` when a gradient is wanted."""
    check_inplace(self)
    value = filling(value, self.array.dtype)
    if current_mode() & NO_GRAD or not self.requires_grad:
        guard.fill(self.array, value)
        self._bump()
        return self
    return assign(self, apply1(op, self, value))


# ------------------------------------------------------------------------------- masked
class MaskedFill(Op):
    """A number where a mask holds."""

    reads = ((1,), ())
    constants = (1,)

    def forward(xp: Any, x: Any, mask: Any, value: Any) -> Any:
        if xp is np:
            filling = xp.asarray(value).astype(x.dtype)
        else:  # no copy from the host
            filling = float(value) if x.dtype.kind == "f" else xp.full((), value, x.dtype)
        out = chosen(xp, mask, filling, x)
        return out if out.flags.c_contiguous else xp.ascontiguousarray(out)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (mask,) = ctx.saved
        return sum_to(F, F.masked_fill(grad, mask, 0), tuple(ctx.shapes[0])), None


class MaskedFillTensor(Op):
    """A 0-d tensor where a mask holds."""

    grad_name = "MaskedFillBackward1"
    reads = ((1,), (), (1,))
    constants = (1,)

    def forward(xp: Any, x: Any, mask: Any, value: Any) -> Any:
        out = chosen(xp, mask, value, x)
        return out if out.flags.c_contiguous else xp.ascontiguousarray(out)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (mask,) = ctx.saved
        left = right = None
        if ctx.edges[0] is not None:
            left = sum_to(F, F.masked_fill(grad, mask, 0), tuple(ctx.shapes[0]))
        if ctx.edges[2] is not None:
            right = sum_to(F, F.where(mask, grad, F.zero_beside(grad)), ())
        return left, None, right


class MaskedScatter(Op):
    """The elements of a source, in order, where a mask holds."""

    reads = ((1,), (), (1,))
    constants = (1,)

    def forward(xp: Any, x: Any, mask: Any, source: Any) -> Any:
        out = x.copy()
        out[mask] = source.reshape(-1)[: int(mask.sum())]
        return out

    def fused_forward(K: Any, x: Any, mask: Any, source: Any) -> Any:
        if not indexing.scatters_masked(K, x, source):
            return NotImplemented
        return indexing.masked_scatter(K, x, mask, source)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        (mask,) = ctx.saved
        shape = tuple(ctx.shapes[2])
        if K.serial or not K.takes(grad) or math.prod(shape) >= indexing.MOST:
            return NotImplemented
        left = right = None
        if ctx.edges[0] is not None:
            left = NAMESPACES[grad.__class__].masked_fill(grad, mask, 0)
        if ctx.edges[2] is not None:
            right = indexing.masked_elements(K, grad, mask, shape)
        return left, None, right

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (mask,) = ctx.saved
        left = right = None
        if ctx.edges[0] is not None:
            left = F.masked_fill(grad, mask, 0)
        if ctx.edges[2] is not None:
            shape = tuple(ctx.shapes[2])
            right = F.masked_select(grad, mask)
            missing = int(np.prod(shape)) - right.shape[0]
            right = F.cat([right, F.zeros((missing,), grad)], 0).reshape(shape)
        return left, None, right


@public(
    samples=lambda: [
        S(normal(3, 4), bools(3, 4), 2.5),
        S(normal(3, 4), bools(4), -1),
        S(normal(3), bools(2, 3), 0),
        S(normal(3, 4), bools(3, 1), constant(normal())),
        S(normal(3, 4), bools(4), normal()),
        S(normal(), bools(), 1.0),
        S(np.arange(3), bools(3), 1.5),
    ],
    method=True,
    inplace=True,
    errors=lambda: [
        S(normal(3), np.ones(3), 1.0),
        S(normal(3), np.ones(2, bool), 1.0),
        S(normal(3), np.ones(3, bool), np.ones(1)),
    ],
)
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """A value where a bool mask holds, the input elsewhere; input and mask broadcast.

    >>> import gradlite
    >>> gradlite.masked_fill(gradlite.tensor([1, 2]), gradlite.tensor([True, False]), 9)
    tensor([9, 2])

    Raises:
        RuntimeError: the mask is not bool, or the value is a tensor with dimensions.
    """
    op, inputs, attrs = _masked_fill(input, mask, value)
    return apply(op, inputs, *attrs)  # type: ignore[no-any-return]


def _masked_fill(input: Tensor, mask: Tensor, value: Any) -> tuple[Any, tuple[Any, ...], Any]:
    """The op that fills, its inputs and its attributes."""
    check_tensor("masked_fill", "mask", 2, mask)
    if mask.array.dtype != np.bool_:
        raise RuntimeError(
            "masked_fill_ only supports boolean masks, but got mask with dtype "
            f"{type_name(mask.array.dtype).lower()}"
        )
    broadcast_shape(mask.array.shape, input.array.shape)
    mask, _ = same_device_or_scalar(mask, input)
    if isinstance(value, Tensor):
        if value.array.ndim:
            raise RuntimeError(
                "masked_fill_ only supports a 0-dimensional value tensor, but got tensor with "
                f"{value.array.ndim} dimension(s)."
            )
        value, _ = same_device_or_scalar(value, input)
        return MaskedFillTensor, (input, mask, promote(value, input.array.dtype)), ()
    value = filling(as_number(value), input.array.dtype)
    return MaskedFill, (input, mask), (value,)


@on_its_device
def masked_fill_(self: Tensor, mask: Tensor, value: Any) -> Tensor:
    """In-place version of `masked_fill`."""
    check_inplace(self)
    op, inputs, attrs = _masked_fill(self, mask, value)
    array, holds = self.array, inputs[1].array
    F = NAMESPACES[array.__class__]
    written = broadcast_shape(holds.shape, array.shape) == array.shape
    # On a GPU by one call, where it takes the dtype, and the mask is not what is filled.
    if F.xp is not np and written and array.dtype.char in "efdlihbB":
        recorded = current_mode() & NO_GRAD == 0 and any(t.requires_grad for t in inputs)
        node = node_of_edit(op, inputs, attrs) if recorded and self._view is None else None
        if node is not None or not recorded:
            F.xp.copyto(array, inputs[2].array if attrs == () else attrs[0], where=holds)
            self._bump()
            if node is not None:
                rebase(self, node)
            return self
    return assign(self, apply(op, inputs, *attrs))


@public(
    samples=lambda: [
        S(normal(3, 4), bools(3, 4), normal(12)),
        S(normal(3, 4), bools(4), normal(3, 5)),
        S(normal(4), np.zeros(4, bool), normal(0)),
    ],
    method=True,
    inplace=True,
    errors=lambda: [S(normal(3), np.ones(3, bool), normal(2)), S(normal(3), np.ones(3), normal(3))],
)
@on_its_device
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The elements of ``source``, in order, where a bool mask holds; the input elsewhere.

    >>> import gradlite
    >>> mask = gradlite.tensor([True, False, True])
    >>> gradlite.masked_scatter(gradlite.zeros(3), mask, gradlite.tensor([5.0, 6.0]))
    tensor([5., 0., 6.])
    """
    check_tensor("masked_scatter", "mask", 2, mask)
    check_tensor("masked_scatter", "source", 3, source)
    if mask.array.dtype != np.bool_:
        raise RuntimeError("masked_scatter_ only supports boolean masks")
    if input.array.dtype != source.array.dtype:
        raise RuntimeError(
            "masked_scatter_: expected self and source to have same dtypes but got "
            f"{type_name(input.array.dtype)} and {type_name(source.array.dtype)}"
        )
    shape = broadcast_shape(input.array.shape, mask.array.shape)
    input = input if input.array.shape == shape else input.expand(shape)
    mask = mask if mask.array.shape == shape else mask.expand(shape)
    K = NAMESPACES[input.array.__class__].launcher
    # A GPU is not waited for: the kernel looks.
    if K is None or not indexing.scatters_masked(K, input.array, source.array):
        if mask.array.sum() > source.array.size:
            raise RuntimeError("Number of elements of source < number of ones in mask")
    return apply(MaskedScatter, (input, mask, source))  # type: ignore[no-any-return]


def _attach() -> None:
    t: Any = Tensor
    t.copy_, t.fill_, t.zero_ = copy_, fill_, zero_
    t.masked_fill_ = masked_fill_


_attach()
