"""Divergences beside PyTorch's: every registered pair, and how one is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.distributions import kl
from tests.distributions.table import COVARIANCE, LOGITS, PROBABILITIES
from tests.distributions.test_table import with_gradients
from tests.oracle import outcome_of, same, torch

# Two members of each family; the second for the right side.
MEMBERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Bernoulli": ({"probs": [0.3, 0.0, 1.0, 0.4]}, {"probs": [0.5, 0.2, 0.9, 0.0]}),
    "Beta": (
        {"concentration1": [0.5, 2.0], "concentration0": [3.0, 2.5]},
        {"concentration1": [1.5, 1.0], "concentration0": [0.5, 4.0]},
    ),
    "Binomial": (
        {"total_count": [4, 7], "probs": [0.3, 0.6]},
        {"total_count": [4, 5], "probs": [0.5, 0.2]},
    ),
    "Categorical": ({"probs": PROBABILITIES}, {"probs": [[0.2, 0.2, 0.6], [0.5, 0.0, 0.5]]}),
    "Cauchy": (
        {"loc": [0.0, 1.0], "scale": [1.0, 2.0]},
        {"loc": [2.0, 1.0], "scale": [0.5, 2.0]},
    ),
    "ContinuousBernoulli": ({"probs": [0.3, 0.5]}, {"probs": [0.7, 0.2]}),
    "Dirichlet": (
        {"concentration": [[0.5, 1.0, 3.0], [2.0, 0.9, 0.4]]},
        {"concentration": [[1.5, 2.0, 3.0], [2.0, 1.9, 0.4]]},
    ),
    "Exponential": ({"rate": [0.5, 3.0]}, {"rate": [1.5, 2.0]}),
    "Gamma": (
        {"concentration": [0.5, 3.0], "rate": [1.0, 2.0]},
        {"concentration": [1.5, 2.0], "rate": [0.5, 3.0]},
    ),
    "Geometric": ({"probs": [0.3, 0.6]}, {"probs": [0.5, 0.2]}),
    "Gumbel": (
        {"loc": [0.0, 1.0], "scale": [1.0, 2.0]},
        {"loc": [2.0, 1.0], "scale": [0.5, 2.0]},
    ),
    "HalfNormal": ({"scale": [1.0, 2.0]}, {"scale": [0.5, 3.0]}),
    "Laplace": (
        {"loc": [0.0, 1.0], "scale": [1.0, 2.0]},
        {"loc": [2.0, 1.5], "scale": [0.5, 2.0]},
    ),
    "LogNormal": (
        {"loc": [0.0, 1.0], "scale": [1.0, 2.0]},
        {"loc": [2.0, 1.0], "scale": [0.5, 2.0]},
    ),
    "LowRankMultivariateNormal": (
        {
            "loc": [0.5, -1.0],
            "cov_factor": [[[1.0], [0.3]], [[0.2], [2.0]]],
            "cov_diag": [0.5, 1.0],
        },
        {"loc": [0.0, 1.0], "cov_factor": [[0.4], [-1.0]], "cov_diag": [[1.5, 1.0]] * 2},
    ),
    "MultivariateNormal": (
        {"loc": [[0.0, 1.0], [2.0, 3.0]], "covariance_matrix": COVARIANCE},
        {"loc": [1.0, 1.0], "scale_tril": [[1.0, 0.0], [0.5, 2.0]]},
    ),
    "Normal": (
        {"loc": [0.0, 1.0], "scale": [1.0, 2.0]},
        {"loc": [2.0, 1.0], "scale": [0.5, 2.0]},
    ),
    "OneHotCategorical": ({"logits": LOGITS}, {"probs": PROBABILITIES}),
    "Pareto": (
        {"scale": [1.0, 2.0], "alpha": [1.5, 3.0]},
        {"scale": [0.4, 2.5], "alpha": [2.0, 1.0]},
    ),
    "Poisson": ({"rate": [0.5, 3.0]}, {"rate": [1.5, 2.0]}),
    "Uniform": ({"low": [0.2, 0.5], "high": [0.5, 0.9]}, {"low": [0.0, 0.6], "high": [1.0, 2.0]}),
}
PAIRS = sorted(
    (p.__name__, q.__name__)
    for p, q in kl._REGISTRY
    if p.__name__ in MEMBERS and q.__name__ in MEMBERS
)


def made(T: Any, name: str, side: int) -> tuple[Any, list[Any]]:
    parameters = {
        key: T.tensor(value, dtype=T.float64, requires_grad=True)
        for key, value in MEMBERS[name][side].items()
    }
    return getattr(T.distributions, name)(**parameters), list(parameters.values())


def divergence(T: Any, p: str, q: str) -> Any:
    one, first = made(T, p, 0)
    other, second = made(T, q, 1)
    result = outcome_of(lambda: T.distributions.kl_divergence(one, other))
    return with_gradients(T, result, [*first, *second])


@pytest.mark.parametrize(("p", "q"), [*PAIRS, ("LogNormal", "LogNormal"), ("LogNormal", "Gumbel")])
def test_divergences(p: str, q: str) -> None:
    same(lambda T: divergence(T, p, q), rtol=1e-7, atol=1e-12)


def test_every_pair_of_these_families_that_pytorch_has() -> None:
    known = {(p.__name__, q.__name__) for p, q in torch.distributions.kl._KL_REGISTRY}
    ours = set(gradlite.distributions.__all__)
    expected = {pair for pair in known if set(pair) <= ours}
    assert {(p.__name__, q.__name__) for p, q in kl._REGISTRY} == expected
    assert {p for p, q in expected if p == q} <= {
        *MEMBERS,
        "Independent",
        "TransformedDistribution",
        "ExponentialFamily",
    }


def test_of_no_support_and_wrong_families() -> None:
    same(lambda T: divergence(T, "Uniform", "Exponential"), rtol=1e-10)
    negative = {"low": -1.0, "high": 2.0}

    def program(T: Any) -> Any:
        p = T.distributions.Uniform(**negative)
        others = [made(T, name, 1)[0] for name in ("Exponential", "Gamma", "Beta")]
        heavy = T.distributions.Pareto(1.0, T.tensor([0.5, 1.0], dtype=T.float64))
        return [
            *[T.distributions.kl_divergence(p, q).detach() for q in others],
            *[T.distributions.kl_divergence(heavy, q).detach() for q in others],
        ]

    same(program)
    same(lambda T: divergence(T, "Cauchy", "Normal"), message="exact")


def test_of_independent_and_transformed() -> None:
    def program(T: Any) -> Any:
        D = T.distributions
        p, q = (D.Independent(made(T, "Normal", side)[0], 1) for side in (0, 1))
        squashed = [
            D.TransformedDistribution(d, [D.TanhTransform(), D.AffineTransform(0.0, 2.0)])
            for d in (p, q)
        ]
        other = D.TransformedDistribution(q, [D.ExpTransform()])
        results = [
            D.kl_divergence(p, q),
            D.kl_divergence(*squashed),
            outcome_of(lambda: D.kl_divergence(squashed[0], other)),
            outcome_of(lambda: D.kl_divergence(p, D.Independent(made(T, "Normal", 1)[0], 0))),
        ]
        return [r.detach() if T.is_tensor(r) else r for r in results]

    same(program)


def test_registering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kl, "_REGISTRY", dict(kl._REGISTRY))
    D = gradlite.distributions

    class Left(D.Normal):  # type: ignore[misc, name-defined]
        pass

    class Right(Left):
        pass

    D.register_kl(Left, D.Normal)(lambda p, q: "left")
    assert D.kl_divergence(Right(0.0, 1.0), D.Normal(0.0, 1.0)) == "left"
    assert float(D.kl_divergence(D.Normal(0.0, 1.0), Right(1.0, 1.0))) == 0.5
    D.register_kl(D.Normal, Right)(lambda p, q: "right")
    with pytest.warns(RuntimeWarning, match=r"Ambiguous kl_divergence\(Right, Right\)"):
        assert D.kl_divergence(Right(0.0, 1.0), Right(0.0, 1.0)) == "left"
    with pytest.raises(TypeError, match="Expected type_p to be a Distribution subclass"):
        D.register_kl(int, D.Normal)


def test_a_wrong_divergence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: off by one part in a million."""
    N = gradlite.distributions.Normal
    right = kl._REGISTRY[N, N]
    monkeypatch.setitem(kl._REGISTRY, (N, N), lambda p, q: right(p, q) * (1 + 1e-6))
    with pytest.raises(AssertionError, match="Not equal"):
        test_divergences("Normal", "Normal")


def test_it_is_the_mean_of_the_difference_of_log_probabilities() -> None:
    gradlite.manual_seed(0)
    for name in ("Gamma", "Beta", "Laplace"):
        p, _ = made(gradlite, name, 0)
        q, _ = made(gradlite, name, 1)
        x = p.sample((40_000,))
        terms = (p.log_prob(x) - q.log_prob(x)).detach().numpy()
        error = 5 * terms.std(0) / np.sqrt(len(terms))
        expected = gradlite.distributions.kl_divergence(p, q).detach().numpy()
        assert (np.abs(terms.mean(0) - expected) < error).all()
