"""Recurrent layers step by step, from ops that can be differentiated any number of times."""

from __future__ import annotations

from typing import Any

from gradlite.ops.dispatch import gradients_of
from gradlite.ops.joining import chunk, stack, unbind
from gradlite.ops.matmul import linear
from gradlite.tensor import Tensor


def composed(ctx: Any, grads: Any, function: Any) -> tuple[Any, ...]:
    """The gradients of a layer's inputs, by its steps."""
    inputs = ctx.saved[:-1]
    wanted = [e is not None for e in ctx.edges]
    return gradients_of(lambda *t: function(*t, *ctx.attrs), inputs, grads, wanted)


def _ordered(x: Tensor, reverse: bool) -> tuple[Tensor, ...]:
    steps = unbind(x, 0)
    return steps[::-1] if reverse else steps


def lstm_steps(
    x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any,
    reverse: bool, w_hr: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The hidden states of all steps, and the last hidden and cell state, of an LSTM."""
    outs = []
    at_once = not x.is_cpu  # fewer launches; products of single steps stay in the processor's cache
    for step in _ordered(linear(x, w_ih, b_ih) if at_once else x, reverse):
        given = step if at_once else linear(step, w_ih, b_ih)
        i, f, g, o = chunk(given + linear(h, w_hh, b_hh), 4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()  # type: ignore[attr-defined]
        h = o.sigmoid() * c.tanh()  # type: ignore[attr-defined]
        h = h if w_hr is None else linear(h, w_hr)
        outs.append(h)
    return stack(outs[::-1] if reverse else outs), h, c


def gru_steps(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any, reverse: bool
) -> tuple[Tensor, Tensor]:
    """The hidden states of all steps, and the last one, of a GRU."""
    outs = []
    for step in _ordered(x, reverse):
        x_r, x_z, x_n = chunk(linear(step, w_ih, b_ih), 3, -1)
        h_r, h_z, h_n = chunk(linear(h, w_hh, b_hh), 3, -1)
        n = (x_n + (x_r + h_r).sigmoid() * h_n).tanh()  # type: ignore[attr-defined]
        h = n + (x_z + h_z).sigmoid() * (h - n)  # type: ignore[attr-defined]
        outs.append(h)
    return stack(outs[::-1] if reverse else outs), h


def rnn_steps(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any,
    nonlinearity: str, reverse: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The same of a plain layer."""
    outs = []
    for step in _ordered(x, reverse):
        h = linear(step, w_ih, b_ih) + linear(h, w_hh, b_hh)
        h = h.tanh() if nonlinearity == "tanh" else h.relu()  # type: ignore[attr-defined]
        outs.append(h)
    return stack(outs[::-1] if reverse else outs), h
