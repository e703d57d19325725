"""One layer of an LSTM, GRU or plain RNN over a whole sequence, as one node each.

The work arrays keep every gate of every step contiguous, sigmoids are computed as
``tanh(x / 2) / 2 + 1/2`` with the halving folded into the weights, the input's product is one
GEMM for all steps, and backward forms the gradients of all weights by GEMMs over the whole
sequence; only the recurrent product is left in the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite.ops import rnn_cell, rnn_launch
from gradlite.ops.dispatch import OUT, apply, output_grads
from gradlite.ops.op import Op
from gradlite.ops.products import product_of
from gradlite.ops.rnn_projected import LstmProjected
from gradlite.ops.rnn_steps import composed, gru_steps, lstm_steps, rnn_steps
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["gru_sequence", "lstm_sequence", "rnn_sequence"]


def _gates(xp: Any, w: Any, order: Sequence[int], halved: int) -> Any:
    """A (G*H, I) weight as contiguous (G, I, H), gates reordered, the first ones halved."""
    n = len(order)
    parts = w.reshape(n, w.shape[0] // n, w.shape[1])
    result = xp.empty((n, parts.shape[2], parts.shape[1]), w.dtype)
    for place, gate in enumerate(order):
        result[place] = parts[gate].T
    result[:halved] *= w.dtype.type(0.5)
    return result


def _backward_gates(w: Any, order: Sequence[int]) -> Any:
    """A (G*H, I) weight as (G, H, I), gates reordered."""
    n = len(order)
    return w.reshape(n, w.shape[0] // n, w.shape[1])[list(order)]


def _bias(xp: Any, b: Any, order: Sequence[int], halved: int) -> Any:
    """A (G*H,) bias as (G, 1, H), gates reordered, the first ones halved."""
    result = b.reshape(len(order), 1, b.size // len(order))[list(order)]
    result[:halved] *= b.dtype.type(0.5)
    return result


def _restore(grad: Any, order: Sequence[int]) -> Any:
    """(G, H, ...) gradients in the weights' own gate order, flattened to (G*H, ...)."""
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return grad[inverse].reshape(grad.shape[0] * grad.shape[1], *grad.shape[2:])


def _time_sums(matmul: Any, D: Any, x: Any) -> Any:
    """sum over steps and batch of D (G, T, B, H) times x (T, B, I): (G, H, I)."""
    g, t, b, h = D.shape
    return matmul(D.reshape(g, t * b, h).swapaxes(1, 2), x.reshape(t * b, x.shape[-1]))


def _input_grad(matmul: Any, D: Any, w: Any, shape: tuple[int, ...]) -> Any:
    """The gradient of the layer's input from gate gradients (G, T, B, H) and (G, H, I)."""
    g, t, b, h = D.shape
    parts = matmul(D.reshape(g, t * b, h), w)
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total.reshape(shape)


class _Sequence(Op):
    """Base: every gradient may read every input; the output's version guards the history."""

    outputs = 0
    has_aux = True
    grad_name = "CudnnRnnBackward0"


# --------------------------------------------------------------------------------- LSTM
_LSTM = (0, 1, 3, 2)  # PyTorch keeps i f g o; the work arrays i f o g, sigmoids first


class LstmSequence(_Sequence):
    """c' = f c + i g, h' = o tanh(c') over the steps of a sequence."""

    reads = ((0, 1, 2, 3, 4, 5, 6, OUT),) * 7
    grad_name = "LstmSequenceBackward0"
    native_from = native_backward_from = 1 << 11
    native_dtypes = "f"

    def forward(
        xp: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, reverse: bool
    ) -> Any:
        if len(x) == 1:
            return rnn_cell.lstm(xp, x, h0, c0, w_ih, w_hh, b_ih, b_hh)
        if reverse:
            x = x[::-1]
        steps, batch, hidden = x.shape[0], h0.shape[0], h0.shape[1]
        w_h = _gates(xp, w_hh, _LSTM, 3)
        Z = product_of(xp)(x[:, None], _gates(xp, w_ih, _LSTM, 3))
        if b_ih is not None:
            Z += _bias(xp, b_ih + b_hh, _LSTM, 3)
        hs = xp.empty((steps + 1, batch, hidden), x.dtype)
        cs = xp.empty_like(hs)
        tc = xp.empty((steps, batch, hidden), x.dtype)
        hs[0], cs[0] = h0, c0
        r = xp.empty((4, batch, hidden), x.dtype)
        half = xp.asarray(0.5, x.dtype)
        add, multiply, tanh, matmul = xp.add, xp.multiply, xp.tanh, product_of(xp)
        for z, c, c_next, t, h, h_next in zip(Z, cs, cs[1:], tc, hs, hs[1:]):
            matmul(h, w_h, out=r)
            add(r, z, out=r)
            tanh(r, out=z)
            sigmoids = z[:3]
            multiply(sigmoids, half, out=sigmoids)
            add(sigmoids, half, out=sigmoids)
            i, f, o, g = z
            multiply(f, c, out=c_next)
            multiply(i, g, out=t)
            add(c_next, t, out=c_next)
            tanh(c_next, out=t)
            multiply(t, o, out=h_next)
        out = hs[1:]
        if reverse:
            out = out[::-1]
        return (out, hs[-1].copy(), cs[-1].copy()), (Z, hs, cs, tc)

    def fused_forward(K: Any, *args: Any) -> Any:
        if not rnn_launch.serves(K, *args[:7]):
            return NotImplemented
        return (rnn_launch.lstm_in_one_thread if K.serial else rnn_launch.lstm)(K, *args)

    def fused_backward(K: Any, ctx: Any, grads: Any) -> Any:
        if isinstance(ctx.aux, rnn_launch.SerialSteps):
            return rnn_launch.lstm_backward_in_one_thread(K, ctx, grads)
        if not isinstance(ctx.aux, rnn_launch.Steps):  # the rule has run forward
            return NotImplemented
        return rnn_launch.lstm_backward(K, ctx, grads)

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        if F.tensors:
            return composed(ctx, grads, lstm_steps)
        if isinstance(ctx.aux, rnn_cell.LstmStep):
            return rnn_cell.lstm_backward(ctx, output_grads(ctx, grads, F, ctx.saved[0]), F)
        x, _, _, w_ih, w_hh, b_ih, _, _ = ctx.saved
        (reverse,) = ctx.attrs
        Z, hs, cs, tc = ctx.aux
        xp = F.xp
        grad_out, grad_h, grad_c = output_grads(ctx, grads, F, x)
        if reverse:
            x, grad_out = x[::-1], grad_out[::-1]
        i, f, o, g = Z[:, 0], Z[:, 1], Z[:, 2], Z[:, 3]
        K = xp.empty((4, *tc.shape), x.dtype)
        xp.multiply(g, i * (1 - i), out=K[0])
        xp.multiply(cs[:-1], f * (1 - f), out=K[1])
        xp.multiply(tc, o * (1 - o), out=K[2])
        xp.multiply(i, 1 - g * g, out=K[3])
        A = o * (1 - tc * tc)
        w = _backward_gates(w_hh, _LSTM)
        r = xp.empty((4, *tc.shape[1:]), x.dtype)
        dc, rec = grad_c.copy(), grad_h.copy()
        dh, t = xp.empty_like(rec), xp.empty_like(rec)
        add, multiply, matmul = xp.add, xp.multiply, product_of(xp)
        for step in range(tc.shape[0] - 1, -1, -1):
            add(grad_out[step], rec, out=dh)
            multiply(dh, A[step], out=t)
            add(dc, t, out=dc)
            k = K[:, step]
            for gate, factor in zip(k, (dc, dc, dh, dc)):
                multiply(gate, factor, out=gate)
            multiply(dc, f[step], out=dc)
            matmul(k, w, out=r)
            add(r[0], r[1], out=rec)
            add(r[2], r[3], out=t)
            add(rec, t, out=rec)
        edges = ctx.edges
        grad_x = _input_grad(matmul, K, _backward_gates(w_ih, _LSTM), x.shape) if edges[0] else None
        if reverse and grad_x is not None:
            grad_x = grad_x[::-1]
        grad_w_ih = _restore(_time_sums(matmul, K, x), _LSTM) if edges[3] else None
        grad_w_hh = _restore(_time_sums(matmul, K, hs[:-1]), _LSTM) if edges[4] else None
        grad_b = _restore(K.sum((1, 2)), _LSTM) if b_ih is not None else None
        return (
            grad_x, rec, dc, grad_w_ih, grad_w_hh, grad_b, None if grad_b is None else grad_b.copy()
        )  # fmt: skip


def _check(
    x: Tensor,
    h0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    biases: tuple[Tensor | None, ...],
    gates: int,
    c0: Tensor | None = None,
    w_hr: Tensor | None = None,
) -> None:
    hidden = w_hh.array.shape[1]
    if x.array.ndim != 3:
        raise RuntimeError(f"input must have 3 dimensions, got {x.array.ndim}")
    if x.array.shape[-1] != w_ih.array.shape[1]:
        raise RuntimeError(
            "input.size(-1) must be equal to input_size. Expected "
            f"{w_ih.array.shape[1]}, got {x.array.shape[-1]}"
        )
    if h0.array.shape != (x.array.shape[1], hidden):
        raise RuntimeError(
            f"Expected hidden size {(x.array.shape[1], hidden)}, got {list(h0.array.shape)}"
        )
    if x.array.dtype != w_ih.array.dtype or h0.array.dtype != x.array.dtype:
        raise RuntimeError(
            "input, hidden state and weights must have the same dtype, got "
            f"{x.dtype}, {h0.dtype} and {w_ih.dtype}"
        )
    # Kernels are told each size once.
    cells = hidden if w_hr is None or c0 is None else c0.array.shape[-1]
    rows = gates * cells
    _fit("w_ih", w_ih, (rows, x.array.shape[-1]))
    _fit("w_hh", w_hh, (rows, hidden))
    for bias in biases:
        if bias is not None:
            _fit("a bias", bias, (rows,))
    if c0 is not None:
        _fit("c0", c0, (h0.array.shape[0], cells))
    if w_hr is not None:
        _fit("w_hr", w_hr, (hidden, cells))


def _fit(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.array.shape != shape:
        given = list(tensor.array.shape)
        raise RuntimeError(f"{name} must have the shape {list(shape)}, got {given}")


def _weights(gates: int) -> list[Any]:
    return [normal(gates * 3, 4), normal(gates * 3, 3), normal(gates * 3), normal(gates * 3)]


@public(
    samples=lambda: [
        S(normal(5, 2, 4), normal(2, 3), normal(2, 3), *_weights(4), False),
        S(normal(5, 2, 4), normal(2, 3), normal(2, 3), *_weights(4), True),
        S(normal(1, 2, 4), normal(2, 3), normal(2, 3), *_weights(4)[:2], None, None, False),
        S(normal(1, 2, 4), normal(2, 3), normal(2, 3), *_weights(4), True),
        S(
            *(normal(3, 2, 4), normal(2, 2), normal(2, 3), normal(12, 4), normal(12, 2)),
            *(normal(12), normal(12), True, normal(2, 3)),
        ),
    ],
    torch="",
    autocast="lower",
)
def lstm_sequence(
    input: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    reverse: bool = False,
    w_hr: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction of one LSTM layer (Hochreiter & Schmidhuber 1997) over a sequence.

    Args:
        input: (T, N, I); h0, c0: (N, H); w_ih: (4H, I), w_hh: (4H, H), biases (4H,), with
            the gates in PyTorch's order i, f, g, o.
        reverse: run from the last step to the first.
        w_hr: (P, H), a projection of the hidden states (Sak et al. 2014), which have the size P
            then, in h0 and w_hh too.

    Returns:
        The hidden states of all steps (T, N, H) and the final h and c (N, H).

    >>> import gradlite
    >>> z = gradlite.zeros
    >>> out, h, c = gradlite.nn.functional.lstm_sequence(
    ...     z(5, 2, 4), z(2, 3), z(2, 3), z(12, 4), z(12, 3))
    >>> out.shape
    gradlite.Size([5, 2, 3])
    """
    _check(input, h0, w_ih, w_hh, (b_ih, b_hh), 4, c0, w_hr)
    if w_hr is not None:
        tensors = (input, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr)
        return apply(LstmProjected, tensors, reverse)  # type: ignore[no-any-return]
    return apply(LstmSequence, (input, h0, c0, w_ih, w_hh, b_ih, b_hh), reverse)  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------------- GRU
_GRU = (0, 1, 2)  # r z n


class GruSequence(_Sequence):
    """h' = n + z (h - n), n = tanh(x_n + r (W h + b)), over the steps of a sequence."""

    reads = ((0, 1, 2, 3, 4, 5, OUT),) * 6
    grad_name = "GruSequenceBackward0"

    def forward(
        xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, reverse: bool
    ) -> Any:
        if len(x) == 1:
            return rnn_cell.gru(xp, x, h0, w_ih, w_hh, b_ih, b_hh)
        if reverse:
            x = x[::-1]
        steps, batch, hidden = x.shape[0], h0.shape[0], h0.shape[1]
        w_h = _gates(xp, w_hh, _GRU, 2)
        Z = product_of(xp)(x[:, None], _gates(xp, w_ih, _GRU, 2))
        inner_bias = None
        if b_ih is not None:
            bias = _bias(xp, b_ih, _GRU, 2)
            hidden_bias = _bias(xp, b_hh, _GRU, 2)
            bias[:2] += hidden_bias[:2]
            Z += bias
            inner_bias = hidden_bias[2]
        hs = xp.empty((steps + 1, batch, hidden), x.dtype)
        hn = xp.empty((steps, batch, hidden), x.dtype)
        hs[0] = h0
        r3 = xp.empty((3, batch, hidden), x.dtype)
        half = xp.asarray(0.5, x.dtype)
        t = xp.empty((batch, hidden), x.dtype)
        add, multiply, tanh, matmul = xp.add, xp.multiply, xp.tanh, product_of(xp)
        for z3, inner, h, h_next in zip(Z, hn, hs, hs[1:]):
            matmul(h, w_h, out=r3)
            gates = z3[:2]
            add(r3[:2], gates, out=gates)
            tanh(gates, out=gates)
            multiply(gates, half, out=gates)
            add(gates, half, out=gates)
            r, z, n = z3
            if inner_bias is None:
                inner[...] = r3[2]
            else:
                add(r3[2], inner_bias, out=inner)
            multiply(r, inner, out=t)
            add(n, t, out=n)
            tanh(n, out=n)
            xp.subtract(h, n, out=t)
            multiply(z, t, out=t)
            add(n, t, out=h_next)
        out = hs[1:]
        if reverse:
            out = out[::-1]
        return (out, hs[-1].copy()), (Z, hs, hn)

    def fused_forward(K: Any, *args: Any) -> Any:
        return rnn_launch.gru(K, *args) if rnn_launch.serves(K, *args[:6]) else NotImplemented

    def fused_backward(K: Any, ctx: Any, grads: Any) -> Any:
        if not isinstance(ctx.aux, rnn_launch.Steps):  # the rule has run forward
            return NotImplemented
        return rnn_launch.gru_backward(K, ctx, grads)

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        if F.tensors:
            return composed(ctx, grads, gru_steps)
        if isinstance(ctx.aux, rnn_cell.GruStep):
            return rnn_cell.gru_backward(ctx, output_grads(ctx, grads, F, ctx.saved[0]), F)
        x, _, w_ih, w_hh, b_ih, _, _ = ctx.saved
        (reverse,) = ctx.attrs
        Z, hs, hn = ctx.aux
        xp = F.xp
        grad_out, grad_h = output_grads(ctx, grads, F, x)
        if reverse:
            x, grad_out = x[::-1], grad_out[::-1]
        r, z, n = Z[:, 0], Z[:, 1], Z[:, 2]
        D = xp.empty((4, *hn.shape), x.dtype)  # gradients of W h + b of n, then of r, z, n
        xp.multiply(r * (1 - r), hn, out=D[1])
        xp.multiply(z * (1 - z), hs[:-1] - n, out=D[2])
        xp.multiply(1 - n * n, 1 - z, out=D[3])
        w = _backward_gates(w_hh, (2, 0, 1))
        r3 = xp.empty((3, *hn.shape[1:]), x.dtype)
        rec = grad_h.copy()
        dh = xp.empty_like(rec)
        add, multiply, matmul = xp.add, xp.multiply, product_of(xp)
        for step in range(hn.shape[0] - 1, -1, -1):
            add(grad_out[step], rec, out=dh)
            d_inner, d_r, d_z, d_n = D[0, step], D[1, step], D[2, step], D[3, step]
            multiply(d_n, dh, out=d_n)
            multiply(d_z, dh, out=d_z)
            multiply(d_r, d_n, out=d_r)
            multiply(d_n, r[step], out=d_inner)
            matmul(D[:3, step], w, out=r3)
            multiply(dh, z[step], out=rec)
            for part in r3:
                add(rec, part, out=rec)
        edges = ctx.edges
        own, back = D[1:], D[:3]  # input side r z n; hidden side n r z
        grad_x = (
            _input_grad(matmul, own, _backward_gates(w_ih, _GRU), x.shape) if edges[0] else None
        )
        if reverse and grad_x is not None:
            grad_x = grad_x[::-1]
        grad_w_ih = _restore(_time_sums(matmul, own, x), _GRU) if edges[2] else None
        grad_w_hh = _restore(_time_sums(matmul, back, hs[:-1]), (2, 0, 1)) if edges[3] else None
        grad_b_ih = grad_b_hh = None
        if b_ih is not None:
            sums = D.sum((1, 2))
            grad_b_ih = sums[1:].reshape(-1).copy()
            grad_b_hh = _restore(sums[:3], (2, 0, 1))
        return grad_x, rec, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh


@public(
    samples=lambda: [
        S(normal(5, 2, 4), normal(2, 3), *_weights(3), False),
        S(normal(5, 2, 4), normal(2, 3), *_weights(3), True),
        S(normal(1, 2, 4), normal(2, 3), *_weights(3)[:2], None, None, False),
        S(normal(1, 2, 4), normal(2, 3), *_weights(3), True),
    ],
    torch="",
    autocast=("plain", "lower"),
)
def gru_sequence(
    input: Tensor,
    h0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """One direction of one GRU layer (Cho et al. 2014) over a sequence.

    Args:
        input: (T, N, I); h0: (N, H); w_ih: (3H, I), w_hh: (3H, H), biases (3H,), with the
            gates in PyTorch's order r, z, n.
        reverse: run from the last step to the first.

    Returns:
        The hidden states of all steps (T, N, H) and the final one (N, H).

    >>> import gradlite
    >>> z = gradlite.zeros
    >>> out, h = gradlite.nn.functional.gru_sequence(z(5, 2, 4), z(2, 3), z(9, 4), z(9, 3))
    >>> out.shape
    gradlite.Size([5, 2, 3])
    """
    _check(input, h0, w_ih, w_hh, (b_ih, b_hh), 3)
    return apply(GruSequence, (input, h0, w_ih, w_hh, b_ih, b_hh), reverse)  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------- plain RNN
class RnnSequence(_Sequence):
    """h' = tanh or relu of W x + b + U h + c, over the steps of a sequence."""

    reads = ((0, 1, 2, 3, 4, 5, OUT),) * 6
    grad_name = "RnnSequenceBackward0"

    def forward(
        xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any,
        nonlinearity: str, reverse: bool,
    ) -> Any:  # fmt: skip
        if reverse:
            x = x[::-1]
        steps, batch, hidden = x.shape[0], h0.shape[0], h0.shape[1]
        matmul = product_of(xp)
        Z = matmul(x.reshape(steps * batch, x.shape[2]), w_ih.T).reshape(steps, batch, hidden)
        if b_ih is not None:
            Z += b_ih + b_hh
        hs = xp.empty((steps + 1, batch, hidden), x.dtype)
        hs[0] = h0
        w_h = xp.ascontiguousarray(w_hh.T)
        zero = xp.asarray(0, x.dtype)
        for z, h, h_next in zip(Z, hs, hs[1:]):
            matmul(h, w_h, out=h_next)
            xp.add(h_next, z, out=h_next)
            if nonlinearity == "tanh":
                xp.tanh(h_next, out=h_next)
            else:
                xp.maximum(h_next, zero, out=h_next)
        out = hs[1:]
        if reverse:
            out = out[::-1]
        return (out, hs[-1].copy()), hs

    def fused_forward(K: Any, *args: Any) -> Any:
        return rnn_launch.rnn(K, *args) if rnn_launch.serves(K, *args[:6]) else NotImplemented

    def fused_backward(K: Any, ctx: Any, grads: Any) -> Any:
        if not isinstance(ctx.aux, rnn_launch.Steps):  # the rule has run forward
            return NotImplemented
        return rnn_launch.rnn_backward(K, ctx, grads)

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        if F.tensors:
            return composed(ctx, grads, rnn_steps)
        x, _, w_ih, w_hh, b_ih, _, _ = ctx.saved
        nonlinearity, reverse = ctx.attrs
        hs = ctx.aux
        xp, matmul = F.xp, product_of(F.xp)
        grad_out, grad_h = output_grads(ctx, grads, F, x)
        if reverse:
            x, grad_out = x[::-1], grad_out[::-1]
        after = hs[1:]
        D = 1 - after * after if nonlinearity == "tanh" else (after > 0).astype(x.dtype)
        rec = grad_h.copy()
        for step in range(len(D) - 1, -1, -1):
            d = D[step]
            xp.add(rec, grad_out[step], out=rec)
            xp.multiply(d, rec, out=d)
            matmul(d, w_hh, out=rec)
        edges = ctx.edges
        rows = D.reshape(D.shape[0] * D.shape[1], D.shape[2])
        grad_x = matmul(rows, w_ih).reshape(x.shape) if edges[0] else None
        if reverse and grad_x is not None:
            grad_x = grad_x[::-1]
        grad_w_ih = matmul(rows.T, x.reshape(len(rows), x.shape[-1])) if edges[2] else None
        grad_w_hh = matmul(rows.T, hs[:-1].reshape(rows.shape)) if edges[3] else None
        grad_b = rows.sum(0) if b_ih is not None else None
        return grad_x, rec, grad_w_ih, grad_w_hh, grad_b, None if grad_b is None else grad_b.copy()


@public(
    samples=lambda: [
        S(normal(5, 2, 4), normal(2, 3), *_weights(1), "tanh", False),
        # Doubled, no sum is within a rounding of bfloat16 of 0, where the slope jumps.
        S(2 * normal(5, 2, 4), normal(2, 3), *_weights(1), "relu", True),
        S(normal(1, 2, 4), normal(2, 3), *_weights(1)[:2], None, None, "tanh", False),
    ],
    torch="",
    autocast="lower",
)
def rnn_sequence(
    input: Tensor,
    h0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    nonlinearity: str = "tanh",
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """One direction of one plain (Elman) recurrent layer over a sequence.

    Args:
        input: (T, N, I); h0: (N, H); w_ih: (H, I), w_hh: (H, H), biases (H,).
        nonlinearity: "tanh" or "relu".
        reverse: run from the last step to the first.

    Returns:
        The hidden states of all steps (T, N, H) and the final one (N, H).

    >>> import gradlite
    >>> z = gradlite.zeros
    >>> out, h = gradlite.nn.functional.rnn_sequence(z(5, 2, 4), z(2, 3), z(3, 4), z(3, 3))
    >>> out.shape
    gradlite.Size([5, 2, 3])
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
    _check(input, h0, w_ih, w_hh, (b_ih, b_hh), 1)
    tensors = (input, h0, w_ih, w_hh, b_ih, b_hh)
    return apply(RnnSequence, tensors, nonlinearity, reverse)  # type: ignore[no-any-return]
