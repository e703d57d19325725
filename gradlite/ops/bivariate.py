"""Functions of two arguments beyond arithmetic: atan2, hypot, fmod, logaddexp, copysign."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import elements_compiled
from gradlite.ops.arithmetic import check_division
from gradlite.ops.binary import Binary, binary_op, sum_to
from gradlite.ops.gather import check_tensor
from gradlite.ops.op import type_name
from gradlite.ops.operands import cast, operand, promoted
from gradlite.ops.pointwise import remainder_slopes, slopes, slopes_of
from gradlite.ops.samples import S, binary, constant, distinct, normal
from gradlite.ops.table import public
from gradlite.ops.together import wanted_shapes
from gradlite.tensor import Tensor

__all__ = [
    "arctan2",
    "atan2",
    "copysign",
    "float_power",
    "fmax",
    "fmin",
    "fmod",
    "hypot",
    "logaddexp",
    "logaddexp2",
]


def _to_operands(ctx: Any, F: Any, left: Any, right: Any) -> tuple[Any, Any]:
    """Sum both gradients to the shapes of their operands."""
    if ctx.shapes is not None:
        left = left if left is None else sum_to(F, left, ctx.shapes[0])
        right = right if right is None else sum_to(F, right, ctx.shapes[1])
    return left, right


class Atan2(Binary):
    reads = ((0, 1), (0, 1))
    fused_backward = slopes("atan2")

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.arctan2(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        square = a * a + b * b
        zero = F.zero_beside(grad)
        scale = F.where(square == 0, zero, grad / F.where(square == 0, zero + 1, square))
        left = scale * b if ctx.edges[0] is not None else None
        right = -scale * a if ctx.edges[1] is not None else None
        return _to_operands(ctx, F, left, right)


class Hypot(Binary):
    reads = ((0, -1), (1, -1))
    fused_backward = slopes("hypot")

    def forward(xp: Any, a: Any, b: Any) -> Any:
        made = elements_compiled.made(xp, "hypot", a, b) if a.dtype.char == "f" else None
        return xp.hypot(a, b) if made is None else made

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b, out = ctx.saved
        left = grad * (a / out) if ctx.edges[0] is not None else None
        right = grad * (b / out) if ctx.edges[1] is not None else None
        return _to_operands(ctx, F, left, right)


class Fmod(Binary):
    """a - b * trunc(a / b), the sign of a: C's fmod."""

    reads = ((), (0, 1))
    grad_name = "FmodBackward1"

    def forward(xp: Any, a: Any, b: Any) -> Any:
        made = elements_compiled.made(xp, "fmod", a, b)
        if made is not None:
            return made
        if xp is np or a.dtype.kind == "f":
            return xp.fmod(a, b)
        rest = a % b  # with the sign of b; CuPy's fmod of integers computes in float64
        return xp.where((rest != 0) & ((a < 0) != (b < 0)), rest - b, rest)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        right = None
        if ctx.edges[1] is not None:
            right = -grad * F.trunc(F.detach(a) / F.detach(b))
        return _to_operands(ctx, F, grad if ctx.edges[0] is not None else None, right)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return remainder_slopes(K, ctx, grad, 1.0)


class FmodScalar(Fmod):
    grad_name = "FmodBackward0"
    constants = (1,)


class Logaddexp(Binary):
    """log(exp(a) + exp(b))."""

    reads = ((0, 1), (0, 1))
    fused_backward = slopes("logaddexp", 1.0)

    def forward(xp: Any, a: Any, b: Any) -> Any:
        made = elements_compiled.made(xp, "logaddexp", a, b)
        return xp.logaddexp(a, b) if made is None else made

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        left = grad * F.sigmoid(a - b) if ctx.edges[0] is not None else None
        right = grad * F.sigmoid(b - a) if ctx.edges[1] is not None else None
        return _to_operands(ctx, F, left, right)


class Logaddexp2(Logaddexp):
    """log2(2**a + 2**b)."""

    fused_backward = slopes("logaddexp", math.log(2))

    def forward(xp: Any, a: Any, b: Any) -> Any:
        made = elements_compiled.made(xp, "logaddexp2", a, b)
        return xp.logaddexp2(a, b) if made is None else made

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        left = right = None
        if ctx.edges[0] is not None:
            left = grad * F.sigmoid((a - b) * math.log(2))
        if ctx.edges[1] is not None:
            right = grad * F.sigmoid((b - a) * math.log(2))
        return _to_operands(ctx, F, left, right)


class Copysign(Binary):
    """|a| with the sign of b; no gradient at a = 0, nor for b."""

    reads = ((0, -1), ())

    def forward(xp: Any, a: Any, b: Any) -> Any:
        made = elements_compiled.made(xp, "copysign", a, b)
        if made is not None:
            return made
        return xp.copysign(a, a.dtype.type(b) if not hasattr(b, "dtype") else b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        left = right = None
        if ctx.edges[0] is not None:
            a, out = ctx.saved
            left = grad * (F.sign(a) * F.sign(F.detach(out)))
        if ctx.edges[1] is not None:
            right = F.zeros(grad.shape, grad)
        return _to_operands(ctx, F, left, right)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        own, other = wanted_shapes(ctx, grad)
        if own is None:
            return NotImplemented  # there is nothing to compute
        a, out = ctx.saved
        found = slopes_of(K, "copysign", grad, (a, None, out), (own, None))
        if found is NotImplemented:
            return found
        return found[0], None if other is None else K.zeros(tuple(other), grad.dtype)


class CopysignScalar(Copysign):
    grad_name = "CopysignBackward1"
    constants = (1,)


class Fmax(Binary):
    """The larger one, or the one that is not NaN; a tie goes to the first."""

    reads = ((0, 1), (0, 1))
    fused_backward = slopes("chosen", 1.0)

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.fmax(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        return _chosen(ctx, grad, F, (a >= b) | (b != b))


class Fmin(Fmax):
    """The smaller one, or the one that is not NaN; a tie goes to the first."""

    fused_backward = slopes("chosen", -1.0)

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.fmin(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        return _chosen(ctx, grad, F, (a <= b) | (b != b))


def _chosen(ctx: Any, grad: Any, F: Any, first: Any) -> tuple[Any, Any]:
    zero = F.zero_beside(grad)
    left = F.where(first, grad, zero) if ctx.edges[0] is not None else None
    right = F.where(first, zero, grad) if ctx.edges[1] is not None else None
    return _to_operands(ctx, F, left, right)


# -------------------------------------------------------------------------- functions
def floating_op(name: str, op: Any, input: Any, other: Any) -> Tensor:
    """Two tensors whose common dtype must be floating."""
    check_tensor(name, "input", 1, input)
    check_tensor(name, "other", 2, other)
    common = dtypes.result_dtype([input.array, other.array])
    if common not in dtypes.FLOATING:
        raise NotImplementedError(f"\"{name}_cpu\" not implemented for '{type_name(common)}'")
    return binary_op(op, input, other)


@public(
    samples=lambda: [
        *binary(),
        S(np.zeros(2), np.array([0.0, 1.0]), smooth=False),
        S(np.arange(3), np.arange(3), rtol=1e-6),
    ],
    method=True,
    inplace=True,
    errors=lambda: [S(normal(3), 2.0)],
    autocast=("", "widest"),
)
def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle of the point ``(other, input)`` from the positive x axis, in (-pi, pi].

    >>> import gradlite
    >>> gradlite.atan2(gradlite.tensor([1.0, -1.0]), gradlite.tensor([1.0, -1.0]))
    tensor([ 0.7854, -2.3562])
    """
    check_tensor("atan2", "input", 1, input)
    check_tensor("atan2", "other", 2, other)
    return binary_op(Atan2, input, other, true_division=True)


@public(
    samples=lambda: binary(),
    method=True,
    inplace=True,
    errors=lambda: [S(np.arange(3), np.arange(3)), S(normal(3), 2.0)],
)
def hypot(input: Tensor, other: Tensor) -> Tensor:
    """``sqrt(input**2 + other**2)``, without overflow.

    >>> import gradlite
    >>> gradlite.hypot(gradlite.tensor([3.0]), gradlite.tensor([4.0]))
    tensor([5.])
    """
    return floating_op("hypot", Hypot, input, other)


@public(
    samples=lambda: [
        S(distinct(3, 4), distinct(4) + 3),
        S(distinct(5), 0.7),
        S(distinct(5), -0.7),
        S(np.arange(-4, 4), 3),
    ],
    method=True,
    inplace=True,
    errors=lambda: [S(np.arange(3), 0)],
)
def fmod(input: Tensor, other: Any) -> Tensor:
    """The remainder of a division with the sign of ``input``, as C's fmod.

    >>> import gradlite
    >>> gradlite.fmod(gradlite.tensor([-5.0, 5.0]), 3)
    tensor([-2.,  2.])

    Raises:
        RuntimeError: an integer is divided by 0.
    """
    check_division("fmod_cpu", input, other)
    return binary_op(Fmod if isinstance(other, Tensor) else FmodScalar, input, other)


@public(
    samples=lambda: [
        *binary(),
        S(np.array([-np.inf, 3.0]), np.array([1.0, -np.inf]), smooth=False),
    ],
    method=True,
    errors=lambda: [S(np.arange(3), np.arange(3))],
)
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """``log(exp(input) + exp(other))``, without overflow.

    >>> import gradlite
    >>> gradlite.logaddexp(gradlite.tensor([1000.0]), gradlite.tensor([1000.0]))
    tensor([1000.6932])
    """
    return floating_op("logaddexp", Logaddexp, input, other)


@public(samples=lambda: binary(), method=True, errors=lambda: [S(np.arange(3), np.arange(3))])
def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """``log2(2**input + 2**other)``, without overflow.

    >>> import gradlite
    >>> gradlite.logaddexp2(gradlite.tensor([1.0]), gradlite.tensor([1.0]))
    tensor([2.])
    """
    return floating_op("logaddexp2", Logaddexp2, input, other)


@public(
    samples=lambda: [
        *binary(),
        S(normal(3), -1),
        S(normal(3), np.array([0.0, -0.0, 1.0]), smooth=False),
        S(np.zeros(2), np.array([-1.0, 1.0]), smooth=False),
        S(np.arange(3), -1),
    ],
    method=True,
    inplace=True,
)
def copysign(input: Tensor, other: Any) -> Tensor:
    """The magnitude of ``input`` with the sign of ``other``.

    >>> import gradlite
    >>> gradlite.copysign(gradlite.tensor([1.0, -2.0]), gradlite.tensor([-1.0, 1.0]))
    tensor([-1.,  2.])
    """
    op = Copysign if isinstance(other, Tensor) else CopysignScalar
    return binary_op(op, input, other, true_division=True)


def _fmax_samples() -> list[Any]:
    return [
        *binary(distinct, normal),
        S(np.array([1.0, np.nan, 2.0]), np.array([np.nan, 1.0, 2.0]), smooth=False),
        S(np.arange(3), np.array([1, 1, 1])),
    ]


@public(samples=_fmax_samples, method=True)
def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The elementwise larger one; NaN only where both are.

    >>> import gradlite
    >>> gradlite.fmax(gradlite.tensor([1.0, float("nan")]), gradlite.tensor([0.0, 2.0]))
    tensor([1., 2.])
    """
    check_tensor("fmax", "other", 2, other)
    return binary_op(Fmax, input, other)


@public(samples=_fmax_samples, method=True)
def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The elementwise smaller one; NaN only where both are.

    >>> import gradlite
    >>> gradlite.fmin(gradlite.tensor([1.0, float("nan")]), gradlite.tensor([0.0, 2.0]))
    tensor([0., 2.])
    """
    check_tensor("fmin", "other", 2, other)
    return binary_op(Fmin, input, other)


@public(
    samples=lambda: [
        S(constant(np.abs(normal(3))), 2),
        S(constant(np.abs(normal(3))), constant(normal(3))),
        S(np.array([1, -2, 3]), 2),
        S(2, np.array([1, -2, 3])),
    ],
    method=True,
)
def float_power(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent``, computed in float64.

    >>> import gradlite
    >>> gradlite.float_power(gradlite.tensor([1, 3]), -1)
    tensor([1.0000, 0.3333], dtype=gradlite.float64)
    """
    values = [operand(v) for v in (input, exponent)]
    wide = [cast(v, np.float64) if isinstance(v, Tensor) else float(v) for v in values]
    if not isinstance(wide[0], Tensor):
        wide = list(promoted(*wide))
    return wide[0] ** wide[1]  # type: ignore[no-any-return]


def _float_power_(self: Tensor, exponent: Any) -> Tensor:
    if self.array.dtype != np.float64:
        raise RuntimeError(
            f"the base given to float_power_ has dtype {type_name(self.array.dtype)} but the "
            "operation's result requires dtype Double"
        )
    return self.pow_(exponent)  # type: ignore[attr-defined,no-any-return]


def _attach() -> None:
    t: Any = Tensor
    t.float_power_ = _float_power_
    t.arctan2, t.arctan2_ = atan2, t.atan2_


_attach()
arctan2 = atan2
