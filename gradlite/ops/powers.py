"""Powers: of tensors and numbers, by tensors and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.arithmetic import check_range
from gradlite.ops.binary import Binary, binary_op, unbroadcast
from gradlite.ops.dispatch import OUT
from gradlite.ops.pointwise import slope_of, slopes_of
from gradlite.ops.samples import S, binary, normal, positive
from gradlite.ops.table import public
from gradlite.ops.together import wanted_shapes
from gradlite.tensor import Tensor

__all__ = ["pow"]


class Pow(Binary):
    """x ** y; d/dx = y x**(y-1), 0 where y is 0; d/dy = x**y log x, 0 where x = 0 and y >= 0."""

    reads = ((0, 1), (0, 1, OUT))
    constants: tuple[int, ...] = (1,)

    def forward(xp: Any, a: Any, b: Any) -> Any:
        if b.__class__ is int and b == 2:
            return xp.multiply(a, a)
        kind = a.dtype.kind
        if kind == "b":
            return _power_of_bools(xp, a, b)
        if kind == "i" and b.__class__ is not int:
            return _power_of_integers(xp, a, b)
        return xp.power(a, b) if kind == "i" else _power(xp, a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b, out = ctx.saved
        left = right = None
        if ctx.edges[0] is not None:
            if hasattr(b, "shape"):
                zero = b == 0
                left = grad * F.where(zero, F.zeros(out_shape(a, b), a), b * a ** (b - 1))
            elif b == 0:
                left = grad * 0
            else:
                left = grad * (2 * a if b == 2 else b * _raised(F, a, b - 1))
        if ctx.edges[1] is not None:
            masked = (a == 0) & (b >= 0)
            shape = out_shape(a, b)
            safe = F.where(masked, F.zeros(shape, b) + 1, a)
            right = grad * F.where(masked, F.zeros(shape, b), out * F.log(safe))
        return unbroadcast(ctx, F, left, right)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        a, b, out = ctx.saved
        if not hasattr(b, "shape"):
            return _slope_of_power(K, grad, a, b)
        if not hasattr(a, "shape"):
            return NotImplemented  # of a number, where there is less to do
        shapes = wanted_shapes(ctx, grad)
        return slopes_of(K, "power", grad, (a, b, out), shapes)


class PowTensor(Pow):
    """`Pow` with a tensor as exponent."""

    grad_name = "PowBackward1"
    constants = ()


class PowOfNumber(Pow):
    """`Pow` of a Python number."""

    grad_name = "PowBackward2"
    constants = (0,)


def _slope_of_power(K: Any, grad: Any, base: Any, exponent: Any) -> Any:
    """The gradients of a power with a number as exponent."""
    if exponent is None or exponent == 0:
        return NotImplemented
    if exponent == 2:
        found = slope_of(K, "scaled", grad, base, 2.0)
    else:
        found = slope_of(K, "power", grad, base, float(exponent))
    return found if found is NotImplemented else (*found, None)


def _power(xp: Any, a: Any, b: Any) -> Any:
    """Powers of floats, by products where PyTorch takes those.

    NumPy's own take up to a hundred times as long where the base is below 0.
    """
    if b.__class__ is float and b == -0.5:  # PyTorch's is NaN of negative numbers, -inf too
        return 1 / xp.sqrt(a)
    if b.__class__ is float and b == 0.5:  # as PyTorch's, that of -inf is NaN, and of -0. itself
        return xp.sqrt(a)
    if xp is not np or hasattr(b, "shape") or b % 1 or b in (0, 1, 2):
        return xp.power(a, b)
    if b == 3:
        return a * a * a
    if b in (-1, -2):
        return xp.reciprocal(a if b == -1 else a * a)
    found = xp.power(xp.absolute(a), b)
    return xp.copysign(found, a) if b % 2 else found


def _raised(F: Any, a: Any, b: Any) -> Any:
    """``a ** b`` of floats and a number in a rule."""
    return a**b if F.tensors else _power(F.xp, a, b)


def _power_of_bools(xp: Any, a: Any, b: Any) -> Any:
    if b is True or b is False:
        return xp.array(a) if b else xp.ones_like(a)
    raise NotImplementedError("\"pow\" not implemented for 'Bool'")


def _power_of_integers(xp: Any, a: Any, b: Any) -> Any:
    """Powers, of which a negative one is what an integer division by the positive one gives."""
    powers = xp.power(a, xp.maximum(b, 0))
    inverses = xp.where(a == 1, a, xp.where(a == -1, 1 - 2 * (b & 1), 0))
    return xp.where(b < 0, inverses, powers).astype(a.dtype)


def out_shape(a: Any, b: Any) -> tuple[int, ...]:
    """The broadcast shape of two arrays or Tensors, either possibly a Python number."""
    return np.broadcast_shapes(getattr(a, "shape", ()), getattr(b, "shape", ()))


@public(
    samples=lambda: [
        *binary(positive, normal),
        *(S(positive(4), p) for p in (2, 3, 0.5, -1, 0, 1)),
        S(2.0, normal(3)),
    ],
    method=True,
    autocast=("", "float32"),
)
def pow(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent``, broadcast.

    >>> import gradlite
    >>> gradlite.pow(gradlite.tensor([1.0, 2.0, 3.0]), 2)
    tensor([1., 4., 9.])

    Raises:
        RuntimeError: integers to a negative integer power.
    """
    if isinstance(exponent, int) and exponent < 0:
        if isinstance(input, Tensor) and dtypes.category(input.array.dtype) < 2:
            raise RuntimeError("Integers to negative integer powers are not allowed.")
    elif exponent.__class__ is int and exponent > 127 and isinstance(input, Tensor):
        check_range(exponent, input.array.dtype)
    if isinstance(exponent, Tensor):
        return binary_op(PowTensor if isinstance(input, Tensor) else PowOfNumber, input, exponent)
    return binary_op(Pow, input, exponent)
