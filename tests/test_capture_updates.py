"""Every layer behind an update: a captured step with two of them, against the step as it is."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from tests.nn import cases_rest, cases_volumes  # noqa: F401
from tests.nn.cases import CASES, Constant
from tests.nn.test_layers import tensors_in

SEVERAL = 40


def tensor_of(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(tensor_of, value))
    if isinstance(value, Constant):
        return gradlite.tensor(value.array)
    return gradlite.tensor(value) if isinstance(value, np.ndarray) else value


def scaled(value: Any, scale: Any) -> Any:
    """Floating tensors times a parameter, so that all values depend on its updates."""
    if isinstance(value, tuple):
        return tuple(scaled(v, scale) for v in value)
    floating = isinstance(value, gradlite.Tensor) and value.is_floating_point()
    return value * scale.clamp(0.5, 1) if floating else value


def program(name: str) -> tuple[Any, list[Any]]:
    """A step that updates twice, and what it uses."""
    case = CASES[name]
    gradlite.manual_seed(3)
    layer = case.make(gradlite).double()
    scale = nn.Parameter(gradlite.tensor(0.9, dtype=gradlite.float64))
    inputs, options = tensor_of(case.inputs), {k: tensor_of(v) for k, v in case.kwargs.items()}
    optimizer = gradlite.optim.SGD([*layer.parameters(), scale], lr=1e-3)

    def step() -> list[Any]:
        gradlite.manual_seed(4)
        losses = []
        for _ in range(2):
            optimizer.zero_grad()
            given = {k: scaled(v, scale) for k, v in options.items()}
            outs = tensors_in(layer(*scaled(inputs, scale), **given))
            loss = sum((o**2).sum() for o in outs if o.requires_grad)
            if isinstance(loss, gradlite.Tensor):
                loss.backward()
                optimizer.step()
                losses.append(loss)
        return losses

    return step, [layer, scale, optimizer, inputs, options]


@pytest.mark.parametrize("start", range(0, len(CASES), SEVERAL))
def test_layers_behind_an_update(start: int) -> None:
    for name in list(CASES)[start : start + SEVERAL]:
        (step, _), (other, used) = program(name), program(name)
        captured = gradlite.capture(other, state=[used], native=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of layers, which are tested elsewhere
            for _ in range(8):
                for ours, expected in zip(captured(), step(), strict=True):
                    a, b = ours.item(), expected.item()
                    assert a == pytest.approx(b, rel=1e-6, nan_ok=True), name
        assert captured.replays >= 3, name
