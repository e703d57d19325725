"""Recurrent layers of sizes that are 0, or no numbers."""

from __future__ import annotations

from typing import Any

import pytest

import gradlite
from tests import cupy_stand_in
from tests.oracle import same


@pytest.mark.parametrize("cell", ["RNNCell", "GRUCell", "LSTMCell"])
def test_a_cell_without_a_state(cell: str) -> None:
    def program(library: Any) -> Any:
        layer = getattr(library.nn, cell)(3, 0)
        x, h = library.ones(2, 3, requires_grad=True), library.ones(2, 0)
        output = layer(x, (h, h))[0] if cell == "LSTMCell" else layer(x, h)
        output.sum().backward()
        return output.detach(), x.grad, layer.weight_ih.grad

    same(program)


WRONG: dict[str, Any] = {
    "no input": lambda nn: nn.RNN(0, 3),
    "half an input": lambda nn: nn.LSTM(2.5, 3),
    "no state": lambda nn: nn.GRU(3, 0),
    "bias": lambda nn: nn.LSTM(2, 3, bias=1),
    "batch_first": lambda nn: nn.GRU(2, 3, batch_first=1),
    "projection in an RNN": lambda nn: nn.RNN(2, 3, proj_size=1),
    "projection in a GRU": lambda nn: nn.GRU(2, 3, proj_size=1),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what: str) -> None:
    same(
        lambda library: WRONG[what](library.nn),
        raises=(ValueError, TypeError),
        message="exact",
    )


@pytest.mark.parametrize("layer", ["RNN", "GRU", "LSTM"])
def test_a_sequence_of_no_steps_is_refused(layer: str) -> None:
    same(
        lambda library: getattr(library.nn, layer)(2, 3)(library.ones(0, 2, 2)),
        raises=RuntimeError,
        message="exact",
    )


WITHOUT_SAMPLES: dict[str, Any] = {
    "rnn": lambda nn: nn.RNN(2, 3, bias=False),
    "gru": lambda nn: nn.GRU(2, 3, num_layers=2, bidirectional=True),
    "lstm": lambda nn: nn.LSTM(2, 3, bidirectional=True),
    "projected": lambda nn: nn.LSTM(2, 3, num_layers=2, bidirectional=True, proj_size=1),
}


def trained_without_samples(library: Any, layer: str, device: str, steps: int = 4) -> list[Any]:
    model = WITHOUT_SAMPLES[layer](library.nn).to(device)
    x = library.ones(steps, 0, 2, device=device, requires_grad=True)
    out, state = model(x)
    out.sum().backward()
    states = state if isinstance(state, tuple) else (state,)
    found = [out, *states, x.grad, *(p.grad for p in model.parameters())]
    return [t.detach().cpu() for t in found]


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("layer", WITHOUT_SAMPLES)
def test_a_batch_without_samples(layer: str, steps: int) -> None:
    same(lambda library: trained_without_samples(library, layer, "cpu", steps))


@pytest.mark.parametrize("layer", WITHOUT_SAMPLES)
def test_a_batch_without_samples_on_a_gpu(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy_stand_in.install(monkeypatch)
    ours, expected = (trained_without_samples(gradlite, layer, d) for d in ("cuda", "cpu"))
    for a, b in zip(ours, expected, strict=True):
        assert a.shape == b.shape and a.tolist() == b.tolist()
