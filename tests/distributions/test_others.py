"""Mixtures, independent batches, classes of programs, and what all distributions share."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import gradlite
from tests.distributions.test_samples import distance
from tests.oracle import outcome_of, same, torch


def mixture(T: Any) -> Any:
    D = T.distributions
    weights = T.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], dtype=T.float64)
    loc = T.tensor([[-2.0, 0.0, 3.0], [1.0, 2.0, 5.0]], dtype=T.float64)
    return D.MixtureSameFamily(D.Categorical(weights), D.Normal(loc, 0.5))


def mixture_of_vectors(T: Any) -> Any:
    D = T.distributions
    loc = T.tensor([[-2.0, 0.0], [1.0, 2.0], [3.0, -1.0]], dtype=T.float64)
    parts = D.Independent(D.Normal(loc, T.ones_like(loc)), 1)
    return D.MixtureSameFamily(D.Categorical(T.tensor([0.2, 0.3, 0.5], dtype=T.float64)), parts)


@pytest.mark.parametrize(
    ("make", "value"), [(mixture, [0.3, 2.0]), (mixture_of_vectors, [0.3, 2.0])]
)
def test_mixtures(make: Any, value: Any) -> None:
    def program(T: Any) -> Any:
        d = make(T)
        x = T.tensor(value, dtype=T.float64)
        wide = d.expand((4, *d.batch_shape))
        return [
            tuple(d.batch_shape), tuple(d.event_shape), repr(d), repr(d.support), d.has_rsample,
            d.mean, d.variance, d.stddev, d.log_prob(x), outcome_of(lambda: d.cdf(x)),
            wide.log_prob(x), wide.mean, tuple(wide.sample((5,)).shape),
            outcome_of(lambda: d.log_prob(x * np.nan)), outcome_of(d.entropy),
        ]  # fmt: skip

    same(program, message="type")
    found = []
    for T in (gradlite, torch):
        T.manual_seed(3)
        found.append(make(T).sample((20_000,)).numpy().reshape(20_000, -1).T)
    assert max(distance(one, other) for one, other in zip(*found)) < 2.3


def test_mixtures_of_what_does_not_fit() -> None:
    def make(T: Any, weights: int, batch: int) -> Any:
        D = T.distributions
        parts = D.Normal(T.zeros(3, 4), 1.0)
        return D.MixtureSameFamily(D.Categorical(T.ones(batch, weights)), parts)

    same(lambda T: make(T, 5, 3), raises=ValueError, message="exact")
    same(lambda T: make(T, 4, 2), raises=ValueError, message="exact")
    same(
        lambda T: T.distributions.MixtureSameFamily(None, None), raises=ValueError, message="exact"
    )


def test_independent() -> None:
    def program(T: Any) -> Any:
        D = T.distributions
        d = D.Independent(D.Bernoulli(T.tensor([[0.2, 0.5], [0.3, 0.9]])), 1)
        value = T.tensor([[1.0, 0.0], [0.0, 1.0]])
        return [
            repr(d), tuple(d.batch_shape), tuple(d.event_shape), repr(d.support),
            d.mean, d.variance,
            d.log_prob(value), d.entropy(), d.has_enumerate_support, d.has_rsample,
            outcome_of(d.enumerate_support), tuple(d.expand((3, 2)).sample((4,)).shape),
            outcome_of(lambda: D.Independent(d, 2)), outcome_of(lambda: d.log_prob(value * 0.5)),
        ]  # fmt: skip

    same(program, message="exact")


def test_low_rank_arguments_that_do_not_fit() -> None:
    def program(T: Any) -> Any:
        make = T.distributions.LowRankMultivariateNormal
        loc, W, D = T.zeros(2), T.ones(2, 1), T.ones(2)
        wrong = [
            (loc[0], W, D), (loc, D, D), (loc, T.ones(3, 1), D), (loc, W, T.ones(3)),
            (T.zeros(2, 2), W, T.ones(3, 2)), (loc, W, -10 * D), (loc * np.nan, W, D),
        ]  # fmt: skip
        d = make(loc, W, T.ones(4, 2))
        return [outcome_of(lambda a=a: make(*a)) for a in wrong], [
            d.scale_tril, d.precision_matrix, d.covariance_matrix, d.expand((3, 4)).scale_tril
        ]  # fmt: skip

    same(program, message="exact")


def test_the_density_of_angles() -> None:
    """PyTorch's Bessel functions have seven digits: beside sums over the circle."""
    D = gradlite.distributions
    kappa = gradlite.tensor([1e-9, 0.3, 8.0, 700.0], dtype=gradlite.float64)
    d = D.VonMises(gradlite.zeros(4, dtype=gradlite.float64), kappa)
    angles = gradlite.arange(4000, dtype=gradlite.float64).reshape(-1, 1) * (2 * np.pi / 4000)
    weights = d.log_prob(angles).exp() * (2 * np.pi / 4000)
    np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-12)
    variance = (weights * (1 - angles.cos())).sum(0)
    np.testing.assert_allclose(d.variance, variance, rtol=1e-11)


def test_the_generalised_pareto_distribution_in_double_precision() -> None:
    """Where PyTorch's fails: the slope of the distribution function is the density."""
    loc, scale, k = (
        gradlite.tensor(t, dtype=gradlite.float64)
        for t in ([0.5] * 5, [2.0] * 5, [0.0, 0.3, -0.5, -1.0, 1.5])
    )
    d = gradlite.distributions.GeneralizedPareto(loc, scale, k)
    places = gradlite.tensor([[0.1], [0.5], [0.9]], dtype=gradlite.float64).expand(3, 5)
    x = d.icdf(places).requires_grad_()
    np.testing.assert_allclose(d.cdf(x).detach(), places, rtol=1e-12)
    np.testing.assert_allclose(d.log_cdf(x).detach(), places.log(), rtol=1e-12)
    np.testing.assert_allclose(d.log_survival_function(x).detach(), (1 - places).log(), rtol=1e-12)
    (slope,) = gradlite.autograd.grad(d.cdf(x).sum(), x)
    np.testing.assert_allclose(slope.log(), d.log_prob(x).detach(), rtol=1e-12, atol=1e-12)
    assert d.log_prob(loc + scale)[3].item() == -np.log(2)  # at the end of a uniform distribution


def test_exponential_families() -> None:
    """Entropies and divergences of log normalizers, beside the families' own and PyTorch's."""

    def program(T: Any) -> Any:
        D = T.distributions
        a, b = constant(T, 0.3, 0.8), constant(T, 1.5, 0.4)
        members = [
            D.Bernoulli(a), D.Beta(a, b), D.ContinuousBernoulli(a), D.Dirichlet(T.stack([a, b])),
            D.Exponential(b), D.Gamma(b, a), D.Normal(a, b), D.Poisson(b),
        ]  # fmt: skip
        others = [
            D.Bernoulli(1 - a), D.Beta(b, a), D.ContinuousBernoulli(1 - a),
            D.Dirichlet(T.stack([b, a])), D.Exponential(a), D.Gamma(a, b), D.Normal(b, a),
            D.Poisson(a),
        ]  # fmt: skip
        bregman = D.kl.kl_divergence
        found = []
        for p, q in zip(members, others):
            entropy = outcome_of(lambda p=p: D.ExponentialFamily.entropy(p).detach())
            found.append((entropy, of_families(T)(p, q).detach(), bregman(p, q)))
        return found

    same(program, rtol=1e-8, message="type")
    D = gradlite.distributions
    loc = gradlite.tensor([0.3, 0.8], requires_grad=True)
    p, q = D.Normal(loc, 2.0), D.Normal(0.5, 1.0)
    with pytest.raises(NotImplementedError, match="cross KL-divergence between different"):
        of_families(gradlite)(p, D.Poisson(1.0))
    found = [
        gradlite.autograd.grad(f(p, q).sum(), loc)[0]
        for f in (of_families(gradlite), D.kl_divergence)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def test_continuous_bernoulli_parameters() -> None:
    def program(T: Any) -> Any:
        make, x = T.distributions.ContinuousBernoulli, T.tensor([0.2, 1.0])
        asked = [lambda v=v: make(x * 2, validate_args=v).probs for v in (None, True, False)]
        wide = make(x, lims=(0.1, 0.9)).expand((3, 2))
        return [outcome_of(f) for f in asked], make(x, validate_args=True).probs, wide.mean

    same(program, message="exact")


def test_wishart() -> None:
    def program(T: Any) -> Any:
        make = T.distributions.Wishart
        C = constant(T, 2.0, 0.5, 0.5, 1.0).reshape(2, 2)
        df = constant(T, 2.5, 6.0)
        L = T.linalg.cholesky(T.stack([C, C * 3, C + 1])).reshape(3, 1, 2, 2)
        p, q = make(4.0, C), make(3.5, precision_matrix=C)
        wide = make(df, scale_tril=L)
        wrong = [
            lambda: make(3, C, C), lambda: make(3), lambda: make(3, C[0]), lambda: make(df - 2, C),
            lambda: make(1, scale_tril=C), lambda: make(df, -C), lambda: make(df, C[:1]),
        ]  # fmt: skip
        x = wide.expand((2, 3, 2)).sample()
        return [
            [outcome_of(f) for f in wrong], T.distributions.kl_divergence(p, q).detach(),
            [tuple(wide.batch_shape), tuple(wide.event_shape), tuple(x.shape)],
            [wide.mean, wide.mode, wide.variance, wide.entropy(), wide.log_prob(C)],
            [wide.covariance_matrix, wide.precision_matrix, wide.expand((2, 3, 2)).log_prob(C)],
        ]  # fmt: skip

    same(program, message="prefix", rtol=1e-9)
    for df in (1.5, [1.5, 3.0]):
        same(
            lambda T, df=df: T.distributions.Wishart(T.tensor(df), T.eye(2)).df,
            warns="Low df values detected",
        )


def test_divergences_of_batches_of_wishart_distributions() -> None:
    """Which PyTorch sums over the batch; with gradients to both sides, where it has one."""
    D = gradlite.distributions
    C = gradlite.tensor(
        [[[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.2], [0.2, 3.0]]], dtype=gradlite.float64
    )
    df = gradlite.tensor([4.0, 5.5], dtype=gradlite.float64, requires_grad=True)
    q = D.Wishart(gradlite.tensor([3.5, 7.0], dtype=gradlite.float64), C.flip(0))
    found = D.kl_divergence(D.Wishart(df, C), q)
    alone = [
        D.kl_divergence(D.Wishart(df[i], C[i]), D.Wishart(q.df[i], C[1 - i])) for i in range(2)
    ]
    np.testing.assert_allclose(found.detach(), [one.item() for one in alone], rtol=1e-12)
    assert gradlite.autograd.gradcheck(lambda df: D.kl_divergence(D.Wishart(df, C), q), (df,))


def of_families(T: Any) -> Any:
    """The divergence of two members of an exponential family, whatever else is registered."""
    registry = getattr(T.distributions.kl, "_REGISTRY" if T is gradlite else "_KL_REGISTRY")
    return registry[T.distributions.ExponentialFamily, T.distributions.ExponentialFamily]


def constant(T: Any, *values: float) -> Any:
    return T.tensor(values, dtype=T.float64)


def test_angles_of_all_concentrations() -> None:
    """The mean of the cosine, whose variance is known as well, from nearly flat to a needle."""
    gradlite.manual_seed(2)
    kappa = gradlite.tensor([1e-12, 0.1, 1.0, 10.0, 1e4, 1e9], dtype=gradlite.float64)
    d = gradlite.distributions.VonMises(gradlite.zeros(6, dtype=gradlite.float64), kappa)
    samples = d.sample((5000,))
    squares = (samples / 2).sin() ** 2 * 2  # 1 - cos
    error = 5 * squares.std(0) / 5000**0.5
    expected = gradlite.where(kappa < 1e8, d.variance, 0.5 / kappa)  # 1 - 1 + what is lost
    assert ((squares.mean(0) - expected).abs() < error).all()


def test_classes_of_programs() -> None:
    def program(T: Any) -> Any:
        D = T.distributions

        class Bare(D.Distribution):  # type: ignore[misc, name-defined]
            arg_constraints: dict[str, Any] = {}

        class Scaled(D.Normal):  # type: ignore[misc, name-defined]
            def __init__(self, scale: Any) -> None:
                super().__init__(0.0, scale)

        class Named(D.Normal):  # type: ignore[misc, name-defined]
            pass

        bare = Bare((2,), (3,))
        names = ("mean", "variance", "stddev", "mode", "support")
        return [
            [outcome_of(lambda n=n: getattr(bare, n)) for n in names],
            [outcome_of(f) for f in (bare.entropy, bare.sample, bare.enumerate_support)],
            [outcome_of(lambda f=f: f(T.ones(3))) for f in (bare.log_prob, bare.cdf, bare.icdf)],
            outcome_of(lambda: bare.expand((2, 2))),
            (tuple(bare.batch_shape), tuple(bare.event_shape), repr(bare)),
            outcome_of(lambda: Scaled(2.0).expand((3,))),
            type(Named(0.0, 1.0).expand((3,))).__name__,
        ]

    same(program, message="type")
    same(
        lambda T: T.distributions.Normal(0.0, 1.0).sample_n(3).shape[0],
        warns="will be deprecated",
    )


def test_the_default_of_checks() -> None:
    def program(T: Any) -> Any:
        D = T.distributions
        try:
            D.Distribution.set_default_validate_args(False)
            fine = D.Normal(0.0, T.tensor([1.0, -1.0])).log_prob(T.tensor(0.0)).isnan().tolist()
            asked = outcome_of(lambda: D.Normal(0.0, T.tensor([1.0, -1.0]), validate_args=True))
        finally:
            D.Distribution.set_default_validate_args(True)
        again = outcome_of(lambda: D.Normal(0.0, T.tensor([1.0, -1.0])))
        return fine, asked, again, outcome_of(lambda: D.Distribution.set_default_validate_args(2))

    same(program, message="exact")


def test_copies_and_pickles() -> None:
    d = gradlite.distributions.Categorical(logits=gradlite.tensor([0.0, 1.0]))
    value = gradlite.tensor([0, 1])
    for other in (copy.deepcopy(d), pickle.loads(pickle.dumps(d))):
        assert (other.log_prob(value) == d.log_prob(value)).all()
        assert repr(other) == repr(d)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_dtypes_of_parameters_stay(dtype: str) -> None:
    def program(T: Any) -> Any:
        kind = getattr(T, dtype)
        D = T.distributions
        x = T.tensor([0.5, 1.0], dtype=kind)
        made = [
            D.Normal(x, x),
            D.Bernoulli(x),
            D.Categorical(x),
            D.Uniform(x - 1, x),
            D.Laplace(x, x),
        ]
        return [str(d.sample().dtype) for d in made], [str(d.entropy().dtype) for d in made]

    same(program)


def test_double_backward_goes_through_samples() -> None:
    """Of a function of a sample: for the normal distribution exactly what calculus says."""
    loc = gradlite.tensor([0.5, -1.0], dtype=gradlite.float64, requires_grad=True)
    scale = gradlite.tensor([1.0, 2.0], dtype=gradlite.float64, requires_grad=True)
    gradlite.manual_seed(0)
    sample = gradlite.distributions.Normal(loc, scale).rsample()
    eps = ((sample - loc) / scale).detach()
    (first,) = gradlite.autograd.grad((sample**3).sum(), scale, create_graph=True)
    second = gradlite.autograd.grad(first.sum(), [loc, scale])
    for found, expected in zip(second, (6 * sample * eps, 6 * sample * eps * eps)):
        np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["positive_definite", "positive_semidefinite"])
def test_which_matrices_are_positive(name: str) -> None:
    rng = np.random.default_rng(0)
    for seed in range(40):
        n = seed % 5 + 1
        a = rng.standard_normal((3, n, n)).astype([np.float32, np.float64][seed % 2])
        a = a @ a.swapaxes(-1, -2) * [1.0, 1.0, 1e-4, -1.0][seed % 4]
        if seed % 3 == 0:
            a[1] -= np.eye(n) * 0.3
        if seed % 7 == 0:
            a[2, 0, 0] = np.nan
        if seed % 11 == 0:
            a[0, -1, 0] += 1
        if seed % 13 == 0:
            a = a[..., :-1]

        def program(T: Any, a: Any = a) -> Any:
            return getattr(T.distributions.constraints, name).check(T.tensor(a))

        same(program)


def test_it_is_imported_when_it_is_asked_for() -> None:
    code = """
import sys, gradlite
assert not [name for name in sys.modules if "distributions" in name]
print(gradlite.distributions.Normal(0.0, 1.0))
from gradlite.distributions.categorical import Categorical
from gradlite.distributions.normal import Normal
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "Normal(loc: 0.0, scale: 1.0)"
    with pytest.raises(AttributeError, match="has no attribute 'distribution'"):
        gradlite.distribution  # noqa: B018
