"""What the tests of CUDA graphs share: real models, their trainings, and repeated calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.cli.models import CNN, GPT, MLP, CharGRU
from gradlite.nn import functional as F

CHARACTERS = 7


@pytest.fixture
def cupy(where: str) -> Any:
    from gradlite.backends import cuda

    return cuda.module()


class Dropped(nn.Module):
    """A model with dropout before its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.drop = nn.Linear(16, 12), nn.Linear(12, 5), nn.Dropout(0.3)

    def forward(self, x: Any) -> Any:
        return self.last(self.drop(F.gelu(self.first(x.flatten(1)))))


def images(rng: Any) -> tuple[Any, Any]:
    x = rng.standard_normal((4, 1, 4, 4)).astype(np.float32)
    return gradlite.tensor(x), gradlite.tensor(rng.integers(0, 5, 4))


def text(rng: Any) -> tuple[Any, Any]:
    x = gradlite.tensor(rng.integers(0, CHARACTERS, (2, 5)))
    return x, gradlite.tensor(rng.integers(0, CHARACTERS, (2, 5)))


MODELS: dict[str, Any] = {
    "mlp": (lambda: MLP(4, 4, 5, hidden=8), images),
    "dropout": (Dropped, images),
    "cnn": (lambda: CNN(4, 4, 5, channels=(2, 3)), images),
    "gru": (lambda: CharGRU(CHARACTERS, hidden=6, embedding=4), text),
    "gpt": (lambda: GPT(CHARACTERS, 5, width=8, heads=2, layers=1), text),
}


def trained(
    name: str, steps: int, capture: bool
) -> tuple[list[float], list[Any], list[float], Any]:
    """Losses, parameters and the numbers drawn next after training, as it is or captured."""
    make, batch = MODELS[name]
    gradlite.manual_seed(5)
    model = make()
    model = model.cuda()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss

    run = gradlite.capture(step) if capture else step
    losses = []
    for i in range(steps):
        losses.append(run(*batch(np.random.default_rng(i))).item())
        schedule.step()
    values = [v.detach().cpu().numpy() for v in (*model.parameters(), *model.buffers())]
    return losses, values, gradlite.rand(3).tolist(), run


def repeated(captured: Any, *args: Any, calls: int = 5) -> list[Any]:
    return [captured(*args).tolist() for _ in range(calls)]
