"""Gamma, Poisson and binomial samples, and the gradient of gamma samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops import variates
from gradlite.ops.dispatch import apply
from tests.oracle import same, torch

rng = np.random.Generator(np.random.Philox(3))
SHAPES = 10 ** rng.uniform(-2, 4, 300)
SAMPLES = np.maximum(rng.gamma(SHAPES), 1e-300)


def moved(shapes: Any, samples: Any, dtype: Any = np.float64) -> Any:
    """How samples move with the shapes of their gamma distributions."""
    a = gradlite.tensor(np.asarray(shapes, dtype), requires_grad=True)
    out = apply(variates.StandardGamma, (a, gradlite.tensor(np.asarray(samples, dtype))))
    return gradlite.autograd.grad(out.sum(), a)[0].numpy()


def test_the_gradient_is_pytorchs() -> None:
    # PyTorch's has a relative error of half a thousandth.
    expected = torch._standard_gamma_grad(torch.tensor(SHAPES), torch.tensor(SAMPLES)).numpy()
    np.testing.assert_allclose(moved(SHAPES, SAMPLES), expected, rtol=6e-4)
    with pytest.raises(AssertionError, match="Not equal"):  # the negative control
        np.testing.assert_allclose(moved(SHAPES, SAMPLES) * 1.002, expected, rtol=6e-4)


def test_the_gradient_keeps_the_place_in_the_distribution() -> None:
    """The distribution function at a sample does not change when the sample moves along."""
    inside = (SHAPES > 0.1) & (SHAPES < 1000)
    a, z = torch.tensor(SHAPES[inside]), torch.tensor(SAMPLES[inside])
    eps = 1e-4 * a
    place = torch.special.gammainc
    slope = (place(a + eps, z) - place(a - eps, z)) / (2 * eps)
    density = torch.exp((a - 1) * z.log() - z - a.lgamma())
    np.testing.assert_allclose(moved(a, z), (-slope / density).numpy(), rtol=2e-5)


def test_the_gradient_where_it_is_known() -> None:
    """For the shape 1, whose distribution is 1 - exp(-z), a series gives it."""
    z = np.array([1e-6, 0.1, 0.7, 1.0, 1.5, 4.0])
    k = np.arange(1, 60)
    factorials = np.array([math.gamma(n + 1) for n in k])
    # The integral of log(t) exp(-t) from 0 to z, by parts.
    terms = (-1.0) ** k * z[:, None] ** k / (k * factorials)
    integral = np.log(z) * (1 - np.exp(-z)) + terms.sum(1)
    expected = -(integral + np.euler_gamma * (1 - np.exp(-z))) * np.exp(z)
    np.testing.assert_allclose(moved(np.ones(6), z), expected, rtol=1e-10)


def test_the_gradient_in_single_precision_and_of_extremes() -> None:
    np.testing.assert_allclose(
        moved(SHAPES, SAMPLES, np.float32),
        moved(np.float32(SHAPES), np.float32(SAMPLES)),
        rtol=1e-5,
        atol=1e-30,
    )
    found = moved([1e-3, 1e-3, 1e6, 5.0, 5.0], [1e-300, 1e-3, 1e6, 1e-4, 60.0])
    assert (np.isfinite(found) & (found >= 0)).all()


def test_the_second_derivative() -> None:
    """By differences of the first one, along the way that the sample takes."""
    shapes, samples, eps = np.array([0.3, 1.5, 20.0]), np.array([0.2, 2.5, 17.0]), 1e-5
    a = gradlite.tensor(shapes, requires_grad=True)
    out = apply(variates.StandardGamma, (a, gradlite.tensor(samples)))
    (first,) = gradlite.autograd.grad(out.sum(), a, create_graph=True)
    (second,) = gradlite.autograd.grad(first.sum(), a)
    slope = moved(shapes, samples)
    ends = [moved(shapes + s * eps, samples + s * eps * slope) for s in (1, -1)]
    np.testing.assert_allclose(second.numpy(), (ends[0] - ends[1]) / (2 * eps), rtol=1e-6)


@pytest.mark.parametrize("shape", [0.05, 0.5, 1.0, 3.0, 1000.0])
def test_gamma_moments(shape: float) -> None:
    gradlite.manual_seed(2)
    n = 100_000
    x = variates.standard_gamma(gradlite.full((n,), shape, dtype=gradlite.float64)).numpy()
    assert abs(x.mean() - shape) < 5 * math.sqrt(shape / n)
    fourth = 3 * shape * (shape + 2)  # the fourth central moment
    assert abs(x.var() - shape) < 5 * math.sqrt((fourth - shape**2) / n)
    logs = np.log(x)
    expected = float(torch.digamma(torch.tensor(shape, dtype=torch.float64)))
    assert abs(logs.mean() - expected) < 5 * logs.std() / math.sqrt(n)


def chi_square(found: Any, probabilities: Any) -> float:
    """How far counts are from what is expected, in standard deviations of that distance."""
    expected = probabilities * len(found)
    likely = expected > 8
    counts = np.bincount(found.astype(int), minlength=len(expected))[: len(expected)]
    cells = np.append(counts[likely], len(found) - counts[likely].sum())
    wanted = np.append(expected[likely], len(found) - expected[likely].sum())
    wanted[-1] = max(wanted[-1], 1e-9)
    if wanted[-1] < 8:
        cells, wanted = cells[:-1], wanted[:-1]
    freedom = len(cells) - 1
    return float((((cells - wanted) ** 2 / wanted).sum() - freedom) / math.sqrt(2 * freedom))


N = 100_000


@pytest.mark.parametrize("rate", [0.1, 3.0, 9.9, 10.0, 12.5, 200.0])
def test_poisson_counts(rate: float) -> None:
    gradlite.manual_seed(4)
    found = gradlite.poisson(gradlite.full((N,), rate)).numpy()
    k = torch.arange(1000, dtype=torch.float64)
    mass = torch.distributions.Poisson(torch.tensor(np.float64(np.float32(rate)))).log_prob(k).exp()
    assert chi_square(found, mass.numpy()) < 5
    other = torch.distributions.Poisson(torch.tensor(rate * 1.02)).log_prob(k).exp().numpy()
    assert chi_square(found, other) > 5 or rate < 1  # the negative control


@pytest.mark.parametrize(
    ("count", "p"), [(1, 0.3), (20, 0.4), (25, 0.4), (30, 0.75), (1000, 0.002), (5000, 0.5)]
)
def test_binomial_counts(count: int, p: float) -> None:
    gradlite.manual_seed(5)
    found = gradlite.binomial(gradlite.full((N,), float(count)), gradlite.tensor(p)).numpy()
    k = torch.arange(count + 1, dtype=torch.float64)
    chance = torch.tensor(np.float64(np.float32(p)))
    mass = torch.distributions.Binomial(count, chance).log_prob(k).exp().numpy()
    assert chi_square(found, mass) < 5
    other = torch.distributions.Binomial(count, chance * 1.02).log_prob(k).exp().numpy()
    assert chi_square(found, other) > 5 or count == 1  # the negative control


def test_ends_and_errors() -> None:
    same(lambda T: T.poisson(T.tensor([0.0, 0.0])))
    same(lambda T: T.binomial(T.tensor([0.0, 5.0, 7.0]), T.tensor([0.5, 0.0, 1.0])))
    with pytest.raises(RuntimeError, match="invalid Poisson rate"):
        gradlite.poisson(gradlite.tensor([-1.0]))
    g = gradlite.Generator().manual_seed(3)
    one = gradlite.poisson(gradlite.full((20,), 5.0), generator=g)
    g.manual_seed(3)
    assert (one == gradlite.poisson(gradlite.full((20,), 5.0), generator=g)).all()
    assert gradlite.poisson(gradlite.zeros(0)).shape == (0,)
    big = gradlite.poisson(gradlite.full((1000,), 1e9, dtype=gradlite.float64)).numpy()
    assert abs(big.mean() - 1e9) < 5 * math.sqrt(1e9 / 1000)


DISTRIBUTION_FUNCTIONS = {
    "cauchy_": ((1.0, 2.0), lambda x: 0.5 + np.arctan((x - 1) / 2) / np.pi),
    "log_normal_": ((1.0, 0.5), lambda x: torch.special.ndtr(torch.tensor(2 * np.log(x) - 2))),
    "geometric_": ((0.2,), lambda x: 1 - 0.8**x),
}


@pytest.mark.parametrize("name", DISTRIBUTION_FUNCTIONS)
def test_numbers_filled_in_are_of_their_distribution(name: str) -> None:
    """The largest difference of distribution functions, which 1 of 10,000 samples exceeds."""
    arguments, function = DISTRIBUTION_FUNCTIONS[name]
    gradlite.manual_seed(4)
    draws = getattr(gradlite.empty(20000, dtype=gradlite.float64), name)(*arguments).numpy()
    values, counts = np.unique(draws, return_counts=True)
    found = np.cumsum(counts) / draws.size
    off = np.abs(found - np.asarray(function(values))).max()
    assert off < 2.2 / math.sqrt(draws.size)
    assert np.abs(found - np.asarray(function(1.1 * values))).max() > 2.2 / math.sqrt(draws.size)


DRAWS: dict[str, Any] = {
    "bernoulli": lambda T, x: T.bernoulli(x),
    "method": lambda T, x: x.bernoulli(),
    "poisson": lambda T, x: T.poisson(x),
}


@pytest.mark.parametrize("name", DRAWS)
def test_samples_of_what_requires_grad_have_a_gradient_of_zeros(name: str) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([0.0, 1.0], requires_grad=True)
        w = T.tensor([2.0, 3.0], requires_grad=True)
        sample = DRAWS[name](T, x)
        (sample * w).sum().backward()
        constant = DRAWS[name](T, x.detach())
        return sample.requires_grad, sample.grad_fn, x.grad, constant.requires_grad

    same(program)


def test_the_next_number_moves_with_the_first_operand() -> None:
    def program(T: Any) -> Any:
        a = T.tensor([1.0, 2.0], requires_grad=True)
        b = T.tensor([[1.0], [5.0]], requires_grad=True)
        T.nextafter(a, b).backward(T.tensor([[3.0, 7.0], [11.0, 13.0]]))
        return a.grad, b.grad

    same(program)
