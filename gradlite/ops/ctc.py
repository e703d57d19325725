"""The connectionist temporal classification loss (Graves et al., 2006).

A target of L labels stands for all sequences of T labels and blanks that become it when repeated
labels are merged and blanks removed. The sum over them runs through 2 L + 1 states, a blank before,
between and after the labels: alpha[t, s] is the logarithm of the probability of all beginnings
that are in state s at time t, beta[t, s] that of all ends from there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops import ctc_launch, ctc_states, shortcuts
from gradlite.ops.bivariate import logaddexp
from gradlite.ops.choose import where
from gradlite.ops.dispatch import apply, gradients_of
from gradlite.ops.gather import check_tensor
from gradlite.ops.guard import on_its_device
from gradlite.ops.joining import cat, stack
from gradlite.ops.loss_kernels import total_loss
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, number, type_name
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["ctc_loss"]

# The logarithm of a probability of 0 where an infinity would make gradients NaN.
IMPOSSIBLE = -1e30
REDUCTIONS = ("none", "mean", "sum")


class CtcLoss(Op):
    """Negative logarithms of targets' probabilities; aux: the alphas, and they as they are.

    Lengths are arrays (N,); ``bound`` is the largest target's length, or more.
    """

    reads = ((0, 1, 2, 3), (), (), ())
    constants = (1, 2, 3)
    has_aux = True

    def forward(
        xp: Any,
        lp: Any,
        targets: Any,
        steps: Any,
        lengths: Any,
        blank: int,
        bound: int,
        reduction: str,
        zero_infinity: bool,
    ) -> Any:
        losses, alphas = ctc_states.walk(xp, lp, targets, steps, lengths, blank, bound)
        aux = (alphas, losses)
        if zero_infinity:
            losses = xp.where(losses == np.inf, 0, losses)
        if reduction == "mean":
            return (losses / xp.maximum(lengths, 1)).mean().astype(lp.dtype), aux
        return losses.sum() if reduction == "sum" else losses, aux

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        # As in PyTorch this is the gradient for probabilities that sum to 1, as those of
        # log_softmax do: exp(log_probs) stands for the derivative of that sum.
        blank, bound, reduction, zero_infinity = ctx.attrs
        lp, targets, steps, lengths = ctx.saved
        raw, lengths = F.array(lp), F.array(lengths)
        xp = NAMESPACES[raw.__class__].xp
        if reduction == "mean":
            share = (1 / (xp.maximum(lengths, 1) * raw.shape[1])).astype(raw.dtype)
            grad = grad * (wrap(share) if F.tensors else share)
        targets, steps, (alphas, losses) = F.array(targets), F.array(steps), ctx.aux
        if not F.tensors:
            slope = xp.broadcast_to(grad, losses.shape)
            return ctc_states.gradient(
                *(xp, slope, lp, targets, steps, lengths, alphas, losses, blank, bound),
                zero_infinity,
            ), None, None, None  # fmt: skip
        if zero_infinity:
            grad = F.where(losses == np.inf, F.zero_beside(grad), grad)
        numbers = ctc_states.numbers_of(xp, targets, lengths, blank, bound)
        grad = grad if grad.array.ndim else grad.expand(losses.shape)
        (own,) = gradients_of(
            lambda p: (_composed(p, numbers, steps, lengths, blank),), (lp,), (grad,), (True,)
        )
        running = (xp.arange(raw.shape[0])[:, None] < steps)[..., None]
        slope = F.where(running, F.exp(lp), F.zero_beside(lp)) * grad.unsqueeze(-1)
        return own + slope, None, None, None

    def fused_forward(
        K: Any,
        lp: Any,
        targets: Any,
        steps: Any,
        lengths: Any,
        blank: int,
        bound: int,
        reduction: str,
        zero_infinity: bool,
    ) -> Any:
        losses, *aux = ctc_launch.forward(
            K, lp, targets, steps, lengths, blank, bound, reduction == "mean", zero_infinity
        )
        if K.serial:
            ctc_states.check_noted(K)
        if reduction != "none":
            scale = 1 / losses.size if reduction == "mean" else 1.0
            losses, _ = total_loss(K, lp.dtype, losses, losses.size, scale)
        return losses, tuple(aux)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        blank, bound, reduction, zero_infinity = ctx.attrs
        lp, targets, steps, lengths = ctx.saved
        alpha, kept = ctx.aux
        mean = reduction == "mean"
        scale = 1 / lp.shape[1] if mean else 1.0
        given = (lp, targets, steps, lengths, alpha, kept, blank, bound)
        out = ctc_launch.backward(K, grad, *given, scale, mean, zero_infinity)
        return out, None, None, None


class CtcLossMean(CtcLoss):
    """The mean, with kernels; PyTorch composes it."""

    grad_name = "MeanBackward0"


class CtcLossSum(CtcLoss):
    """The sum, with kernels."""

    grad_name = "SumBackward0"


def _composed(p: Any, numbers: Any, steps: Any, lengths: Any, blank: int) -> Tensor:
    """The same losses from ops that can be differentiated any number of times."""
    times, batch = p.shape[:2]
    xp = NAMESPACES[p.array.__class__].xp
    labels = xp.full((batch, 2 * numbers.shape[1] + 1), blank, np.int64)
    labels[:, 1::2] = numbers
    skips = xp.zeros(labels.shape, bool)
    skips[:, 3::2] = numbers[:, 1:] != numbers[:, :-1]
    index, states = wrap(labels), 2 * lengths + 1
    never = p.new_full((batch, 2), IMPOSSIBLE)
    first = xp.arange(labels.shape[1]) < 2
    reached = where(wrap(first), p.new_zeros(()), p.new_full((), IMPOSSIBLE))
    finals = []
    alpha: Any = None
    for t in range(times):
        if alpha is not None:
            one = cat([never[:, :1], alpha[:, :-1]], 1)
            two = where(wrap(skips), cat([never, alpha], 1)[:, : labels.shape[1]], IMPOSSIBLE)  # type: ignore[index]
            reached = logaddexp(logaddexp(alpha, one), two)
        alpha = reached + p[t].gather(1, index)
        finals.append(alpha)
    rows = wrap(xp.arange(batch))
    final: Any = stack(finals)[wrap(xp.maximum(steps - 1, 0)), rows]  # type: ignore[index]
    last = final[rows, wrap(states - 1)]
    before = where(wrap(states > 1), final[rows, wrap(xp.maximum(states - 2, 0))], IMPOSSIBLE)
    ends = where(wrap(steps == 0), p.new_zeros(()), logaddexp(last, before))
    return -ends  # type: ignore[operator, no-any-return]


# ------------------------------------------------------------------------------ arguments
CHECKING = " (while checking arguments for ctc_loss_allocate_outputs)"


def _check_dims(of_log_probs: int, of_targets: int) -> None:
    wrong = None
    if of_log_probs != 3:
        wrong = f"3-dimensional tensor, but got {of_log_probs}", "1 'log_probs'"
    elif not 1 <= of_targets <= 2:
        wrong = f"1 to 2 dimensions, but got {of_targets}", "2 'targets'"
    if wrong is not None:
        got, argument = wrong
        raise RuntimeError(f"Expected {got}-dimensional tensor for argument #{argument}{CHECKING}")


def _lengths(name: str, given: Any, count: int, p: Any) -> Any:
    """Lengths as an array of int64: of the host, or of the GPU where they and p are."""
    if isinstance(given, Tensor):
        if p.is_cpu:
            given = given.cpu()  # type: ignore[attr-defined]
        lengths = given.array
        if lengths.dtype.kind not in "iu":
            raise RuntimeError(f"{name} must be integral")
        lengths = lengths.astype(np.int64, copy=False).reshape(-1)
    else:
        lengths = np.array(given, np.int64).reshape(-1)
    if lengths.size != count:
        raise RuntimeError(f"{name} must be of size batch_size")
    return lengths


def _too_short(name: str, lengths: Any) -> str:
    value = number(lengths.min())
    return f"Expected {name} to have value at least 0, but got value {value}{CHECKING}"


def _too_long(lengths: Any, most: int) -> str:
    value = number(lengths.max())
    return f"Expected input_lengths to have value at most {most}, but got value {value}{CHECKING}"


def _of_other_size(wanted: Any, dim: int, size: int, at_least: str = "") -> str:
    return (
        f"Expected tensor to have size {at_least}{wanted} at dimension {dim}, but got size "
        f"{size} for argument #2 'targets'{CHECKING}"
    )


def _of_fewer_labels(lengths: Any, size: int) -> str:
    return _of_other_size(number(lengths.max()), 1, size, "at least ")


def _of_other_sum(lengths: Any, size: int) -> str:
    return _of_other_size(number(lengths.sum()), 0, size)


def _check(targets: Any, steps: Any, lengths: Any, times: int) -> None:
    """RuntimeError for lengths that do not fit; on a GPU kernels look at them."""
    error, batch = RuntimeError, lengths.size
    if isinstance(lengths, np.ndarray):
        shortest = (lengths.min() >= 0, error, _too_short, "target_lengths", lengths)
        shortcuts.require(*shortest)
    if targets.ndim == 2 and targets.shape[0] != batch:
        raise error(_of_other_size(batch, 0, targets.shape[0]))
    if isinstance(lengths, np.ndarray):
        size = targets.shape[-1]
        if targets.ndim == 2:
            shortcuts.require(lengths.max() <= size, error, _of_fewer_labels, lengths, size)
        else:
            shortcuts.require(lengths.sum() == size, error, _of_other_sum, lengths, size)
    if isinstance(steps, np.ndarray):
        shortcuts.require(steps.max() <= times, error, _too_long, steps, times)
        shortcuts.require(steps.min() >= 0, error, _too_short, "input_lengths", steps)


def _beside(p: Any, targets: Any, steps: Any, lengths: Any) -> tuple[Any, Any, Any]:
    """The targets and lengths as arrays of int64 where the log probabilities are."""
    xp = NAMESPACES[p.__class__].xp
    targets = targets.astype(np.int64, copy=False)
    if not isinstance(p, np.ndarray):
        if isinstance(steps, np.ndarray) and isinstance(lengths, np.ndarray):  # in one copy
            steps, lengths = xp.asarray(np.stack([steps, lengths]))
        steps, lengths = xp.asarray(steps), xp.asarray(lengths)
    return targets, steps, lengths


def _ctc_samples() -> list[Any]:
    def logs(*shape: int) -> Any:
        x = normal(*shape)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    targets = np.array([[1, 2, 2], [3, 1, 1]])
    return [
        S(logs(7, 2, 4), targets, np.array([7, 6]), np.array([3, 2]), smooth=False),
        S(logs(7, 2, 4), targets, (7, 7), (1, 0), reduction="sum", smooth=False),
        S(logs(7, 2, 4), targets, (7, 5), (3, 3), 3, "none", smooth=False),
        S(logs(6, 2, 4), np.array([1, 2, 3]), (6, 4), (2, 1), reduction="none", smooth=False),
        S(logs(5, 4), np.array([1, 2]), np.array(5), np.array(2), smooth=False),
        S(logs(3, 2, 4), targets, (3, 3), (3, 2), zero_infinity=True, smooth=False),
    ]


@public(
    samples=_ctc_samples,
    torch="nn.functional.ctc_loss",
    errors=lambda: [
        S(normal(5, 2, 4), np.array([[1, 2], [3, 1]]), (6, 5), (2, 2)),
        S(normal(5, 2, 4), np.array([[1, 2], [3, 1]]), (5, 5), (3, 2)),
        S(normal(5, 2, 4), np.array([[1, 2], [3, 1]]), (5, 5), (2, 2), 4),
        S(normal(5, 2, 4), np.array([1, 2, 3]), (5, 5), (2, 2)),
        S(normal(5, 2, 4), np.array([1, 2, 3]), (5, 5), (2,)),
        S(normal(5, 2, 4), np.array([[1, 2], [3, 1], [1, 1]]), (5, 5), (2, 2)),
        S(normal(5, 2, 4), np.array([[1, 2], [3, 1]]), (5, -1), (2, 2)),
        S(normal(5, 2, 4), np.array([[1, 2], [3, 1]]), (5, 5), (2, -1)),
    ],
    autocast=("float32", ""),
)
@on_its_device
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """The negative logarithm of the probability of label sequences that are shorter than the input.

    The gradient is right for the logarithms of probabilities that sum to 1, as those of
    `log_softmax` do.

    Args:
        log_probs: (T, N, C), or (T, C) for one sequence.
        targets: (N, S), or all targets one after another.
        input_lengths, target_lengths: (N,), how much of both counts.
        blank: the label that stands for none.
        reduction: "mean" divides each loss by the target's length first.
        zero_infinity: give 0 with no gradient for targets that are longer than the input.

    >>> import gradlite
    >>> p = gradlite.tensor([[[0.5, 0.5]], [[0.5, 0.5]]]).log()
    >>> gradlite.nn.functional.ctc_loss(p, gradlite.tensor([[1]]), (2,), (1,)).exp()
    tensor(1.3333)

    Raises:
        RuntimeError: lengths or a blank that do not fit.
    """
    check_tensor("ctc_loss", "log_probs", 1, log_probs)
    check_tensor("ctc_loss", "targets", 2, targets)
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction")
    batched = log_probs.array.ndim == 3
    p: Any = log_probs if batched else log_probs.unsqueeze(1)  # type: ignore[attr-defined]
    if p.array.dtype not in (np.float32, np.float64):
        raise NotImplementedError(
            f"\"ctc_loss_cpu\" not implemented for '{type_name(p.array.dtype)}'"
        )
    if not p.array.size:
        raise RuntimeError("log_probs tensor must not be empty")
    _check_dims(p.array.ndim, targets.array.ndim)
    times, batch, classes = p.array.shape
    if targets.array.__class__ is not p.array.__class__:
        targets = targets.to(p.device)  # type: ignore[attr-defined]
    if not 0 <= blank < classes:
        raise RuntimeError("blank must be in label range")
    given = _lengths("input_lengths", input_lengths, batch, p)
    counts = _lengths("target_lengths", target_lengths, batch, p)
    _check(targets.array, given, counts, times)
    # Lengths that are in the host's memory say how much there is to do.
    bound = targets.array.shape[-1]
    if counts.__class__ is np.ndarray or not isinstance(target_lengths, Tensor):
        bound = int(counts.max())
    labels, steps, lengths = _beside(p.array, targets.array, given, counts)
    inputs = (p, targets if labels is targets.array else wrap(labels), wrap(steps), wrap(lengths))
    K = NAMESPACES[p.array.__class__].launcher
    if K is not None:
        op = {"none": CtcLoss, "mean": CtcLossMean, "sum": CtcLossSum}[reduction]
        losses: Any = apply(op, inputs, blank, bound, reduction, zero_infinity)
        return losses if batched or reduction != "none" else losses.squeeze(0)  # type: ignore[no-any-return]
    losses = apply(CtcLoss, inputs, blank, bound, "none", zero_infinity)
    if zero_infinity:
        losses = where(wrap(losses.array == np.inf), p.new_zeros(()), losses)
    if reduction == "mean":
        return (losses / wrap(np.maximum(lengths, 1))).mean()  # type: ignore[no-any-return]
    if reduction == "sum":
        return losses.sum()  # type: ignore[no-any-return]
    return losses if batched else losses.squeeze(0)  # type: ignore[no-any-return]
