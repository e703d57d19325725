"""Loss curves over 200 training steps agree with PyTorch's, from PyTorch's own initial weights.

In float64 the losses agree to 1e-9 of their value at every step. In float32 two correct
implementations drift apart by rounding, so the yardstick is measured: PyTorch is run again with
the rows of each batch in another order, which changes the order of its sums and nothing else,
and our curve may stray from PyTorch's by a small multiple of what PyTorch strays from itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from benchmarks import models
from tests.library import T

torch = pytest.importorskip("torch")

STEPS = 200
VOCABULARY = 17
Batches = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """A model, its data and its optimizer; `max_norm` clips the gradients."""

    model: Callable[[Any], Any]
    batches: Callable[[], Batches]
    optimizer: Callable[[Any, Any], Any]
    max_norm: float | None = None


def images(batch: int, shape: tuple[int, ...], classes: int) -> Batches:
    """Noisy copies of one random pattern per class."""
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((classes, *shape))
    labels = [rng.integers(0, classes, batch) for _ in range(5)]
    return [(patterns[y] + rng.standard_normal((batch, *shape)), y) for y in labels]


def text(batch: int, length: int) -> Batches:
    """A noisy counting sequence and its continuation."""
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(5):
        start = rng.integers(0, VOCABULARY, (batch, 1))
        noise = rng.integers(0, VOCABULARY, (batch, length + 1))
        tokens = (start + 3 * np.arange(length + 1)) % VOCABULARY
        tokens = np.where(rng.random(tokens.shape) < 0.1, noise, tokens)
        batches.append((tokens[:, :-1].copy(), tokens[:, 1:].copy()))
    return batches


def gpt(library: Any, fused: bool) -> Any:
    return models.gpt(
        library, layers=2, width=16, heads=2, block=12, vocabulary=VOCABULARY, fused=fused
    )


CASES = {
    "mlp": Case(
        lambda library: models.mlp(library, [20, 32, 32, 10]),
        lambda: images(32, (20,), 10),
        lambda library, p: library.optim.SGD(
            p, lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-3
        ),
    ),
    "cnn": Case(
        lambda library: models.cnn(library, (4, 8), size=12),
        lambda: images(16, (1, 12, 12), 10),
        lambda library, p: library.optim.Adam(p, lr=1e-3),
    ),
    "gru": Case(
        lambda library: models.recurrent(library, "GRU", VOCABULARY, 8, 16),
        lambda: text(8, 12),
        lambda library, p: library.optim.Adam(p, lr=2e-3),
    ),
    "lstm": Case(
        lambda library: models.recurrent(library, "LSTM", VOCABULARY, 8, 16),
        lambda: text(8, 12),
        lambda library, p: library.optim.Adam(p, lr=2e-3),
        max_norm=0.5,
    ),
    "gpt": Case(
        lambda library: gpt(library, fused=True),
        lambda: text(8, 12),
        lambda library, p: library.optim.AdamW(p, lr=1e-3),
    ),
    "gpt with attention written out": Case(
        lambda library: gpt(library, fused=False),
        lambda: text(8, 12),
        lambda library, p: library.optim.AdamW(p, lr=1e-3),
    ),
}


def initial_weights(case: Case) -> dict[str, np.ndarray]:
    """PyTorch's own initialisation."""
    torch.manual_seed(0)
    return {name: value.numpy().copy() for name, value in case.model(torch).state_dict().items()}


def curve(
    library: Any, case: Case, dtype: str, order: int | None = None, lr_factor: float = 1.0
) -> np.ndarray:
    """The losses of `STEPS` training steps; `order` seeds a permutation of each batch's rows."""
    weights = initial_weights(case)
    model = case.model(library)
    model.load_state_dict({name: library.tensor(value) for name, value in weights.items()})
    model = model.to(getattr(library, dtype))
    optimizer = case.optimizer(library, model.parameters())
    optimizer.param_groups[0]["lr"] *= lr_factor
    permutation = None if order is None else np.random.default_rng(order)
    batches = []
    for inputs, targets in case.batches():
        rows = (
            np.arange(len(inputs)) if permutation is None else permutation.permutation(len(inputs))
        )
        if inputs.dtype == np.float64:
            inputs = inputs.astype(dtype)
        batches.append((library.tensor(inputs[rows]), library.tensor(targets[rows])))
    losses = []
    for step in range(STEPS):
        inputs, targets = batches[step % len(batches)]
        optimizer.zero_grad()
        logits = model(inputs)
        loss = library.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
        )
        loss.backward()
        if case.max_norm is not None:
            library.nn.utils.clip_grad_norm_(model.parameters(), case.max_norm)
        optimizer.step()
        losses.append(loss.item())
    assert str(loss.dtype).endswith(dtype)
    return np.array(losses)


@cache
def torch_curve(name: str, dtype: str) -> np.ndarray:
    """PyTorch's curve, shared by the tests."""
    return curve(torch, CASES[name], dtype)


def deviation(losses: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The largest relative deviation up to each step."""
    return np.maximum.accumulate(np.abs(losses - reference) / np.abs(reference))


@pytest.mark.parametrize("name", CASES)
def test_float64_curve_agrees_with_torch_to_1e_9(name: str) -> None:
    expected = torch_curve(name, "float64")
    assert expected[-5:].mean() < 0.8 * expected[:5].mean()  # it learns
    np.testing.assert_allclose(curve(T, CASES[name], "float64"), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_float32_curve_stays_as_close_to_torch_as_torch_to_itself(name: str) -> None:
    case = CASES[name]
    expected = torch_curve(name, "float32")
    spread = np.max(
        [deviation(curve(torch, case, "float32", order), expected) for order in (1, 2, 3)], axis=0
    )
    assert spread[-1] < 1e-2  # otherwise the yardstick measures nothing
    allowed = 5 * spread + 2e-6
    strayed = deviation(curve(T, case, "float32"), expected)
    worst = int(np.argmax(strayed / allowed))
    assert strayed[worst] <= allowed[worst], (
        f"step {worst}: relative deviation {strayed[worst]:.2e}, allowed {allowed[worst]:.2e}"
    )


@pytest.mark.parametrize("name", ["cnn", "gpt"])
def test_float64_comparison_notices_an_error_of_one_in_a_million(name: str) -> None:
    expected = torch_curve(name, "float64")
    wrong = curve(torch, CASES[name], "float64", lr_factor=1 + 1e-6)
    assert deviation(wrong, expected)[-1] > 1e-8
