"""Recurrent layers with kernels: the rules on NumPy's arrays in float64 are the reference.

Here a sequence is run step by step: tests/kernels/test_rnn_sequence.py has it in one launch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops import rnn_sequence
from tests import cupy_stand_in as stand_in
from tests.kernels.recurrent import (
    LAYERS,
    PROJECTED,
    TOLERANCES,
    compare,
    inputs,
    rounded_products,  # noqa: F401
)
from tests.kernels.support import ThreadsLauncher, epsilon, host

SHAPES = [(1, 1, 1, 1), (3, 2, 5, 4), (4, 3, 7, 33), (2, 5, 3, 65)]  # steps, batch, input, hidden
pytestmark = pytest.mark.usefixtures("rounded_products")


@pytest.fixture(autouse=True)
def step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sequence is run in one launch."""
    monkeypatch.setattr(rnn_sequence, "serves", lambda *_: False)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("layer", "options"), [*LAYERS, PROJECTED], ids=str)
def test_values_and_gradients(
    launcher: Any, layer: str, options: Any, shape: Any, dtype: str, reverse: bool
) -> None:
    compare(launcher, layer, options, shape, dtype, reverse)


@pytest.mark.parametrize(("layer", "options"), [*LAYERS, PROJECTED], ids=str)
def test_without_biases(launcher: Any, layer: str, options: Any) -> None:
    compare(launcher, layer, options, (3, 2, 5, 4), "float32", False, bias=False)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("layer", "options"), [*LAYERS, PROJECTED], ids=str)
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
        (lambda: gradlite.nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2), "lstm"),
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


@pytest.mark.parametrize("wanted", range(3))
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_some_outputs_of_projections(
    monkeypatch: pytest.MonkeyPatch, wanted: int, reverse: bool
) -> None:
    stand_in.install(monkeypatch)
    results = []
    for device in ("cpu", "cuda"):
        given = [
            gradlite.tensor(a, device=device, requires_grad=True)
            for a in inputs("lstm projected", (3, 2, 2, 4), True)
        ]
        out = F.lstm_sequence(*given[:7], reverse, given[7])
        (out[wanted] ** 2).sum().backward()
        results.append([g.grad.cpu().numpy() for g in given])  # type: ignore[union-attr]
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, 1e-9, 1e-12)
