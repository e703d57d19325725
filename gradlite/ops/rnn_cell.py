"""One step of a recurrent layer, for cells and sequences of one: nothing is put in another order.

Layers over many steps reorder their weights by gates first, which is several times the work of a
step. Here the sums of all gates are one product, (N, G * H) in PyTorch's order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gradlite.ops.products import product_of


class LstmStep(NamedTuple):
    """What the rule of an LSTM's step reads: gates (N, 4, H) and tanh(c') (N, H)."""

    gates: Any
    tanh_c: Any


class GruStep(NamedTuple):
    """What the rule of a GRU's step reads: gates (N, 3, H) and W h + b of n (N, H)."""

    gates: Any
    inner: Any


def _sums(matmul: Any, x: Any, weight: Any, bias: Any) -> Any:
    sums = matmul(x, weight.T)
    if bias is not None:
        sums += bias
    return sums


def _gates(xp: Any, sums: Any, *sigmoids: Any) -> None:
    """tanh of the sums of all gates, in their place, and the sigmoid of those of some."""
    half = xp.asarray(0.5, sums.dtype)
    for part in sigmoids:
        xp.multiply(part, half, out=part)
    xp.tanh(sums, out=sums)
    for part in sigmoids:
        xp.multiply(part, half, out=part)
        xp.add(part, half, out=part)


def lstm(xp: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    """The outputs of `LstmSequence` for one step, and an `LstmStep`."""
    matmul, size = product_of(xp), h.shape[1]
    sums = _sums(matmul, x[0], w_ih, b_ih)
    sums += _sums(matmul, h, w_hh, b_hh)
    _gates(xp, sums, sums[:, : 2 * size], sums[:, 3 * size :])
    gates = sums.reshape(len(sums), 4, size)
    i, f, g, o = (gates[:, k] for k in range(4))
    new = f * c
    new += i * g
    tanh_c = xp.tanh(new)
    out = o * tanh_c
    return (out[None], out.copy(), new), LstmStep(gates, tanh_c)


def lstm_backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
    """The gradients of the inputs of `LstmSequence` after one step."""
    (gates, tanh_c), c = ctx.aux, ctx.saved[2]
    grad_out, grad_h, grad_c = grads
    xp = F.xp
    dh = grad_out[0] + grad_h
    i, f, g, o = (gates[:, k] for k in range(4))
    slopes = gates * (1 - gates)
    d = xp.empty_like(gates)
    dc = dh * o
    dc *= 1 - tanh_c * tanh_c
    dc += grad_c
    for place, factor in enumerate((g, c, i)):
        xp.multiply(dc, factor, out=d[:, place])
    xp.multiply(dh, tanh_c, out=d[:, 3])
    slopes[:, 2] = 1 - g * g
    d *= slopes
    sums = d.reshape(len(d), 4 * d.shape[2])
    grad_x, grad_h, grad_w_ih, grad_w_hh = _products(ctx, xp, sums, sums, 3)
    grad_b = sums.sum(0) if ctx.saved[5] is not None else None
    return (
        grad_x, grad_h, dc * f if ctx.edges[2] else None, grad_w_ih, grad_w_hh, grad_b,
        None if grad_b is None else grad_b.copy(),
    )  # fmt: skip


def gru(xp: Any, x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    """The outputs of `GruSequence` for one step, and a `GruStep`."""
    matmul, size = product_of(xp), h.shape[1]
    sums = _sums(matmul, x[0], w_ih, b_ih)
    states = _sums(matmul, h, w_hh, b_hh)
    gates = sums.reshape(len(sums), 3, size)
    both, inner = sums[:, : 2 * size], states[:, 2 * size :]
    both += states[:, : 2 * size]
    _gates(xp, both, both)
    r, z, n = (gates[:, k] for k in range(3))
    n += r * inner
    xp.tanh(n, out=n)
    out = h - n
    out *= z
    out += n
    return (out[None], out.copy()), GruStep(gates, inner)


def gru_backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
    """The gradients of the inputs of `GruSequence` after one step."""
    (gates, inner), h = ctx.aux, ctx.saved[1]
    grad_out, grad_h = grads
    xp = F.xp
    dh = grad_out[0] + grad_h
    r, z, n = (gates[:, k] for k in range(3))
    d_n = 1 - z
    d_n *= dh
    d_n *= 1 - n * n
    own = xp.empty_like(gates)  # of W x + b, and `back` of W h + b
    xp.multiply(d_n, inner, out=own[:, 0])
    xp.multiply(dh, h - n, out=own[:, 1])
    own[:, 2] = d_n
    both, sigmoids = own[:, :2], gates[:, :2]
    xp.multiply(both, sigmoids * (1 - sigmoids), out=both)
    back = own.copy()
    xp.multiply(d_n, r, out=back[:, 2])
    sums, states = (each.reshape(len(each), 3 * each.shape[2]) for each in (own, back))
    grad_x, grad_h, grad_w_ih, grad_w_hh = _products(ctx, xp, sums, states, 2)
    if grad_h is not None:
        grad_h += dh * z
    bias = ctx.saved[4] is not None
    return (
        grad_x, grad_h, grad_w_ih, grad_w_hh,
        sums.sum(0) if bias else None, states.sum(0) if bias else None,
    )  # fmt: skip


def _products(ctx: Any, xp: Any, own: Any, back: Any, first: int) -> tuple[Any, ...]:
    """The gradients of input, state and weights, from those of the sums; ``first``: the place of
    the weights among the inputs."""
    x, h, w_ih, w_hh = (ctx.saved[k] for k in (0, 1, first, first + 1))
    edges, matmul = ctx.edges, product_of(xp)
    return (
        matmul(own, w_ih)[None] if edges[0] else None,
        matmul(back, w_hh) if edges[1] else None,
        matmul(own.T, x[0]) if edges[first] else None,
        matmul(back.T, h) if edges[first + 1] else None,
    )
