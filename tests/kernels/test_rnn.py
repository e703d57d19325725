"""Recurrent layers with kernels: the rules on NumPy's arrays in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import dtypes
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops import rnn_launch
from tests import cupy_stand_in as stand_in
from tests.kernels.support import ThreadsLauncher, epsilon, host

TOLERANCES = {"bfloat16": 2e-2, "float16": 1e-2, "float32": 1e-5, "float64": 1e-11}
SHAPES = [(1, 1, 1, 1), (3, 2, 5, 4), (4, 3, 7, 33), (2, 5, 3, 65)]  # steps, batch, input, hidden
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
LAYERS = [
    ("lstm", ()),
    ("gru", ()),
    ("rnn", ("tanh",)),
    ("rnn", ("relu",)),
]
FUNCTIONS = {
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
    shapes: list[Any] = [(steps, batch, size), *[(batch, hidden)] * (1 + (layer == "lstm"))]
    shapes += [(gates, size), (gates, hidden), (gates,), (gates,)]
    arrays: list[Any] = [generator.uniform(-0.7, 0.7, s) for s in shapes]
    if not bias:
        arrays[-2:] = [None, None]
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


@pytest.fixture(autouse=True)
def products(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("layer", "options"), LAYERS, ids=str)
def test_values_and_gradients(
    launcher: Any, layer: str, options: Any, shape: Any, dtype: str, reverse: bool
) -> None:
    compare(launcher, layer, options, shape, dtype, reverse)


@pytest.mark.parametrize(("layer", "options"), LAYERS, ids=str)
def test_without_biases(launcher: Any, layer: str, options: Any) -> None:
    compare(launcher, layer, options, (3, 2, 5, 4), "float32", False, bias=False)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("layer", "options"), LAYERS, ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, layer: str, options: Any, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, layer, options, (2, 5, 3, 65), "float32", True)


@pytest.mark.parametrize(("dtype", "large"), [("bfloat16", 3e38), ("float32", 1e4)])
def test_large_sums_saturate(launcher: Any, dtype: str, large: float) -> None:
    x = launcher.xp.asarray(np.array([[1, 1, -1, 1, -1, -1, 1, -1]]) * large, dtype=dtype)
    zeros = launcher.xp.zeros((1, 8), dtype)
    c, h = launcher.xp.full((1, 2), 3.0, dtype), launcher.xp.empty((1, 2), dtype)
    launcher.launch(
        "lstm_forward", x.dtype, (1,), (32,), x, zeros, None, None, c, c.copy(), h, 1, 2
    )
    assert host(x).tolist() == [[1, 1, 0, 1, -1, -1, 1, 0]]
    np.testing.assert_allclose(host(h).astype("f8"), [[np.tanh(-1), 0]], epsilon(dtype))


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (lambda: gradlite.nn.LSTM(3, 4, num_layers=2, bidirectional=True), "lstm"),
        (lambda: gradlite.nn.GRU(3, 4), "gru"),
        (lambda: gradlite.nn.RNN(3, 4, nonlinearity="relu"), "rnn"),
    ],
)
def test_layers_use_them(monkeypatch: pytest.MonkeyPatch, make: Any, steps: str) -> None:
    stand_in.install(monkeypatch)
    values = np.random.default_rng(0).standard_normal((5, 2, 3)).astype("f4")
    results = []
    for device in ("cpu", "cuda"):
        gradlite.manual_seed(1)
        layer = make().to(device)
        x = gradlite.tensor(values, device=device, requires_grad=True)
        with kernels.record() as launched:
            out, _ = layer(x)
            (out * out).sum().backward()
        tensors = [out, x.grad, *[p.grad for p in layer.parameters()]]
        results.append([t.detach().cpu().numpy() for t in tensors])
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, 1e-4, 1e-5)
    directions = 4 if steps == "lstm" else 1
    assert launched.count(f"{steps}_forward") == 5 * directions
    assert launched.count(f"{steps}_backward") == 5 * directions


def test_a_second_derivative_takes_the_rules_way(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch)
    results = []
    for device in ("cpu", "cuda"):
        given = [
            gradlite.tensor(a, device=device, requires_grad=True)
            for a in inputs("gru", (3, 2, 2, 2), True)
        ]
        out, _ = F.gru_sequence(*given)
        (slope,) = gradlite.autograd.grad((out**2).sum(), given[0], create_graph=True)
        (slope**2).sum().backward()
        results.append([g.grad.cpu().numpy() for g in given])  # type: ignore[union-attr]
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, 1e-9, 1e-12)
