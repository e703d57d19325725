"""The states that the CTC loss goes through, with NumPy: forwards in time, and backwards.

A target of L labels is walked through in L + 1 pairs of states, the blank before a label and the
label; the last has a blank alone, and a label that nothing reaches. A row of states has the blanks,
one state that nothing reaches, and the labels; in the order of time from the end, another one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.backends.kernels import NoKernelError
from gradlite.ops import ctc_launch, natively, positions

# From how many log probabilities on the kernels are worth the call of a compiler.
NATIVE_FROM = 1 << 8


def numbers_of(xp: Any, targets: Any, lengths: Any, blank: int, bound: int) -> Any:
    """Labels (N, bound), with blanks behind those that count.

    Args:
        targets: (N, S), or all labels one after another.
        bound: the largest length, or more.
    """
    places = xp.arange(bound)
    if targets.ndim == 2:
        rows = targets[:, :bound]
    else:
        starts = xp.cumsum(lengths) - lengths
        flat = xp.minimum(starts[:, None] + places, max(targets.size - 1, 0))
        rows = targets[flat] if targets.size else xp.zeros(flat.shape, np.int64)
    return xp.where(places < lengths[:, None], rows, blank)


def gates_of(xp: Any, numbers: Any, dtype: Any) -> Any:
    """0 where a label may follow the one before it at once, -inf elsewhere: (N, bound + 1)."""
    gates = xp.full((numbers.shape[0], numbers.shape[1] + 1), -np.inf, dtype)
    gates[:, 1:-1] = xp.where(numbers[:, 1:] != numbers[:, :-1], 0, -np.inf)
    return gates


def _read(xp: Any, lp: Any, numbers: Any, blank: int) -> tuple[Any, Any]:
    """Log probabilities of the blank, (T, N, 1), and of labels and one more, (T, N, pairs)."""
    times, batch = lp.shape[:2]
    labels = xp.full((times, batch, numbers.shape[1] + 1), -np.inf, lp.dtype)
    labels[..., :-1] = lp[:, xp.arange(batch)[:, None], numbers]
    return lp[..., blank : blank + 1], labels


def _native(xp: Any, lp: Any) -> Any:
    """The launcher of the kernels on the CPU, or None where NumPy does."""
    if lp.size < NATIVE_FROM or xp not in natively.LAUNCHERS:
        return None
    return natively.LAUNCHERS[xp]()


def walk(
    xp: Any, lp: Any, targets: Any, steps: Any, lengths: Any, blank: int, bound: int
) -> tuple[Any, Any]:
    """The negative logarithms of the targets' probabilities, and the alphas.

    Raises:
        IndexError: a label that is none.
    """
    K = _native(xp, lp)
    if K is not None:
        try:
            _, alphas, losses = ctc_launch.forward(K, lp, targets, steps, lengths, blank, bound)
        except NoKernelError:
            pass
        else:
            check_noted(K)
            return losses, alphas
    times, batch, classes = lp.shape
    numbers, pairs = numbers_of(xp, targets, lengths, blank, bound), bound + 1
    wrong = (numbers < 0) | (numbers >= classes)
    if xp is np and wrong.any():
        raise IndexError(OUT_OF_BOUNDS.format(numbers[wrong][0]))
    at_blank, at_labels = _read(xp, lp, numbers, blank)
    gates, step = gates_of(xp, numbers, lp.dtype), xp.empty((batch, pairs), lp.dtype)
    alphas = xp.full((times + 1, batch, 2 * pairs + 1), -np.inf, lp.dtype)
    alphas[0, :, 0] = 0
    for t in range(times):
        row, after = alphas[t], alphas[t + 1]
        blanks, before, labels = row[:, :pairs], row[:, pairs:-1], row[:, pairs + 1 :]
        xp.logaddexp(blanks, before, out=step)
        xp.add(step, at_blank[t], out=after[:, :pairs])
        xp.add(before, gates, out=step)
        xp.logaddexp(step, labels, out=step)
        xp.logaddexp(step, blanks, out=step)
        xp.add(step, at_labels[t], out=after[:, pairs + 1 :])
    rows = xp.arange(batch)
    ends = xp.logaddexp(alphas[steps, rows, lengths], alphas[steps, rows, lengths + pairs])
    return -ends, alphas


OUT_OF_BOUNDS = "Target {} is out of bounds."


def check_noted(K: Any) -> None:
    """IndexError when the kernels of a launcher on the CPU have met a label that is none."""
    found = ctc_launch.noted(K)
    if found[:, 0].any():
        index = int(found[found[:, 0].argmax(), 1])
        found[...] = 0
        raise IndexError(OUT_OF_BOUNDS.format(index))


def gradient(
    xp: Any,
    slope: Any,
    lp: Any,
    targets: Any,
    steps: Any,
    lengths: Any,
    alphas: Any,
    losses: Any,
    blank: int,
    bound: int,
    zero_infinity: bool,
) -> Any:
    """The gradient of the log probabilities, from the slope of each loss."""
    K = _native(xp, lp)
    if K is not None and alphas.ndim == 1:
        return ctc_launch.backward(
            *(K, slope, lp, targets, steps, lengths, alphas, losses, blank, bound),
            zero_infinity=zero_infinity,
        )
    times, batch, classes = lp.shape
    numbers, pairs = numbers_of(xp, targets, lengths, blank, bound), bound + 1
    at_blank, at_labels = _read(xp, lp, numbers, blank)
    gates = xp.full((batch, pairs), -np.inf, lp.dtype)
    gates[:, :-1] = gates_of(xp, numbers, lp.dtype)[:, 1:]
    start = xp.where(xp.arange(2 * pairs + 2) == lengths[:, None], 0, -np.inf).astype(lp.dtype)
    row = xp.full(start.shape, -np.inf, lp.dtype)
    betas = xp.empty((times, batch, 2 * pairs), lp.dtype)
    for t in range(times - 1, -1, -1):
        row = xp.where((steps == t + 1)[:, None], start, row)
        labels, beta = row[:, pairs + 1 : -1], betas[t]
        xp.logaddexp(row[:, :pairs], labels, out=beta[:, :pairs])
        into = beta[:, pairs:]
        xp.add(row[:, pairs + 2 :], gates, out=into)
        xp.logaddexp(into, labels, out=into)
        xp.logaddexp(into, row[:, 1 : pairs + 1], out=into)
        xp.add(beta[:, :pairs], at_blank[t], out=row[:, :pairs])
        xp.add(into, at_labels[t], out=row[:, pairs + 1 : -1])
    betas[..., :pairs] += alphas[1:, :, :pairs]
    betas[..., pairs:] += alphas[1:, :, pairs + 1 :]
    possible = losses < np.inf
    betas += xp.where(possible, losses, 0)[:, None]
    shares = xp.exp(betas, out=betas)  # of the whole, up to rounding that they have in common
    whole = shares.sum(-1)
    shares *= (slope / xp.where(whole == 0, 1, whole))[..., None]
    out = xp.ascontiguousarray(xp.exp(lp) * slope[:, None])
    out[..., blank] -= shares[..., :pairs].sum(-1)
    flat = xp.arange(times * batch).reshape(times, batch, 1) * classes + numbers
    positions.add_at(xp, out, flat, -shares[..., pairs:-1])
    nowhere = xp.where(possible | (zero_infinity and losses == np.inf), 0, np.nan)
    running = xp.arange(times)[:, None] < steps
    # As in PyTorch, NaN where there is no way to the target.
    other = xp.where(running, nowhere, 0).astype(lp.dtype)
    return xp.where((running & possible)[..., None], out, other[..., None])
