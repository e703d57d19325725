"""Losses of regression: squared, absolute and Huber errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradlite.ops import pointwise_loss as pointwise
from gradlite.ops.choose import where
from gradlite.ops.dispatch import apply
from gradlite.ops.legacy_reduction import legacy_reduction
from gradlite.ops.loss import reduced, warn_sizes
from gradlite.ops.op import Op
from gradlite.ops.reduce import sum
from gradlite.ops.samples import S, constant, normal, positive
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["huber_loss", "l1_loss", "mse_loss", "smooth_l1_loss"]


class MseLoss(Op):
    """The mean (or sum) of (x - y)²."""

    reads = ((0, 1), (0, 1))

    def forward(xp: Any, x: Any, y: Any, scale: float) -> Any:
        difference = (x - y).reshape(-1)
        return xp.dot(difference, difference) * x.dtype.type(scale)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, y = ctx.saved
        slope = (x - y) * (grad * (2 * ctx.attrs[0]))
        if ctx.edges[0] is None:
            return None, -slope
        return slope, (-slope if ctx.edges[1] is not None else None)


def _pairs() -> list[Any]:
    return [
        S(normal(3, 4), normal(3, 4)),
        S(normal(3, 4), normal(3, 4), reduction="sum"),
        S(normal(3, 4), normal(3, 4), reduction="none"),
        S(normal(), normal()),
    ]


def _weights() -> list[Any]:
    return [
        S(normal(3, 4), normal(3, 4), weight=constant(positive(3, 4)), reduction=reduction)
        for reduction in ("mean", "sum", "none")
    ]


def _squares(input: Tensor, target: Tensor) -> Tensor:
    return (input - target) ** 2


def _distances(input: Tensor, target: Tensor) -> Tensor:
    return (input - target).abs()  # type: ignore[attr-defined,no-any-return]


def _unless_weighted(*args: Any, **kwargs: Any) -> str:
    """The policy under autocast on the CPU: with weights PyTorch composes the loss of plain ops."""
    weight = args[5] if len(args) > 5 else kwargs.get("weight")
    return "float32" if weight is None else ""


def _check_weight(input: Tensor, weight: Tensor) -> None:
    if weight.array.shape != input.array.shape:
        raise ValueError("Weights and input must have the same size.")


def _weighted(
    op: type[pointwise.PointwiseLoss],
    formula: type[pointwise.Formula],
    losses: Callable[[Tensor, Tensor], Tensor],
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    reduction: str,
) -> Tensor:
    """The weighted losses; their mean is the sum divided by that of the weights."""
    _check_weight(input, weight)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(
            f"Invalid reduction mode: {reduction}. Expected one of 'none', 'mean', 'sum'."
        )
    wanted = "sum" if reduction == "mean" else reduction
    loss = pointwise.with_kernels(op, formula, input, target, wanted, weight=weight)
    if loss is None:
        loss = reduced(losses(input, target) * weight, wanted)
    return loss / sum(weight) if reduction == "mean" else loss


@public(
    samples=lambda: [*_pairs(), *_weights()],
    torch="nn.functional.mse_loss",
    autocast=(_unless_weighted, "float32"),
)
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """The mean of ``(input - target) ** 2``; different shapes broadcast, with a warning.

    With a ``weight`` of the input's shape it is the weighted mean.

    >>> import gradlite
    >>> gradlite.nn.functional.mse_loss(gradlite.tensor([1.0, 3.0]), gradlite.zeros(2))
    tensor(5.)
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce, reduction, 4)
    warn_sizes(input, target)
    if weight is not None:
        return _weighted(
            pointwise.PointwiseMse, pointwise.SquaredError, _squares, input, target, weight,
            reduction,
        )  # fmt: skip
    fused = pointwise.with_kernels(
        pointwise.PointwiseMse, pointwise.SquaredError, input, target, reduction
    )
    if fused is not None:
        return fused
    x, y = input.array, target.array
    if x.shape == y.shape and x.dtype == y.dtype and x.size:
        if reduction in ("mean", "sum") and x.__class__ is y.__class__:
            scale = 1 / x.size if reduction == "mean" else 1.0
            return apply(MseLoss, (input, target), scale)  # type: ignore[no-any-return]
    return reduced(_squares(input, target), reduction)


@public(
    samples=lambda: [*_pairs(), *_weights()],
    torch="nn.functional.l1_loss",
    autocast=(_unless_weighted, "float32"),
)
def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """The mean of ``|input - target|``, weighted where there is a ``weight``.

    >>> import gradlite
    >>> gradlite.nn.functional.l1_loss(gradlite.tensor([1.0, 3.0]), gradlite.zeros(2))
    tensor(2.)
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce, reduction, 4)
    warn_sizes(input, target)
    if weight is not None:
        return _weighted(
            pointwise.PointwiseL1, pointwise.AbsoluteError, _distances, input, target, weight,
            reduction,
        )  # fmt: skip
    fused = pointwise.with_kernels(
        pointwise.PointwiseL1, pointwise.AbsoluteError, input, target, reduction
    )
    if fused is not None:
        return fused
    return reduced(_distances(input, target), reduction)


@public(
    samples=lambda: [*_pairs(), *_weights(), S(normal(5) * 3, normal(5), delta=0.7)],
    torch="nn.functional.huber_loss",
    autocast="float32",
)
def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Squared error up to ``delta``, linear beyond (Huber 1964).

    >>> import gradlite
    >>> gradlite.nn.functional.huber_loss(gradlite.tensor([1.0, 3.0]), gradlite.zeros(2))
    tensor(1.5000)
    """
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    warn_sizes(input, target)
    if weight is not None:
        _check_weight(input, weight)
    fused = pointwise.with_kernels(
        pointwise.HuberLoss, pointwise.HuberError, input, target, reduction,
        weight=weight, parameter=delta,
    )  # fmt: skip
    if fused is not None:
        return fused
    error = (input - target).abs()
    # A NaN is on the side where its gradient is one too.
    losses = where(error > delta, (error - 0.5 * delta) * delta, error * error * 0.5)
    return reduced(losses if weight is None else losses * weight, reduction)


@public(
    samples=lambda: [*_pairs(), S(normal(5) * 3, normal(5), beta=0.7)],
    torch="nn.functional.smooth_l1_loss",
    autocast="float32",
)
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """`huber_loss` divided by ``beta`` (Girshick 2015); the absolute error for beta 0.

    >>> import gradlite
    >>> gradlite.nn.functional.smooth_l1_loss(gradlite.tensor([1.0, 3.0]), gradlite.zeros(2))
    tensor(1.5000)
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce, reduction, 4)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    warn_sizes(input, target)
    formula = pointwise.SmoothAbsoluteError if beta > 0 else pointwise.AbsoluteError
    fused = pointwise.with_kernels(
        pointwise.SmoothL1Loss, formula, input, target, reduction, parameter=beta
    )
    if fused is not None:
        return fused
    error = (input - target).abs()
    if beta == 0:
        return reduced(error, reduction)
    losses = where(error >= beta, error - 0.5 * beta, error * error * (0.5 / beta))
    return reduced(losses, reduction)
