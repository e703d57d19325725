"""Draws by probabilities that tensors hold: Bernoulli's, and indices by their weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import shortcuts
from gradlite.ops.dispatch import apply
from gradlite.ops.draws import drawn
from gradlite.ops.guard import on_its_device
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.positions import least, most
from gradlite.ops.random import fill_with
from gradlite.random import Generator, default_generator
from gradlite.tensor import Tensor, wrap

__all__ = ["bernoulli", "multinomial"]


class Bernoulli(Op):
    """Given samples, whose gradient by the probabilities is 0."""

    constants = (1,)
    reads = ((), ())
    moves = True

    def forward(xp: Any, chances: Any, samples: Any) -> Any:
        return samples

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return F.zeros(grad.shape, grad), None


@on_its_device
def bernoulli(
    input: Tensor, p: float | None = None, *, generator: Generator | None = None
) -> Tensor:
    """1 with the probability that each element gives, or with probability p; else 0."""
    if p is not None:
        blank = wrap(NAMESPACES[input.array.__class__].xp.empty_like(input.array))
        return bernoulli_(blank, p, generator=generator)
    g = default_generator if generator is None else generator
    chances = input.array
    draws = drawn(g, "random", chances.shape, np.dtype(np.float64), input.device)
    if chances.size:
        message = "Expected p_in >= 0 && p_in <= 1 to be true, but got false."
        shortcuts.verify((least(chances) >= 0) & (most(chances) <= 1), RuntimeError, message)
    samples = wrap((draws < chances).astype(chances.dtype))
    return apply(Bernoulli, (input, samples)) if input.requires_grad else samples


@on_its_device
def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Indices drawn with probabilities proportional to each row of weights.

    With replacement by inverting the cumulated weights; without, by an exponential race
    (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).

    >>> import gradlite
    >>> gradlite.multinomial(gradlite.tensor([0.0, 1.0, 0.0]), 2, replacement=True)
    tensor([1, 1])

    Raises:
        RuntimeError: negative or non-finite weights, a row of zeros, ``num_samples`` not positive,
            or more samples than weights without replacement.
    """
    g = default_generator if generator is None else generator
    xp, weights = NAMESPACES[input.array.__class__].xp, input.array
    if weights.ndim not in (1, 2):
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > weights.shape[-1]:
        raise RuntimeError(
            "cannot sample n_sample > prob_dist.size(-1) samples without replacement"
        )
    if weights.dtype not in dtypes.FLOATING:
        raise RuntimeError(
            "multinomial only supports floating-point dtypes for input, got: "
            f"{type_name(weights.dtype)}"
        )
    if weights.shape[-1] > 1 << 24:
        raise RuntimeError("number of categories cannot exceed 2^24")
    rows = weights.reshape(-1, weights.shape[-1]).astype(np.float64)
    if replacement and num_samples > 1:
        negative, endless = (
            f"invalid multinomial distribution (encountering probability entry {what})"
            for what in ("< 0", "= infinity or NaN")
        )
        shortcuts.verify(~(rows < 0).any(), RuntimeError, negative)
        shortcuts.verify(xp.isfinite(rows).all(), RuntimeError, endless)
    else:
        shortcuts.verify(
            (xp.isfinite(rows) & (rows >= 0)).all(),
            RuntimeError,
            "probability tensor contains either `inf`, `nan` or element < 0",
        )
    empty = "invalid multinomial distribution (sum of probabilities <= 0)"
    shortcuts.verify(not len(rows) or least(rows.sum(-1)) > 0, RuntimeError, empty)
    if replacement:
        shape = (rows.shape[0], num_samples)
        draws = drawn(g, "random", shape, np.dtype(np.float64), input.device)
        indices = _inverted(xp, rows, draws)
    else:
        draws = drawn(g, "random", rows.shape, np.dtype(np.float64), input.device)
        able = rows > 0
        times = xp.where(able, -xp.log1p(-draws) / xp.where(able, rows, 1.0), np.inf)
        if num_samples == 1:
            indices = times.argmin(1)
        else:
            indices = xp.argsort(times, axis=1, kind="stable")[:, :num_samples]
    return wrap(indices.astype(np.int64).reshape(*weights.shape[:-1], num_samples))


_COMPARISONS = 1 << 20  # no more of them at a time


def _inverted(xp: Any, rows: Any, draws: Any) -> Any:
    """Where uniform numbers fall among the cumulated weights of their rows."""
    cumulated = rows.cumsum(axis=1)
    places = draws * cumulated[:, -1:]
    if places.size * rows.shape[1] <= _COMPARISONS:
        found = (cumulated[:, None, :] <= places[:, :, None]).sum(axis=-1)
    else:
        found = xp.stack(
            [xp.searchsorted(row, wanted, side="right") for row, wanted in zip(cumulated, places)]
        )
    # A product rounded up to the total would fall behind the last positive weight.
    last = xp.where(rows > 0, xp.arange(rows.shape[1]), 0).max(axis=1)
    return xp.minimum(found, last[:, None])


@on_its_device
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill with 1 with probability p, else 0."""
    g = default_generator if generator is None else generator
    if isinstance(p, Tensor):
        return fill_with(self, bernoulli(p, generator=g).array)
    if not 0.0 <= p <= 1.0:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
    shape, where = self.array.shape, self.device
    return fill_with(self, drawn(g, "bernoulli_mask", shape, np.dtype(np.bool_), where, p))


def _attach() -> None:
    t: Any = Tensor
    t.bernoulli, t.bernoulli_, t.multinomial = bernoulli, bernoulli_, multinomial


_attach()
