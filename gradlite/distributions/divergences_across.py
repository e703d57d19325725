"""Divergences of distributions of different families."""

from __future__ import annotations

import math
from typing import Any

from gradlite.distributions.bernoulli import Bernoulli
from gradlite.distributions.beta import Beta
from gradlite.distributions.binomial import Binomial
from gradlite.distributions.continuous_bernoulli import ContinuousBernoulli
from gradlite.distributions.divergences import of_products
from gradlite.distributions.exponential import Exponential
from gradlite.distributions.gamma import Gamma
from gradlite.distributions.gumbel import Gumbel
from gradlite.distributions.kl import register_kl
from gradlite.distributions.laplace import Laplace
from gradlite.distributions.normal import Normal
from gradlite.distributions.pareto import Pareto
from gradlite.distributions.poisson import Poisson
from gradlite.distributions.uniform import Uniform
from gradlite.distributions.utils import euler_constant
from gradlite.ops.choose import where
from gradlite.ops.like import full_like
from gradlite.ops.special import xlogy

__all__: list[str] = []


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Any, q: Any) -> Any:
    return q.rate - p.probs * q.rate.log() - p.entropy()


# Minus p's entropy, minus the mean of q's log density.
@register_kl(Beta, Uniform)
def _beta_uniform(p: Any, q: Any) -> Any:
    result = (q.high - q.low).log() - p.entropy()
    return where((q.low > 0) | (q.high < 1), math.inf, result)


@register_kl(Beta, Normal)
@register_kl(ContinuousBernoulli, Normal)
@register_kl(Exponential, Normal)
@register_kl(Gamma, Normal)
@register_kl(Gumbel, Normal)
@register_kl(Laplace, Normal)
@register_kl(Uniform, Normal)
def _to_normal(p: Any, q: Any) -> Any:
    return _normal_term(q, p.variance, p.mean) - p.entropy()


def _normal_term(q: Any, variance: Any, mean: Any) -> Any:
    square = (variance + (mean - q.loc) ** 2) / q.scale**2
    return q.scale.log() + 0.5 * math.log(2 * math.pi) + 0.5 * square


@register_kl(Beta, Exponential)
@register_kl(ContinuousBernoulli, Exponential)
@register_kl(Gamma, Exponential)
@register_kl(Pareto, Exponential)
@register_kl(Uniform, Exponential)
def _to_exponential(p: Any, q: Any) -> Any:
    return _where_positive(p, q.rate * _mean(p) - q.rate.log() - p.entropy())


@register_kl(Beta, Gamma)
@register_kl(Exponential, Gamma)
@register_kl(Pareto, Gamma)
@register_kl(Uniform, Gamma)
def _to_gamma(p: Any, q: Any) -> Any:
    a = q.concentration
    normalizer = a.lgamma() - a * q.rate.log()
    return _where_positive(p, normalizer - (a - 1) * _mean_log(p) + q.rate * _mean(p) - p.entropy())


@register_kl(Beta, ContinuousBernoulli)
def _beta_continuous_bernoulli(p: Any, q: Any) -> Any:
    return of_products(q, p.mean) - p.entropy()


@register_kl(Uniform, ContinuousBernoulli)
def _uniform_continuous_bernoulli(p: Any, q: Any) -> Any:
    """Infinite where p's values have a bound of q's, as PyTorch has it."""
    result = of_products(q, p.mean) - p.entropy()
    return where((p.high >= 1) | (p.low <= 0), math.inf, result)


@register_kl(ContinuousBernoulli, Uniform)
def _continuous_bernoulli_uniform(p: Any, q: Any) -> Any:
    """Infinite where q's values have a bound of p's, as PyTorch has it."""
    result = (q.high - q.low).log() - p.entropy()
    return where((q.low >= 0) | (q.high <= 1), math.inf, result)


@register_kl(Uniform, Beta)
def _uniform_beta(p: Any, q: Any) -> Any:
    a, b = q.concentration1, q.concentration0
    normalizer = a.lgamma() + b.lgamma() - (a + b).lgamma()
    other = Uniform(1 - p.high, 1 - p.low, validate_args=False)
    result = normalizer - (a - 1) * _mean_log(p) - (b - 1) * _mean_log(other) - p.entropy()
    return where((p.high > 1) | (p.low < 0), math.inf, result)


@register_kl(Exponential, Gumbel)
@register_kl(Gamma, Gumbel)
@register_kl(Normal, Gumbel)
@register_kl(Uniform, Gumbel)
def _to_gumbel(p: Any, q: Any) -> Any:
    tail = (q.loc / q.scale).exp() * _mean_exp(p, q.scale.reciprocal())
    return q.scale.log() + (p.mean - q.loc) / q.scale + tail - p.entropy()


@register_kl(Normal, Laplace)
def _normal_laplace(p: Any, q: Any) -> Any:
    apart = (p.loc - q.loc) / p.scale
    mean = math.sqrt(2 / math.pi) * (-0.5 * apart**2).exp() + apart * (apart / math.sqrt(2)).erf()
    return (2 * q.scale).log() + p.scale / q.scale * mean - p.entropy()


@register_kl(Pareto, Normal)
def _pareto_normal(p: Any, q: Any) -> Any:
    a = p.alpha
    variance = p.scale**2 * a / ((a - 1) ** 2 * (a - 2))
    return where(a <= 2, math.inf, _normal_term(q, variance, _mean(p)) - p.entropy())


@register_kl(Uniform, Pareto)
def _uniform_pareto(p: Any, q: Any) -> Any:
    normalizer = q.alpha.log() + q.alpha * q.scale.log()
    result = (q.alpha + 1) * _mean_log(p) - normalizer - p.entropy()
    return where(p.low < q.scale, math.inf, result)


@register_kl(Beta, Pareto)
@register_kl(ContinuousBernoulli, Pareto)
@register_kl(Exponential, Beta)
@register_kl(Exponential, ContinuousBernoulli)
@register_kl(Exponential, Pareto)
@register_kl(Exponential, Uniform)
@register_kl(Gamma, Beta)
@register_kl(Gamma, ContinuousBernoulli)
@register_kl(Gamma, Pareto)
@register_kl(Gamma, Uniform)
@register_kl(Gumbel, Beta)
@register_kl(Gumbel, ContinuousBernoulli)
@register_kl(Gumbel, Exponential)
@register_kl(Gumbel, Gamma)
@register_kl(Gumbel, Pareto)
@register_kl(Gumbel, Uniform)
@register_kl(Laplace, Beta)
@register_kl(Laplace, ContinuousBernoulli)
@register_kl(Laplace, Exponential)
@register_kl(Laplace, Gamma)
@register_kl(Laplace, Pareto)
@register_kl(Laplace, Uniform)
@register_kl(Normal, Beta)
@register_kl(Normal, ContinuousBernoulli)
@register_kl(Normal, Exponential)
@register_kl(Normal, Gamma)
@register_kl(Normal, Pareto)
@register_kl(Normal, Uniform)
@register_kl(Pareto, Beta)
@register_kl(Pareto, ContinuousBernoulli)
@register_kl(Pareto, Uniform)
@register_kl(Poisson, Bernoulli)
@register_kl(Poisson, Binomial)
def _beyond(p: Any, q: Any) -> Any:
    """Values of p lie where q has none."""
    return full_like(p.mean, math.inf)


def _where_positive(p: Any, result: Any) -> Any:
    """Infinite for a p of negative values, or without a mean."""
    if isinstance(p, Pareto):
        return where(p.alpha <= 1, math.inf, result)
    return where(p.low < 0, math.inf, result) if isinstance(p, Uniform) else result


def _mean(p: Any) -> Any:
    """The mean; where it is infinite, a number whose gradient is one."""
    return p.alpha * p.scale / (p.alpha - 1) if isinstance(p, Pareto) else p.mean


def _mean_log(p: Any) -> Any:
    """The mean of log x."""
    if isinstance(p, Beta):
        return p.concentration1.digamma() - (p.concentration1 + p.concentration0).digamma()
    if isinstance(p, Exponential):
        return -p.rate.log() - euler_constant
    if isinstance(p, Pareto):
        return p.scale.log() + p.alpha.reciprocal()
    ends: Any = xlogy(p.high, p.high) - xlogy(p.low, p.low)  # type: ignore[operator]
    return ends / (p.high - p.low) - 1


def _mean_exp(p: Any, t: Any) -> Any:
    """The mean of exp(-t x)."""
    if isinstance(p, Exponential):
        return p.rate / (p.rate + t)
    if isinstance(p, Gamma):
        return (1 + t / p.rate) ** -p.concentration
    if isinstance(p, Normal):
        return (0.5 * (t * p.scale) ** 2 - t * p.loc).exp()
    return ((-t * p.low).exp() - (-t * p.high).exp()) / (t * (p.high - p.low))
