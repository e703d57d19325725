"""Losses of elements, of x, y and z, as one op for where they run with kernels.

A formula is what ``kernels/loss_of_three.cu`` knows by the same number: the loss of an element and
its derivatives, here in the rules' namespace F. Elsewhere the functions that call `with_kernels`
compose the same of other ops.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite.ops.binary import sum_to
from gradlite.ops.dispatch import apply
from gradlite.ops.expansion import broadcast_to
from gradlite.ops.layout import lies_row_major
from gradlite.ops.loss_kernels import total_loss
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.natively import launcher
from gradlite.ops.op import Op
from gradlite.ops.operands import cast
from gradlite.ops.reductions import pieces_for
from gradlite.tensor import Tensor, wrap


def _given(F: Any, array: Any) -> Any:
    """A raw array as a constant of a rule."""
    return wrap(array) if F.tensors else array


class Formula:
    """A loss of elements; its functions take x, y, z (or None) and the loss's parameter."""

    number = 0
    rows = False  # whether each row of x may have a z of its own

    @staticmethod
    def value(F: Any, x: Any, y: Any, z: Any, parameter: float) -> Any:
        """The losses."""
        raise NotImplementedError

    @staticmethod
    def slopes(F: Any, grad: Any, x: Any, y: Any, z: Any, parameter: float) -> tuple[Any, ...]:
        """The gradients of the three operands, by that of the losses."""
        raise NotImplementedError


class LossOfThree(Op):
    """The losses of x, y and z by a formula, their sum or their mean.

    z is an array of the shape of x or one of which the last dimension is 1, or None, and then the
    number ``third``.
    """

    grad_name = "MeanBackward0"
    reads = ((0, 1, 2), (0, 1, 2), (0, 1, 2))

    def forward(
        xp: Any,
        x: Any,
        y: Any,
        z: Any,
        formula: type[Formula],
        reduction: str,
        third: float,
        parameter: float,
    ) -> Any:
        z = x.dtype.type(third) if z is None else z
        losses = formula.value(NAMESPACES[x.__class__], x, y, z, parameter)
        if reduction == "none":
            return losses
        return losses.mean() if reduction == "mean" else losses.sum()

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        formula, reduction, third, parameter = ctx.attrs
        x, y, z = ctx.saved
        if reduction == "mean":
            grad = grad * (1 / F.array(x).size)
        if reduction != "none":
            grad = grad + F.zeros(F.array(x).shape, grad)
        if z is None:
            z = _given(F, F.array(F.zeros((), x)) + F.array(x).dtype.type(third))
        gradients = formula.slopes(F, grad, x, y, z, parameter)
        return tuple(
            None if edge is None else sum_to(F, gradient, tuple(shape))
            for edge, gradient, shape in zip(ctx.edges, gradients, ctx.shapes)
        )

    def fused_forward(
        K: Any,
        x: Any,
        y: Any,
        z: Any,
        formula: type[Formula],
        reduction: str,
        third: float,
        parameter: float,
    ) -> Any:
        n, dtype = x.size, x.dtype
        operands = K.dense(x), K.dense(y), None if z is None else K.dense(z)
        repeat = 1 if z is None else n // z.size
        if reduction == "none":
            out = K.empty(x.shape, dtype)
            K.elementwise(
                "loss_of_three_values", dtype, n, *operands, out, n, repeat, formula.number,
                third, parameter,
            )  # fmt: skip
            return out
        pieces = pieces_for(1, n)
        partials = K.empty((pieces,), K.acc(dtype))
        K.kept_rows(
            "loss_of_three_parts", dtype, pieces, n // pieces, 2,
            *operands, partials, n, repeat, pieces, formula.number, third, parameter,
        )  # fmt: skip
        return total_loss(K, dtype, partials, pieces, 1 / n if reduction == "mean" else 1.0)[0]

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        formula, reduction, third, parameter = ctx.attrs
        x, y, z = ctx.saved
        n, dtype = x.size, x.dtype
        if not K.takes(grad, x):
            return NotImplemented
        repeat = 1 if z is None else n // z.size
        each, scale = int(reduction == "none"), 1 / n if reduction == "mean" else 1.0
        operands = K.dense(grad), K.dense(x), K.dense(y), None if z is None else K.dense(z)
        gradients = tuple(
            None if edge is None else K.empty(value.shape, dtype)
            for edge, value in zip(ctx.edges, ctx.saved)
        )
        if repeat > 1 and ctx.edges[2] is not None:
            K.rows(
                "gaussian_rows_backward", dtype, z.size, repeat, *operands, *gradients,
                z.size, repeat, each, parameter, scale,
            )  # fmt: skip
        else:
            K.elementwise(
                "loss_of_three_backward", dtype, n, *operands, *gradients, n, repeat, each,
                formula.number, third, parameter, scale,
            )  # fmt: skip
        return gradients


def with_kernels(
    op: type[LossOfThree],
    formula: type[Formula],
    input: Tensor,
    target: Tensor,
    z: Tensor | None,
    reduction: str,
    parameter: float,
    third: float = 0.0,
) -> Tensor | None:
    """The loss by one of the ops below, or None where no kernel serves these operands.

    Operands of other shapes are broadcast, and whole numbers become those of the input's dtype.
    """
    x = input.array
    F = NAMESPACES[x.__class__]
    K = F.launcher or launcher(op, F.xp, x)
    if K is None or reduction not in ("none", "mean", "sum"):
        return None
    operands: list[Any] = [input, target, *(() if z is None else (z,))]
    if not all(isinstance(t, Tensor) for t in operands):
        return None
    arrays = [t.array for t in operands]
    if reduction == "none" and not lies_row_major(*arrays):
        return None
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        return None  # the first of the other ops says what is wrong
    if math.prod(shape) >= 1 << 31 or not all(
        a.dtype == x.dtype or a.dtype.kind == "i" for a in arrays
    ):
        return None
    row = (*shape[:-1], 1) if formula.rows and shape else shape
    operands = [cast(t, x.dtype) for t in operands]
    for i, t in enumerate(operands):
        if t.array.shape != shape and not (i == 2 and t.array.shape == row):
            operands[i] = broadcast_to(t, shape)
    if not K.takes(*(t.array for t in operands)):
        return None
    if z is None:
        operands.append(None)
    return apply(  # type: ignore[no-any-return]
        op, tuple(operands), formula, reduction, float(third), float(parameter)
    )


# ----------------------------------------------------------------------------------- counts
def _stirling(F: Any, y: Any) -> tuple[Any, Any]:
    """Where log(y!) counts, and y there and 1 elsewhere."""
    counted = _given(F, ~(F.array(y) <= 1))
    return counted, F.where(counted, y, F.zeros((), y) + 1)


class PoissonOfLogarithm(Formula):
    """exp(x) - y x"""

    number = 0

    @staticmethod
    def value(F: Any, x: Any, y: Any, z: Any, parameter: float) -> Any:
        return F.exp(x) - y * x

    @staticmethod
    def slopes(F: Any, grad: Any, x: Any, y: Any, z: Any, parameter: float) -> tuple[Any, ...]:
        return grad * (F.exp(x) - y), grad * -x, None


class PoissonOfRate(Formula):
    """x - y log(x + parameter)"""

    number = 1

    @staticmethod
    def value(F: Any, x: Any, y: Any, z: Any, parameter: float) -> Any:
        return x - y * F.log(x + parameter)

    @staticmethod
    def slopes(F: Any, grad: Any, x: Any, y: Any, z: Any, parameter: float) -> tuple[Any, ...]:
        return grad * (1 - y / (x + parameter)), -grad * F.log(x + parameter), None


class _Full(Formula):
    """A formula of Poisson's and Stirling's approximation of log(y!) where y > 1."""

    part: type[Formula]

    @classmethod
    def value(cls, F: Any, x: Any, y: Any, z: Any, parameter: float) -> Any:
        counted, safe = _stirling(F, y)
        rest = safe * F.log(safe) - safe + F.log(safe * (2 * math.pi)) * 0.5
        return cls.part.value(F, x, y, z, parameter) + F.where(counted, rest, F.zeros((), y))

    @classmethod
    def slopes(cls, F: Any, grad: Any, x: Any, y: Any, z: Any, parameter: float) -> tuple[Any, ...]:
        counted, safe = _stirling(F, y)
        dx, dy, _ = cls.part.slopes(F, grad, x, y, z, parameter)
        rest = F.where(counted, F.log(safe) + 0.5 / safe, F.zeros((), y))
        return dx, dy + grad * rest, None


class FullPoissonOfLogarithm(_Full):
    number = 2
    part = PoissonOfLogarithm


class FullPoissonOfRate(_Full):
    number = 3
    part = PoissonOfRate


# By whether the input is the logarithm of the rate, and whether Stirling's approximation is added.
POISSON: dict[tuple[bool, bool], type[Formula]] = {
    (True, False): PoissonOfLogarithm,
    (False, False): PoissonOfRate,
    (True, True): FullPoissonOfLogarithm,
    (False, True): FullPoissonOfRate,
}


class PoissonNllLoss(LossOfThree):
    native_from = native_backward_from = 1 << 13
    native_dtypes = "f"


# ---------------------------------------------------------------------------------- margins
class HingeEmbedding(Formula):
    """x where y = 1, max(0, parameter - x) where y = -1, both elsewhere."""

    number = 4

    @staticmethod
    def value(F: Any, x: Any, y: Any, z: Any, parameter: float) -> Any:
        zero = F.zeros((), x)
        label = F.array(y)
        apart = F.where(_given(F, label != 1), F.maximum(parameter - x, zero), zero)
        return apart + F.where(_given(F, label != -1), x, zero)

    @staticmethod
    def slopes(F: Any, grad: Any, x: Any, y: Any, z: Any, parameter: float) -> tuple[Any, ...]:
        zero = F.zeros((), x)
        label = F.array(y)
        missing = (label != 1) & (parameter - F.array(x) >= 0)
        near = F.where(_given(F, label != -1), grad, zero)
        return near - F.where(_given(F, missing), grad, zero), None, None


class Ranking(Formula):
    """max(0, parameter - z (x - y))"""

    number = 5

    @staticmethod
    def value(F: Any, x: Any, y: Any, z: Any, parameter: float) -> Any:
        return F.maximum(parameter - z * (x - y), F.zeros((), x))

    @staticmethod
    def slopes(F: Any, grad: Any, x: Any, y: Any, z: Any, parameter: float) -> tuple[Any, ...]:
        missing = F.array(parameter - z * (x - y)) >= 0
        slope = F.where(_given(F, missing), grad, F.zeros((), x))
        return slope * -z, slope * z, slope * (y - x)


class HingeEmbeddingLoss(LossOfThree):
    native_from = native_backward_from = 1 << 10


class MarginRankingLoss(LossOfThree):
    native_from = native_backward_from = 1 << 10


# --------------------------------------------------------------------------------- variances
class Gaussian(Formula):
    """(log(variance) + (x - y)² / variance) / 2 where the variance is z, and at least parameter.

    The bound is a safeguard, not part of the function: the gradient passes through it.
    """

    number = 6
    rows = True
    constant = 0.0

    @staticmethod
    def _variance(F: Any, z: Any, parameter: float) -> Any:
        low = _given(F, F.array(z) < parameter)
        return F.where(low, z - F.detach(z) + parameter, z)

    @classmethod
    def value(cls, F: Any, x: Any, y: Any, z: Any, parameter: float) -> Any:
        variance, error = cls._variance(F, z, parameter), x - y
        return (F.log(variance) + error * error / variance) * 0.5 + cls.constant

    @classmethod
    def slopes(cls, F: Any, grad: Any, x: Any, y: Any, z: Any, parameter: float) -> tuple[Any, ...]:
        variance = cls._variance(F, z, parameter)
        error = (x - y) / variance
        return grad * error, -grad * error, grad * (0.5 / variance - 0.5 * error * error)


class FullGaussian(Gaussian):
    """`Gaussian` and log(2 pi) / 2."""

    number = 7
    constant = 0.5 * math.log(2 * math.pi)


class GaussianNllLoss(LossOfThree):
    native_from = native_backward_from = 1 << 10
    native_dtypes = "f"
