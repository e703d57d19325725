"""Samples beside PyTorch's, by the test of Kolmogorov and Smirnov."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from tests.distributions.table import CASES, Case
from tests.oracle import torch

N = 20_000


def distance(one: Any, other: Any) -> float:
    """The largest difference of the two distribution functions, in units of sqrt(2 / N)."""
    points = np.concatenate([one, other])
    below = [np.searchsorted(np.sort(x), points, side="right") / len(x) for x in (one, other)]
    return float(np.abs(below[0] - below[1]).max() / np.sqrt(2 / N))


def columns(samples: Any) -> Any:
    """Every component of the samples, and the products of neighbouring ones."""
    flat = np.asarray(samples, np.float64).reshape(N, -1)
    return [*flat.T, *(flat[:, :-1] * flat[:, 1:]).T]


def drawn(T: Any, case: Case, method: str, **changed: Any) -> Any:
    T.manual_seed(11)
    return columns(getattr(case.make(T, **changed), method)((N,)).detach().numpy())


@pytest.mark.filterwarnings("ignore:Singular sample detected")  # of PyTorch's, for no reason
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_samples_are_distributed_as_pytorchs(case: Case) -> None:
    method = "rsample" if case.make(gradlite).has_rsample else "sample"
    pairs = zip(drawn(gradlite, case, method), drawn(torch, case, "sample"), strict=True)
    # 2.3 is passed by one pair in 20,000.
    assert max(distance(one, other) for one, other in pairs) < 2.3


@pytest.mark.parametrize(
    ("name", "changed"),
    [("Normal", {"scale": 2.8}), ("Bernoulli", {"probs": 0.28})],
)
def test_a_small_difference_is_found(name: str, changed: dict[str, float]) -> None:
    """The negative control."""
    case = next(c for c in CASES if c.name == name and changed.keys() <= c.parameters.keys()
                and np.ndim(c.parameters[next(iter(changed))]) == 0)  # fmt: skip
    pairs = zip(drawn(gradlite, case, "sample", **changed), drawn(torch, case, "sample"))
    assert max(distance(one, other) for one, other in pairs) > 2.3


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_samples_are_the_same_numbers_again(case: Case) -> None:
    def again(seed: int) -> Any:
        gradlite.manual_seed(seed)
        return case.make(gradlite).sample((50,))

    assert (again(3) == again(3)).all()
    assert not (again(3) == again(4)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_of_small_concentrations_are_neither_0_nor_1(dtype: str) -> None:
    gradlite.manual_seed(1)
    concentration = gradlite.full((5000,), 1e-2, dtype=getattr(gradlite, dtype), requires_grad=True)
    samples = gradlite.distributions.Beta(concentration, concentration).rsample()
    assert ((samples > 0) & (samples < 1)).all()
    assert ((samples < 1e-6) | (samples > 1 - 1e-6)).any()
    samples.sum().backward()
    assert concentration.grad.isfinite().all()
