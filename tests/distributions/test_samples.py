"""Samples beside PyTorch's, by the test of Kolmogorov and Smirnov."""

from __future__ import annotations

from dataclasses import replace
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


# Whose samples are of gamma distributions: the gradients keep a sample's place in its distribution,
# and not the random numbers that it is made of.
OF_GAMMAS = {"Gamma", "Chi2", "Beta", "Dirichlet", "StudentT", "InverseGamma", "FisherSnedecor",
             "Wishart"}  # fmt: skip
# Whose samples are rounded to one value in the forward pass.
STRAIGHT = {"OneHotCategoricalStraightThrough"}
SMOOTH = [c for c in CASES if c.make(gradlite).has_rsample and c.name not in OF_GAMMAS | STRAIGHT]


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.id)
def test_gradients_of_samples_agree_with_differences(case: Case) -> None:
    """Of samples of the same random numbers, along a direction for each parameter."""
    inside = {  # no bounds of intervals, and no shape that a formula has a case for
        name: np.where(np.array(value) == 0, 0.05, value).tolist()
        for name, value in case.parameters.items()
        if name in ("probs", "concentration")
    }
    case = replace(case, dtype="float64", parameters={**case.parameters, **inside})
    tensors = {k: t for k, t in case.tensors(gradlite).items() if isinstance(t, gradlite.Tensor)}

    def total(**changed: Any) -> Any:
        gradlite.manual_seed(7)
        d = getattr(gradlite.distributions, case.name)(
            **{**case.parameters, **tensors, **changed}, validate_args=False
        )
        samples = d.rsample((3,))
        return (samples * gradlite.linspace(0.5, 1.5, samples.numel()).view_as(samples)).sum()

    value = total()
    for name, tensor in tensors.items():
        direction = np.random.default_rng(3).normal(size=tuple(tensor.shape))
        if name.endswith("_matrix"):
            direction = direction + np.swapaxes(direction, -2, -1)
        if name.endswith("_tril"):
            direction = np.tril(direction)
        step = gradlite.tensor(1e-6 * direction)
        up, down = (total(**{name: tensor.detach() + s * step}).item() for s in (1, -1))
        (grad,) = gradlite.autograd.grad(value, tensor, retain_graph=True)
        expected = (grad * gradlite.tensor(direction)).sum().item()
        np.testing.assert_allclose((up - down) / 2e-6, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("InverseGamma", {"concentration": [5.0], "rate": [2.0]}),
        ("FisherSnedecor", {"df1": [3.0], "df2": [14.0]}),
        ("Wishart", {"df": [4.5], "scale_tril": [[1.0, 0.0], [0.3, 2.0]]}),
    ],
)
def test_gradients_of_samples_are_those_of_the_mean(name: str, parameters: Any) -> None:
    case = Case(name, parameters, None)
    tensors = case.tensors(gradlite)
    d = getattr(gradlite.distributions, name)(**tensors)
    expected = gradlite.autograd.grad(
        d.mean.sum(), list(tensors.values()), retain_graph=True, materialize_grads=True
    )
    gradlite.manual_seed(1)
    found = [
        gradlite.autograd.grad(
            d.rsample((500,)).mean(0).sum(), list(tensors.values()), retain_graph=True
        )
        for _ in range(20)
    ]
    for wanted, *grads in zip(expected, *found):
        values = np.stack([g.numpy() for g in grads])
        error = 5 * values.std(0) / np.sqrt(len(values))
        assert (np.abs(values.mean(0) - wanted.numpy()) <= error).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_of_small_concentrations_are_neither_0_nor_1(dtype: str) -> None:
    gradlite.manual_seed(1)
    concentration = gradlite.full((5000,), 1e-2, dtype=getattr(gradlite, dtype), requires_grad=True)
    samples = gradlite.distributions.Beta(concentration, concentration).rsample()
    assert ((samples > 0) & (samples < 1)).all()
    assert ((samples < 1e-6) | (samples > 1 - 1e-6)).any()
    samples.sum().backward()
    assert concentration.grad.isfinite().all()
