"""One layer of an LSTM whose hidden states are projected, over a whole sequence, as one node."""

from __future__ import annotations

from typing import Any

from gradlite.ops import rnn_launch
from gradlite.ops.dispatch import OUT, output_grads
from gradlite.ops.op import Op
from gradlite.ops.products import product_of
from gradlite.ops.rnn_launch import Projected, Walk
from gradlite.ops.rnn_steps import composed, lstm_steps


def _split(z: Any) -> tuple[Any, ...]:
    """The gates i, f, g, o of (N, 4 * H)."""
    n = z.shape[1] // 4
    return z[:, :n], z[:, n : 2 * n], z[:, 2 * n : 3 * n], z[:, 3 * n :]


class LstmProjected(Op):
    """c' = f c + i g, h' = W o tanh(c') over the steps of a sequence (Sak et al. 2014)."""

    outputs = 0
    has_aux = True
    reads = ((0, 1, 2, 3, 4, 5, 6, 7, OUT),) * 8
    grad_name = "LstmSequenceBackward0"

    def forward(
        xp: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
        reverse: bool,
    ) -> Any:  # fmt: skip
        walk, matmul = Walk(len(x), reverse), product_of(xp)
        steps, batch, size = x.shape
        gates = matmul(x.reshape(steps * batch, size), w_ih.T).reshape(steps, batch, len(w_ih))
        if b_ih is not None:
            gates += b_ih + b_hh
        hs, cs = (xp.empty((steps + 1, *s.shape), x.dtype) for s in (h0, c0))
        hs[walk.first], cs[walk.first] = h0, c0
        wide, half = xp.empty((steps, *c0.shape), x.dtype), xp.asarray(0.5, x.dtype)
        add, multiply, tanh = xp.add, xp.multiply, xp.tanh
        w_h, w_r = xp.ascontiguousarray(w_hh.T), xp.ascontiguousarray(w_hr.T)
        r = xp.empty(gates.shape[1:], x.dtype)
        for t in walk.order:
            z, c, m = gates[t], cs[t + walk.new], wide[t]
            matmul(hs[t + walk.old], w_h, out=r)
            add(z, r, out=z)
            i, f, _, o = gate = _split(z)
            for sigmoid in (i, f, o):
                multiply(sigmoid, half, out=sigmoid)
            tanh(z, out=z)
            for sigmoid in (i, f, o):
                multiply(sigmoid, half, out=sigmoid)
                add(sigmoid, half, out=sigmoid)
            multiply(f, cs[t + walk.old], out=c)
            multiply(i, gate[2], out=m)
            add(c, m, out=c)
            tanh(c, out=m)
            multiply(m, o, out=m)
            matmul(m, w_r, out=hs[t + walk.new])
        out = walk.after(hs), hs[walk.last].copy(), cs[walk.last].copy()
        return out, Projected(gates, hs, cs, wide)

    def fused_forward(K: Any, *args: Any) -> Any:
        if K.serial or not rnn_launch.serves(K, *args[:8]):
            return NotImplemented
        return rnn_launch.lstm_projected(K, *args)

    def fused_backward(K: Any, ctx: Any, grads: Any) -> Any:
        if K.serial or not rnn_launch.serves(K, *ctx.saved[:8]):
            return NotImplemented
        return rnn_launch.lstm_projected_backward(K, ctx, grads)

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        if F.tensors:
            return composed(ctx, grads, _steps)
        x, _, _, w_ih, w_hh, b_ih, _, w_hr, _ = ctx.saved
        gates, hs, cs, wide = ctx.aux
        xp, walk, matmul = F.xp, Walk(len(x), ctx.attrs[0]), product_of(F.xp)
        grad_out, grad_h, grad_c = output_grads(ctx, grads, F, x)
        dh = xp.empty(hs.shape, x.dtype)  # of all hidden states, which each step's are added to
        dh[walk.first] = 0
        walk.after(dh)[...] = grad_out
        dh[walk.last] += grad_h
        d, dc = xp.empty_like(gates), grad_c.copy()
        dm, r = xp.empty_like(dc), xp.empty_like(dh[0])
        for t in walk.order[::-1]:
            old, new = t + walk.old, t + walk.new
            i, f, g, o = _split(gates[t])
            d_i, d_f, d_g, d_o = _split(d[t])
            top = xp.tanh(cs[new])
            matmul(dh[new], w_hr, out=dm)
            dc += dm * o * (1 - top * top)
            xp.multiply(dc * g, i * (1 - i), out=d_i)
            xp.multiply(dc * cs[old], f * (1 - f), out=d_f)
            xp.multiply(dc * i, 1 - g * g, out=d_g)
            xp.multiply(dm * top, o * (1 - o), out=d_o)
            dc *= f
            matmul(d[t], w_hh, out=r)
            dh[old] += r
        edges, rows = ctx.edges, d.reshape(-1, d.shape[-1])
        flat = [a.reshape(-1, a.shape[-1]) for a in (x, walk.before(hs), walk.after(dh), wide)]
        grad_b = rows.sum(0) if b_ih is not None else None
        return (
            matmul(rows, w_ih).reshape(x.shape) if edges[0] else None,
            dh[walk.first],
            dc,
            matmul(rows.T, flat[0]) if edges[3] else None,
            matmul(rows.T, flat[1]) if edges[4] else None,
            grad_b,
            None if grad_b is None else grad_b.copy(),
            matmul(flat[2].T, flat[3]) if edges[7] else None,
        )


def _steps(
    x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any, reverse: bool
) -> Any:
    return lstm_steps(x, h, c, w_ih, w_hh, b_ih, b_hh, reverse, w_hr)
