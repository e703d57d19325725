"""The choice between two values: where, clamp, nan_to_num."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.grad_mode import current_mode
from gradlite.ops import guard, together
from gradlite.ops.binary import sum_to
from gradlite.ops.chosen import chosen
from gradlite.ops.dispatch import apply, apply1
from gradlite.ops.gather import broadcast_shape, nonzero
from gradlite.ops.guard import on_its_device
from gradlite.ops.inplace import check_inplace
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Elementwise
from gradlite.ops.operands import (
    as_number,
    cast,
    filling,
    operand,
    placed,
    promoted,
    same_device_or_scalar,
)
from gradlite.ops.pointwise import slope
from gradlite.ops.samples import S, bools, constant, distinct, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "nan_to_num",
    "where",
]


class Where(Elementwise):
    native_backward_from = 1 << 13
    reads = ((), (0,), (0,))
    constants = (0,)

    def forward(xp: Any, condition: Any, a: Any, b: Any) -> Any:
        return chosen(xp, condition, a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (condition,) = ctx.saved
        zero = F.zero_beside(grad)
        left = right = None
        if ctx.edges[1] is not None:
            left = sum_to(F, F.where(condition, grad, zero), ctx.shapes[1])
        if ctx.edges[2] is not None:
            right = sum_to(F, F.where(condition, zero, grad), ctx.shapes[2])
        return None, left, right

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        _, *shapes = together.wanted_shapes(ctx, grad)
        found = together.gradients(K, "where_backward", grad, ctx.saved, tuple(shapes))
        return found if found is NotImplemented else (None, *found)


@public(
    samples=lambda: [
        S(bools(3, 4), normal(3, 4), normal(4)),
        S(bools(4), normal(3, 1), normal(3, 4)),
        S(bools(3), normal(3), 2.0),
        S(bools(3), 0.0, normal(3)),
        S(bools(), normal(), normal()),
        S(bools(0, 3), normal(3), normal(0, 3)),
    ],
    errors=lambda: [S(bools(2), normal(2), normal(3)), S(bools(2), normal(3), 1.0)],
)
@on_its_device
def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """``input`` where the condition holds, ``other`` elsewhere; all three broadcast.

    With the condition alone: the indices where it holds, one int64 tensor per dimension.

    >>> import gradlite
    >>> x = gradlite.tensor([1.0, -2.0])
    >>> gradlite.where(x > 0, x, 0.0)
    tensor([1., 0.])
    """
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    if condition.array.dtype != np.bool_:
        if condition.array.dtype != np.uint8:
            raise RuntimeError(
                "where expected condition to be a boolean tensor, but got a tensor with dtype "
                f"{condition.dtype.name.capitalize()}"
            )
        condition = cast(condition, np.bool_)
    a, b = operand(input), operand(other)
    xp = NAMESPACES[condition.array.__class__].xp
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        arrays = [v.array if isinstance(v, Tensor) else v for v in (a, b)]
        common = dtypes.result_dtype(arrays)
        a, b = (
            cast(v, common)
            if isinstance(v, Tensor)
            else wrap(placed(xp, filling(v, common, rounds=True), common))
            for v in (a, b)
        )
    elif a.array.dtype != b.array.dtype:
        a, b = promoted(a, b)
    a, _ = same_device_or_scalar(a, condition)
    b, _ = same_device_or_scalar(b, condition)
    broadcast_shape(broadcast_shape(condition.array.shape, a.array.shape), b.array.shape)
    return apply(Where, (condition, a, b))


class Clamp(Elementwise):
    """Between bounds; the gradient passes where the value lies within them, ends included."""

    reads = ((0,),)
    grad_name = "ClampBackward1"
    native_from = native_backward_from = 1 << 12

    def forward(xp: Any, x: Any, low: Any, high: Any) -> Any:
        if low is not None and high is not None and low > high:
            return xp.full_like(x, high)
        out = x if low is None else xp.maximum(x, x.dtype.type(low))
        return out if high is None else xp.minimum(out, x.dtype.type(high))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        low, high = ctx.attrs
        if low is None:
            inside = x <= high
        elif high is None:
            inside = x >= low
        else:
            inside = (x >= low) & (x <= high)
        return (F.where(inside, grad, F.zero_beside(grad)),)

    def fused_forward(K: Any, x: Any, low: Any, high: Any) -> Any:
        if low is None or high is None:
            if not K.serial:  # which is one launch of the array library
                return NotImplemented
        elif not low <= high:
            return NotImplemented
        if not K.takes(x):
            return NotImplemented
        x, out = K.dense(x), K.empty(x.shape, x.dtype)
        K.elementwise("clamp_forward", x.dtype, x.size, x, out, x.size, *_bounds(x, low, high))
        return out

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved
        if not K.takes(grad, x):
            return NotImplemented
        dx = K.empty(x.shape, x.dtype)
        K.elementwise(
            "clamp_backward", x.dtype, x.size,
            K.dense(grad), K.dense(x), dx, x.size, *_bounds(x, *ctx.attrs),
        )  # fmt: skip
        return (dx,)


def _bounds(x: Any, low: Any, high: Any) -> tuple[float, float]:
    """Bounds as numbers of the dtype, without end where there are none."""
    kind = x.dtype.type
    return (
        -math.inf if low is None else float(kind(low)),
        math.inf if high is None else float(kind(high)),
    )


def _edit_clamp(self: Tensor, min: Any = None, max: Any = None) -> bool:
    """Whether a kernel has limited the values of a tensor on a GPU where they are."""
    array = self.array
    numbers = [v for v in (min, max) if v is not None]
    K = NAMESPACES[array.__class__].launcher
    if (
        K is None
        or not (array.flags.c_contiguous and K.takes(array))
        or not all(isinstance(v, (int, float)) for v in numbers)
        or not numbers
        or not numbers[0] <= numbers[-1]
        or (current_mode() == 0 and self.requires_grad)  # the rule reads what is written over
    ):
        return False
    check_inplace(self)
    kind = array.dtype
    low, high = (None if v is None else filling(as_number(v), kind) for v in (min, max))
    with guard.on(array):
        K.elementwise(
            "clamp_forward", kind, array.size, array, array, array.size, *_bounds(array, low, high)
        )
    self._bump()
    return True


@public(
    samples=lambda: [
        S(distinct(3, 4), -0.5, 0.8),
        S(distinct(5), min=0.1),
        S(distinct(5), max=0.1),
        S(distinct(5), 1.0, -1.0),
        S(distinct(3, 4), distinct(4) - 2, distinct(3, 1) + 2),
    ],
    method=True,
    inplace=_edit_clamp,
)
def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Values limited to [min, max]; either bound may be a number, a tensor or None.

    >>> import gradlite
    >>> gradlite.clamp(gradlite.tensor([-2.0, 0.5, 2.0]), -1, 1)
    tensor([-1.0000,  0.5000,  1.0000])

    Raises:
        RuntimeError: neither bound was given.
    """
    if min is None and max is None:
        raise RuntimeError("clamp: At least one of 'min' or 'max' must not be None")
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return _between(input, min, max)
    if dtypes.category(input.array.dtype) < 2 and (
        isinstance(min, float) or isinstance(max, float)
    ):
        input = cast(input, dtypes.get_default_dtype().numpy)
    elif input.array.dtype == np.bool_:
        input = cast(input, np.int64)
    kind = input.array.dtype
    low = None if min is None else filling(as_number(min), kind)
    high = None if max is None else filling(as_number(max), kind)
    return apply1(Clamp, input, low, high)


class ClampBetween(Elementwise):
    """Between bounds that are arrays, or None; where they cross, the upper one counts."""

    reads = ((0, 1, 2),) * 3
    grad_name = "ClampBackward0"

    def forward(xp: Any, x: Any, low: Any, high: Any) -> Any:
        out = x if low is None else xp.maximum(x, low)
        return out if high is None else xp.minimum(out, high)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, low, high = ctx.saved
        zero, shapes, edges = F.zero_beside(grad), ctx.shapes, ctx.edges
        if low is None:
            where: tuple[Any, ...] = x <= high, None, x > high
        elif high is None:
            where = x >= low, x < low, None
        else:
            where = (
                (x >= low) & (x <= high),
                (x < low) & (low < high),
                (x > high) | (high < low),
            )
        return tuple(
            sum_to(F, F.where(holds, grad, zero), tuple(own)) if edge is not None else None
            for holds, own, edge in zip(where, shapes, edges)
        )

    def fused_forward(K: Any, x: Any, low: Any, high: Any) -> Any:
        return together.forward(K, "clamp_between_forward", (x, low, high))

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        wanted = together.wanted_shapes(ctx, grad)
        return together.gradients(K, "clamp_between_backward", grad, ctx.saved, wanted)


@on_its_device
def _between(input: Tensor, low: Any, high: Any) -> Tensor:
    """The input between bounds of which at least one is a tensor; all three decide the dtype."""
    xp = NAMESPACES[input.array.__class__].xp
    given = [v for v in (input, low, high) if v is not None]
    common = dtypes.result_dtype([v.array if isinstance(v, Tensor) else v for v in given])
    input = cast(input, common)

    def bound(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, Tensor):
            return wrap(placed(xp, filling(value, common, rounds=True), common))
        return same_device_or_scalar(cast(value, common), input)[0]

    low, high = bound(low), bound(high)
    shape = input.array.shape
    for limit in (low, high):
        if limit is not None:
            shape = broadcast_shape(shape, limit.array.shape)
    return apply(ClampBetween, (input, low, high))  # type: ignore[no-any-return]


class ClampMin(Clamp):
    grad_name = "ClampMinBackward0"

    def forward(xp: Any, x: Any, low: Any, high: Any) -> Any:
        return xp.maximum(x, x.dtype.type(low))

    fused_forward = Clamp.fused_forward


class ClampMax(Clamp):
    grad_name = "ClampMaxBackward0"

    def forward(xp: Any, x: Any, low: Any, high: Any) -> Any:
        return xp.minimum(x, x.dtype.type(high))

    fused_forward = Clamp.fused_forward


def _clamp_samples() -> list[Any]:
    return [S(distinct(3, 4), 0.15), S(distinct(5), -2), S(distinct(3, 4), distinct(4) + 0.05)]


@public(samples=_clamp_samples, method=True, inplace=True)
def clamp_min(input: Tensor, min: Any) -> Tensor:
    """Values raised to a lower bound.

    >>> import gradlite
    >>> gradlite.clamp_min(gradlite.tensor([-2.0, 0.5]), 0)
    tensor([0.0000, 0.5000])
    """
    if isinstance(min, Tensor) or input.array.dtype not in dtypes.FLOATING:
        return clamp(input, min)
    return apply1(ClampMin, input, min, None)


@public(samples=_clamp_samples, method=True, inplace=True)
def clamp_max(input: Tensor, max: Any) -> Tensor:
    """Values lowered to an upper bound.

    >>> import gradlite
    >>> gradlite.clamp_max(gradlite.tensor([-2.0, 0.5]), 0)
    tensor([-2.,  0.])
    """
    if isinstance(max, Tensor) or input.array.dtype not in dtypes.FLOATING:
        return clamp(input, None, max)
    return apply1(ClampMax, input, None, max)


class NanToNum(Elementwise):
    """Numbers in the place of NaN and infinities, which get no gradient."""

    reads = ((0,),)

    def forward(xp: Any, x: Any, nan: float, posinf: float, neginf: float) -> Any:
        if x.__class__ is np.ndarray and x.dtype.char in "fd" and np.isfinite(x).all():
            return x.copy("K")  # which takes a third of the time
        return xp.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x = F.array(ctx.saved[0])
        return (F.where(x - x == 0, grad, F.zero_beside(grad)),)

    fused_backward = slope("finite")


@public(
    samples=lambda: [
        S(constant(np.array([1.5, np.nan, np.inf, -np.inf]))),
        S(np.array([1.5, np.nan, np.inf, -np.inf]), 1.0, 2.0, 3.0, smooth=False),
        S(normal(3, 4)),
        S(np.arange(3)),
    ],
    method=True,
    inplace=True,
)
def nan_to_num(
    input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """NaN and infinities replaced: by default with 0 and the dtype's largest and smallest numbers.

    >>> import gradlite
    >>> gradlite.nan_to_num(gradlite.tensor([float("nan"), 1.0]))
    tensor([0., 1.])
    """
    if input.array.dtype not in dtypes.FLOATING:
        return input.clone()  # type: ignore[attr-defined,no-any-return]
    limits = dtypes.finfo(input.dtype)
    high = limits.max if posinf is None else posinf
    low = limits.min if neginf is None else neginf
    return apply1(NanToNum, input, nan or 0.0, high, low)


def _attach() -> None:
    t: Any = Tensor
    t.clip, t.clip_ = clamp, t.clamp_
    t.where = lambda self, condition, other: where(condition, self, other)


_attach()
clip = clamp
