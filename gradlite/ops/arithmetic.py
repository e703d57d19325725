"""Arithmetic on two operands: tensors, NumPy arrays or Python numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import elements_compiled, reductions
from gradlite.ops.binary import Binary, binary_op, broadcast_dims, sum_to, unbroadcast
from gradlite.ops.guard import on_its_device
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.operands import fitting, plain
from gradlite.ops.pointwise import (
    product_slopes,
    remainder_slopes,
    slopes,
    slopes_of,
    value_of_two,
)
from gradlite.ops.samples import S, binary, distinct, normal, positive
from gradlite.ops.table import public
from gradlite.ops.together import forward as forward_of_several
from gradlite.ops.together import read_in_place, wanted_shapes
from gradlite.tensor import Tensor

__all__ = [
    "add",
    "div",
    "divide",
    "floor_divide",
    "maximum",
    "minimum",
    "mul",
    "multiply",
    "remainder",
    "rsub",
    "sub",
    "subtract",
    "true_divide",
]


Number = int | float | bool


class Add(Binary):
    one_step = delegates = True
    takes_cells = True

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.add(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return unbroadcast(ctx, F, grad, grad if ctx.edges[1] is not None else None)


class Sub(Binary):
    one_step = delegates = True
    takes_cells = True

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.subtract(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return unbroadcast(ctx, F, grad, -grad if ctx.edges[1] is not None else None)


class Rsub(Binary):
    takes_cells = True

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.subtract(b, a)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        left = -grad if ctx.edges[0] is not None else None
        return unbroadcast(ctx, F, left, grad)


class RsubScalar(Rsub):
    """`Rsub` from a Python number."""

    grad_name = "RsubBackward1"
    constants = (1,)


def scaled_sum(K: Any, a: Any, b: Any, alpha: Any) -> Any:
    """a + alpha b by a kernel, where neither is a Python number."""
    if not hasattr(a, "shape") or not hasattr(b, "shape"):
        return NotImplemented
    return forward_of_several(K, "add_scaled_forward", (a, b), float(alpha))


class AddScaled(Binary):
    """a + alpha b."""

    grad_name = "AddBackward0"

    def forward(xp: Any, a: Any, b: Any, alpha: Any) -> Any:
        return xp.add(a, b * alpha)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        right = grad * ctx.attrs[0] if ctx.edges[1] is not None else None
        return unbroadcast(ctx, F, grad, right)

    def fused_forward(K: Any, a: Any, b: Any, alpha: Any) -> Any:
        return scaled_sum(K, a, b, alpha)


class SubScaled(Binary):
    """a - alpha b."""

    grad_name = "SubBackward0"

    def forward(xp: Any, a: Any, b: Any, alpha: Any) -> Any:
        return xp.subtract(a, b * alpha)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        right = grad * -ctx.attrs[0] if ctx.edges[1] is not None else None
        return unbroadcast(ctx, F, grad, right)

    def fused_forward(K: Any, a: Any, b: Any, alpha: Any) -> Any:
        return scaled_sum(K, a, b, -alpha)


class Mul(Binary):
    one_step = True
    takes_cells = True
    reads = ((1,), (0,))

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.multiply(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        return unbroadcast(ctx, F, None if b is None else grad * b, None if a is None else grad * a)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        shapes = wanted_shapes(ctx, grad)
        first, second = (own == grad.shape for own in shapes)
        # Where one operand alone is broadcast, its sum takes the product with it.
        if None not in shapes and first == second:
            if all(read_in_place(a, grad.shape) for a in ctx.saved):
                return product_slopes(K, grad, ctx.saved, shapes)
        if ctx.shapes is None:
            return NotImplemented
        gradients: list[Any] = []
        for edge, shape, other in zip(ctx.edges, ctx.shapes, reversed(ctx.saved)):
            if edge is None:
                gradients.append(None)
                continue
            found = NotImplemented
            if getattr(other, "shape", None) == grad.shape != shape:
                dims = broadcast_dims(grad.shape, shape)
                found = reductions.sums(K, grad, dims, False, factor=other)
            if found is NotImplemented:
                found = sum_to(NAMESPACES[grad.__class__], grad * other, shape)
            gradients.append(found.reshape(shape))
        return tuple(gradients)


class Div(Binary):
    takes_cells = True
    reads = ((1,), (0, 1))

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.true_divide(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        left = grad / b
        right = -left * (a / b) if ctx.edges[1] is not None else None
        return unbroadcast(ctx, F, left if ctx.edges[0] is not None else None, right)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        if ctx.edges[1] is None:
            return NotImplemented  # which is one division
        return slopes_of(K, "quotient", grad, ctx.saved, wanted_shapes(ctx, grad))


class DivFloor(Binary):
    """floor(a / b); its gradient is 0."""

    grad_name = "DivBackward2"
    fused_forward = value_of_two("floor_divide")

    def forward(xp: Any, a: Any, b: Any) -> Any:
        made = elements_compiled.made(xp, "floor_divide", a, b)
        if made is not None:
            return made
        return xp.floor_divide(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        left = F.zeros(grad.shape, grad) if ctx.edges[0] is not None else None
        right = F.zeros(grad.shape, grad) if ctx.edges[1] is not None else None
        return unbroadcast(ctx, F, left, right)


class DivTrunc(DivFloor):
    """a / b without its fraction; its gradient is 0."""

    grad_name = "DivBackward2"

    def forward(xp: Any, a: Any, b: Any) -> Any:
        if a.dtype.kind == "f":
            return xp.trunc(xp.true_divide(a, b))
        quotient = xp.abs(a) // xp.abs(b)
        return xp.where((a < 0) != (b < 0), -quotient, quotient).astype(a.dtype)


class FloorDivide(DivFloor):
    """`DivFloor`, for which PyTorch has no gradient."""

    grad_name = "NotImplemented"

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        raise RuntimeError("derivative for aten::floor_divide is not implemented")


class FloorDivideScalar(FloorDivide):
    """`FloorDivide` by a Python number."""

    grad_name = "NotImplemented"
    constants = (1,)


class Remainder(Binary):
    """a - b * floor(a / b), the sign of b: Python's %."""

    grad_name = "RemainderBackward1"
    reads = ((), (0, 1))
    fused_forward = value_of_two("remainder")

    def forward(xp: Any, a: Any, b: Any) -> Any:
        if a.dtype.kind in "iu":
            return xp.remainder(a, b)
        made = elements_compiled.made(xp, "remainder", a, b)
        if made is not None:
            return made
        out = xp.remainder(a, b)
        return xp.copysign(out, xp.where(out == 0, a, out))  # NumPy's zeros have b's sign

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        right = None
        if ctx.edges[1] is not None:
            right = -grad * F.floor(F.detach(a) / F.detach(b))
        return unbroadcast(ctx, F, grad if ctx.edges[0] is not None else None, right)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return remainder_slopes(K, ctx, grad, 0.0)


class RemainderScalar(Remainder):
    """`Remainder` by a Python number."""

    grad_name = "RemainderBackward0"
    constants = (1,)


class Maximum(Binary):
    """The larger one; a tie gives half of the gradient to each, a NaN all of it, as in PyTorch."""

    reads = ((0, 1), (0, 1))
    fused_backward = slopes("larger", 1.0)

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.maximum(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        return _extremum(ctx, grad, F, a < b, a > b)


class Minimum(Binary):
    """The smaller one; a tie gives half of the gradient to each, a NaN all of it, as in PyTorch."""

    reads = ((0, 1), (0, 1))
    fused_backward = slopes("larger", -1.0)

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.minimum(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        return _extremum(ctx, grad, F, a > b, a < b)


def _extremum(ctx: Any, grad: Any, F: Any, not_first: Any, not_second: Any) -> tuple[Any, Any]:
    a, b = ctx.saved
    tie = a == b
    left = right = None
    if ctx.edges[0] is not None:
        left = F.where(tie, grad * 0.5, F.where(not_first, F.zero_beside(grad), grad))
    if ctx.edges[1] is not None:
        right = F.where(tie, grad * 0.5, F.where(not_second, F.zero_beside(grad), grad))
    return unbroadcast(ctx, F, left, right)


# ---------------------------------------------------------------------------- functions
_BOOL = np.dtype(bool)


def _refuse_bools(*operands: Any) -> None:
    for x in operands:
        if x.array.dtype is _BOOL if isinstance(x, Tensor) else x is True or x is False:
            if all(isinstance(y, Tensor) and y.array.dtype is _BOOL for y in operands):
                raise RuntimeError(
                    "Subtraction, the `-` operator, with two bool tensors is not supported. "
                    "Use the `^` or `logical_xor()` operator instead."
                )
            raise RuntimeError(
                "Subtraction, the `-` operator, with a bool tensor is not supported. If you are "
                "trying to invert a mask, use the `~` or `logical_not()` operator instead."
            )


def _scaled(op: Any, input: Any, other: Any, alpha: Any) -> Tensor:
    common = dtypes.result_dtype([plain(input), plain(other)])
    category = dtypes.category(common)
    if alpha is True or alpha is False:
        if category > 0:
            raise RuntimeError("Boolean alpha only supported for Boolean results.")
    elif not isinstance(alpha, (int, float)):
        raise TypeError(f"argument 'alpha' must be Number, not {alpha.__class__.__name__}")
    elif category < 2 and isinstance(alpha, float):
        raise RuntimeError(
            "For integral input tensors, argument alpha must not be a floating point number."
        )
    if category == 0:
        alpha = bool(alpha)
    elif category == 1:
        check_range(alpha, common)
        alpha = fitting(alpha, common)
    return binary_op(op, input, other, (alpha,))


@public(
    samples=lambda: [*binary(), S(normal(3), 2.0), S(normal(3), normal(3), alpha=3)], method=True
)
def add(input: Any, other: Any, *, alpha: Number = 1) -> Tensor:
    """``input + alpha * other``, broadcast; dtypes promote as in PyTorch.

    >>> import gradlite
    >>> gradlite.add(gradlite.tensor([1.0, 2.0]), 10)
    tensor([11., 12.])
    """
    if alpha == 1 and alpha is not True:
        return binary_op(Add, input, other)
    return _scaled(AddScaled, input, other, alpha)


@public(
    samples=lambda: [*binary(), S(normal(3), 2.0), S(normal(3), normal(3), alpha=3)], method=True
)
def sub(input: Any, other: Any, *, alpha: Number = 1) -> Tensor:
    """``input - alpha * other``, broadcast.

    >>> import gradlite
    >>> gradlite.sub(gradlite.tensor([1.0, 2.0]), 10)
    tensor([-9., -8.])

    Raises:
        RuntimeError: an operand is bool (use ``^`` or ``logical_not``).
    """
    _refuse_bools(input, other)
    if alpha == 1 and alpha is not True:
        return binary_op(Sub, input, other)
    return _scaled(SubScaled, input, other, alpha)


@public(samples=lambda: [*binary(), S(normal(3), 2.0)])
def rsub(input: Any, other: Any, *, alpha: Number = 1) -> Tensor:
    """``other - alpha * input``.

    >>> import gradlite
    >>> gradlite.rsub(gradlite.tensor([1.0, 2.0]), 10)
    tensor([9., 8.])
    """
    _refuse_bools(input, other)
    if alpha != 1 or alpha is True:
        return sub(other, input, alpha=alpha)
    return binary_op(Rsub if isinstance(other, Tensor) else RsubScalar, input, other)


@public(samples=lambda: [*binary(), S(normal(3), 2.0)], method=True)
def mul(input: Any, other: Any) -> Tensor:
    """``input * other``, broadcast.

    >>> import gradlite
    >>> gradlite.mul(gradlite.tensor([1.0, 2.0]), 10)
    tensor([10., 20.])
    """
    return binary_op(Mul, input, other)


@public(
    samples=lambda: [
        *binary(normal, positive),
        S(normal(3), 2.0),
        S(distinct(4), 0.7, rounding_mode="floor", smooth=False),
        S(distinct(4), positive(4), rounding_mode="trunc", smooth=False),
        S(np.arange(5), 2, rounding_mode="floor"),
    ],
    method=True,
)
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``; integers give floats. ``rounding_mode`` is None, "trunc" or "floor".

    >>> import gradlite
    >>> gradlite.div(gradlite.tensor([1, 2]), 4)
    tensor([0.2500, 0.5000])
    """
    if rounding_mode is None:
        return binary_op(Div, input, other, true_division=True)
    if rounding_mode == "floor":
        check_division("div_floor_cpu", input, other)
        return binary_op(DivFloor, input, other)
    if rounding_mode == "trunc":
        check_division("div_trunc_cpu", input, other)
        return binary_op(DivTrunc, input, other)
    raise RuntimeError(
        "div expected rounding_mode to be one of None, 'trunc', or 'floor' "
        f"but found '{rounding_mode}'"
    )


@public(
    samples=lambda: [S(distinct(3, 4), positive(4)), S(distinct(5), 0.7), S(distinct(5), -0.7)],
    method=True,
)
def remainder(input: Any, other: Any) -> Tensor:
    """The remainder with the sign of ``other``, as Python's ``%``.

    >>> import gradlite
    >>> gradlite.remainder(gradlite.tensor([-3.0, 5.0]), 2)
    tensor([1., 1.])
    """
    check_division("remainder_cpu", input, other)
    return binary_op(Remainder if isinstance(other, Tensor) else RemainderScalar, input, other)


def check_range(number: int, dtype: np.dtype[Any]) -> None:
    """Refuse a factor or an exponent that integers cannot be, which does not wrap around."""
    if dtype.kind in "iu" and abs(number) > np.iinfo(dtype).max + (
        dtype.kind == "i" and number < 0
    ):
        c_type = {"int32": "int", "int64": "int64_t"}.get(dtype.name, f"{dtype.name}_t")
        raise RuntimeError(f"value cannot be converted to type {c_type} without overflow")


@on_its_device
def check_division(kernel: str, input: Any, other: Any) -> None:
    """Refuse to divide bools, and integers by 0."""
    a, b = plain(input), plain(other)
    common = dtypes.result_dtype([a, b])
    category = dtypes.category(common)
    if category == 0:
        raise NotImplementedError(f"\"{kernel}\" not implemented for 'Bool'")
    zero = category == 1 and fitting(b, common) == 0
    if zero is not False and np.any(zero):
        raise RuntimeError("ZeroDivisionError")


@public(
    samples=lambda: [S(distinct(5), 0.7), S(distinct(5), -0.7), S(np.arange(5), 3)],
    method=True,
    differentiable=False,
)
def floor_divide(input: Any, other: Any) -> Tensor:
    """``floor(input / other)``, without a gradient.

    >>> import gradlite
    >>> gradlite.floor_divide(gradlite.tensor([-3, 5]), 2)
    tensor([-2,  2])
    """
    check_division("div_floor_cpu", input, other)
    return binary_op(FloorDivide if isinstance(other, Tensor) else FloorDivideScalar, input, other)


@public(
    samples=lambda: [*binary(distinct, normal), S(np.ones(3), np.ones(3), smooth=False)],
    method=True,
)
def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The elementwise larger one; NaN wins.

    >>> import gradlite
    >>> gradlite.maximum(gradlite.tensor([1, 5]), gradlite.tensor([3, 2]))
    tensor([3, 5])
    """
    _both_tensors("maximum", input, other)
    return binary_op(Maximum, input, other)


@public(
    samples=lambda: [*binary(distinct, normal), S(np.ones(3), np.ones(3), smooth=False)],
    method=True,
)
def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The elementwise smaller one; NaN wins.

    >>> import gradlite
    >>> gradlite.minimum(gradlite.tensor([1, 5]), gradlite.tensor([3, 2]))
    tensor([1, 2])
    """
    _both_tensors("minimum", input, other)
    return binary_op(Minimum, input, other)


def _both_tensors(name: str, input: Any, other: Any) -> None:
    for position, value in ((1, input), (2, other)):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}(): argument '{('input', 'other')[position - 1]}' (position {position}) "
                f"must be Tensor, not {value.__class__.__name__}"
            )


subtract, multiply, divide, true_divide = sub, mul, div, div
