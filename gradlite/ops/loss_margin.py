"""Margin losses of classes and of sets of labels, written with other ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops import pointwise_loss as pointwise
from gradlite.ops.activation import logsigmoid
from gradlite.ops.elementwise import square
from gradlite.ops.guard import on_its_device
from gradlite.ops.legacy_reduction import legacy_reduction
from gradlite.ops.loss import check_reduction, reduced
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import type_name
from gradlite.ops.piecewise import relu
from gradlite.ops.samples import S, bools, constant, integers, normal, positive
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss"]


def _rows(input: Tensor, target: Tensor, labels: bool) -> tuple[Any, Any, bool]:
    """Input and target as rows, and whether they were rows already."""
    if not input.array.ndim:
        input = input.reshape(1)  # type: ignore[attr-defined]
        target = target.reshape(1) if labels and not target.array.ndim else target  # type: ignore[attr-defined]
    x, y = input.array, target.array
    if x.ndim not in (1, 2) or x.shape[-1] == 0:
        raise RuntimeError(
            "Expected non-empty vector or matrix with optional 0-dim batch size, but got: "
            f"{list(x.shape)}"
        )
    if labels and y.shape != x.shape:
        raise RuntimeError(
            f"inconsistent target size: {list(y.shape)} for input of size: {list(x.shape)}"
        )
    if not labels and y.size != (x.shape[0] if x.ndim == 2 else 1):
        raise RuntimeError(
            "multi_margin_loss: target tensor should be 1-D with size equal to the number of input "
            f"samples (batch size). Expected target size {[x.shape[0]]}, but got {list(y.shape)}. "
            f"Input has shape {list(x.shape)}."
        )
    if y.dtype != np.int64:
        raise RuntimeError(f"expected scalar type Long but found {type_name(y.dtype)}")
    count = x.shape[0] if x.ndim == 2 else 1
    shape = (count, x.shape[-1]) if labels else (count,)
    return input.reshape(count, x.shape[-1]), target.reshape(shape), x.ndim == 2


@public(
    samples=lambda: [
        S(normal(3, 4), integers(0, 4, 3)),
        S(normal(3, 4), integers(0, 4, 3), 2, 0.7, reduction="sum"),
        S(normal(3, 4), integers(0, 4, 3), weight=constant(positive(4)), reduction="none"),
        S(normal(4), np.array(2)),
    ],
    torch="nn.functional.multi_margin_loss",
    errors=lambda: [
        S(normal(3, 4), integers(0, 4, 2)),
        S(normal(3, 4), np.array([0, 4, 1])),
        S(normal(3, 4), integers(0, 4, 3), 3),
        S(normal(3, 4), integers(0, 4, 3), weight=constant(positive(3))),
    ],
    autocast="float32",
)
@on_its_device
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Sum over classes j but y of weight[y] max(0, margin - x[y] + x[j])^p, over their number.

    Shapes: input (N, C) or (C,), target (N,) or () of class numbers.

    >>> import gradlite
    >>> x = gradlite.tensor([[0.1, 0.2, 0.4, 0.8]])
    >>> gradlite.nn.functional.multi_margin_loss(x, gradlite.tensor([3]))
    tensor(0.3250)
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    if weight is not None and weight.array.ndim != 1:
        raise ValueError("weight must be one-dimensional")
    x, y, batched = _rows(input, target, False)
    classes = x.array.shape[1]
    if weight is not None and weight.array.shape != (classes,):
        raise RuntimeError(
            f"inconsistent weight size, expected {classes} but got {list(weight.array.shape)}"
        )
    on_host = isinstance(y.array, np.ndarray)  # a GPU's kernels look at the target by themselves
    if on_host and y.array.size and not (0 <= y.array.min() and y.array.max() < classes):
        raise RuntimeError("target out of range")
    column = y.unsqueeze(1)
    short = relu(margin - x.gather(1, column) + x)
    short = short if p == 1 else square(short)
    if weight is not None:
        short = short * weight[y].unsqueeze(1)  # type: ignore[index]
    xp = NAMESPACES[y.array.__class__].xp
    own = wrap(y.array[:, None] == xp.arange(classes))
    losses = short.masked_fill(own, 0).sum(1) / classes
    return reduced(losses if batched else losses.squeeze(0), reduction)


@public(
    samples=lambda: [
        S(normal(2, 4), np.array([[3, 0, -1, 1], [2, -1, 0, 1]])),
        S(normal(2, 4), np.array([[3, 0, 2, 1], [-1, -1, 0, 1]]), reduction="none"),
        S(normal(4), np.array([1, -1, 0, 0])),
    ],
    torch="nn.functional.multilabel_margin_loss",
    errors=lambda: [
        S(normal(2, 4), np.array([[3, 0, -1]])),
        S(normal(2, 4), np.array([[4, 0, -1, 1], [2, -1, 0, 1]])),
    ],
    autocast="float32",
)
@on_its_device
def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Sum over labels y and other classes j of max(0, 1 - x[y] + x[j]), over the classes' number.

    Shapes: input and target (N, C) or (C,); a row of the target lists labels up to the first -1.

    >>> import gradlite
    >>> x, y = gradlite.tensor([[0.1, 0.2, 0.4, 0.8]]), gradlite.tensor([[3, 0, -1, 1]])
    >>> gradlite.nn.functional.multilabel_margin_loss(x, y)
    tensor(0.8500)
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction)
    x, y, batched = _rows(input, target, True)
    labels, classes = y.array, x.array.shape[1]
    on_host = isinstance(labels, np.ndarray)
    if on_host and labels.size and not (-1 <= labels.min() and labels.max() < classes):
        raise RuntimeError("argument #2 'target' is out of range")
    xp = NAMESPACES[labels.__class__].xp
    listed = xp.cumsum(labels < 0, axis=1) == 0
    kept = xp.where(listed, labels, 0)
    among = ((kept[:, :, None] == xp.arange(classes)) & listed[:, :, None]).any(1)
    scores = x.gather(1, wrap(kept))
    short = relu(1 - scores.unsqueeze(2) + x.unsqueeze(1))
    counted = wrap(listed[:, :, None] & ~among[:, None, :])
    losses = short.masked_fill(~counted, 0).sum((1, 2)) / classes  # type: ignore[operator]
    return reduced(losses if batched else losses.squeeze(0), reduction)


@public(
    samples=lambda: [
        S(normal(3, 4), bools(3, 4).astype(float)),
        S(normal(3, 4), bools(3, 4).astype(float), positive(4), reduction="none"),
        S(normal(4), bools(4).astype(float), reduction="sum"),
    ],
    torch="nn.functional.multilabel_soft_margin_loss",
    autocast=("", "float32"),  # as sums are
)
def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The mean over classes of the cross-entropy of sigmoids with labels of 0 and 1.

    Shapes: input and target (N, C) or (C,).

    >>> import gradlite
    >>> x, y = gradlite.tensor([[0.0, 0.0]]), gradlite.tensor([[1.0, 0.0]])
    >>> gradlite.nn.functional.multilabel_soft_margin_loss(x, y)
    tensor(0.6931)
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    target = pointwise.as_floats(target, input)
    op, formula = pointwise.MultilabelSoftMarginLoss, pointwise.SoftLabel
    if input.array.ndim:
        of_rows = pointwise.OF_ROWS.get(reduction, reduction)
        fused = pointwise.with_kernels(op, formula, input, target, of_rows, weight=weight)
        if fused is not None:
            return fused
    x: Any = input
    y: Any = target
    losses: Any = pointwise.with_kernels(op, formula, input, target, "none")
    if losses is None:
        losses = -(y * logsigmoid(x) + (1 - y) * logsigmoid(-x))
    if weight is not None:
        losses = losses * weight
    losses = losses.sum(-1) / x.array.shape[-1]
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not valid")
    return reduced(losses, reduction)
