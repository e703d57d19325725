"""Muon and Adafactor, beyond the options that PyTorch's own tests go through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.nn import functional as F
from gradlite.optim.muon import orthogonalized
from tests import cupy_stand_in as stand_in


def with_gradients(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    generator = np.random.default_rng(seed)
    made = []
    for shape in shapes:
        p = gradlite.tensor(generator.standard_normal(shape)).requires_grad_()
        p.grad = gradlite.tensor(generator.standard_normal(shape))
        made.append(p)
    return made


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (1, 5)])
def test_singular_values_are_brought_to_about_1(shape: tuple[int, int]) -> None:
    matrix = with_gradients(shape)[0].detach()
    found = orthogonalized(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7).double()
    assert found.shape == shape
    sizes = np.linalg.svd(found.numpy(), compute_uv=False)
    assert (sizes > 0.5).all() and (sizes < 1.3).all()
    u, _, vt = np.linalg.svd(matrix.numpy(), full_matrices=False)
    diagonal = np.abs(u.T @ found.numpy() @ vt.T)
    np.testing.assert_allclose(diagonal, np.diag(diagonal.diagonal()), atol=0.05)


def test_a_matrix_of_zeros_stays_one() -> None:
    assert not orthogonalized(gradlite.zeros(3, 2), (3.4, -4.8, 2.0), 5, 1e-7).any()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("ns_steps", 100, "Number of steps must be less than 100"),
        ("ns_coefficients", (1.0, 2.0), "Coefficients must be a tuple of exactly 3 values"),
    ],
)
def test_a_step_that_is_refused_changes_nothing(option: str, value: Any, message: str) -> None:
    params = with_gradients((3, 2), (2, 2))
    before = [p.tolist() for p in params]
    optimizer = optim.Muon([{"params": params[:1]}, {"params": params[1:], option: value}])
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    assert [p.tolist() for p in params] == before and not optimizer.state


def test_means_of_rows_and_columns_stand_for_squares() -> None:
    """A gradient whose square is a product of a row and a column is divided by its size."""
    (p,) = with_gradients((3, 4))
    row, column = gradlite.tensor([[1.0], [2.0], [0.5]]), gradlite.tensor([3.0, 1.0, 0.25, 2.0])
    p.grad = (row * column).double()
    before = p.detach().clone()
    optim.Adafactor([p], lr=1.0).step()
    size = before.square().mean().sqrt()
    np.testing.assert_allclose(p.detach().numpy(), (before - size).numpy(), 1e-6)


def trained(capture: bool, make: Any, device: str = "cpu") -> list[Any]:
    gradlite.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(device)
    optimizers = make(model)

    def step(x: Any, y: Any) -> Any:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss.detach()

    run = gradlite.capture(step) if capture else step
    losses = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        x = gradlite.tensor(generator.standard_normal((16, 6)), dtype=gradlite.float32).to(device)
        losses.append(run(x, (x[:, :3].argmax(1))).item())
    if capture:
        assert run.replays > 30  # type: ignore[attr-defined]
    assert losses[-1] < losses[0]
    return [p.tolist() for p in model.parameters()] + losses


def with_muon(model: nn.Module) -> list[optim.Optimizer]:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    return [optim.Muon(matrices, lr=0.02), optim.AdamW(rest, lr=1e-2)]


def with_adafactor(model: nn.Module) -> list[optim.Optimizer]:
    return [optim.Adafactor(model.parameters(), lr=0.05)]


# With what may differ: products in bfloat16 add up in another order elsewhere.
MAKERS = [(with_muon, 2e-2), (with_adafactor, 1e-4)]


@pytest.mark.parametrize(("make", "most"), MAKERS)
def test_captured_steps_train_the_same_model(make: Any, most: float) -> None:
    here, there = trained(False, make), trained(True, make)
    for one, other in zip(here, there):
        np.testing.assert_allclose(other, one, most, most)


@pytest.mark.parametrize(("make", "most"), [(with_muon, 0.05), (with_adafactor, 1e-5)])
def test_a_gpu_trains_as_well(make: Any, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Muon's iteration makes much of the last place of bfloat16: two devices soon differ in it."""
    here = trained(False, make)
    stand_in.install(monkeypatch)
    np.testing.assert_allclose(trained(False, make, "cuda")[-40:], here[-40:], most)
