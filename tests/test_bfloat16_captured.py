"""Captured steps in bfloat16: replays, by array calls and compiled, give what the step gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.capturing.native.build import NativePlan, available

BFLOAT16 = gradlite.bfloat16


def model(convolutions: bool) -> nn.Module:
    if convolutions:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 5),
        )  # fmt: skip
    return nn.Sequential(
        nn.Linear(16, 32), nn.LayerNorm(32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 5)
    )


def trained(convolutions: bool, optimizer: str, native: bool | None) -> tuple[Any, Any, Any]:
    """Losses and parameters after 8 steps; ``native=None``: without a capture."""
    gradlite.manual_seed(0)
    net = model(convolutions).bfloat16()
    update = getattr(gradlite.optim, optimizer)(net.parameters(), lr=0.02)

    def step(x: Any, target: Any) -> Any:
        update.zero_grad()
        loss = nn.functional.cross_entropy(net(x.bfloat16()), target)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        update.step()
        return loss.detach()

    run = step if native is None else gradlite.capture(step, native=native)
    generator = np.random.default_rng(0)
    losses = []
    for _ in range(8):
        x = generator.standard_normal((8, 1, 8, 8) if convolutions else (8, 16))
        batch = gradlite.tensor(x.astype(np.float32)), gradlite.tensor(generator.integers(0, 5, 8))
        losses.append(run(*batch).item())
    return losses, [p.detach().tolist() for p in net.parameters()], run


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("convolutions", [False, True])
def test_training(convolutions: bool, optimizer: str, native: bool) -> None:
    if native and not available():
        pytest.skip("no C++ compiler, or GRADLITE_NATIVE=0")
    losses, parameters, run = trained(convolutions, optimizer, native)
    expected = trained(convolutions, optimizer, None)
    assert run.replays == 5
    assert losses == pytest.approx(expected[0], rel=2e-2)
    for mine, usual in zip(parameters, expected[1], strict=True):
        np.testing.assert_allclose(mine, usual, rtol=2e-2, atol=4e-3)


def test_the_first_tensor_of_it_within_a_recording() -> None:
    """In a process of its own: the ops get to know the dtype while they are recorded."""
    import subprocess
    import sys

    code = """
import sys, gradlite
layer = gradlite.nn.Linear(3, 2)
x = gradlite.ones(4, 3)
def step(x):
    return (layer(x).bfloat16() * 0.1).sum()
usual = gradlite.capture(step, warmup=0)
found = [usual(x).item() for _ in range(4)]
assert "ml_dtypes" in sys.modules and usual.replays, usual.replays
print(len({*found, step(x).item()}))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "1\n"


@pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")
def test_conversions_are_compiled() -> None:
    values = [0.1, 1.00390625, 1.01171875, 1e-40, 3.4e38, -0.0, float("inf"), float("nan"), -7.3]
    x = gradlite.tensor(values * 3)

    def step(x: Any) -> Any:
        half = x.bfloat16()
        return half, half.float(), half + half, half.max(), half > 0.1, half.long(), half.relu()

    captured = gradlite.capture(step, native=True)
    for _ in range(4):
        found = captured(x)
    (plan,) = [r.plan for kept in captured._kept.values() for r in kept]
    assert isinstance(plan, NativePlan) and not plan.reason and not plan.left
    for mine, usual in zip(found, step(x), strict=True):
        assert mine.dtype == usual.dtype
        np.testing.assert_array_equal(mine.double().numpy(), usual.double().numpy())
