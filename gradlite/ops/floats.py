"""Parts and neighbours of floating-point numbers, and arithmetic of integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes, return_types
from gradlite.ops.arithmetic import mul
from gradlite.ops.binary import Binary, binary_op, unbroadcast
from gradlite.ops.dispatch import apply, same_device
from gradlite.ops.elementwise import exp2
from gradlite.ops.gather import broadcast_shape, check_tensor
from gradlite.ops.guard import on_its_device
from gradlite.ops.halves import single
from gradlite.ops.layout import elementwise
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Elementwise, type_name
from gradlite.ops.operands import cast, fitting, operand, placed, same_device_or_scalar
from gradlite.ops.pointwise import value
from gradlite.ops.powers import pow
from gradlite.ops.rounding import Flat, sign
from gradlite.ops.samples import S, bools, constant, distinct, integers, normal, unary
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "angle",
    "bitwise_left_shift",
    "bitwise_right_shift",
    "frexp",
    "gcd",
    "heaviside",
    "isneginf",
    "isposinf",
    "isreal",
    "lcm",
    "ldexp",
    "nextafter",
    "sgn",
    "signbit",
]


@on_its_device
def _constant(input: Tensor, function: str) -> Tensor:
    xp = NAMESPACES[input.array.__class__].xp
    return wrap(xp.asarray(elementwise(xp, function, input.array)))


# -------------------------------------------------------------------------- floating point
class Frexp(Elementwise):
    """The mantissa; the exponent is an aux that the function hands out."""

    has_aux = True
    outputs = 2

    def forward(xp: Any, x: Any) -> Any:
        mantissa, exponent = xp.frexp(x)
        exponent = xp.asarray(exponent, np.int32)
        return (mantissa, exponent), exponent

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        grad = grads[0]
        xp = NAMESPACES[F.array(grad).__class__].xp
        return (grad * xp.ldexp(xp.ones_like(F.array(grad)), -ctx.aux),)


@public(
    samples=lambda: [S(distinct(3, 4) * 9), S(np.array([0.0, 0.5, -8.0]), smooth=False)],
    method=True,
    errors=lambda: [S(np.arange(3))],
)
def frexp(input: Tensor) -> Any:
    """``(mantissa, exponent)`` with ``x = mantissa * 2**exponent``, 0.5 <= |mantissa| < 1.

    >>> import gradlite
    >>> mantissa, exponent = gradlite.frexp(gradlite.tensor([6.0]))
    >>> mantissa, exponent
    (tensor([0.7500]), tensor([3], dtype=gradlite.int32))
    """
    if input.array.dtype not in dtypes.FLOATING:
        raise RuntimeError("gradlite.frexp() only supports floating-point dtypes")
    return return_types.frexp(apply(Frexp, (input,)))


class Ldexp(Elementwise):
    """x * 2**n for integers n, in one step: 2**n alone may overflow."""

    reads = ((1,), ())
    constants = (1,)

    def forward(xp: Any, x: Any, n: Any) -> Any:
        return xp.ldexp(x, n)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return unbroadcast(ctx, F, F.ldexp(grad, F.array(ctx.saved[0])), None)


# PyTorch's gradient is wrong where the exponent is a negative integer: it takes 2**other for 0.
@public(
    samples=lambda: [
        S(normal(3, 4), integers(0, 4, 4)),
        S(integers(1, 9, 3), integers(-3, 4, 3)),
        S(normal(3), normal(3)),
        S(normal(2), np.array([3, 0], np.int32)),
        S(np.array([2, 3]), np.array([True, False])),
    ],
    method=True,
    inplace="composed",
    errors=lambda: [S(normal(3), np.array([True, False, True]))],
)
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """``input * 2**other``, broadcast.

    >>> import gradlite
    >>> gradlite.ldexp(gradlite.tensor([3.0]), gradlite.tensor([2]))
    tensor([12.])
    """
    check_tensor("ldexp", "other", 2, other)
    x = input.array
    if other.array.dtype.kind in "iu":
        if x.dtype not in dtypes.FLOATING:
            input = cast(input, dtypes.get_default_dtype().numpy)
        broadcast_shape(x.shape, other.array.shape)
        return apply(Ldexp, same_device_or_scalar(input, other))  # type: ignore[no-any-return]
    if other.array.dtype == np.bool_:
        if x.dtype in dtypes.FLOATING:
            raise NotImplementedError("\"ldexp_cpu_exp\" not implemented for 'Bool'")
        return mul(input, pow(2.0, other))
    return mul(input, exp2(other))


class Nextafter(Binary):
    reads = ((0, 1), ())
    moves = True  # the next one in float32 would be rounded back

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.nextafter(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        left = right = None
        if ctx.edges[0] is not None:
            moved = F.array(ctx.saved[0]) != F.array(ctx.saved[1])
            left = F.where(moved, grad, F.zero_beside(grad))
        if ctx.edges[1] is not None:
            right = F.zeros(grad.shape, grad)
        return unbroadcast(ctx, F, left, right)


@public(
    samples=lambda: [S(normal(3, 4), normal(4))],
    method=True,
    inplace=True,
)
def nextafter(input: Tensor, other: Tensor) -> Tensor:
    """The floating-point number after each element towards ``other``.

    >>> import gradlite
    >>> gradlite.nextafter(gradlite.tensor([1.0]), gradlite.tensor([2.0])) > 1
    tensor([True])
    """
    return binary_op(Nextafter, input, other)


@public(
    samples=lambda: [S(np.array([1.0, -0.0, 0.0, -3.0])), S(integers(-3, 3, 4))],
    method=True,
    differentiable=False,
)
@on_its_device
def signbit(input: Tensor) -> Tensor:
    """Whether each element is negative, -0.0 too.

    >>> import gradlite
    >>> gradlite.signbit(gradlite.tensor([-0.0, 0.0]))
    tensor([ True, False])
    """
    if input.array.dtype in dtypes.FLOATING:
        return _constant(input, "signbit")
    return wrap(input.array < 0) if input.array.dtype.kind == "i" else _none(input)


def _none(input: Tensor) -> Tensor:
    return wrap(NAMESPACES[input.array.__class__].xp.zeros(input.array.shape, np.bool_))


@public(
    samples=lambda: [S(np.array([1.0, -np.inf, np.inf, np.nan])), S(np.arange(3))],
    method=True,
    differentiable=False,
)
@on_its_device
def isneginf(input: Tensor) -> Tensor:
    """Whether each element is negative infinity.

    >>> import gradlite
    >>> gradlite.isneginf(gradlite.tensor([1.0, -float("inf")]))
    tensor([False,  True])
    """
    return wrap(input.array == -math.inf) if input.array.dtype in dtypes.FLOATING else _none(input)


@public(
    samples=lambda: [S(np.array([1.0, -np.inf, np.inf, np.nan])), S(np.arange(3))],
    method=True,
    differentiable=False,
)
@on_its_device
def isposinf(input: Tensor) -> Tensor:
    """Whether each element is positive infinity.

    >>> import gradlite
    >>> gradlite.isposinf(gradlite.tensor([1.0, float("inf")]))
    tensor([False,  True])
    """
    return wrap(input.array == math.inf) if input.array.dtype in dtypes.FLOATING else _none(input)


@public(samples=lambda: [S(np.array([1.0, np.nan]))], method=True, differentiable=False)
@on_its_device
def isreal(input: Tensor) -> Tensor:
    """True everywhere: there are no complex numbers.

    >>> import gradlite
    >>> gradlite.isreal(gradlite.tensor([1.0]))
    tensor([True])
    """
    return wrap(~_none(input).array)


# -------------------------------------------------------------------------------- steps
@public(
    samples=lambda: [
        S(constant(np.array([1.0, -1.0, 0.0, np.nan])), constant(normal(4))),
        S(constant(normal(3, 1)), constant(normal(4))),
        S(integers(-1, 2, 4), integers(0, 9, 4)),
    ],
    method=True,
    inplace=True,
    differentiable=False,
    errors=lambda: [S(constant(normal(2)), np.arange(2))],
)
@on_its_device
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 where an element is negative, 1 where it is positive, ``values`` at 0; no gradient.

    >>> import gradlite
    >>> gradlite.heaviside(gradlite.tensor([-2.0, 0.0, 3.0]), gradlite.tensor(0.5))
    tensor([0.0000, 0.5000, 1.0000])
    """
    check_tensor("heaviside", "values", 2, values)
    same_device(input, values)
    x, at_zero = input.array, values.array
    if x.dtype != at_zero.dtype:
        raise RuntimeError("heaviside is not yet implemented for tensors with different dtypes.")
    broadcast_shape(x.shape, at_zero.shape)
    xp = NAMESPACES[x.__class__].xp
    # NaN counts as negative, as in PyTorch.
    return wrap(xp.where(x == 0, at_zero, (single(x) > 0).astype(x.dtype)))


@public(samples=lambda: [*unary(), S(integers(-3, 3, 4))], method=True, inplace=True)
def sgn(input: Tensor) -> Tensor:
    """`sign`, since there are no complex numbers.

    >>> import gradlite
    >>> gradlite.sgn(gradlite.tensor([-2.0, 3.0]))
    tensor([-1.,  1.])
    """
    return sign(input)


class Angle(Flat):
    """0, or pi for negative numbers."""

    fused_forward = value("angle")

    def forward(xp: Any, x: Any) -> Any:
        return xp.where(x < 0, x.dtype.type(math.pi), xp.where(x != x, x, x.dtype.type(0)))


@public(samples=lambda: [*unary(), S(integers(-3, 3, 4))], method=True)
def angle(input: Tensor) -> Tensor:
    """The angle of each number in the complex plane: pi for negative ones, else 0.

    >>> import gradlite
    >>> gradlite.angle(gradlite.tensor([-2.0, 3.0]))
    tensor([3.1416, 0.0000])
    """
    if input.array.dtype not in dtypes.FLOATING:
        input = cast(input, dtypes.get_default_dtype().numpy)
    return apply(Angle, (input,))  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------ integers
def _integers(name: str, function: str, input: Any, other: Any) -> Tensor:
    a, b = operand(input), operand(other)
    arrays = [v.array if isinstance(v, Tensor) else v for v in (a, b)]
    common = dtypes.result_dtype(arrays)
    if common.kind not in "iu":
        raise NotImplementedError(f"\"{name}\" not implemented for '{type_name(common)}'")
    xp = NAMESPACES[(a if isinstance(a, Tensor) else b).array.__class__].xp
    left, right = (placed(xp, fitting(v, common)).astype(common, copy=False) for v in arrays)
    broadcast_shape(left.shape, right.shape)
    return wrap(xp.asarray(elementwise(xp, function, left, right)))


@public(
    samples=lambda: [S(integers(-9, 20, 3, 4), integers(-9, 20, 4)), S(np.arange(3), np.array(0))],
    method=True,
    inplace=True,
    differentiable=False,
    errors=lambda: [S(constant(normal(2)), constant(normal(2))), S(bools(2), bools(2))],
)
@on_its_device
def gcd(input: Tensor, other: Tensor) -> Tensor:
    """The greatest common divisors of integers.

    >>> import gradlite
    >>> gradlite.gcd(gradlite.tensor([12, 7]), gradlite.tensor([8, 5]))
    tensor([4, 1])
    """
    check_tensor("gcd", "other", 2, other)
    return _integers("gcd_cpu", "gcd", input, other)


@public(
    samples=lambda: [S(integers(-9, 20, 3, 4), integers(-9, 20, 4)), S(np.arange(3), np.array(0))],
    method=True,
    inplace=True,
    differentiable=False,
    errors=lambda: [S(constant(normal(2)), constant(normal(2)))],
)
@on_its_device
def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiples of integers.

    >>> import gradlite
    >>> gradlite.lcm(gradlite.tensor([12, 7]), gradlite.tensor([8, 5]))
    tensor([24, 35])
    """
    check_tensor("lcm", "other", 2, other)
    return _integers("lcm_cpu", "lcm", input, other)


@public(
    samples=lambda: [S(integers(-9, 20, 3, 4), integers(0, 5, 4)), S(integers(0, 9, 3), 2)],
    method=True,
    inplace=True,
    differentiable=False,
    errors=lambda: [S(constant(normal(2)), 1)],
)
@on_its_device
def bitwise_left_shift(input: Any, other: Any) -> Tensor:
    """The bits of integers moved left: ``input * 2**other``.

    >>> import gradlite
    >>> gradlite.bitwise_left_shift(gradlite.tensor([1, 5]), 2)
    tensor([ 4, 20])
    """
    return _integers("lshift_cpu", "left_shift", input, other)


@public(
    samples=lambda: [S(integers(-9, 20, 3, 4), integers(0, 5, 4)), S(integers(0, 9, 3), 2)],
    method=True,
    inplace=True,
    differentiable=False,
    errors=lambda: [S(constant(normal(2)), 1)],
)
@on_its_device
def bitwise_right_shift(input: Any, other: Any) -> Tensor:
    """The bits of integers moved right: ``input / 2**other``, rounded down.

    >>> import gradlite
    >>> gradlite.bitwise_right_shift(gradlite.tensor([5, -5]), 1)
    tensor([ 2, -3])
    """
    return _integers("rshift_cpu", "right_shift", input, other)


def _attach() -> None:
    t: Any = Tensor
    t.__lshift__, t.__rshift__ = bitwise_left_shift, bitwise_right_shift
    t.__rlshift__ = lambda self, other: bitwise_left_shift(other, self)
    t.__rrshift__ = lambda self, other: bitwise_right_shift(other, self)
    t.__ilshift__, t.__irshift__ = t.bitwise_left_shift_, t.bitwise_right_shift_


_attach()
