"""Recurrent layers on a GPU: one kernel for a sequence, or one and a product for each step.

Nothing is turned round for a layer that runs from the last step to the first: its states lie in
the order of time like those of the other direction, one place further on.

On the CPU that is so for the LSTM alone. Its gates lie one after another there, (gates, N, H), so
that the products are those of the rule, and the kernels see a batch of one with N * H states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gradlite.ops import rnn_sequence
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


class SerialSteps(NamedTuple):
    """What `lstm_in_one_thread` leaves: gates (T, 4, N, H), and all states (T + 1, N, H)."""

    gates: Any
    states: Any
    cells: Any


class Projected(NamedTuple):
    """What an LSTM with a projection leaves, by its kernels or by its rule.

    Attributes:
        gates: (T, N, 4 * H).
        states: hidden states of all steps and the first one, (T + 1, N, P).
        cells: cell states likewise, (T + 1, N, H).
        wide: hidden states before they are projected, (T, N, H).
    """

    gates: Any
    states: Any
    cells: Any
    wide: Any


class Walk:
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
    """Whether kernels can serve a layer of such arrays."""
    return K.takes(*[array for array in arrays if array is not None])  # type: ignore[no-any-return]


def _launch(K: Any, kernel: str, shape: tuple[int, int], dtype: Any, *arguments: Any) -> None:
    grid = min(-(-shape[0] * shape[1] // BLOCK), 65535)
    K.launch(kernel, dtype, (grid,), (BLOCK,), *arguments, *shape)


def _input_product(K: Any, x: Any, w: Any) -> Any:
    steps, batch, size = x.shape
    gates = K.empty((steps, batch, len(w)), x.dtype)
    product_of(K.xp)(x.reshape(-1, size), w.T, out=gates.reshape(steps * batch, -1))
    return gates


def _states(K: Any, x: Any, start: Any, walk: Walk) -> Any:
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
    walk, x = Walk(len(x), reverse), K.dense(x)
    gates = _input_product(K, x, w_ih)
    if rnn_sequence.serves(K, x.dtype, (len(x), *h0.shape), 4):
        hs, cs, h, c = rnn_sequence.lstm_forward(K, gates, h0, c0, w_hh, b_ih, b_hh, reverse)
        return (walk.after(hs), h, c), Steps(gates, hs, cs)
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


def lstm_projected(
    K: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
    reverse: bool,
) -> Any:  # fmt: skip
    """As `lstm`, with hidden states that are products by (P, H) of what its kernel makes."""
    walk, x = Walk(len(x), reverse), K.dense(x)
    gates = _input_product(K, x, w_ih)
    hs, cs = _states(K, x, h0, walk), _states(K, x, c0, walk)
    wide, r = K.empty((len(x), *c0.shape), x.dtype), K.empty(gates.shape[1:], x.dtype)
    biases, matmul = _biases(K, b_ih, b_hh), product_of(K.xp)
    for t in walk.order:
        old, new = t + walk.old, t + walk.new
        matmul(hs[old], w_hh.T, out=r)
        _launch(
            K, "lstm_forward", c0.shape, x.dtype, gates[t], r, *biases, cs[old], cs[new], wide[t]
        )
        matmul(wide[t], w_hr.T, out=hs[new])
    last = walk.last
    left = Projected(gates, hs, cs, wide)
    return (walk.after(hs), hs[last].copy(), cs[last].copy()), left


def gru(K: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, reverse: bool) -> Any:
    """The hidden states of all steps, the last one, and what is left over."""
    walk, x = Walk(len(x), reverse), K.dense(x)
    gates = _input_product(K, x, w_ih)
    if rnn_sequence.serves(K, x.dtype, (len(x), *h0.shape), 3):
        hs, inner, h = rnn_sequence.gru_forward(K, gates, h0, w_hh, b_ih, b_hh, reverse)
        return (walk.after(hs), h), Steps(gates, hs, inner)
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
    walk, x = Walk(len(x), reverse), K.dense(x)
    sums = _input_product(K, x, w_ih)
    if rnn_sequence.serves(K, x.dtype, (len(x), *h0.shape), 1):
        hs, h = rnn_sequence.rnn_forward(K, sums, h0, w_hh, b_ih, b_hh, nonlinearity, reverse)
        return (walk.after(hs), h), Steps(None, hs, None)
    hs = _states(K, x, h0, walk)
    r = K.empty(h0.shape, x.dtype)
    biases, matmul, w = _biases(K, b_ih, b_hh), product_of(K.xp), w_hh.T
    relu = int(nonlinearity == "relu")
    for t in walk.order:
        matmul(hs[t + walk.old], w, out=r)
        _launch(K, "rnn_forward", h0.shape, x.dtype, sums[t], r, *biases, hs[t + walk.new], relu)
    return (walk.after(hs), hs[walk.last].copy()), Steps(None, hs, None)


def _by_gates(xp: Any, w: Any) -> Any:
    """A (4 * H, I) weight as contiguous (4, I, H)."""
    return xp.ascontiguousarray(w.reshape(4, w.shape[0] // 4, -1).swapaxes(1, 2))


def lstm_in_one_thread(
    K: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, reverse: bool
) -> Any:
    """As `lstm`; NotImplemented without both kernels, since they hand on what no rule reads."""
    if not (K.ready("lstm_forward", x.dtype) and K.ready("lstm_backward", x.dtype)):
        return NotImplemented
    xp, (batch, hidden) = K.xp, h0.shape
    if reverse:
        x = x[::-1]
    w = _by_gates(xp, w_hh)
    gates = xp.matmul(x[:, None], _by_gates(xp, w_ih))
    if b_ih is not None:
        gates += (b_ih + b_hh).reshape(4, 1, hidden)
    hs, cs = (K.empty((len(x) + 1, batch, hidden), x.dtype) for _ in range(2))
    hs[0], cs[0] = h0, c0
    r, shape = K.empty((4, batch, hidden), x.dtype), (1, batch * hidden)
    for z, h, h_next, c, c_next in zip(gates, hs, hs[1:], cs, cs[1:]):
        xp.matmul(h, w, out=r)
        _launch(K, "lstm_forward", shape, x.dtype, z, r, None, None, c, c_next, h_next)
    out = hs[:0:-1] if reverse else hs[1:]
    return (out, hs[-1].copy(), cs[-1].copy()), SerialSteps(gates, hs, cs)


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
    matmul, shared = product_of(K.xp), back is own
    own, back = own.reshape(-1, own.shape[-1]), back.reshape(-1, back.shape[-1])
    x2, h2 = x.reshape(len(own), -1), before.reshape(len(own), -1)
    b_ih = b_hh = None
    if bias:
        b_ih = column_sums(K, own)
        b_hh = b_ih.copy() if shared else column_sums(K, back)
    return (
        matmul(own, w_ih).reshape(x.shape) if edges[0] else None,
        matmul(own.T, x2) if edges[1] else None,
        matmul(back.T, h2) if edges[2] else None,
        b_ih,
        b_hh,
    )


def _lstm_back(K: Any, ctx: Any, grads: Any, walk: Walk, x: Any) -> tuple[Any, Any, Any]:
    """The gradients of the gates' sums and of the first states, step by step."""
    w_hh, (gates, _, cs) = ctx.saved[4], ctx.aux
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
    return d, rec, dc


def lstm_backward(K: Any, ctx: Any, grads: Any) -> Any:
    """The gradients of the seven inputs of `lstm`."""
    x, _, _, w_ih, w_hh, b_ih, _, _ = ctx.saved
    gates, hs, cs = ctx.aux
    walk, x = Walk(len(x), ctx.attrs[0]), K.dense(x)
    if rnn_sequence.serves(K, x.dtype, (len(x), *cs.shape[1:]), 4):
        d, rec, dc = rnn_sequence.lstm_backward(K, grads, gates, cs, w_hh, walk.reverse)
    else:
        d, rec, dc = _lstm_back(K, ctx, grads, walk, x)
    edges = [ctx.edges[i] for i in (0, 3, 4)]
    grad_x, *weights = _weight_grads(K, edges, d, d, x, walk.before(hs), w_ih, b_ih is not None)
    return (grad_x, rec, dc, *weights)


def _add_product(K: Any, total: Any, a: Any, b: Any) -> None:
    """``total += a @ b``, in one launch where products can do that."""
    if not K.multiplies or K.gemm.add_into(total, a, b) is NotImplemented:
        total += product_of(K.xp)(a, b)


def lstm_projected_backward(K: Any, ctx: Any, grads: Any) -> Any:
    """The gradients of the eight inputs of `lstm_projected`."""
    x, _, _, w_ih, w_hh, b_ih, _, w_hr, _ = ctx.saved
    gates, hs, cs, wide = ctx.aux
    walk, x = Walk(len(x), ctx.attrs[0]), K.dense(x)
    matmul, d = product_of(K.xp), K.empty_like(gates)
    # The gradients of all hidden states, which each step's are added to.
    dh = K.empty(hs.shape, x.dtype)
    for place, grad in ((slice(walk.new, walk.new + len(x)), grads[0]), (walk.first, None)):
        dh[place] = 0 if grad is None else grad
    if grads[1] is not None:
        dh[walk.last] += grads[1]
    dc = K.zeros(cs.shape[1:], x.dtype) if grads[2] is None else K.dense(grads[2]).copy()
    dm = K.empty_like(dc)
    for t in walk.order[::-1]:
        old, new = t + walk.old, t + walk.new
        matmul(dh[new], w_hr, out=dm)
        _launch(
            K, "lstm_backward", dc.shape, x.dtype, dm, None, gates[t], cs[old], cs[new], dc, d[t]
        )
        _add_product(K, dh[old], d[t], w_hh)
    edges = [ctx.edges[i] for i in (0, 3, 4)]
    grad_x, *weights = _weight_grads(K, edges, d, d, x, walk.before(hs), w_ih, b_ih is not None)
    grad_w_hr = None
    if ctx.edges[7]:
        rows = x.shape[0] * x.shape[1]
        grad_w_hr = matmul(walk.after(dh).reshape(rows, -1).T, wide.reshape(rows, -1))
    return (grad_x, dh[walk.first], dc, *weights, grad_w_hr)


def lstm_backward_in_one_thread(K: Any, ctx: Any, grads: Any) -> Any:
    """The gradients of the seven inputs of `lstm_in_one_thread`."""
    x, _, _, w_ih, w_hh, b_ih, _, _ = ctx.saved
    gates, hs, cs = ctx.aux
    (reverse,), xp = ctx.attrs, K.xp
    grad_out, later, grad_c = _given(K, grads, ctx.shapes[-1], x.dtype)
    if reverse:
        x, grad_out = x[::-1], K.dense(grad_out[::-1])
    steps, batch, hidden = grad_out.shape
    dc = grad_c if grads[-1] is None else grad_c.copy()  # which the steps write into
    d, rec = K.empty(gates.shape, x.dtype), K.empty(later.shape, x.dtype)
    r, other = K.empty(gates.shape[1:], x.dtype), K.empty(later.shape, x.dtype)
    w, shape = w_hh.reshape(4, hidden, hidden), (1, batch * hidden)
    for t in range(steps)[::-1]:
        own = d[t]
        _launch(
            K, "lstm_backward", shape, x.dtype, grad_out[t], later, gates[t], cs[t], cs[t + 1], dc,
            own,
        )  # fmt: skip
        xp.matmul(own, w, out=r)
        xp.add(r[0], r[1], out=rec)
        xp.add(r[2], r[3], out=other)
        later = xp.add(rec, other, out=rec)
    edges = ctx.edges
    d = xp.ascontiguousarray(d.swapaxes(0, 1)).reshape(4, steps * batch, hidden)
    grad_x = grad_b = None
    if edges[0] is not None:
        parts = xp.matmul(d, w_ih.reshape(4, hidden, -1))
        grad_x = (parts[0] + parts[1] + (parts[2] + parts[3])).reshape(x.shape)
        grad_x = grad_x[::-1] if reverse else grad_x

    def weights(source: Any, edge: Any) -> Any:
        rows = source.reshape(steps * batch, -1)
        return None if edge is None else xp.matmul(d.swapaxes(1, 2), rows).reshape(4 * hidden, -1)

    if b_ih is not None:
        grad_b = d.sum(1).reshape(-1)
    return (
        grad_x, rec, dc, weights(x, edges[3]), weights(hs[:-1], edges[4]), grad_b,
        None if grad_b is None else grad_b.copy(),
    )  # fmt: skip


def _gru_back(K: Any, ctx: Any, grads: Any, walk: Walk, x: Any) -> tuple[Any, Any, Any]:
    """The gradients of the sums of both sides and of the first state, step by step."""
    w_hh, (gates, hs, inner) = ctx.saved[3], ctx.aux
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
    rec += carry
    return own, back, rec


def gru_backward(K: Any, ctx: Any, grads: Any) -> Any:
    """The gradients of the six inputs of `gru`."""
    x, _, w_ih, w_hh, b_ih, _, _ = ctx.saved
    gates, hs, inner = ctx.aux
    walk, x = Walk(len(x), ctx.attrs[0]), K.dense(x)
    if rnn_sequence.serves(K, x.dtype, (len(x), *hs.shape[1:]), 3):
        own, back, rec = rnn_sequence.gru_backward(K, grads, gates, hs, inner, w_hh, walk.reverse)
    else:
        own, back, rec = _gru_back(K, ctx, grads, walk, x)
    edges = [ctx.edges[i] for i in (0, 2, 3)]
    grad_x, *weights = _weight_grads(
        K, edges, own, back, x, walk.before(hs), w_ih, b_ih is not None
    )
    return (grad_x, rec, *weights)


def _rnn_back(K: Any, ctx: Any, grads: Any, walk: Walk, x: Any) -> tuple[Any, Any]:
    """The gradients of the sums and of the first state, step by step."""
    w_hh, hs = ctx.saved[3], ctx.aux.states
    grad_out, later = _given(K, grads, ctx.shapes[-1], x.dtype)
    d, rec = K.empty_like(grad_out), K.empty_like(later)
    matmul, relu = product_of(K.xp), int(ctx.attrs[0] == "relu")
    for t in walk.order[::-1]:
        _launch(
            K, "rnn_backward", rec.shape, x.dtype, grad_out[t], later, hs[t + walk.new], d[t], relu
        )
        matmul(d[t], w_hh, out=rec)
        later = rec
    return d, rec


def rnn_backward(K: Any, ctx: Any, grads: Any) -> Any:
    """The gradients of the six inputs of `rnn`."""
    x, _, w_ih, w_hh, b_ih, _, _ = ctx.saved
    nonlinearity, reverse = ctx.attrs
    hs = ctx.aux.states
    walk, x = Walk(len(x), reverse), K.dense(x)
    if rnn_sequence.serves(K, x.dtype, (len(x), *hs.shape[1:]), 1):
        d, rec = rnn_sequence.rnn_backward(K, grads, hs, w_hh, nonlinearity, reverse)
    else:
        d, rec = _rnn_back(K, ctx, grads, walk, x)
    edges = [ctx.edges[i] for i in (0, 2, 3)]
    grad_x, *weights = _weight_grads(K, edges, d, d, x, walk.before(hs), w_ih, b_ih is not None)
    return (grad_x, rec, *weights)
