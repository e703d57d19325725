"""Launches of the kernels of the CTC loss (``kernels/ctc.cu``)."""

from __future__ import annotations

from typing import Any

AHEAD = 16  # steps that the kernels read ahead, at most
ROOM = 47 * 1024  # bytes of shared memory, of 48 that a block has: sums take some as well
SPARE = 14  # numbers for each label, where they do not fit there


def _work(K: Any, dtype: Any, batch: int, bound: int, labels: int) -> tuple[int, Any]:
    """Shared memory, in numbers, and memory for the sequences that have no room in it."""
    pairs, dtype = bound + 1, K.acc(dtype)
    if K.serial:
        return 0, K.empty(SPARE * pairs, dtype)
    most = ROOM // dtype.itemsize
    fixed, step = 7 * pairs + 5, pairs + 1
    if fixed + step > most:
        return most, K.empty(SPARE * (labels + batch), dtype)
    return min(most, fixed + AHEAD * step), None


def _strided(K: Any, lp: Any) -> Any:
    """Log probabilities whose classes lie side by side."""
    return lp if lp.strides[2] == lp.itemsize and min(lp.strides) >= 0 else K.dense(lp)


def _sizes(lp: Any, targets: Any) -> tuple[tuple[int, ...], int]:
    """What both kernels are told of sizes, and how many labels there are room for."""
    times, batch, classes = lp.shape
    longest = targets.shape[1] if targets.ndim == 2 else 0
    return (times, batch, classes, longest, targets.size), batch * longest or targets.size


def noted(K: Any) -> Any:
    """Where the kernels note labels and lengths that are none."""
    return K.errors("ctc_loss", "Target", "target_length", "input_length")


def forward(
    K: Any,
    lp: Any,
    targets: Any,
    steps: Any,
    lengths: Any,
    blank: int,
    bound: int,
    mean: bool = False,
    zero_infinity: bool = False,
) -> tuple[Any, Any, Any]:
    """The losses as a mean adds them up, the alphas in the kernels' order, and the losses."""
    dtype, lp = lp.dtype, _strided(K, lp)
    sizes, labels = _sizes(lp, targets)
    times, batch = sizes[:2]
    # Both at once: where one cannot be compiled, the rules do without the other.
    K.compile(dtype, "ctc_loss_forward", "ctc_loss_backward")
    room, spare = _work(K, dtype, batch, bound, labels)
    losses, kept = K.empty(batch, K.acc(dtype)), K.empty(batch, K.acc(dtype))
    alpha = K.empty(2 * times * (labels + batch), K.acc(dtype))
    by_time, by_batch = (stride // lp.itemsize for stride in lp.strides[:2])
    threads = min(256, max(64, 32 * -(-(bound + 1) // 32)))
    K.launch(
        "ctc_loss_forward", dtype, (min(batch, 65535),), (threads,), K.reach(lp), K.dense(targets),
        K.dense(steps), K.dense(lengths), alpha, kept, losses, spare, noted(K), *sizes, blank, room,
        by_time, by_batch, int(mean), int(zero_infinity), shared=room * K.acc(dtype).itemsize,
    )  # fmt: skip
    return losses, alpha, kept


def backward(
    K: Any,
    grad: Any,
    lp: Any,
    targets: Any,
    steps: Any,
    lengths: Any,
    alpha: Any,
    kept: Any,
    blank: int,
    bound: int,
    scale: float = 1.0,
    mean: bool = False,
    zero_infinity: bool = False,
) -> Any:
    """The gradient of the log probabilities, which lies in memory as they do."""
    dtype, lp = lp.dtype, _strided(K, lp)
    sizes, labels = _sizes(lp, targets)
    times, batch, classes = lp.shape
    room, spare = _work(K, dtype, batch, bound, labels)
    by_time, by_batch = (stride // lp.itemsize for stride in lp.strides[:2])
    if by_batch > by_time:
        out, order = K.empty((batch, times, classes), dtype), (classes, times * classes)
    else:
        out, order = K.empty((times, batch, classes), dtype), (batch * classes, classes)
    K.launch(
        "ctc_loss_backward", dtype, (min(batch, 65535),), (256,), K.dense(grad), K.reach(lp),
        K.dense(targets), K.dense(steps), K.dense(lengths), alpha, kept,
        K.empty(alpha.shape, alpha.dtype), out, spare, noted(K), *sizes, blank, room, by_time,
        by_batch, *order, int(grad.ndim), int(mean), int(zero_infinity), scale,
        shared=room * K.acc(dtype).itemsize,
    )  # fmt: skip
    return out.transpose(1, 0, 2) if by_batch > by_time else out
