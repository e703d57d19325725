"""Recurrent layers on a GPU: a product of matrices and one kernel for each step.

Nothing is turned round for a layer that runs from the last step to the first: its states lie in
the order of time like those of the other direction, one place further on.

On the CPU the rules are faster: NumPy's tanh is vectorised, the compiler's is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gradlite.ops.column_sums import column_sums
from gradlite.ops.products import product_of

BLOCK = 256


class Steps(NamedTuple):
    """What forward leaves for backward.

    Attributes:
        gates: (T, N, gates * H), None for a plain layer.
        states: hidden states of all steps and the first one, (T + 1, N, H).
        rest: cell states likewise, or h_n + b of a GRU, (T, N, H); or None.
    """

    gates: Any
    states: Any
    rest: Any


class _Walk:
    """The steps of a sequence in the order in which they are run."""

    def __init__(self, steps: int, reverse: bool) -> None:
        order = range(steps)
        self.order = order[::-1] if reverse else order
        self.old, self.new = int(reverse), int(not reverse)
        self.first, self.last = (steps, 0) if reverse else (0, steps)
        self.reverse = reverse

    def before(self, states: Any) -> Any:
        """The states that the steps begin with, in the order of time."""
        return states[1:] if self.reverse else states[:-1]

    def after(self, states: Any) -> Any:
        """The states that the steps end with."""
        return states[:-1] if self.reverse else states[1:]


def serves(K: Any, *arrays: Any) -> bool:
    """Whether this module is for a layer of such arrays."""
    return not K.serial and K.takes(*[array for array in arrays if array is not None])


def _launch(K: Any, kernel: str, shape: tuple[int, int], dtype: Any, *arguments: Any) -> None:
    grid = min(-(-shape[0] * shape[1] // BLOCK), 65535)
    K.launch(kernel, dtype, (grid,), (BLOCK,), *arguments, *shape)


def _input_product(K: Any, x: Any, w: Any) -> Any:
    steps, batch, size = x.shape
    gates = K.empty((steps, batch, len(w)), x.dtype)
    product_of(K.xp)(x.reshape(-1, size), w.T, out=gates.reshape(steps * batch, -1))
    return gates


def _states(K: Any, x: Any, start: Any, walk: _Walk) -> Any:
    states = K.empty((len(x) + 1, *start.shape), x.dtype)
    states[walk.first] = start
    return states


def _biases(K: Any, *biases: Any) -> list[Any]:
    return [None if b is None else K.dense(b) for b in biases]


# ---------------------------------------------------------------------------------- forward
def lstm(
    K: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, reverse: bool
) -> Any:
    """The hidden states of all steps, the last hidden and cell state, and what is left over."""
    walk, x = _Walk(len(x), reverse), K.dense(x)
    gates = _input_product(K, x, w_ih)
    hs, cs = _states(K, x, h0, walk), _states(K, x, c0, walk)
    r = K.empty(gates.shape[1:], x.dtype)
    biases, matmul, w = _biases(K, b_ih, b_hh), product_of(K.xp), w_hh.T
    for t in walk.order:
        old, new = t + walk.old, t + walk.new
        matmul(hs[old], w, out=r)
        _launch(
            K, "lstm_forward", h0.shape, x.dtype, gates[t], r, *biases, cs[old], cs[new], hs[new]
        )
    last = walk.last
    return (walk.after(hs), hs[last].copy(), cs[last].copy()), Steps(gates, hs, cs)


def gru(K: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, reverse: bool) -> Any:
    """The hidden states of all steps, the last one, and what is left over."""
    walk, x = _Walk(len(x), reverse), K.dense(x)
    gates = _input_product(K, x, w_ih)
    hs, inner = _states(K, x, h0, walk), K.empty((len(x), *h0.shape), x.dtype)
    r = K.empty(gates.shape[1:], x.dtype)
    biases, matmul, w = _biases(K, b_ih, b_hh), product_of(K.xp), w_hh.T
    for t in walk.order:
        old, new = t + walk.old, t + walk.new
        matmul(hs[old], w, out=r)
        _launch(
            K, "gru_forward", h0.shape, x.dtype, gates[t], r, *biases, hs[old], inner[t], hs[new]
        )
    return (walk.after(hs), hs[walk.last].copy()), Steps(gates, hs, inner)


def rnn(
    K: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, nonlinearity: str,
    reverse: bool,
) -> Any:  # fmt: skip
    """The hidden states of all steps, the last one, and what is left over."""
    walk, x = _Walk(len(x), reverse), K.dense(x)
    sums, hs = _input_product(K, x, w_ih), _states(K, x, h0, walk)
    r = K.empty(h0.shape, x.dtype)
    biases, matmul, w = _biases(K, b_ih, b_hh), product_of(K.xp), w_hh.T
    relu = int(nonlinearity == "relu")
    for t in walk.order:
        matmul(hs[t + walk.old], w, out=r)
        _launch(K, "rnn_forward", h0.shape, x.dtype, sums[t], r, *biases, hs[t + walk.new], relu)
    return (walk.after(hs), hs[walk.last].copy()), Steps(None, hs, None)


# --------------------------------------------------------------------------------- backward
def _given(K: Any, grads: Sequence[Any], shapes: Sequence[Any], dtype: Any) -> list[Any]:
    """The gradients of the outputs, row-major, zeros for those that got none."""
    return [
        K.zeros(shape, dtype) if g is None else K.dense(g) for g, (shape, _) in zip(grads, shapes)
    ]


def _weight_grads(
    K: Any, edges: Sequence[Any], own: Any, back: Any, x: Any, before: Any, w_ih: Any, bias: bool
) -> tuple[Any, ...]:
    """The gradients of the input, the two weights and the two biases, from those of the gates."""
    matmul = product_of(K.xp)
    own, back = own.reshape(-1, own.shape[-1]), back.reshape(-1, back.shape[-1])
    x2, h2 = x.reshape(len(own), -1), before.reshape(len(own), -1)
    b_ih = b_hh = None
    if bias:
        b_ih = column_sums(K, own)
        b_hh = b_ih.copy() if back is own else column_sums(K, back)
    return (
        matmul(own, w_ih).reshape(x.shape) if edges[0] else None,
        matmul(own.T, x2) if edges[1] else None,
        matmul(back.T, h2) if edges[2] else None,
        b_ih,
        b_hh,
    )


def lstm_backward(K: Any, ctx: Any, grads: Any) -> Any:
    """The gradients of the seven inputs of `lstm`."""
    x, _, _, w_ih, w_hh, b_ih, _, _ = ctx.saved
    gates, hs, cs = ctx.aux
    walk, x = _Walk(len(x), ctx.attrs[0]), K.dense(x)
    grad_out, later, grad_c = _given(K, grads, ctx.shapes[-1], x.dtype)
    dc = grad_c if grads[-1] is None else grad_c.copy()  # which the steps write into
    d, rec = K.empty_like(gates), K.empty_like(later)
    matmul = product_of(K.xp)
    for t in walk.order[::-1]:
        _launch(
            K, "lstm_backward", rec.shape, x.dtype, grad_out[t], later, gates[t], cs[t + walk.old],
            cs[t + walk.new], dc, d[t],
        )  # fmt: skip
        matmul(d[t], w_hh, out=rec)
        later = rec
    edges = [ctx.edges[i] for i in (0, 3, 4)]
    grad_x, *weights = _weight_grads(K, edges, d, d, x, walk.before(hs), w_ih, b_ih is not None)
    return (grad_x, rec, dc, *weights)


def gru_backward(K: Any, ctx: Any, grads: Any) -> Any:
    """The gradients of the six inputs of `gru`."""
    x, _, w_ih, w_hh, b_ih, _, _ = ctx.saved
    gates, hs, inner = ctx.aux
    walk, x = _Walk(len(x), ctx.attrs[0]), K.dense(x)
    grad_out, grad_h = _given(K, grads, ctx.shapes[-1], x.dtype)
    own, back = K.empty_like(gates), K.empty_like(gates)
    carry = grad_h if grads[-1] is None else grad_h.copy()  # which the steps write into
    rec, later = K.empty_like(grad_h), None
    matmul = product_of(K.xp)
    for t in walk.order[::-1]:
        _launch(
            K, "gru_backward", rec.shape, x.dtype, grad_out[t], later, gates[t], inner[t],
            hs[t + walk.old], carry, own[t], back[t],
        )  # fmt: skip
        matmul(back[t], w_hh, out=rec)
        later = rec
    edges = [ctx.edges[i] for i in (0, 2, 3)]
    grad_x, *weights = _weight_grads(
        K, edges, own, back, x, walk.before(hs), w_ih, b_ih is not None
    )
    rec += carry
    return (grad_x, rec, *weights)


def rnn_backward(K: Any, ctx: Any, grads: Any) -> Any:
    """The gradients of the six inputs of `rnn`."""
    x, _, w_ih, w_hh, b_ih, _, _ = ctx.saved
    nonlinearity, reverse = ctx.attrs
    hs = ctx.aux.states
    walk, x = _Walk(len(x), reverse), K.dense(x)
    grad_out, later = _given(K, grads, ctx.shapes[-1], x.dtype)
    d, rec = K.empty_like(grad_out), K.empty_like(later)
    matmul, relu = product_of(K.xp), int(nonlinearity == "relu")
    for t in walk.order[::-1]:
        _launch(
            K, "rnn_backward", rec.shape, x.dtype, grad_out[t], later, hs[t + walk.new], d[t], relu
        )
        matmul(d[t], w_hh, out=rec)
        later = rec
    edges = [ctx.edges[i] for i in (0, 2, 3)]
    grad_x, *weights = _weight_grads(K, edges, d, d, x, walk.before(hs), w_ih, b_ih is not None)
    return (grad_x, rec, *weights)
