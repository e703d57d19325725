"""Losses of elements, x against y, as one op each for where they run with kernels.

A formula is what ``kernels/loss.cu`` knows by the same number: the loss of an element and its
derivatives, here in the rules' namespace F. On NumPy without kernels, the functions that call
`with_kernels` compose the same of other ops.
"""

from __future__ import annotations

from typing import Any

from gradlite import dtypes
from gradlite.ops.dispatch import apply
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
    """A loss of elements.

    Its functions take x, y, the weight of the positive (or None) and the loss's parameter.

    Attributes:
        number: by which kernels know it.
        range: of which op kernels note an x that is no argument of it, and in which words.
    """

    number = 0
    range: tuple[str, str] | None = None

    @staticmethod
    def value(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        """The losses."""
        raise NotImplementedError

    @staticmethod
    def by_x(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        """The derivative by x."""
        raise NotImplementedError

    @staticmethod
    def by_y(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        """The derivative by y."""
        raise NotImplementedError


# Of losses that are first averaged over the last dimension: a mean is one of all.
OF_ROWS = {"none": "rows", "sum": "sum of rows"}
_REDUCTIONS = frozenset({"none", "mean", "sum", *OF_ROWS.values()})


def _sums(x: Any, reduction: str) -> tuple[int, float]:
    """For how many losses there is one result (0: all), and what their sum is multiplied by."""
    if reduction == "none":
        return 1, 1.0
    if reduction == "rows":
        return x.shape[-1], 1 / x.shape[-1]
    if reduction == "sum of rows":
        return 0, 1 / x.shape[-1]
    return 0, 1 / x.size if reduction == "mean" else 1.0


class PointwiseLoss(Op):
    """The losses of x against y by a formula, their sum, their mean or one of `OF_ROWS`.

    Weights are of the shape of x or of its last dimensions, or of one element; they get no
    gradient.
    """

    reads = ((0, 1, 2, 3), (0, 1, 2, 3), (), ())
    constants = (2, 3)

    def forward(
        xp: Any,
        x: Any,
        y: Any,
        weight: Any,
        positive: Any,
        formula: type[Formula],
        reduction: str,
        parameter: float,
    ) -> Any:
        losses = formula.value(NAMESPACES[x.__class__], x, y, positive, parameter)
        if weight is not None:
            losses = losses * weight
        if reduction in OF_ROWS.values():
            losses = losses.sum(-1) / x.shape[-1]
        if reduction in ("none", "rows"):
            return losses
        return losses.mean() if reduction == "mean" else losses.sum()

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        formula, reduction, parameter = ctx.attrs
        x, y, weight, positive = ctx.saved
        each, scale = _sums(F.array(x), reduction)
        if reduction == "rows":
            grad = grad.reshape((*grad.shape, 1))
        if scale != 1:
            grad = grad * scale
        if weight is not None:
            grad = grad * weight
        dx, dy = (
            None if edge is None else grad * derivative(F, x, y, positive, parameter)
            for edge, derivative in zip(ctx.edges, (formula.by_x, formula.by_y))
        )
        return dx, dy, None, None

    def fused_forward(
        K: Any,
        x: Any,
        y: Any,
        weight: Any,
        positive: Any,
        formula: type[Formula],
        reduction: str,
        parameter: float,
    ) -> Any:
        n, dtype = x.size, x.dtype
        operands = (K.dense(x), K.dense(y), *(_dense(K, w) for w in (weight, positive)))
        periods = _period(weight), _period(positive)
        errors = None if formula.range is None else K.errors(*formula.range)
        each, scale = _sums(x, reduction)
        if reduction == "rows":
            if formula is not SoftLabel or positive is not None:
                return NotImplemented
            out = K.empty(x.shape[:-1], dtype)
            K.rows(
                "soft_label_rows", dtype, out.size, each, *operands[:3], out, out.size, each,
                periods[0], scale,
            )  # fmt: skip
            return out
        if reduction == "none":
            out = K.empty(x.shape, dtype)
            K.elementwise(
                "loss_values", dtype, n,
                *operands, out, errors, n, *periods, formula.number, parameter,
            )  # fmt: skip
            return out
        pieces = pieces_for(1, n)
        partials = K.empty((pieces,), K.acc(dtype))
        K.kept_rows(
            "loss_parts", dtype, pieces, n // pieces, 2,
            *operands, partials, errors, n, *periods, pieces, formula.number, parameter,
        )  # fmt: skip
        return total_loss(K, dtype, partials, pieces, scale)[0]

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        formula, reduction, parameter = ctx.attrs
        x, y, weight, positive = ctx.saved
        n, dtype = x.size, x.dtype
        if not K.takes(grad, x):
            return NotImplemented
        each, scale = _sums(x, reduction)
        dx, dy = (None if edge is None else K.empty(x.shape, dtype) for edge in ctx.edges[:2])
        K.elementwise(
            "loss_backward", dtype, n, K.dense(grad), K.dense(x), K.dense(y),
            _dense(K, weight), _dense(K, positive), dx, dy, n, _period(weight),
            _period(positive), each, formula.number, parameter, scale,
        )  # fmt: skip
        return dx, dy, None, None


def _dense(K: Any, array: Any) -> Any:
    return None if array is None else K.dense(array)


def _period(weight: Any) -> int:
    return 1 if weight is None else int(weight.size)


def as_floats(target: Tensor, input: Tensor) -> Tensor:
    """A target of whole numbers in the dtype of the input."""
    if not isinstance(target, Tensor) or target.array.dtype.kind != "i":
        return target
    kind = input.array.dtype
    return cast(target, kind) if kind in dtypes.FLOATING else target


def with_kernels(
    op: type[PointwiseLoss],
    formula: type[Formula],
    input: Tensor,
    target: Tensor,
    reduction: str,
    *,
    weight: Tensor | None = None,
    positive: Tensor | None = None,
    parameter: float = 0.0,
) -> Tensor | None:
    """The loss by one of the ops below, or None where no kernel serves these operands."""
    x, y = input.array, getattr(target, "array", None)
    F = NAMESPACES[x.__class__]
    K = F.launcher or launcher(op, F.xp, x)
    if K is None or y is None or x.shape != y.shape or x.size >= 1 << 31:
        return None
    if reduction not in _REDUCTIONS or not K.takes(x, y):
        return None
    if reduction == "none" and not lies_row_major(x, y):
        return None
    for given in (weight, positive):
        if given is None:
            continue
        if not isinstance(given, Tensor) or given.requires_grad or not K.takes(x, given.array):
            return None
        shape = given.array.shape
        if len(shape) > x.ndim or (shape != x.shape[x.ndim - len(shape) :] and given.numel() > 1):
            return None
    return apply(  # type: ignore[no-any-return]
        op, (input, target, weight, positive), formula, reduction, float(parameter)
    )


# ------------------------------------------------------------------------------- regression
class SquaredError(Formula):
    """(x - y)²"""

    number = 0

    @staticmethod
    def value(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return (x - y) * (x - y)

    @staticmethod
    def by_x(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return 2 * (x - y)

    @staticmethod
    def by_y(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return 2 * (y - x)


class AbsoluteError(Formula):
    """abs(x - y)"""

    number = 1

    @staticmethod
    def value(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return F.abs(x - y)

    @staticmethod
    def by_x(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return F.sign(x - y)

    @staticmethod
    def by_y(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return F.sign(y - x)


class SmoothAbsoluteError(Formula):
    """(x - y)² / (2 bend) up to the bend, abs(x - y) - bend / 2 beyond."""

    number = 2

    @staticmethod
    def value(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        error = F.abs(x - y)
        far = _given(F, F.array(error) >= parameter)
        return F.where(far, error - 0.5 * parameter, error * error * (0.5 / parameter))

    @staticmethod
    def by_x(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        error = x - y
        far = _given(F, F.array(F.abs(error)) >= parameter)
        return F.where(far, F.sign(error), error / parameter)

    @staticmethod
    def by_y(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return -SmoothAbsoluteError.by_x(F, x, y, positive, parameter)


class HuberError(Formula):
    """`SmoothAbsoluteError` times its bend."""

    number = 3

    @staticmethod
    def value(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return SmoothAbsoluteError.value(F, x, y, positive, parameter) * parameter

    @staticmethod
    def by_x(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return SmoothAbsoluteError.by_x(F, x, y, positive, parameter) * parameter

    @staticmethod
    def by_y(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return HuberError.by_x(F, x, y, positive, parameter) * -1


class PointwiseMse(PointwiseLoss):
    grad_name = "MseLossBackward0"
    native_from = native_backward_from = 1 << 17


class PointwiseL1(PointwiseLoss):
    grad_name = "MeanBackward0"
    native_from = native_backward_from = 1 << 14


class SmoothL1Loss(PointwiseLoss):
    native_from = native_backward_from = 1 << 8


class HuberLoss(PointwiseLoss):
    native_from = native_backward_from = 1 << 8


# --------------------------------------------------------------------------- probabilities
class BinaryEntropy(Formula):
    """-(y log x + (1 - y) log(1 - x)) with logarithms cut off at -100."""

    number = 4
    range = ("binary_cross_entropy", "all elements of input should be between 0 and 1")

    @staticmethod
    def value(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        low = F.zeros((), x) - 100
        return (y - 1) * F.maximum(F.log1p(-x), low) - y * F.maximum(F.log(x), low)

    @staticmethod
    def by_x(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        product = (1 - x) * x
        return (x - y) / F.maximum(product, F.zeros(product.shape, product) + 1e-12)

    @staticmethod
    def by_y(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return F.log(1 - x) - F.log(x)


class LogisticEntropy(Formula):
    """(1 - y) x - (1 + (positive - 1) y) log(sigmoid(x))"""

    number = 5

    @staticmethod
    def _scale(y: Any, positive: Any) -> Any:
        return 1.0 if positive is None else (positive - 1) * y + 1

    @staticmethod
    def value(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return (1 - y) * x - F.log_sigmoid(x) * LogisticEntropy._scale(y, positive)

    @staticmethod
    def by_x(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return 1 - y - F.sigmoid(-x) * LogisticEntropy._scale(y, positive)

    @staticmethod
    def by_y(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return -x if positive is None else -x - (positive - 1) * F.log_sigmoid(x)


class Divergence(Formula):
    """y log y - y x"""

    number = 6

    @staticmethod
    def value(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return F.xlogy(y, y) - y * x

    @staticmethod
    def by_x(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return x * 0 - y

    @staticmethod
    def by_y(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return F.log(y) + 1 - x


class LogDivergence(Formula):
    """exp(y) (y - x)"""

    number = 7

    @staticmethod
    def value(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return F.exp(y) * (y - x)

    @staticmethod
    def by_x(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return -F.exp(y)

    @staticmethod
    def by_y(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return F.exp(y) * (y - x + 1)


class SoftMargin(Formula):
    """log(1 + exp(-y x))"""

    number = 8

    @staticmethod
    def value(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return F.log1p(F.exp(-y * x))

    @staticmethod
    def by_x(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return -y * F.sigmoid(-y * x)

    @staticmethod
    def by_y(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return -x * F.sigmoid(-y * x)


class SoftLabel(Formula):
    """-(y log(sigmoid(x)) + (1 - y) log(sigmoid(-x)))"""

    number = 9

    @staticmethod
    def value(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return -(y * F.log_sigmoid(x) + (1 - y) * F.log_sigmoid(-x))

    @staticmethod
    def by_x(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return (1 - y) * F.sigmoid(x) - y * F.sigmoid(-x)

    @staticmethod
    def by_y(F: Any, x: Any, y: Any, positive: Any, parameter: float) -> Any:
        return -x


class BinaryCrossEntropy(PointwiseLoss):
    pass


class BinaryCrossEntropyWithLogits(PointwiseLoss):
    native_from = native_backward_from = 1 << 8
    native_dtypes = "f"


class KlDivergence(PointwiseLoss):
    grad_name = "MeanBackward0"


class SoftMarginLoss(PointwiseLoss):
    native_from = native_backward_from = 1 << 10
    native_dtypes = "f"


class MultilabelSoftMarginLoss(PointwiseLoss):
    grad_name = "MeanBackward0"
    native_from = native_backward_from = 1 << 10
    native_dtypes = "f"
