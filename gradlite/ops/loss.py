"""Losses of classification: cross-entropy and its kin."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import pointwise_loss as pointwise
from gradlite.ops import shortcuts
from gradlite.ops.activation import logsigmoid
from gradlite.ops.choose import where
from gradlite.ops.dispatch import apply
from gradlite.ops.guard import on_its_device
from gradlite.ops.legacy_reduction import legacy_reduction
from gradlite.ops.loss_kernels import (
    CLASS_NUMBERS,
    CrossEntropyLoss,
    NllLoss,
    check_classes,
    check_target,
    check_weight,
    with_kernels,
)
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.positions import least, most
from gradlite.ops.reduce import mean, ones, sum
from gradlite.ops.samples import S, constant, integers, normal, positive, uniform
from gradlite.ops.softmax import _row_starts, log_softmax, row_max, row_sum
from gradlite.ops.special import xlogy
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "kl_div",
    "nll_loss",
]


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The mean or sum of elementwise losses, or the losses themselves."""
    if reduction == "mean":
        return mean(loss)
    if reduction == "sum":
        return sum(loss)
    if reduction == "none":
        return loss
    raise ValueError(f"{reduction} is not a valid value for reduction")


def warn_sizes(input: Tensor, target: Tensor) -> None:
    """Warn when broadcasting is going to mix up what belongs together."""
    if input.array.shape != target.array.shape:
        warnings.warn(
            f"Using a target size ({target.shape}) that is different to the input size "
            f"({input.shape}). This will likely lead to incorrect results due to broadcasting. "
            "Please ensure they have the same size.",
            stacklevel=3,
        )


# ------------------------------------------------------------------------ cross-entropy
class CrossEntropy(Op):
    """The mean cross-entropy of rows of logits with class numbers, in one pass.

    -log softmax(x)[target], averaged or summed over the rows that count; rows with
    ``ignore_index`` do not. It is None where it is known that there is no such row.
    """

    grad_name = "NllLossBackward0"
    reads = ((0,),)
    has_aux = True

    def forward(xp: Any, x: Any, target: Any, ignore_index: int | None, mean: bool) -> Any:
        rows, classes = x.shape
        if xp is np and rows and ignore_index is None:
            flat = _row_starts(rows, classes) + target
            x = np.ascontiguousarray(x)
            e = x - row_max(x)[:, None]
            picked = e.reshape(-1).take(flat)
            np.exp(e, out=e)
            total = row_sum(e)
            losses = np.log(total)
            losses -= picked
            loss = losses.dot(ones(rows, x.dtype))
            if mean:
                loss = loss * x.dtype.type(1 / rows)
            return loss, (e, total, flat, rows if mean else 1, None)
        keep = target != (-1 if ignore_index is None else ignore_index)
        wide = xp.ascontiguousarray(x)
        shifted = wide - wide.max(axis=1, keepdims=True) if x.size else wide
        e = xp.exp(shifted)
        total = e.sum(axis=1)
        safe = xp.where(keep, target, 0)
        picked = xp.take_along_axis(shifted, safe[:, None], axis=1)[:, 0] if rows else total
        losses = xp.where(keep, xp.log(total) - picked, 0)
        count = keep.sum() if mean else 1
        loss = (losses.sum() / count).astype(x.dtype)
        flat = xp.arange(rows) * classes + safe
        weight = xp.where(keep, total, np.inf)
        count = xp.maximum(count, 1) if mean else 1  # without any row the gradient is 0
        return loss, (e.astype(x.dtype), weight.astype(x.dtype), flat, count, keep)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        e, total, flat, count, keep = ctx.aux
        if F.tensors:
            (x,) = ctx.saved
            rows, classes = ctx.shapes[0]
            onehot = F.array(F.zeros((rows * classes,), x))
            onehot[flat] = 1 if keep is None else keep
            onehot = onehot.reshape(rows, classes)
            keep = onehot.sum(axis=1, keepdims=True)
            divisor = count if isinstance(count, int) else wrap(count.astype(e.dtype))
            return (grad * ((F.softmax(x, 1) * wrap(keep) - wrap(onehot)) / divisor),)
        if grad.__class__ is np.ndarray and grad.ndim == 0:
            grad = grad[()]  # NumPy divides its scalars many times as fast as such arrays
        scale = grad / count
        scale = scale.astype(e.dtype) if hasattr(scale, "astype") else e.dtype.type(scale)
        result = e * (scale / total)[:, None]
        result.reshape(-1)[flat] -= scale if keep is None else scale * keep
        return (result,)


@public(
    samples=lambda: [
        S(normal(4, 5), integers(0, 5, 4)),
        S(normal(4, 5), integers(0, 5, 4), reduction="sum"),
        S(normal(4, 5), integers(0, 5, 4), reduction="none"),
        S(normal(4, 5), np.array([0, 2, -100, 4])),
        S(normal(4, 5), np.array([0, 2, 1, 4]), ignore_index=2),
        S(normal(5), np.array(3)),
        S(normal(2, 5, 3), integers(0, 5, 2, 3)),
        S(normal(4, 5), integers(0, 5, 4), label_smoothing=0.1),
        S(normal(2, 5, 3), integers(0, 5, 2, 3), label_smoothing=0.2, reduction="none"),
        S(normal(4, 5), uniform(0, 1, 4, 5)),
        S(normal(4, 5), uniform(0, 1, 4, 5), label_smoothing=0.1, reduction="sum"),
        S(normal(2, 5, 3), uniform(0, 1, 2, 5, 3)),
        S(normal(4, 5) * 50, integers(0, 5, 4)),
    ],
    torch="nn.functional.cross_entropy",
    autocast="float32",
)
@on_its_device
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross-entropy between logits (N, C, ...) and targets.

    Targets are class numbers (N, ...), or probabilities of the logits' shape. Classes may be
    weighted, targets smoothed towards the uniform distribution (Szegedy et al. 2016), and
    positions with ``ignore_index`` left out. ``reduction``: "mean" (weighted), "sum", "none".

    >>> import gradlite
    >>> logits = gradlite.tensor([[2.0, 0.0], [0.0, 0.0]])
    >>> gradlite.nn.functional.cross_entropy(logits, gradlite.tensor([0, 1]))
    tensor(0.4100)

    Raises:
        ValueError, IndexError, RuntimeError: shapes that do not fit, a class out of range. A
            GPU notes such a class, and the error comes when the host next waits for it.
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce, reduction, 4)
    if not isinstance(target, Tensor):
        raise TypeError(
            "cross_entropy_loss(): argument 'target' (position 2) must be Tensor, "
            f"not {target.__class__.__name__}"
        )
    x, t = input.array, target.array
    probabilities = t.shape == x.shape
    if probabilities:
        _check_probabilities(x, t, weight, ignore_index)
    elif weight is not None or t.dtype not in CLASS_NUMBERS:
        check_target(x, t, weight)
    if 0.0 <= label_smoothing <= 1.0 and reduction in ("mean", "sum", "none"):
        attrs = (int(ignore_index), reduction, float(label_smoothing))
        loss = with_kernels(CrossEntropyLoss, input, target, weight, *attrs)
        if loss is not None:
            return loss
    if x.ndim == 2 and t.ndim == 1 and reduction != "none":
        plain = weight is None and label_smoothing == 0.0 and x.dtype in dtypes.FLOATING
        if plain and x.shape[0] == t.shape[0]:
            ignored = None if check_classes(t, x.shape[1], ignore_index) else ignore_index
            check_reduction(reduction)
            return apply(  # type: ignore[no-any-return]
                CrossEntropy, (input, target), ignored, reduction == "mean"
            )
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    dim = 0 if x.ndim == 1 else 1
    if probabilities:
        return _cross_entropy_probabilities(input, target, weight, dim, reduction, label_smoothing)
    logp = log_softmax(input, dim)
    loss = nll_loss(logp, target, weight, None, ignore_index, None, reduction)
    if label_smoothing == 0.0:
        return loss
    classes = x.shape[dim]
    weighted = logp if weight is None else logp * _channels(weight, x.ndim, dim)
    smooth = -sum(weighted, dim)
    keep = t != ignore_index
    if not shortcuts.allowed(keep.all()):
        smooth = where(wrap(keep), smooth, 0)  # a product would make NaN of an infinite slope
    if reduction == "mean":
        if weight is None:
            smooth = sum(smooth) / wrap(keep.sum().astype(x.dtype))
        else:
            safe = np.where(keep, t, 0)
            smooth = sum(smooth) / sum(weight[wrap(safe)] * wrap(keep.astype(x.dtype)))  # type: ignore[index]
    elif reduction == "sum":
        smooth = sum(smooth)
    return loss * (1 - label_smoothing) + smooth * (label_smoothing / classes)


def check_reduction(reduction: str) -> None:
    """ValueError unless it is a reduction."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not a valid value for reduction")


def _check_probabilities(x: Any, t: Any, weight: Tensor | None, ignore_index: int) -> None:
    if t.dtype not in dtypes.FLOATING:
        raise RuntimeError(
            "Expected floating point type for target with class probabilities, got "
            f"{type_name(t.dtype)}"
        )
    if ignore_index >= 0:
        raise RuntimeError("ignore_index is not supported for floating point target")
    if weight is not None:
        try:
            check_weight(x, weight, False)
        except RuntimeError as error:
            raise RuntimeError(f"cross_entropy: {error}") from None


def _channels(weight: Tensor, ndim: int, dim: int) -> Tensor:
    return weight.reshape(tuple(-1 if d == dim else 1 for d in range(ndim)))  # type: ignore[attr-defined,no-any-return]


def _cross_entropy_probabilities(
    input: Tensor, target: Tensor, weight: Tensor | None, dim: int, reduction: str, smoothing: float
) -> Tensor:
    x = input.array
    if smoothing:
        target = target * (1 - smoothing) + smoothing / max(x.shape[dim], 1)
    losses = target * log_softmax(input, dim)
    if weight is not None:
        losses = losses * _channels(weight, x.ndim, dim)
    if reduction == "mean":
        # Of no classes the mean is that of nothing, NaN.
        return -sum(losses) / (x.size / x.shape[dim] if x.shape[dim] else 0)
    return reduced(-sum(losses, dim), reduction)


class NllPick(Op):
    """-x[n, target[n], ...], 0 where ignored."""

    grad_name = "NllLossBackward0"
    reads = ((), ())
    has_aux = True

    def forward(xp: Any, x: Any, target: Any, dim: int, ignore_index: int) -> Any:
        keep = target != ignore_index
        safe = xp.expand_dims(xp.where(keep, target, 0), dim)
        picked = xp.take_along_axis(x, safe, axis=dim).squeeze(dim)
        return xp.where(keep, -picked, x.dtype.type(0)), target

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        dim, ignore_index = ctx.attrs
        return F.nll_spread(grad, ctx.aux, tuple(ctx.shapes[0]), dim, ignore_index), None


class NllSpread(Op):
    """Zeros with -grad at the targets: the gradient of `NllPick`, and linear itself."""

    reads = ((), ())
    has_aux = True

    def forward(
        xp: Any, grad: Any, target: Any, shape: tuple[int, ...], dim: int, ignore_index: int
    ) -> Any:
        keep = target != ignore_index
        safe = xp.expand_dims(xp.where(keep, target, 0), dim)
        out = xp.zeros(shape, grad.dtype)
        values = xp.expand_dims(xp.where(keep, -grad, grad.dtype.type(0)), dim)
        xp.put_along_axis(out, safe, values, axis=dim)
        return out, target

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        _, dim, ignore_index = ctx.attrs
        return F.nll_pick(grad, ctx.aux, dim, ignore_index), None


class NllOfRows(Op):
    """The mean, or sum, of -x[n, target[n]] over rows that all count."""

    grad_name = "NllLossBackward0"
    reads = ((),)
    has_aux = True

    def forward(xp: Any, x: Any, target: Any, mean: bool) -> Any:
        rows, classes = x.shape
        flat = _row_starts(rows, classes) + target
        scale = x.dtype.type(-1 / rows if mean else -1)
        return x.reshape(-1).take(flat).dot(ones(rows, x.dtype)) * scale, (flat, scale)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        flat, scale = ctx.aux
        shape = tuple(ctx.shapes[0])
        if F.tensors:
            slope = np.zeros(shape, scale.dtype)
            slope.reshape(-1)[flat] = scale
            return (grad * wrap(slope),)
        out = np.zeros(shape, grad.dtype)
        out.reshape(-1)[flat] = grad * scale
        return (out,)


@public(
    samples=lambda: [
        S(normal(4, 5), integers(0, 5, 4)),
        S(normal(4, 5), integers(0, 5, 4), reduction="sum"),
        S(normal(4, 5), np.array([0, 2, -100, 4])),
        S(normal(4, 5), np.array([0, 2, -100, 4]), reduction="none"),
        S(normal(2, 5, 3), integers(0, 5, 2, 3), reduction="sum"),
        S(normal(5), np.array(3)),
    ],
    torch="nn.functional.nll_loss",
    autocast="float32",
)
@on_its_device
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """The negative log-likelihood of class numbers under log-probabilities (N, C, ...).

    >>> import gradlite
    >>> logp = gradlite.log_softmax(gradlite.tensor([[2.0, 0.0]]), 1)
    >>> gradlite.nn.functional.nll_loss(logp, gradlite.tensor([0]))
    tensor(0.1269)
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce, reduction, 4)
    x, t = input.array, target.array
    if x.ndim == 1 and t.shape == (1,):
        target = target.reshape(())
        t = target.array
    if t.ndim > 1 and x.ndim <= 2:
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    dim = 0 if x.ndim == 1 else 1
    if x.ndim == 0 or t.shape != x.shape[:dim] + x.shape[dim + 1 :]:
        if x.ndim == 0:
            raise ValueError("Expected 1 or more dimensions (got 0)")
        if x.ndim == 1 and t.ndim == 1:
            if t.size != 1:
                raise ValueError(
                    f"For 1D input, 1D target must have size 1, but got target size: {t.size}"
                )
            one: Tensor = target.reshape(())  # type: ignore[attr-defined]
            return nll_loss(input, one, weight, None, ignore_index, None, reduction)
        if x.ndim > 1 and (t.ndim == 0 or x.shape[0] != t.shape[0]):
            raise ValueError(
                f"Expected input batch_size ({x.shape[0]}) to match target batch_size "
                f"({t.shape[0] if t.ndim else 0})."
            )
        if x.ndim <= 2 and t.ndim > 1:
            raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
        raise RuntimeError(
            f"Expected target size {list(x.shape[:dim] + x.shape[dim + 1 :])}, got {list(t.shape)}"
        )
    check_reduction(reduction)
    check_target(x, t, weight)
    loss = with_kernels(NllLoss, input, target, weight, int(ignore_index), reduction)
    if loss is not None:
        return loss
    all_count = check_classes(t, x.shape[dim], ignore_index)
    if all_count and weight is None and reduction != "none" and x.ndim == 2 and x.size:
        if isinstance(x, np.ndarray) and x.dtype.char in "fd" and t.__class__ is x.__class__:
            return apply(NllOfRows, (input, target), reduction == "mean")  # type: ignore[no-any-return]
    losses = apply(NllPick, (input, target), dim, ignore_index)
    if weight is None:
        if reduction == "mean":
            count = (t != ignore_index).sum()
            return sum(losses) / wrap(count.astype(x.dtype))
        return reduced(losses, reduction)
    keep = (t != ignore_index).astype(x.dtype)
    weights = weight[wrap(np.where(keep > 0, t, 0))] * wrap(keep)  # type: ignore[index]
    losses = losses * weights
    if reduction == "mean":
        return sum(losses) / sum(weights)
    return reduced(losses, reduction)


# ----------------------------------------------------------------- probabilities of two
@public(
    samples=lambda: [
        S(normal(3, 4), uniform(0, 1, 3, 4)),
        S(normal(3, 4), uniform(0, 1, 3, 4), constant(positive(4))),
        S(normal(3, 4), uniform(0, 1, 3, 4), pos_weight=constant(positive(4)), reduction="sum"),
        S(normal(5) * 60, uniform(0, 1, 5), reduction="none"),
    ],
    torch="nn.functional.binary_cross_entropy_with_logits",
    autocast="float32",
)
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """The binary cross-entropy of logits, without overflow.

    >>> import gradlite
    >>> F = gradlite.nn.functional
    >>> F.binary_cross_entropy_with_logits(gradlite.zeros(2), gradlite.tensor([0.0, 1.0]))
    tensor(0.6931)

    Raises:
        ValueError: input and target differ in shape.
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce, reduction, 4)
    if target.array.shape != input.array.shape:
        raise ValueError(
            f"Target size ({target.shape}) must be the same as input size ({input.shape})"
        )
    fused = pointwise.with_kernels(
        pointwise.BinaryCrossEntropyWithLogits, pointwise.LogisticEntropy, input, target,
        reduction, weight=weight, positive=pos_weight,
    )  # fmt: skip
    if fused is not None:
        return fused
    if pos_weight is None:
        losses = (1 - target) * input - logsigmoid(input)
    else:
        scale = (pos_weight - 1) * target + 1
        losses = (1 - target) * input - scale * logsigmoid(input)
    if weight is not None:
        losses = losses * weight
    return reduced(losses, reduction)


class Bce(Op):
    """-(y log p + (1 - y) log(1 - p)) with logarithms cut off at -100."""

    reads = ((0, 1), (0,))
    grad_name = "BinaryCrossEntropyBackward0"

    def forward(xp: Any, p: Any, y: Any) -> Any:
        log_p = xp.maximum(xp.log(p), p.dtype.type(-100))
        log_q = xp.maximum(xp.log1p(-p), p.dtype.type(-100))
        return (y - 1) * log_q - y * log_p

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        p, y = ctx.saved
        left = right = None
        if ctx.edges[0] is not None:
            product = (1 - p) * p
            left = grad * (p - y) / F.maximum(product, F.zeros(product.shape, product) + 1e-12)
        if ctx.edges[1] is not None:
            right = grad * (F.log(1 - p) - F.log(p))
        return left, right


def _require_probabilities(p: Any) -> None:
    if p.size:
        inside = (least(p) >= 0) & (most(p) <= 1)
        shortcuts.require(inside, RuntimeError, "all elements of input should be between 0 and 1")


@public(
    samples=lambda: [
        S(uniform(0.1, 0.9, 3, 4), uniform(0, 1, 3, 4)),
        S(uniform(0.1, 0.9, 3, 4), uniform(0, 1, 3, 4), constant(positive(4)), reduction="sum"),
    ],
    torch="nn.functional.binary_cross_entropy",
    autocast=("float32", "refused"),
)
@on_its_device
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """The binary cross-entropy of probabilities.

    >>> import gradlite
    >>> F = gradlite.nn.functional
    >>> F.binary_cross_entropy(gradlite.tensor([0.5, 0.5]), gradlite.tensor([0.0, 1.0]))
    tensor(0.6931)

    Raises:
        ValueError: input and target differ in shape.
        RuntimeError: an input outside [0, 1]. A GPU notes it, and the error comes when the host
            next waits for it.
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce, reduction, 4)
    if target.array.shape != input.array.shape:
        raise ValueError(
            f"Using a target size ({target.shape}) that is different to the input size "
            f"({input.shape}) is deprecated. Please ensure they have the same size."
        )
    p = input.array
    on_gpu = p.__class__ is not np.ndarray and NAMESPACES[p.__class__].launcher is not None
    if not on_gpu:
        _require_probabilities(p)
    fused = pointwise.with_kernels(
        pointwise.BinaryCrossEntropy, pointwise.BinaryEntropy, input, target, reduction,
        weight=weight,
    )  # fmt: skip
    if fused is not None:
        return fused
    if on_gpu:  # where no kernel notes what is none
        _require_probabilities(p)
    losses = apply(Bce, (input, target))
    if weight is not None:
        losses = losses * weight
    return reduced(losses, reduction)


@public(
    samples=lambda: [
        S(-positive(3, 4), positive(3, 4), reduction="batchmean"),
        S(-positive(3, 4), positive(3, 4), reduction="sum"),
        S(-positive(3, 4), -positive(3, 4), reduction="none", log_target=True),
    ],
    torch="nn.functional.kl_div",
    autocast="float32",
)
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """The Kullback-Leibler divergence ``target * (log(target) - input)`` of log-probabilities.

    >>> import gradlite
    >>> p = gradlite.tensor([[0.5, 0.5]])
    >>> gradlite.nn.functional.kl_div(p.log(), p, reduction="batchmean")
    tensor(0.)
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce, reduction, 4)
    elif reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size."
            "'batchmean' divides only by the batch size, and aligns with the KL div math "
            "definition.'mean' will be changed to behave the same as 'batchmean' in the next major "
            "release.",
            stacklevel=2,
        )
    batch_mean = reduction == "batchmean"
    fused = pointwise.with_kernels(
        pointwise.KlDivergence,
        pointwise.LogDivergence if log_target else pointwise.Divergence,
        input, target, "sum" if batch_mean else reduction,
    )  # fmt: skip
    if fused is not None:
        return fused / max(input.array.shape[0], 1) if batch_mean and input.array.ndim else fused
    if log_target:
        losses = target.exp() * (target - input)  # type: ignore[attr-defined]
    else:
        losses = xlogy(target, target) - target * input
    if batch_mean:
        return sum(losses) / max(input.array.shape[0], 1) if input.array.ndim else sum(losses)
    return reduced(losses, reduction)
