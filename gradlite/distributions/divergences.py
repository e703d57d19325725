"""Divergences of two distributions of a family, or of distributions made of others alike."""

from __future__ import annotations

import math
from typing import Any

from gradlite.distributions.bernoulli import Bernoulli
from gradlite.distributions.beta import Beta
from gradlite.distributions.binomial import Binomial
from gradlite.distributions.categorical import Categorical
from gradlite.distributions.cauchy import Cauchy
from gradlite.distributions.continuous_bernoulli import ContinuousBernoulli
from gradlite.distributions.dirichlet import Dirichlet
from gradlite.distributions.exp_family import ExponentialFamily
from gradlite.distributions.exponential import Exponential
from gradlite.distributions.gamma import Gamma
from gradlite.distributions.geometric import Geometric
from gradlite.distributions.gumbel import Gumbel
from gradlite.distributions.half_normal import HalfNormal
from gradlite.distributions.independent import Independent
from gradlite.distributions.kl import kl_divergence, register_kl
from gradlite.distributions.laplace import Laplace
from gradlite.distributions.lowrank_multivariate_normal import LowRankMultivariateNormal
from gradlite.distributions.multivariate_normal import MultivariateNormal
from gradlite.distributions.normal import Normal
from gradlite.distributions.one_hot_categorical import OneHotCategorical
from gradlite.distributions.pareto import Pareto
from gradlite.distributions.poisson import Poisson
from gradlite.distributions.transformed_distribution import TransformedDistribution
from gradlite.distributions.uniform import Uniform
from gradlite.distributions.utils import euler_constant, sum_rightmost
from gradlite.ops.activation import softplus
from gradlite.ops.choose import where

__all__: list[str] = []


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Any, q: Any) -> Any:
    one = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    one = where(p.probs == 0, 0.0, where(q.probs == 0, math.inf, one))
    other: Any = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    other = where(p.probs == 1, 0.0, where(q.probs == 1, math.inf, other))
    return one + other


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _continuous_bernoulli(p: Any, q: Any) -> Any:
    return of_products(q, p.mean) - of_products(p, p.mean)


def of_products(d: Any, mean: Any) -> Any:
    """Minus the mean of a continuous Bernoulli's log density over values of this mean."""
    return -mean * d.logits - (-d.probs).log1p() - d._log_norm()


@register_kl(Categorical, Categorical)
def _categorical(p: Any, q: Any) -> Any:
    terms = p.probs * (p.logits - q.logits)
    terms = where(p.probs == 0, 0.0, where(q.probs == 0, math.inf, terms))
    return terms.sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot_categorical(p: Any, q: Any) -> Any:
    return _categorical(p._categorical, q._categorical)


@register_kl(Normal, Normal)
def _normal(p: Any, q: Any) -> Any:
    ratio = (p.scale / q.scale) ** 2
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale) ** 2 - 1 - ratio.log())


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: Any, q: Any) -> Any:
    return _normal(p.base_dist, q.base_dist)


@register_kl(LowRankMultivariateNormal, LowRankMultivariateNormal)
@register_kl(LowRankMultivariateNormal, MultivariateNormal)
@register_kl(MultivariateNormal, LowRankMultivariateNormal)
@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_normal(p: Any, q: Any) -> Any:
    if p.event_shape != q.event_shape:
        low = {isinstance(d, LowRankMultivariateNormal) for d in (p, q)}
        kind = "(Low Rank) " if len(low) == 2 else "Low Rank " if low == {True} else ""
        raise ValueError(
            f"KL-divergence between two {kind}Multivariate Normals with different event shapes "
            "cannot be computed"
        )
    terms = q._distance((q.loc - p.loc).unsqueeze(-1)) - p.event_shape[0]
    for root in p._roots:
        terms = terms + q._distance(root)
    return q._half_log_det - p._half_log_det + 0.5 * terms


@register_kl(Uniform, Uniform)
def _uniform(p: Any, q: Any) -> Any:
    result = ((q.high - q.low) / (p.high - p.low)).log()
    return where((q.low > p.low) | (q.high < p.high), math.inf, result)


@register_kl(Beta, Beta)
@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Any, q: Any) -> Any:
    a, b = (getattr(d, "_dirichlet", d).concentration for d in (p, q))
    total = a.sum(-1)
    normalizers = total.lgamma() - b.sum(-1).lgamma() - (a.lgamma() - b.lgamma()).sum(-1)
    return normalizers + ((a - b) * (a.digamma() - total.digamma().unsqueeze(-1))).sum(-1)


@register_kl(Gamma, Gamma)
def _gamma(p: Any, q: Any) -> Any:
    a, b = p.concentration, q.concentration
    shapes = b.lgamma() - a.lgamma() + (a - b) * a.digamma()
    return b * (p.rate / q.rate).log() + shapes + (q.rate - p.rate) * (a / p.rate)


@register_kl(Exponential, Exponential)
def _exponential(p: Any, q: Any) -> Any:
    ratio = q.rate / p.rate
    return ratio - 1 - ratio.log()


@register_kl(Laplace, Laplace)
def _laplace(p: Any, q: Any) -> Any:
    ratio, distance = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + distance / q.scale + ratio * (-distance / p.scale).exp() - 1


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Any, q: Any) -> Any:
    apart = (p.scale + q.scale) ** 2 + (p.loc - q.loc) ** 2
    return apart.log() - (4 * p.scale * q.scale).log()


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Any, q: Any) -> Any:
    ratio, shift = p.scale / q.scale, (p.loc - q.loc) / q.scale
    tail = ((1 + ratio).lgamma() - shift).exp()
    return shift - ratio.log() + ratio * euler_constant + tail - (1 + euler_constant)


@register_kl(Pareto, Pareto)
def _pareto(p: Any, q: Any) -> Any:
    ratio = q.alpha / p.alpha
    result = q.alpha * (p.scale / q.scale).log() - ratio.log() + ratio - 1
    return where(p.scale < q.scale, math.inf, result)


@register_kl(Geometric, Geometric)
def _geometric(p: Any, q: Any) -> Any:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(Binomial, Binomial)
def _binomial(p: Any, q: Any) -> Any:
    if bool((p.total_count < q.total_count).any()):
        raise NotImplementedError(
            "KL between Binomials where q.total_count > p.total_count is not implemented"
        )
    one = p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p()
    return where(p.total_count > q.total_count, math.inf, p.total_count * one)


@register_kl(Poisson, Poisson)
def _poisson(p: Any, q: Any) -> Any:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: Any, q: Any) -> Any:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError
    return kl_divergence(p.base_dist, q.base_dist)


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Any:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(ExponentialFamily, ExponentialFamily)
def _exponential_family(p: Any, q: Any) -> Any:
    """Bregman's divergence of the log normalizer: what it lies above its tangent at p."""
    if type(p) is not type(q):
        raise NotImplementedError(
            "The cross KL-divergence between different exponential families cannot be computed "
            "using Bregman divergences"
        )
    params, normalizer, means = p._means()
    others = q._natural_params
    dims = max(len(p.batch_shape), len(q.batch_shape))
    result = q._log_normalizer(*others) - normalizer
    for one, other, mean in zip(params, others, means):
        term = (other - one) * mean
        result = result - sum_rightmost(term, term.dim() - dims)
    return result
