"""The training workloads in JAX: the whole step as one function of arrays, compiled by ``jax.jit``.

Written out on the weights of the other libraries' models, under their names, so that all begin at
the same place. Parameters and the optimizer's state are donated, as JAX recommends.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.workloads import Batches, Weights

Arrays = dict[str, Any]


def load(threads: int) -> Any:
    """JAX on the CPU, with that many threads, without running ahead of the caller."""
    if threads == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return jax


# ------------------------------------------------------------------------------- models
def _linear(w: Arrays, name: str, x: Any) -> Any:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def _mlp(jax: Any, w: Arrays, x: Any) -> Any:
    last = max(int(name.split(".")[0]) for name in w)
    for layer in range(0, last, 2):
        x = jax.nn.relu(_linear(w, str(layer), x))
    return _linear(w, str(last), x)


def _cnn(jax: Any, w: Arrays, x: Any) -> Any:
    for name in ("0", "3"):
        x = jax.lax.conv_general_dilated(x, w[f"{name}.weight"], (1, 1), ((1, 1), (1, 1)))
        x = jax.nn.relu(x + w[f"{name}.bias"][:, None, None])
        x = jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return _linear(w, "7", x.reshape(x.shape[0], -1))


def _norm(jax: Any, w: Arrays, name: str, x: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def _gpt(jax: Any, w: Arrays, tokens: Any, heads: int = 4) -> Any:
    jnp, (batch, length) = jax.numpy, tokens.shape
    x = w["tokens.weight"][tokens] + w["positions.weight"][:length]
    width = x.shape[-1]
    seen = jnp.tril(jnp.ones((length, length), bool))
    for block in range(1 + max(int(n.split(".")[1]) for n in w if n.startswith("blocks."))):
        at = f"blocks.{block}"
        qkv = _linear(w, f"{at}.attention.qkv", _norm(jax, w, f"{at}.norm1", x))
        q, k, v = (
            part.reshape(batch, length, heads, width // heads).swapaxes(1, 2)
            for part in jnp.split(qkv, 3, axis=-1)
        )
        scores = q @ k.swapaxes(-2, -1) / math.sqrt(width // heads)
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
        mixed = (weights @ v).swapaxes(1, 2).reshape(batch, length, width)
        x = x + _linear(w, f"{at}.attention.proj", mixed)
        inner = _linear(w, f"{at}.mlp.0", _norm(jax, w, f"{at}.norm2", x))
        x = x + _linear(w, f"{at}.mlp.2", jax.nn.gelu(inner, approximate=False))
    return _linear(w, "head", _norm(jax, w, "norm", x))


def _recurrent(jax: Any, w: Arrays, tokens: Any) -> Any:
    jnp = jax.numpy
    hidden = w["layer.weight_hh_l0"].shape[1]
    # The inputs' products of all times at once; the recurrence is left for the loop.
    gates = w["embedding.weight"][tokens] @ w["layer.weight_ih_l0"].T + w["layer.bias_ih_l0"]
    start = jnp.zeros((tokens.shape[0], hidden), gates.dtype)

    def lstm(state: Any, now: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(now + h @ w["layer.weight_hh_l0"].T + w["layer.bias_hh_l0"], 4, 1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def gru(h: Any, now: Any) -> Any:
        r, z, n = jnp.split(h @ w["layer.weight_hh_l0"].T + w["layer.bias_hh_l0"], 3, 1)
        to_r, to_z, to_n = jnp.split(now, 3, 1)
        r, z = jax.nn.sigmoid(r + to_r), jax.nn.sigmoid(z + to_z)
        n = jnp.tanh(to_n + r * n)
        h = (1 - z) * n + z * h
        return h, h

    is_lstm = w["layer.weight_hh_l0"].shape[0] == 4 * hidden
    step, state = (lstm, (start, start)) if is_lstm else (gru, start)
    _, states = jax.lax.scan(step, state, gates.swapaxes(0, 1))
    return _linear(w, "head", states.swapaxes(0, 1))


MODELS: dict[str, Callable[..., Any]] = {
    "W1": _mlp, "W2": _mlp, "W3": _mlp, "3m": _mlp, "W4": _cnn, "W5": _gpt, "5m": _gpt,
    "W6": _recurrent, "6g": _recurrent,
}  # fmt: skip


# ----------------------------------------------------------------------- loss and optimizer
def _loss(jax: Any, name: str, w: Arrays, x: Any, y: Any) -> Any:
    out = MODELS[name](jax, w, x)
    if name == "W1":
        return jax.nn.relu(1 - y * out).mean()
    logits = jax.nn.log_softmax(out.reshape(-1, out.shape[-1]))
    return -jax.numpy.take_along_axis(logits, y.reshape(-1, 1), 1).mean()


def _adam(jax: Any, w: Arrays, grads: Arrays, state: Any, decay: float) -> Any:
    (first, second, count), lr = state, 1e-3
    count = count + 1
    bias1, bias2 = 1 - 0.9**count, 1 - 0.999**count
    tree = jax.tree_util.tree_map
    first = tree(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
    second = tree(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)

    def updated(p: Any, m: Any, v: Any) -> Any:
        p = p * (1 - lr * decay)
        return p - lr / bias1 * m / (jax.numpy.sqrt(v) / jax.numpy.sqrt(bias2) + 1e-8)

    return tree(updated, w, first, second), (first, second, count)


class JaxTraining:
    """A workload compiled by JAX, from given weights."""

    def __init__(self, jax: Any, name: str, weights: Weights, batches: Batches) -> None:
        jnp = jax.numpy
        self.weights = {k: jnp.asarray(v) for k, v in weights.items()}
        self.batches = [
            (jnp.asarray(x), jnp.asarray(y, y.dtype if y.dtype.kind == "f" else np.int32))
            for x, y in batches
        ]
        self.steps = 0
        zeros = {k: jnp.zeros_like(v) for k, v in self.weights.items()}
        again = {k: jnp.zeros_like(v) for k, v in self.weights.items()}
        self.state = (zeros, again, jnp.zeros((), jnp.float32))
        decay = 0.01 if name in ("W5", "5m") else 0.0  # AdamW's

        def step(w: Arrays, state: Any, x: Any, y: Any) -> Any:
            loss, grads = jax.value_and_grad(lambda w: _loss(jax, name, w, x, y))(w)
            if name == "W1":
                w = jax.tree_util.tree_map(lambda p, g: p - 0.05 * g, w, grads)
            else:
                w, state = _adam(jax, w, grads, state, decay)
            return w, state, loss

        self._run = jax.jit(step, donate_argnums=(0, 1))

    def step(self) -> Any:
        """One full training step; returns the loss."""
        x, y = self.batches[self.steps % len(self.batches)]
        self.steps += 1
        self.weights, self.state, loss = self._run(self.weights, self.state, x, y)
        return loss
