"""Autocast and captured steps: replays compute in their region's dtypes, with no stale cast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.nn import functional as F
from tests.capture_support import batch, close, replays

pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes")
__all__ = ["replays"]  # which is used by every test


class Trainer:
    """A model, its optimizer, and a step whose forward pass runs under autocast."""

    def __init__(self) -> None:
        gradlite.manual_seed(3)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)

    def loss(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def inside(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        with gradlite.autocast(x.device.type, dtype=gradlite.float16):
            out = self.model(x)
            loss = F.cross_entropy(out, y)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), out.detach()

    def values(self) -> list[Any]:
        return [p.detach().cpu().numpy().copy() for p in self.model.parameters()]


def assert_trained_alike(a: Trainer, b: Trainer) -> None:
    for p, q in zip(a.values(), b.values()):
        close(p, q)


def test_a_region_inside_the_step() -> None:
    a, b = Trainer(), Trainer()
    captured = gradlite.capture(b.inside)
    for seed in range(8):
        expected, out = a.inside(*batch(seed))
        loss, captured_out = captured(*batch(seed))
        assert out.dtype is captured_out.dtype is gradlite.float16
        np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-3)
    assert captured.replays == 5
    for p, q in zip(a.values(), b.values()):
        np.testing.assert_allclose(p, q, rtol=2e-3, atol=2e-3)


def test_a_region_around_the_calls() -> None:
    a, b = Trainer(), Trainer()
    captured = gradlite.capture(b.loss)
    x, y = batch(0)
    with gradlite.autocast(x.device.type, dtype=gradlite.float16):
        for seed in range(8):
            a.loss(*batch(seed))
            captured(*batch(seed))
    assert captured.replays == 5
    for p, q in zip(a.values(), b.values()):
        np.testing.assert_allclose(p, q, rtol=2e-3, atol=2e-3)


def test_each_mode_has_its_recording() -> None:
    model = Trainer().model
    captured = gradlite.capture(lambda x: model(x))
    x, _ = batch(0)
    device = x.device.type
    kinds = []
    for on in (False, True) * 5:
        with gradlite.autocast(device, dtype=gradlite.float16, enabled=on):
            kinds.append(captured(x).dtype)
    assert kinds == [gradlite.float32, gradlite.float16] * 5
    assert captured.recordings == 2


def test_a_cast_that_is_kept_outside_is_not_part_of_a_recording() -> None:
    trainer = Trainer()
    captured = gradlite.capture(lambda x: trainer.model(x))
    x, _ = batch(0)
    with gradlite.autocast(x.device.type, dtype=gradlite.float16):
        for _ in range(5):
            captured(x)
        assert captured.replays > 0
        with gradlite.no_grad():
            for p in trainer.model.parameters():
                p.mul_(2.0)
        got, expected = captured(x), trainer.model(x)
    np.testing.assert_allclose(
        got.float().cpu().numpy(), expected.detach().float().cpu().numpy(), rtol=2e-3, atol=2e-3
    )
