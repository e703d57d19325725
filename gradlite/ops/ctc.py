"""The connectionist temporal classification loss (Graves et al., 2006).

A target of L labels stands for all sequences of T labels and blanks that become it when repeated
labels are merged and blanks removed. The sum over them runs through 2 L + 1 states, a blank before,
between and after the labels: alpha[t, s] is the logarithm of the probability of all beginnings
that are in state s at time t, beta[t, s] that of all ends from there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.bivariate import logaddexp
from gradlite.ops.choose import where
from gradlite.ops.dispatch import apply, gradients_of
from gradlite.ops.gather import check_tensor
from gradlite.ops.guard import on_its_device
from gradlite.ops.joining import cat, stack
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["ctc_loss"]

# The logarithm of a probability of 0 where an infinity would make gradients NaN.
IMPOSSIBLE = -1e30


def _later(xp: Any, rows: Any, by: int) -> Any:
    """Rows moved to higher states; nothing comes from below the first."""
    out = xp.full_like(rows, -np.inf)
    out[:, by:] = rows[:, : rows.shape[1] - by]
    return out


def _step(xp: Any, rows: Any, skips: Any) -> Any:
    """What reaches each state from itself, the one before it, and the label before it."""
    two = xp.where(skips, _later(xp, rows, 2), -np.inf)
    return xp.logaddexp(xp.logaddexp(rows, _later(xp, rows, 1)), two)


def _ends(xp: Any, final: Any, states: Any) -> Any:
    """The logarithm of the probability of being in one of the last two states."""
    rows = xp.arange(len(states))
    last = final[rows, states - 1]
    before = xp.where(states > 1, final[rows, xp.maximum(states - 2, 0)], -np.inf)
    return xp.logaddexp(last, before)


class CtcLoss(Op):
    """Negative logarithms of targets' probabilities; aux: the alphas."""

    reads = ((0,),)
    has_aux = True

    def forward(xp: Any, lp: Any, labels: Any, skips: Any, steps: Any, states: Any) -> Any:
        times, batch = lp.shape[:2]
        rows = xp.arange(batch)[:, None]
        alphas = xp.full((times, *labels.shape), -np.inf, lp.dtype)
        first = xp.full(labels.shape, -np.inf, lp.dtype)
        first[:, 0] = 0
        first[:, 1:2] = 0
        final = xp.where(xp.arange(labels.shape[1]) == 0, 0, first) - np.inf
        for t in range(times):
            reached = first if t == 0 else _step(xp, alphas[t - 1], skips)
            alphas[t] = reached + lp[t][rows, labels]
            final = xp.where((steps == t + 1)[:, None], alphas[t], final)
        # Without a step, the empty target is certain and any other impossible.
        empty = xp.where(states == 1, 0.0, -np.inf)
        ends = xp.where(steps == 0, empty, _ends(xp, final, states))
        return -ends.astype(lp.dtype), alphas

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (lp,) = ctx.saved
        labels, skips, steps, states = ctx.attrs
        # As in PyTorch this is the gradient for probabilities that sum to 1, as those of
        # log_softmax do: exp(log_probs) stands for the derivative of that sum.
        if F.tensors:
            (own,) = gradients_of(
                lambda p: (_composed(p, *ctx.attrs),), (lp,), (grad,), (ctx.edges[0] is not None,)
            )
            xp = NAMESPACES[lp.array.__class__].xp
            running = (xp.arange(lp.shape[0])[:, None] < steps)[..., None]
            return (own + F.where(running, F.exp(lp), F.zero_beside(lp)) * grad.unsqueeze(-1),)
        xp, alphas = F.xp, ctx.aux
        times, batch = lp.shape[:2]
        rows = xp.arange(batch)[:, None]
        count = labels.shape[1]
        at_end = (xp.arange(count) >= states[:, None] - 2) & (xp.arange(count) < states[:, None])
        last = xp.where(at_end, 0.0, -np.inf).astype(lp.dtype)
        # Backwards the states come in reverse: a skip leads to a label from the one before it.
        turned = xp.zeros_like(skips)
        turned[:, 2:] = skips[:, ::-1][:, : count - 2] if count > 2 else turned[:, 2:]
        beta = xp.full(labels.shape, -np.inf, lp.dtype)
        out = xp.zeros(lp.shape, lp.dtype)
        loss = None
        for t in range(times - 1, -1, -1):
            if t + 1 < times:
                ahead = beta + lp[t + 1][rows, labels]
                beta = _step(xp, ahead[:, ::-1], turned)[:, ::-1]
            beta = xp.where((steps == t + 1)[:, None], last, beta)
            running = ((steps > t) & (grad != 0))[:, None]
            total = alphas[t] + beta
            loss = xp.logaddexp.reduce(total, axis=1) if xp is np else _logsumexp(xp, total)
            share = xp.exp(total - loss[:, None])
            posterior = xp.zeros(lp.shape[1:], lp.dtype)
            xp.add.at(posterior, (xp.broadcast_to(rows, labels.shape), labels), share)
            out[t] = xp.where(running, (xp.exp(lp[t]) - posterior) * grad[:, None], 0)
        return (out,)


def _logsumexp(xp: Any, x: Any) -> Any:
    top = x.max(1)
    safe = xp.where(xp.isfinite(top), top, 0)
    return xp.log(xp.exp(x - safe[:, None]).sum(1)) + safe


def _composed(p: Any, labels: Any, skips: Any, steps: Any, states: Any) -> Tensor:
    """The same losses from ops that can be differentiated any number of times."""
    times, batch = p.shape[:2]
    xp = NAMESPACES[p.array.__class__].xp
    index = wrap(xp.broadcast_to(labels, (batch, labels.shape[1])))
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


def _lengths(name: str, given: Any, count: int) -> np.ndarray[Any, Any]:
    if isinstance(given, Tensor):
        if given.array.dtype in dtypes.FLOATING:
            raise RuntimeError(f"{name} must be integral")
        given = given.tolist()
    lengths = np.array(given, np.int64).reshape(-1)
    if lengths.size != count:
        raise RuntimeError(f"{name} must be of size batch_size")
    return lengths


def _states(targets: Any, lengths: Any, blank: int) -> tuple[Any, Any]:
    """The label of each state, and into which one leads from the label before it."""
    longest = int(lengths.max(initial=0))
    if targets.ndim == 1:
        rows = np.zeros((len(lengths), longest), np.int64)
        starts = np.cumsum(lengths) - lengths
        for row, start, n in zip(rows, starts, lengths):
            row[:n] = targets[start : start + n]
    else:
        rows = targets[:, :longest]
    labels = np.full((len(lengths), 2 * longest + 1), blank, np.int64)
    labels[:, 1::2] = rows
    skips = np.zeros(labels.shape, bool)
    skips[:, 3::2] = rows[:, 1:] != rows[:, :-1]
    return labels, skips


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
    batched = log_probs.array.ndim == 3
    p: Any = log_probs if batched else log_probs.unsqueeze(1)  # type: ignore[attr-defined]
    times, batch, classes = p.array.shape
    if p.array.dtype not in dtypes.FLOATING:
        raise RuntimeError(f"\"ctc_loss_cpu\" not implemented for '{type_name(p.array.dtype)}'")
    steps = _lengths("input_lengths", input_lengths, batch)
    lengths = _lengths("target_lengths", target_lengths, batch)
    if not 0 <= blank < classes:
        raise RuntimeError("blank must be in label range")
    given = targets.array if isinstance(targets.array, np.ndarray) else targets.array.get()
    given = given.astype(np.int64)
    if steps.size and steps.max() > times:
        raise RuntimeError(
            f"Expected input_lengths to have value at most {times}, but got value "
            f"{int(steps.max())} (while checking arguments for ctc_loss_allocate_outputs)"
        )
    for what, those in (("input_lengths", steps), ("target_lengths", lengths)):
        if those.size and those.min() < 0:
            raise RuntimeError(
                f"Expected {what} to have value at least 0, but got value {int(those.min())} "
                "(while checking arguments for ctc_loss_allocate_outputs)"
            )
    if given.ndim == 2 and given.shape[0] != batch:
        raise RuntimeError(
            f"Expected tensor to have size {batch} at dimension 0, but got size {given.shape[0]} "
            "for argument #2 'targets' (while checking arguments for ctc_loss_allocate_outputs)"
        )
    if given.ndim == 1 and batched and given.size != lengths.sum():
        raise RuntimeError(
            f"Expected tensor to have size {int(lengths.sum())} at dimension 0, but got size "
            f"{given.size} for argument #2 'targets' (while checking arguments for "
            "ctc_loss_allocate_outputs)"
        )
    if given.ndim == 2 and lengths.size and lengths.max() > given.shape[1]:
        raise RuntimeError(
            f"Expected tensor to have size at least {int(lengths.max())} at dimension 1, but got "
            f"size {given.shape[1]} for argument #2 'targets' (while checking arguments for "
            "ctc_loss_allocate_outputs)"
        )
    labels, skips = _states(given, lengths, blank)
    xp = NAMESPACES[p.array.__class__].xp
    attrs = [xp.asarray(a) for a in (labels, skips, steps, 2 * lengths + 1)]
    losses: Any = apply(CtcLoss, (p,), *attrs)
    if zero_infinity:
        losses = where(wrap(xp.isinf(losses.array)), p.new_zeros(()), losses)
    if reduction == "mean":
        return (losses / wrap(xp.asarray(np.maximum(lengths, 1)))).mean()  # type: ignore[no-any-return]
    if reduction == "sum":
        return losses.sum()  # type: ignore[no-any-return]
    if reduction != "none":
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return losses if batched else losses.squeeze(0)  # type: ignore[no-any-return]
