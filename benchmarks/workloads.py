"""The training workloads: a model, its batches, its loss and its optimizer.

========  ====================================================================================
W1        MLP 2-16-16-1, batch 32, hinge loss, SGD
W2        MLP 64-128-128-10, batch 64, cross-entropy, Adam
W3        MLP 784-256-128-10, batch 128, cross-entropy, Adam
3m        W3 with images like MNIST's: strokes on a black background
W4        CNN on 1x28x28: conv 3x3x16, ReLU, max-pool 2, conv 3x3x32, ReLU, max-pool 2,
          linear 10; batch 64, Adam
W5        character GPT: 2 layers, width 64, 4 heads, block 64, vocabulary 65, batch 8, AdamW,
          ``scaled_dot_product_attention``
5m        W5 with attention written out
W6        character LSTM (``nn.LSTM``): hidden 128, sequence 32, batch 16, Adam
6g        W6 with ``nn.GRU``
========  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import models

Batches = list[tuple[np.ndarray, np.ndarray]]
Weights = dict[str, np.ndarray]
VOCABULARY = 65


@dataclass(frozen=True)
class Workload:
    """One training step's description, for any library.

    Attributes:
        summary: one line for the table.
        model: makes the model in a library.
        batches: makes the same batches for every library.
        loss: ``loss(T, output, target)``.
        optimizer: makes the optimizer from the library and the parameters.
    """

    summary: str
    model: Callable[[Any], Any]
    batches: Callable[[], Batches]
    loss: Callable[[Any, Any, Any], Any]
    optimizer: Callable[[Any, Any], Any]


# How gradlite runs a step: as it is, or captured once and replayed, by array calls or compiled.
MODES: dict[str, dict[str, Any] | None] = {
    "eager": None,
    "array-calls": {"native": False},
    "captured": {},
}


class Training:
    """A workload running in one library, from given weights, in one of `MODES`.

    The mode "torch.compile" is PyTorch's own, of the model and of the optimizer's step.
    """

    def __init__(
        self,
        T: Any,
        workload: Workload,
        weights: Weights | None = None,
        mode: str = "eager",
        device: str = "cpu",
    ) -> None:
        self.T, self.loss = T, workload.loss
        options = MODES.get(mode)
        self._run = self._eager if options is None else T.capture(self._eager, **options)
        T.manual_seed(0)
        self.model = workload.model(T)
        if weights is not None:
            self.model.load_state_dict({k: T.tensor(v) for k, v in weights.items()})
        self.model.to(device)
        self.batches = [
            (T.tensor(inputs, device=device), T.tensor(targets, device=device))
            for inputs, targets in workload.batches()
        ]
        self.optimizer = workload.optimizer(T, self.model.parameters())
        if mode == "torch.compile":
            # On a GPU by its graphs too, which is PyTorch's advice for small batches.
            self.model = T.compile(self.model, mode="reduce-overhead" if device != "cpu" else None)
            self.optimizer.step = T.compile(self.optimizer.step)
        self.steps = 0

    def step(self) -> Any:
        """One full training step; returns the loss tensor."""
        inputs, targets = self.batches[self.steps % len(self.batches)]
        self.steps += 1
        return self._run(inputs, targets)

    def _eager(self, inputs: Any, targets: Any) -> Any:
        self.optimizer.zero_grad()
        loss = self.loss(self.T, self.model(inputs), targets)
        loss.backward()
        self.optimizer.step()
        return loss

    def weights(self) -> Weights:
        """A copy of the parameters as arrays."""
        return {k: v.detach().cpu().numpy().copy() for k, v in self.model.state_dict().items()}


def hinge(T: Any, scores: Any, labels: Any) -> Any:
    """mean(max(0, 1 - label * score)) with labels of -1 and 1."""
    return (1 - labels * scores).relu().mean()


def cross_entropy(T: Any, logits: Any, targets: Any) -> Any:
    """Cross-entropy over the last dimension."""
    return T.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def sgd(T: Any, parameters: Any) -> Any:
    return T.optim.SGD(parameters, lr=0.05)


def adam(T: Any, parameters: Any) -> Any:
    return T.optim.Adam(parameters, lr=1e-3)


def adamw(T: Any, parameters: Any) -> Any:
    return T.optim.AdamW(parameters, lr=1e-3)


def moons(batch: int, count: int = 8) -> Batches:
    """Points of two interleaved half circles, labelled -1 and 1."""
    rng = np.random.default_rng(1)
    batches = []
    for _ in range(count):
        label = rng.integers(0, 2, batch)
        angle = np.pi * rng.random(batch)
        x = np.where(label == 0, np.cos(angle), 1 - np.cos(angle))
        y = np.where(label == 0, np.sin(angle), 0.5 - np.sin(angle))
        points = np.stack([x, y], 1) + 0.1 * rng.standard_normal((batch, 2))
        batches.append((points.astype(np.float32), (2.0 * label[:, None] - 1.0).astype(np.float32)))
    return batches


def images(batch: int, shape: tuple[int, ...], count: int = 8) -> Batches:
    """Noisy copies of ten random patterns with values in [0, 1], like small images of digits."""
    rng = np.random.default_rng(2)
    patterns = rng.random((10, *shape))
    batches = []
    for _ in range(count):
        label = rng.integers(0, 10, batch)
        pixels = patterns[label] + 0.5 * rng.standard_normal((batch, *shape))
        batches.append((np.clip(pixels, 0, 1).astype(np.float32), label))
    return batches


def strokes(batch: int, count: int = 8) -> Batches:
    """Ten drawings on a black background, moved about; as in MNIST a fifth of 784 pixels is lit."""
    rng = np.random.default_rng(5)
    corners = rng.uniform(5, 23, (10, 4, 2))
    along = np.linspace(0, 1, 20)[:, None]
    pixels = np.stack(np.mgrid[:28, :28], -1)[:, :, None]
    drawings = []
    for moved in np.stack(np.mgrid[-2:3, -2:3], -1).reshape(-1, 1, 1, 2):
        lines = (corners + moved)[:, :-1, None] + along * np.diff(corners, axis=1)[:, :, None]
        apart = [np.linalg.norm(pixels - line.reshape(-1, 2), axis=-1).min(-1) for line in lines]
        drawings.append(np.clip(2.9 - np.stack(apart), 0, 1))
    batches = []
    for _ in range(count):
        label = rng.integers(0, 10, batch)
        drawn = np.stack(drawings)[rng.integers(0, len(drawings), batch), label]
        batches.append((drawn.reshape(batch, -1).astype(np.float32), label))
    return batches


def text(batch: int, length: int, count: int = 8) -> Batches:
    """Token sequences with a natural text's uneven frequencies, and the next token as target."""
    rng = np.random.default_rng(3)
    frequency = 1.0 / np.arange(1, VOCABULARY + 1)
    batches = []
    for _ in range(count):
        tokens = rng.choice(VOCABULARY, (batch, length + 1), p=frequency / frequency.sum())
        batches.append((tokens[:, :-1].copy(), tokens[:, 1:].copy()))
    return batches


def _gpt(T: Any, fused: bool) -> Any:
    return models.gpt(T, layers=2, width=64, heads=4, block=64, vocabulary=VOCABULARY, fused=fused)


def _text_model(kind: str) -> Callable[[Any], Any]:
    return lambda T: models.recurrent(T, kind, VOCABULARY, 64, 128)


WORKLOADS: dict[str, Workload] = {
    "W1": Workload(
        "MLP 2-16-16-1, b32, hinge, SGD",
        lambda T: models.mlp(T, [2, 16, 16, 1]),
        lambda: moons(32),
        hinge,
        sgd,
    ),
    "W2": Workload(
        "MLP 64-128-128-10, b64, Adam",
        lambda T: models.mlp(T, [64, 128, 128, 10]),
        lambda: images(64, (64,)),
        cross_entropy,
        adam,
    ),
    "W3": Workload(
        "MLP 784-256-128-10, b128, Adam",
        lambda T: models.mlp(T, [784, 256, 128, 10]),
        lambda: images(128, (784,)),
        cross_entropy,
        adam,
    ),
    "3m": Workload(
        "the same, strokes on black",
        lambda T: models.mlp(T, [784, 256, 128, 10]),
        lambda: strokes(128),
        cross_entropy,
        adam,
    ),
    "W4": Workload(
        "CNN 16-32 on 28x28, b64, Adam",
        models.cnn,
        lambda: images(64, (1, 28, 28)),
        cross_entropy,
        adam,
    ),
    "W5": Workload(
        "char GPT 2x64, b8, AdamW, SDPA",
        lambda T: _gpt(T, True),
        lambda: text(8, 64),
        cross_entropy,
        adamw,
    ),
    "5m": Workload(
        "char GPT, attention written out",
        lambda T: _gpt(T, False),
        lambda: text(8, 64),
        cross_entropy,
        adamw,
    ),
    "W6": Workload(
        "char LSTM 128, T32, b16, Adam",
        _text_model("LSTM"),
        lambda: text(16, 32),
        cross_entropy,
        adam,
    ),
    "6g": Workload(
        "char GRU 128, T32, b16, Adam",
        _text_model("GRU"),
        lambda: text(16, 32),
        cross_entropy,
        adam,
    ),
}
