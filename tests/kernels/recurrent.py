"""What the tests of recurrent layers share: inputs, and comparing with the rules in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import dtypes
from gradlite.nn import functional as F
from gradlite.ops import rnn_launch
from tests.kernels.support import host

TOLERANCES = {"bfloat16": 2e-2, "float16": 1e-2, "float32": 1e-5, "float64": 1e-11}
GATES = {"lstm": 4, "lstm projected": 4, "gru": 3, "rnn": 1}
LAYERS = [
    ("lstm", ()),
    ("gru", ()),
    ("rnn", ("tanh",)),
    ("rnn", ("relu",)),
]
PROJECTED = ("lstm projected", ())  # which no kernel runs a whole sequence of
FUNCTIONS = {
    "lstm projected": (
        rnn_launch.lstm_projected,
        rnn_launch.lstm_projected_backward,
        lambda *a: F.lstm_sequence(*a[:7], a[8], a[7]),
    ),
    "lstm": (rnn_launch.lstm, rnn_launch.lstm_backward, F.lstm_sequence),
    "gru": (rnn_launch.gru, rnn_launch.gru_backward, F.gru_sequence),
    "rnn": (rnn_launch.rnn, rnn_launch.rnn_backward, F.rnn_sequence),
}


class Context:
    """What backward reads of a node."""

    def __init__(self, inputs: Any, out: Any, attrs: Any, aux: Any) -> None:
        self.saved, self.attrs, self.aux = (*inputs, out[0]), attrs, aux
        self.edges = [None if a is None else object() for a in inputs]
        self.shapes = [(o.shape, o.dtype) for o in out], [(o.shape, o.dtype) for o in out]


def inputs(layer: str, shape: Any, bias: bool) -> list[Any]:
    steps, batch, size, hidden = shape
    generator = np.random.default_rng(0)
    gates = GATES[layer] * hidden
    outside = -(-hidden // 2) if layer == "lstm projected" else hidden
    shapes: list[Any] = [(steps, batch, size), (batch, outside)]
    if layer.startswith("lstm"):
        shapes.append((batch, hidden))
    shapes += [(gates, size), (gates, outside), (gates,), (gates,)]
    arrays: list[Any] = [generator.uniform(-0.7, 0.7, s) for s in shapes]
    if hidden > 65:  # with more, what is rounded grows from step to step
        arrays[-3] *= 2 / hidden**0.5
    if not bias:
        arrays[-2:] = [None, None]
    if layer == "lstm projected":
        arrays.append(generator.uniform(-0.7, 0.7, (outside, hidden)))
    return arrays


def compare(
    K: Any, layer: str, options: Any, shape: Any, dtype: str, reverse: bool, bias: bool = True
) -> None:
    run, back, function = FUNCTIONS[layer]
    given = [None if a is None else a.astype(dtype) for a in inputs(layer, shape, bias)]
    wide = [
        None if a is None else gradlite.tensor(a.astype("f8"), requires_grad=True) for a in given
    ]
    expected = function(*wide, *options, reverse)
    generator = np.random.default_rng(1)
    grads = [generator.uniform(-1, 1, o.shape).astype(dtype) for o in expected]
    weighted = [(o * gradlite.tensor(g.astype("f8"))).sum() for o, g in zip(expected, grads)]
    sum(weighted[1:], weighted[0]).backward()
    arrays = [None if a is None else K.xp.asarray(a) for a in given]
    out, aux = run(K, *arrays, *options, reverse)
    result = [*out]
    context = Context(arrays, out, (*options, reverse), aux)
    result += back(K, context, [K.xp.asarray(g) for g in grads])
    reference = [o.detach() for o in expected] + [None if t is None else t.grad for t in wide]
    assert len(result) == len(reference)
    for found, value in zip(result, reference):
        if value is None:
            assert found is None
            continue
        assert found.dtype == dtype and found.shape == value.shape
        scale = TOLERANCES[dtype] * max(1.0, float(value.abs().max().item()))
        np.testing.assert_allclose(
            host(found).astype("f8"), value.numpy(), TOLERANCES[dtype], scale
        )


@pytest.fixture
def rounded_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of halves as a GPU makes them: summed up in float32, and rounded once."""
    product_of = rnn_launch.product_of

    def rounded(a: Any, b: Any, out: Any = None) -> Any:
        if a.dtype not in dtypes.HALVES:
            return np.matmul(a, b, out=out)
        out = np.empty((len(a), b.shape[1]), a.dtype) if out is None else out
        out[...] = np.matmul(a.astype("f4"), b.astype("f4"))
        return out

    chosen = lambda xp: rounded if xp is np else product_of(xp)  # noqa: E731
    monkeypatch.setattr(rnn_launch, "product_of", chosen)
