"""The cross-entropy and the likelihood as one op each, for where they run with kernels.

``kernels/cross_entropy.cu`` says what they compute. Classes are dimension 1 of (N, C, ...), or the
only one. On NumPy without kernels, `gradlite.ops.loss` composes the same of other ops.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import shortcuts
from gradlite.ops.dispatch import apply
from gradlite.ops.guard import on_its_device
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.natively import launcher
from gradlite.ops.op import Op, number, type_name
from gradlite.ops.positions import least, most
from gradlite.ops.softmax import LogSoftmax
from gradlite.tensor import Tensor, wrap


def class_dim(x: Any) -> int:
    """The dimension of the classes."""
    return 0 if len(x.shape) == 1 else 1


CLASS_NUMBERS = frozenset({np.dtype(np.int64), np.dtype(np.uint8)})


def check_target(x: Any, t: Any, weight: Tensor | None) -> None:
    """RuntimeError unless targets have a dtype of class numbers, and the weights fit."""
    if weight is not None:
        check_weight(x, weight)
    if t.dtype not in CLASS_NUMBERS:
        raise RuntimeError(
            f"expected target dtype to be Long or Byte, but got {type_name(t.dtype)}"
        )
    if weight is not None and weight.array.dtype != x.dtype:
        raise RuntimeError(
            f"expected scalar type {type_name(x.dtype)} but found {type_name(weight.array.dtype)}"
        )


def check_weight(x: Any, weight: Tensor, targets: bool = True) -> None:
    """RuntimeError unless there is a weight for each class.

    PyTorch has other words for it beside class numbers of pixels, so not ``targets`` that are
    probabilities.
    """
    classes = x.shape[class_dim(x)]
    if weight.array.shape != (classes,):
        if x.ndim > 2 and targets:
            raise RuntimeError("weight tensor should be defined either for all or no classes")
        raise RuntimeError(
            f"weight tensor should be defined either for all {classes} classes or no classes but "
            f"got weight tensor of shape: {list(weight.array.shape)}"
        )


@on_its_device
def check_classes(t: Any, classes: int, ignore_index: int) -> bool:
    """Whether all targets are class numbers, and none is ``ignore_index``; waits for the device.

    Raises:
        RuntimeError, IndexError: targets that are neither of the two.
    """
    if t.dtype.kind not in "iu":
        raise RuntimeError(f"expected scalar type Long but found {t.dtype.name.capitalize()}")
    if not t.size:
        return True
    if t.dtype == np.int64:
        inside = most(t.view(np.uint64)) < classes  # as unsigned, negative numbers are large
    else:
        inside = (least(t) >= 0) & (most(t) < classes)
    if shortcuts.allowed(inside):
        return not 0 <= ignore_index < classes
    bad = (t != ignore_index) & ((t < 0) | (t >= classes))
    shortcuts.require(~bad.any(), IndexError, _wrong_target, t, bad)
    return False


def _wrong_target(t: Any, bad: Any) -> str:
    return f"Target {number(t.reshape(-1)[bad.reshape(-1).argmax()])} is out of bounds."


def _sizes(x: Any) -> tuple[int, int, int]:
    """(samples, classes, length)."""
    if len(x.shape) == 1:
        return 1, x.shape[0], 1
    samples, classes = x.shape[:2]
    return samples, classes, x.size // (samples * classes)


def total_loss(
    K: Any, dtype: Any, losses: Any, n: int, scale: float = 1.0, weighted: bool = False
) -> tuple[Any, Any]:
    """The sum of n losses times ``scale``; with ``weighted``, divided by the sum of n more.

    Returns:
        A 0-d array, and the sum that was divided by, or None.
    """
    sums = 2 if weighted else 1
    if n > 4096:  # too much for one block of threads
        pieces = min(1024, -(-n // 1024))
        partials = K.empty((sums, pieces), losses.dtype)
        K.rows("losses_parts", dtype, sums * pieces, n // pieces, losses, partials, sums, n, pieces)
        losses, n = partials, pieces
    out = K.empty((), dtype)
    count = K.empty((1,), losses.dtype) if weighted else None
    K.rows("losses_total", dtype, 1, n, losses, out, count, n, scale)
    return out, count


def _reduced(
    K: Any, x: Any, losses: Any, shape: tuple[int, ...], reduction: str, weighted: bool
) -> tuple[Any, Any]:
    """What a reduction makes of losses (2, n), whose second row is what each counts in a mean."""
    if reduction == "none":
        return losses[0].reshape(shape).astype(x.dtype), None
    n = losses.shape[1]
    if reduction == "sum":
        return total_loss(K, x.dtype, losses, n)
    return total_loss(K, x.dtype, losses, n, 1.0 if weighted else 1 / n, weighted)


def _numbers(K: Any, target: Any) -> Any:
    """Class numbers as the kernels read them."""
    return K.dense(target if target.dtype == np.int64 else target.astype(np.int64))


def _dense(K: Any, array: Any) -> Any:
    return None if array is None else K.dense(array)


def _counts(xp: Any, target: Any, weight: Any, ignore_index: int, dtype: Any) -> tuple[Any, Any]:
    """What each class number counts, 0 where ignored, and the numbers with 0 for the ignored."""
    keep = target != ignore_index
    safe = xp.where(keep, target, 0)
    counts = keep.astype(dtype)
    return (counts if weight is None else counts * weight[safe]), safe


def _along_classes(weight: Any, ndim: int) -> Any:
    """The weights of the classes, to multiply arrays of ``ndim`` dimensions with."""
    return weight.reshape((-1,) if ndim == 1 else (1, -1) + (1,) * (ndim - 2))


def _distribution(
    xp: Any, x: Any, target: Any, weight: Any, ignore_index: int, smoothing: float
) -> Any:
    """What class numbers compare the softmax of x with, in the shape of x."""
    dim = class_dim(x)
    counts, safe = _counts(xp, target, weight, ignore_index, x.dtype)
    result = xp.zeros(x.shape, x.dtype)
    spread = xp.expand_dims(safe, dim)
    xp.put_along_axis(result, spread, xp.expand_dims(counts * (1 - smoothing), dim), axis=dim)
    if smoothing:
        each = xp.full(x.shape, smoothing / x.shape[dim], x.dtype)
        if weight is not None:
            each = each * _along_classes(weight, x.ndim)
        result = result + xp.where(xp.expand_dims(target == ignore_index, dim), 0, each)
    return result.astype(x.dtype)


class CrossEntropyLoss(Op):
    """The cross-entropy of logits with class numbers or probabilities; aux: see `forward`."""

    grad_name = "NllLossBackward0"
    reads = ((0, 1, 2), (0, 2), ())
    has_aux = True
    native_from = native_backward_from = 1 << 15
    native_dtypes = "f"

    def forward(
        xp: Any,
        x: Any,
        target: Any,
        weight: Any,
        ignore_index: int,
        reduction: str,
        smoothing: float,
    ) -> Any:
        """aux: what the kernels keep, and what a mean was divided by, as a 0-d or (1,) array."""
        dim = class_dim(x)
        logp = LogSoftmax.forward(xp, x, dim)
        if target.dtype in dtypes.FLOATING:
            parts = target * (1 - smoothing) + smoothing / x.shape[dim]
            parts = parts if weight is None else parts * _along_classes(weight, x.ndim)
            losses = -(parts * logp).sum(dim)
            if reduction == "mean":
                return losses.mean().astype(x.dtype), (None, None)
        elif smoothing:
            parts = _distribution(xp, x, target, weight, ignore_index, smoothing)
            losses = -(parts * logp).sum(dim)
            count = _counts(xp, target, weight, ignore_index, x.dtype)[0].sum()
        else:
            counts, safe = _counts(xp, target, weight, ignore_index, x.dtype)
            picked = xp.take_along_axis(logp, xp.expand_dims(safe, dim), axis=dim)
            losses = xp.where(counts == 0, 0, -counts * picked.squeeze(dim))
            count = counts.sum()
        if reduction == "none":
            return losses.astype(x.dtype), (None, None)
        if reduction == "sum":
            return losses.sum().astype(x.dtype), (None, None)
        count = xp.asarray(count)
        return (losses.sum() / count).astype(x.dtype), (None, count)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        ignore_index, reduction, smoothing = ctx.attrs
        _, count = ctx.aux
        x, target, weight = ctx.saved
        raw, dim = F.array(x), class_dim(x)
        given: Any = wrap if F.tensors else lambda array: array
        if reduction == "none":
            grad = grad.reshape((*raw.shape[:dim], 1, *raw.shape[dim + 1 :]))
        if count is not None:
            grad = grad / given(count.reshape(()).astype(raw.dtype))
        elif reduction == "mean":
            grad = grad / (raw.size // raw.shape[dim])
        weights = None
        if weight is not None:
            weights = given(_along_classes(F.array(weight), raw.ndim))
        dx = dtarget = None
        if ctx.edges[0] is not None:
            if F.array(target).dtype in dtypes.FLOATING:
                parts = target * (1 - smoothing) + smoothing / raw.shape[dim]
                parts = parts if weights is None else parts * weights
            else:
                xp, numbers = NAMESPACES[raw.__class__].xp, F.array(target)
                plain = None if weight is None else F.array(weight)
                parts = given(_distribution(xp, raw, numbers, plain, ignore_index, smoothing))
            dx = (F.softmax(x, dim) * F.sum(parts, (dim,), True) - parts) * grad
        if ctx.edges[1] is not None:
            slope = F.log_softmax(x, dim) * (grad * (smoothing - 1))
            dtarget = slope if weights is None else slope * weights
        return dx, dtarget, None

    def fused_forward(
        K: Any,
        x: Any,
        target: Any,
        weight: Any,
        ignore_index: int,
        reduction: str,
        smoothing: float,
    ) -> Any:
        samples, classes, length = _sizes(x)
        positions, dtype = samples * length, x.dtype
        x, weight = K.dense(x), _dense(K, weight)
        spread = target.dtype in dtypes.FLOATING
        operands = (x, None, K.dense(target)) if spread else (x, _numbers(K, target), None)
        losses = K.empty((2, positions), K.acc(dtype))
        kept = K.empty((3, positions), K.acc(dtype))
        errors = K.errors("cross_entropy", "Target")
        if _as_rows(classes, length):
            K.kept_rows(
                "cross_entropy_rows", dtype, samples, classes, 1, *operands, weight,
                losses, kept, errors, samples, classes, ignore_index, smoothing,
            )  # fmt: skip
        else:
            K.elementwise(
                "cross_entropy_positions", dtype, 4 * positions, *operands, weight,
                losses, kept, errors, samples, classes, length, ignore_index, smoothing,
            )  # fmt: skip
        dim = class_dim(x)
        shape = x.shape[:dim] + x.shape[dim + 1 :]
        out, count = _reduced(K, x, losses, shape, reduction, not spread)
        return out, (kept, count)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        ignore_index, reduction, smoothing = ctx.attrs
        kept, count = ctx.aux
        x, target, weight = ctx.saved
        if kept is None or not K.takes(grad, x):
            return NotImplemented
        samples, classes, length = _sizes(x)
        positions, dtype = samples * length, x.dtype
        x, grad, weight = K.dense(x), K.dense(grad), _dense(K, weight)
        each = int(reduction == "none")
        dx = dtarget = None
        scale = 1 / positions if count is None and reduction == "mean" else 1.0
        if ctx.edges[0] is not None:
            dx = K.empty_like(x)
            spread = target.dtype in dtypes.FLOATING
            operands = (None, K.dense(target)) if spread else (_numbers(K, target), None)
            if _as_rows(classes, length):
                K.kept_rows(
                    "cross_entropy_rows_backward", dtype, samples, classes, 1,
                    grad, x, *operands, weight, kept, count, dx, samples, classes,
                    ignore_index, each, smoothing, scale,
                )  # fmt: skip
            else:
                K.elementwise(
                    "cross_entropy_positions_backward", dtype, 4 * positions,
                    grad, x, *operands, weight, kept, count, dx, samples, classes, length,
                    ignore_index, each, smoothing, scale,
                )  # fmt: skip
        if ctx.edges[1] is not None:
            dtarget = K.empty_like(x)
            K.elementwise(
                "cross_entropy_targets_backward", dtype, 4 * positions,
                grad, x, weight, kept, dtarget, samples, classes, length, each,
                1 - smoothing, scale,
            )  # fmt: skip
        return dx, dtarget, None


def _as_rows(classes: int, length: int) -> bool:
    """Whether a team takes a position, and not a thread."""
    return length == 1 and classes > 32


class NllLoss(Op):
    """The negative log-likelihood of class numbers; aux: what a mean was divided by."""

    grad_name = "NllLossBackward0"
    reads = ((1, 2), (), ())
    constants = (1, 2)
    has_aux = True
    native_from = native_backward_from = 1 << 13

    def forward(
        xp: Any, x: Any, target: Any, weight: Any, ignore_index: int, reduction: str
    ) -> Any:
        dim = class_dim(x)
        counts, safe = _counts(xp, target, weight, ignore_index, x.dtype)
        picked = xp.take_along_axis(x, xp.expand_dims(safe, dim), axis=dim).squeeze(dim)
        losses = xp.where(counts == 0, 0, -counts * picked).astype(x.dtype)
        if reduction == "none":
            return losses, None
        if reduction == "sum":
            return losses.sum(), None
        count = xp.asarray(counts.sum())
        return losses.sum() / count, count

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        ignore_index, reduction = ctx.attrs
        target, weight = (None if v is None else F.array(v) for v in ctx.saved)
        shape = tuple(ctx.shapes[0])
        dim = 0 if len(shape) == 1 else 1
        raw = F.array(grad)
        xp = NAMESPACES[raw.__class__].xp
        counts, safe = _counts(xp, target, weight, ignore_index, raw.dtype)
        if ctx.aux is not None:
            # 0 also where all of them are ignored, and the mean is that of nothing.
            counts = xp.where(counts == 0, 0, counts / ctx.aux.reshape(()))
        slope = xp.zeros(shape, raw.dtype)
        spread = xp.expand_dims(safe, dim)
        xp.put_along_axis(slope, spread, xp.expand_dims(-counts, dim).astype(raw.dtype), axis=dim)
        if reduction == "none":
            grad = grad.reshape((*shape[:dim], 1, *shape[dim + 1 :]))
        return grad * (wrap(slope) if F.tensors else slope), None, None

    def fused_forward(
        K: Any, x: Any, target: Any, weight: Any, ignore_index: int, reduction: str
    ) -> Any:
        samples, classes, length = _sizes(x)
        losses = K.empty((2, samples * length), K.acc(x.dtype))
        K.elementwise(
            "nll_loss_forward", x.dtype, 4 * samples * length, K.dense(x), _numbers(K, target),
            _dense(K, weight), losses, K.errors("nll_loss", "Target"), samples, classes, length,
            ignore_index,
        )  # fmt: skip
        dim = class_dim(x)
        return _reduced(K, x, losses, x.shape[:dim] + x.shape[dim + 1 :], reduction, True)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        ignore_index, reduction = ctx.attrs
        target, weight = ctx.saved
        if not K.takes(grad):
            return NotImplemented
        dx = K.zeros(tuple(ctx.shapes[0]), grad.dtype)
        samples, classes, length = _sizes(dx)
        K.elementwise(
            "nll_loss_backward", grad.dtype, 4 * samples * length, K.dense(grad),
            _numbers(K, target), _dense(K, weight), ctx.aux, dx, samples, classes, length,
            ignore_index, int(reduction == "none"),
        )  # fmt: skip
        return dx, None, None


def with_kernels(
    op: Any, input: Tensor, target: Tensor, weight: Tensor | None, *attrs: Any
) -> Tensor | None:
    """One of the ops above, or None where there are no kernels for these operands.

    A GPU's kernels look for class numbers out of range: the host would have to wait for it.
    """
    x, t = input.array, target.array
    F = NAMESPACES[x.__class__]
    K = F.launcher or launcher(op, F.xp, x)
    if K is None or not x.ndim or t.__class__ is not x.__class__ or not K.takes(x):
        return None
    if t.dtype in dtypes.FLOATING:
        fits = t.dtype == x.dtype and t.shape == x.shape
    else:
        dim = class_dim(x)
        fits = t.dtype.kind in "iu" and t.shape == x.shape[:dim] + x.shape[dim + 1 :]
    if weight is not None:
        w = weight.array
        fits = fits and not weight.requires_grad and w.shape == (x.shape[class_dim(x)],)
        fits = fits and K.takes(x, w)
    if not fits:
        return None
    if isinstance(x, np.ndarray) and t.dtype not in dtypes.FLOATING:
        check_classes(t, x.shape[class_dim(x)], attrs[0])
    return apply(op, (input, target, weight), *attrs)  # type: ignore[no-any-return]
