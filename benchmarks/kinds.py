"""Training steps of models of many kinds, as they are and captured, beside PyTorch's.

    python -m benchmarks.kinds                    # all of them
    python -m benchmarks.kinds residual texts     # some

The workloads of `benchmarks.training` are few and known too well: what they do not use can be slow
without anybody noticing. A captured step should never take longer than the step as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import timing

BLOCKS, BLOCK_SECONDS = 9, 0.1


@dataclass(frozen=True)
class Kind:
    """A model and what it is trained with.

    Attributes:
        model: makes it with a library.
        shape: of the inputs.
        classes: how many there are; 0 for models that reproduce their inputs.
        words: how many numbers words have, where inputs are words.
    """

    model: Callable[[Any], Any]
    shape: tuple[int, ...]
    classes: int = 10
    words: int = 0


KINDS: dict[str, Kind] = {}


def kind(*shape: int, **options: Any) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    def enter(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        KINDS[make.__name__] = Kind(make, shape, **options)
        return make

    return enter


def _convolved(nn: Any, inputs: int, outputs: int, stride: int = 1) -> list[Any]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


@kind(32, 3, 32, 32)
def normalised(T: Any) -> Any:
    """Convolutions with batch normalisation."""
    nn = T.nn
    return nn.Sequential(
        *_convolved(nn, 3, 32), *_convolved(nn, 32, 32), nn.MaxPool2d(2),
        *_convolved(nn, 32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


@kind(32, 3, 32, 32)
def residual(T: Any) -> Any:
    """Residual blocks, two of them with stride 2."""
    nn = T.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            last = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
            first = _convolved(nn, inputs, outputs, stride)
            self.inner = nn.Sequential(*first, last, nn.BatchNorm2d(outputs))
            beside = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            changes = stride != 1 or inputs != outputs
            self.beside = nn.Sequential(beside, nn.BatchNorm2d(outputs)) if changes else None

        def forward(self, x: Any) -> Any:
            return (self.inner(x) + (x if self.beside is None else self.beside(x))).relu()

    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*_convolved(nn, 3, 16), *blocks, *end)


@kind(32, 3, 32, 32)
def grouped(T: Any) -> Any:
    """Group normalisation, SiLU and a stride."""
    nn = T.nn
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.SiLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.GroupNorm(8, 32), nn.SiLU(),
        nn.Flatten(), nn.Linear(32 * 256, 10),
    )  # fmt: skip


@kind(32, 3, 32, 32)
def depthwise(T: Any) -> Any:
    """Convolutions of single channels and of single pixels by turns."""
    nn, layers = T.nn, []
    for inputs, outputs, stride in ((16, 32, 2), (32, 64, 2), (64, 64, 1)):
        alone = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False)
        layers += [alone, nn.BatchNorm2d(inputs), nn.ReLU6()]
        layers += [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6()]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *layers, *end)


@kind(32, 1, 28, 28)
def averaged(T: Any) -> Any:
    """5 x 5 convolutions, tanh and average pooling."""
    nn = T.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 10),
    )  # fmt: skip


@kind(32, 1, 28, 28, classes=0)
def autoencoder(T: Any) -> Any:
    """Convolutions with stride 2, and transposed ones."""
    nn = T.nn
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1), nn.Sigmoid(),
    )  # fmt: skip


@kind(16, 3, 32, 32, classes=0)
def skipping(T: Any) -> Any:
    """A U of convolutions: pooling, upsampling, and what is joined across."""
    nn = T.nn

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
            self.low = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU())
            self.up = nn.Upsample(scale_factor=2, mode="nearest")
            self.end = nn.Sequential(
                nn.Conv2d(48, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 1)
            )

        def forward(self, x: Any) -> Any:
            x = self.down(x)
            return self.end(T.cat([self.up(self.low(x)), x], 1))

    return Net()


@kind(32, 8, 256)
def series(T: Any) -> Any:
    """Convolutions over time."""
    nn = T.nn
    return nn.Sequential(
        nn.Conv1d(8, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(32, 64, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(64, 10),
    )  # fmt: skip


@kind(128, 64)
def regularised(T: Any) -> Any:
    """Linear layers with batch normalisation and dropout."""
    nn = T.nn
    return nn.Sequential(
        nn.Linear(64, 256), nn.BatchNorm1d(256), nn.LeakyReLU(0.1), nn.Dropout(0.3),
        nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ELU(), nn.Linear(256, 10),
    )  # fmt: skip


@kind(256, 2)
def sines(T: Any) -> Any:
    """Linear layers with sines between them."""
    nn = T.nn

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(2, 128), nn.Linear(128, 128)])
            self.end = nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            for layer in self.layers:
                x = T.sin(30 * layer(x))
            return self.end(x)

    return Net()


@kind(16, 48, classes=2, words=5000)
def texts(T: Any) -> Any:
    """Words, an LSTM in both directions, and the mean over time."""
    nn = T.nn

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(5000, 64)
            self.layer = nn.LSTM(64, 96, batch_first=True, bidirectional=True)
            self.end = nn.Linear(192, 2)

        def forward(self, x: Any) -> Any:
            return self.end(self.layer(self.words(x))[0].mean(1))

    return Net()


@kind(16, 32, classes=4, words=1000)
def encoder(T: Any) -> Any:
    """PyTorch's layers of a transformer's encoder, with dropout."""
    nn = T.nn

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(1000, 64)
            layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.1, batch_first=True)
            self.layers, self.end = nn.TransformerEncoder(layer, 2), nn.Linear(64, 4)

        def forward(self, x: Any) -> Any:
            return self.end(self.layers(self.words(x)).mean(1))

    return Net()


@kind(64, 20, words=10000)
def bags(T: Any) -> Any:
    """The means of words."""
    nn = T.nn
    return nn.Sequential(
        nn.EmbeddingBag(10000, 64, mode="mean"), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def step_of(T: Any, name: str, capture: dict[str, Any] | None = None) -> Callable[[], Any]:
    """A training step of a kind of model, always of the same batch.

    Args:
        capture: options of `gradlite.capture`, None for the step as it is.
    """
    made = KINDS[name]
    rng = np.random.default_rng(0)
    given = rng.integers(0, made.words, made.shape) if made.words else rng.random(made.shape)
    x = T.tensor(given if made.words else given.astype(np.float32))
    y = T.tensor(rng.integers(0, max(made.classes, 1), made.shape[0]))
    T.manual_seed(0)
    model = made.model(T)
    optimizer = T.optim.AdamW(model.parameters(), lr=1e-3)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        out, F = model(x), T.nn.functional
        loss = F.cross_entropy(out, y) if made.classes else F.mse_loss(out, x)
        loss.backward()
        optimizer.step()
        return loss

    run = step if capture is None else T.capture(step, **capture)
    return lambda: run(x, y)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kinds")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(KINDS)}")
    names = parser.parse_args(argv).names or list(KINDS)
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise SystemExit(f"unknown kinds {unknown}; there are {', '.join(KINDS)}")
    timing.restart_with_threads("benchmarks.kinds", 1)
    gradlite, torch = (timing.load_library(name, 1) for name in ("gradlite", "torch"))
    print(timing.describe(timing.machine(1, [gradlite, torch])) + "\n", flush=True)
    rows = []
    for name in names:
        steps = [step_of(torch, name), step_of(gradlite, name), step_of(gradlite, name, {})]
        for step in steps:
            for _ in range(4):  # till there is a recording
                step()
        peer, eager, captured = timing.interleave(steps, BLOCKS, BLOCK_SECONDS, "cpu")
        times = [f"{t.median * 1e3:.2f}" for t in (peer, eager, captured)]
        pairs = ((eager, peer), (captured, peer), (captured, eager))
        ratios = [f"{timing.ratio(*pair)[1]:.2f}" for pair in pairs]
        rows.append([name, *times, *ratios])
        print(f"{name} done", flush=True)
    header = ["kind", "PyTorch ms", "as it is", "captured"]
    header += ["as it is / PyTorch", "captured / PyTorch", "captured / as it is"]
    print("\n" + timing.table(header, rows))


if __name__ == "__main__":
    main()
