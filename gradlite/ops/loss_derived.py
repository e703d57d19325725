"""Losses written with other ops: margins, embeddings, likelihoods.

``size_average`` and ``reduce``, the older way to say ``reduction``, are understood.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite.ops import loss_of_three as three
from gradlite.ops import pointwise_loss as pointwise
from gradlite.ops import shortcuts
from gradlite.ops.assemble import broadcast_tensors
from gradlite.ops.choose import where
from gradlite.ops.dispatch import apply
from gradlite.ops.distance import pairwise_distance
from gradlite.ops.legacy_reduction import legacy_reduction
from gradlite.ops.like import full_like
from gradlite.ops.loss import check_reduction, reduced
from gradlite.ops.operands import promoted
from gradlite.ops.row_losses import CosineEmbeddingLoss, TripletMarginLoss
from gradlite.ops.samples import S, integers, normal, positive
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "cosine_embedding_loss",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "poisson_nll_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]


def _signs(*shape: int) -> np.ndarray[Any, Any]:
    return integers(0, 2, *shape) * 2 - 1


@public(
    samples=lambda: [
        S(normal(3, 4), _signs(3, 4)),
        S(normal(5), _signs(5), margin=0.3, reduction="none"),
        S(normal(5), _signs(5), reduction="sum"),
    ],
    torch="nn.functional.hinge_embedding_loss",
    autocast="float32",
)
def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """x where y = 1, max(0, margin - x) where y = -1.

    >>> from gradlite import tensor
    >>> hinge_embedding_loss(tensor([0.5, 0.5]), tensor([1, -1]), reduction="none")
    tensor([0.5000, 0.5000])
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    fused = three.with_kernels(
        three.HingeEmbeddingLoss, three.HingeEmbedding, input, target.detach(), None, reduction,
        margin,
    )  # fmt: skip
    if fused is not None:
        return fused
    x: Any = input
    apart = where(target != 1, (margin - x).clamp(min=0), 0)
    near = where(target != -1, x, 0)
    return reduced(apart + near, reduction)


@public(
    samples=lambda: [
        S(normal(5), normal(5), _signs(5)),
        S(normal(3, 4), normal(3, 1), _signs(3, 4), 0.5, reduction="none"),
    ],
    torch="nn.functional.margin_ranking_loss",
    autocast="float32",
)
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, -y (x1 - x2) + margin).

    >>> from gradlite import tensor
    >>> x1, x2 = tensor([3.0, 1.0]), tensor([2.0, 2.0])
    >>> margin_ranking_loss(x1, x2, tensor([1, 1]), reduction="none")
    tensor([0., 1.])

    Raises:
        RuntimeError: tensors of different numbers of dimensions.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if not input1.dim() == input2.dim() == target.dim():
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: "
            f"input1: {input1.shape}, input2: {input2.shape}, target: {target.shape} "
        )
    fused = three.with_kernels(
        three.MarginRankingLoss, three.Ranking, input1, input2, target, reduction, margin
    )
    if fused is not None:
        return fused
    x1: Any = input1
    y: Any = target
    return reduced((-y * (x1 - input2) + margin).clamp(min=0), reduction)


@public(
    samples=lambda: [
        S(normal(5, 3), normal(5, 3), _signs(5)),
        S(normal(5, 3), normal(5, 3), _signs(5), 0.3, reduction="none"),
        S(normal(3), normal(3), np.asarray(-1), reduction="sum"),
    ],
    torch="nn.functional.cosine_embedding_loss",
    autocast="float32",
)
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos(x1, x2) where y = 1, max(0, cos - margin) where y = -1.

    Shapes: x1 and x2 ``(N, D)`` with y ``(N,)``, or ``(D,)`` with y ``()``.

    >>> from gradlite import tensor
    >>> x1, x2 = tensor([[1.0, 0.0], [1.0, 0.0]]), tensor([[0.0, 1.0], [2.0, 0.0]])
    >>> cosine_embedding_loss(x1, x2, tensor([1, -1]), reduction="none")
    tensor([1., 1.])

    Raises:
        RuntimeError: other shapes.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if target.dim() > 1:
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    dims = target.dim() + 1
    if input1.dim() != dims or input2.dim() != dims:
        raise RuntimeError(
            f"{dims - 1}D target tensor expects {dims}D input tensors, but found inputs with "
            f"sizes {list(input1.shape)} and {list(input2.shape)}."
        )
    check_reduction(reduction)
    x1, x2 = broadcast_tensors(*promoted(input1, input2))
    if not x1.is_floating_point():  # whose products and sums are whole numbers, and wrap around
        square1, square2 = ((x * x).sum(-1) + 1e-12 for x in (x1, x2))
        cosine = (x1 * x2).sum(-1) / (square1 * square2).sqrt()
        apart = where(target == -1, (cosine - margin).clamp(min=0), 0)
        return reduced(where(target == 1, 1 - cosine, 0) + apart, reduction)
    y = broadcast_tensors(target, x1[..., 0])[0]
    return apply(CosineEmbeddingLoss, (x1, x2, y.detach()), float(margin), reduction)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(4), _signs(4)),
        S(normal(3, 4), _signs(3, 4), reduction="none"),
    ],
    torch="nn.functional.soft_margin_loss",
    autocast="float32",
)
def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + exp(-y x)) with y = 1 or -1.

    >>> from gradlite import tensor
    >>> soft_margin_loss(tensor([0.0, 2.0]), tensor([1, -1]), reduction="none")
    tensor([0.6931, 2.1269])
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    target = pointwise.as_floats(target, input)
    fused = pointwise.with_kernels(
        pointwise.SoftMarginLoss, pointwise.SoftMargin, input, target, reduction
    )
    if fused is not None:
        return fused
    x: Any = input
    return reduced((-target * x).exp().log1p(), reduction)  # type: ignore[operator]


def _check_dims(anchor: Tensor, positive: Tensor, negative: Tensor) -> None:
    if not anchor.dim() == positive.dim() == negative.dim():
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of "
            f"dimensions, but got: anchor {anchor.dim()}D, positive {positive.dim()}D, and "
            f"negative {negative.dim()}D inputs"
        )


@public(
    samples=lambda: [
        S(normal(4, 3), normal(4, 3), normal(4, 3)),
        S(normal(4, 3), normal(4, 3), normal(4, 3), 0.5, 1.0, swap=True, reduction="none"),
        S(normal(3), normal(3), normal(3), margin=2.0),
    ],
    torch="nn.functional.triplet_margin_loss",
    autocast="float32",
)
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, |a - p| - |a - n| + margin) for anchor, positive and negative, in the p-norm.

    ``swap`` uses |p - n| where it is smaller than |a - n| (Balntas et al., 2016).

    >>> from gradlite import tensor
    >>> triplet_margin_loss(tensor([[0.0]]), tensor([[2.0]]), tensor([[1.5]]))
    tensor(1.5000)

    Raises:
        RuntimeError: tensors of different numbers of dimensions.
        ValueError: a margin that is not positive.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    rows = anchor, positive, negative
    one_dtype = all(x.array.dtype == anchor.array.dtype for x in rows)
    if one_dtype and anchor.is_floating_point() and anchor.dim() and margin > 0:
        _check_dims(*rows)
        check_reduction(reduction)
        attrs = float(margin), float(p), float(eps), bool(swap), reduction
        return apply(TripletMarginLoss, broadcast_tensors(*rows), *attrs)  # type: ignore[no-any-return]

    def distance(x1: Tensor, x2: Tensor) -> Tensor:
        return pairwise_distance(x1, x2, p, eps)

    return _triplet(anchor, positive, negative, distance, margin, swap, reduction)


@public(
    samples=lambda: [
        S(normal(4, 3), normal(4, 3), normal(4, 3)),
        S(normal(4, 3), normal(4, 3), normal(4, 3), margin=0.5, swap=True, reduction="sum"),
    ],
    torch="nn.functional.triplet_margin_with_distance_loss",
)
def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` with a distance function of one's own.

    >>> from gradlite import tensor
    >>> def city(a, b):
    ...     return (a - b).abs().sum(-1)
    >>> triplet_margin_with_distance_loss(
    ...     tensor([[0.0]]), tensor([[2.0]]), tensor([[1.5]]), distance_function=city
    ... )
    tensor(1.5000)
    """
    distance = pairwise_distance if distance_function is None else distance_function
    return _triplet(anchor, positive, negative, distance, margin, swap, reduction)


def _triplet(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    margin: float,
    swap: bool,
    reduction: str,
) -> Tensor:
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    _check_dims(anchor, positive, negative)
    near: Any = distance(anchor, positive)
    apart: Any = distance(anchor, negative)
    if swap:
        apart = apart.minimum(distance(positive, negative))
    return reduced((margin + near - apart).clamp(min=0), reduction)


@public(
    samples=lambda: [
        S(normal(5), positive(5)),
        S(positive(3, 4), positive(3, 4), log_input=False, full=True, reduction="none"),
        S(normal(5), positive(5), full=True, reduction="sum"),
    ],
    torch="nn.functional.poisson_nll_loss",
    autocast="float32",
)
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(x) - y x, or x - y log(x + eps) without ``log_input``.

    ``full`` adds Stirling's approximation of log(y!) where y > 1.

    >>> from gradlite import tensor
    >>> poisson_nll_loss(tensor([0.0, 1.0]), tensor([1.0, 2.0]), reduction="none")
    tensor([1.0000, 0.7183])
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    fused = three.with_kernels(
        three.PoissonNllLoss, three.POISSON[bool(log_input), bool(full)], input, target, None,
        reduction, eps,
    )  # fmt: skip
    if fused is not None:
        return fused
    x: Any = input
    y: Any = target
    loss = x.exp() - y * x if log_input else x - y * (x + eps).log()
    if full:
        counted = ~(y <= 1)
        safe = where(counted, y, 1)
        stirling = safe * safe.log() - safe + 0.5 * (2 * math.pi * safe).log()
        loss = loss + where(counted, stirling, 0)
    return reduced(loss, reduction)


@public(
    samples=lambda: [
        S(normal(3, 4), normal(3, 4), positive(3, 4)),
        S(normal(3, 4), normal(3, 4), positive(3), full=True, reduction="none"),
        S(normal(3, 4), normal(3, 4), positive(3, 1), reduction="sum"),
        S(normal(5), normal(5), 2.0),
    ],
    torch="nn.functional.gaussian_nll_loss",
    autocast=("", "float32"),  # as powers and logarithms are
)
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log max(var, eps) + (x - y)² / max(var, eps)) / 2; ``full`` adds log(2 pi) / 2.

    Args:
        var: a number, or a tensor of the input's shape, with its last dimension 1 or missing.

    >>> from gradlite import tensor
    >>> gaussian_nll_loss(tensor([1.0]), tensor([3.0]), tensor([4.0]))
    tensor(1.1931)

    Raises:
        ValueError: a negative variance, or one of another shape.
    """
    formula = three.FullGaussian if full else three.Gaussian
    if isinstance(var, (int, float)):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        fused = three.with_kernels(
            three.GaussianNllLoss, formula, input, target, None, reduction, eps, var
        )
        if fused is not None:
            return fused
        var = full_like(input, var)
    variance: Any = var
    if variance.shape != input.shape:
        if input.shape[:-1] == variance.shape:
            variance = variance.unsqueeze(-1)
        elif (
            input.dim() != variance.dim()
            or sum(a != b for a, b in zip(input.shape, variance.shape, strict=True)) != 1
            or 1 not in variance.shape
        ):
            raise ValueError("var is of incorrect size")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not valid")
    fine: Any = (variance.detach() < 0).any().logical_not()
    shortcuts.require(fine.array, ValueError, "var has negative entry/entries")
    fused = three.with_kernels(
        three.GaussianNllLoss, formula, input, target, variance, reduction, eps
    )
    if fused is not None:
        return fused
    # The bound is a safeguard, not part of the function: the gradient passes through it.
    variance = variance + (eps - variance.detach()).clamp(min=0)
    x: Any = input
    loss = 0.5 * (variance.log() + (x - target) ** 2 / variance)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return reduced(loss, reduction)
