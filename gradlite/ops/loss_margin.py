"""Margin losses of classes and of sets of labels; their kernels are in ``kernels/margin.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops import pointwise_loss as pointwise
from gradlite.ops.activation import logsigmoid
from gradlite.ops.dispatch import apply
from gradlite.ops.guard import on_its_device
from gradlite.ops.legacy_reduction import legacy_reduction
from gradlite.ops.loss import check_reduction, reduced
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import cast
from gradlite.ops.row_losses import launch_rows, of_each, reduced_array, scale_of
from gradlite.ops.samples import S, bools, constant, integers, normal, positive
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss"]


class MultiMarginLoss(Op):
    """Sums over classes but the row's own, by their number; a score that is NaN counts nothing."""

    reads = ((0, 1, 2), (), ())
    constants = (1, 2)
    native_from = native_backward_from = 1 << 8

    def forward(xp: Any, x: Any, y: Any, weight: Any, p: int, margin: float, reduction: str) -> Any:
        short = margin - xp.take_along_axis(x, y[:, None], axis=1) + x
        counts = (short > 0) & (y[:, None] != xp.arange(x.shape[1]))
        short = xp.where(counts, short if p == 1 else short * short, 0)
        losses = short.sum(axis=1) / x.shape[1]
        return reduced_array(xp, losses if weight is None else losses * weight[y], reduction)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, y, weight = ctx.saved
        p, margin, reduction = ctx.attrs
        given: Any = wrap if F.tensors else lambda array: array
        raw, numbers = F.array(x), F.array(y)
        rows, classes = raw.shape
        own = numbers[:, None] == NAMESPACES[raw.__class__].xp.arange(classes)
        zero = F.zero_beside(grad)
        short = margin - F.sum(F.where(given(own), x, zero), (1,), True) + x
        counts = given((F.array(short) > 0) & ~own)
        slope = F.where(counts, short * 2, zero) if p == 2 else F.to_copy(counts, raw.dtype)
        scale = (1 if weight is None else F.array(weight)[numbers][:, None]) / classes
        grad = of_each(grad if reduction != "none" else grad.reshape((rows, 1)), rows, reduction)
        slope = slope * (grad * (given(scale) if weight is not None else scale))
        return F.where(given(own), F.sum(slope, (1,), True) * -1, slope), None, None

    def fused_forward(
        K: Any, x: Any, y: Any, weight: Any, p: int, margin: float, reduction: str
    ) -> Any:
        if not K.takes(x, x if weight is None else weight):
            return NotImplemented
        inputs = K.dense(x), K.dense(y), None if weight is None else K.dense(weight)
        return launch_rows(
            K, "multi_margin_forward", x.dtype, x.shape[:1], x.shape[1], 1, reduction, inputs,
            K.errors("multi_margin_loss", "target"), p, margin,
        )  # fmt: skip

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, y, weight = ctx.saved
        p, margin, reduction = ctx.attrs
        if not K.takes(grad, x if weight is None else weight, x):
            return NotImplemented
        rows, classes = x.shape
        dx = K.empty(x.shape, x.dtype)
        K.kept_rows(
            "multi_margin_backward", x.dtype, rows, classes, 1, K.dense(grad), K.dense(x),
            K.dense(y), None if weight is None else K.dense(weight), dx, rows, classes, p,
            int(reduction == "none"), margin, scale_of(rows, reduction),
        )  # fmt: skip
        return dx, None, None


def _labels(xp: Any, y: Any) -> tuple[Any, Any, Any]:
    """Which places of a row list a label, the labels, 0 elsewhere, and which classes are some."""
    listed = xp.cumsum(y < 0, axis=1) == 0
    kept = xp.where(listed, y, 0)
    among = ((kept[:, :, None] == xp.arange(y.shape[1])) & listed[:, :, None]).any(axis=1)
    return listed, kept, among


def _short(xp: Any, x: Any, y: Any) -> tuple[Any, Any, Any]:
    """How far labels (rows, places, 1) exceed classes by less than 1, where that counts, and the
    labels."""
    listed, kept, among = _labels(xp, y)
    short = 1 - xp.take_along_axis(x, kept, axis=1)[:, :, None] + x[:, None, :]
    return short, listed[:, :, None] & ~among[:, None, :] & (short > 0), kept


class MultilabelMarginLoss(Op):
    """Sums over labels and other classes, by the classes' number; NaN counts nothing."""

    reads = ((0, 1), ())
    constants = (1,)
    native_from = native_backward_from = 1 << 8

    def forward(xp: Any, x: Any, y: Any, reduction: str) -> Any:
        short, counts, _ = _short(xp, x, y)
        losses = xp.where(counts, short, 0).sum(axis=(1, 2)) / x.shape[1]
        return reduced_array(xp, losses.astype(x.dtype), reduction)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, y = (F.array(a) for a in ctx.saved)
        (reduction,) = ctx.attrs
        rows, classes = x.shape
        xp = NAMESPACES[x.__class__].xp
        _, counts, kept = _short(xp, x, y)
        own = kept[:, :, None] == xp.arange(classes)
        slope = counts.sum(axis=1) - (own * counts.sum(axis=2)[:, :, None]).sum(axis=1)
        slope = (slope / classes).astype(x.dtype)
        grad = of_each(grad if reduction != "none" else grad.reshape((rows, 1)), rows, reduction)
        return grad * (wrap(slope) if F.tensors else slope), None

    def fused_forward(K: Any, x: Any, y: Any, reduction: str) -> Any:
        if not K.takes(x):
            return NotImplemented
        inputs = K.dense(x), K.dense(y)
        return launch_rows(
            K, "multilabel_margin_forward", x.dtype, x.shape[:1], x.shape[1], 1, reduction, inputs,
            K.errors("multilabel_margin_loss", "target"),
        )  # fmt: skip

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, y = ctx.saved
        (reduction,) = ctx.attrs
        if not K.takes(grad, x):
            return NotImplemented
        rows, classes = x.shape
        dx, marks = K.empty(x.shape, x.dtype), K.empty(x.shape, np.uint8)
        K.kept_rows(
            "multilabel_margin_backward", x.dtype, rows, classes, 1, K.dense(grad), K.dense(x),
            K.dense(y), marks, dx, rows, classes, int(reduction == "none"),
            scale_of(rows, reduction),
        )  # fmt: skip
        return dx, None


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
        S(normal(0, 4), np.zeros(0, np.int64), reduction="none"),
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
    if weight is not None and weight.array.dtype != x.array.dtype:
        weight = cast(weight, x.array.dtype)
    loss: Any = apply(MultiMarginLoss, (x, y, weight), int(p), float(margin), reduction)
    return loss if batched or reduction != "none" else loss.squeeze(0)  # type: ignore[no-any-return]


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
    loss: Any = apply(MultilabelMarginLoss, (x, y), reduction)
    return loss if batched or reduction != "none" else loss.squeeze(0)  # type: ignore[no-any-return]


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
