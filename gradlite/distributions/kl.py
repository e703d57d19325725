"""Kullback-Leibler divergences, by the classes of two distributions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from gradlite.distributions.bernoulli import Bernoulli
from gradlite.distributions.beta import Beta
from gradlite.distributions.binomial import Binomial
from gradlite.distributions.categorical import Categorical
from gradlite.distributions.cauchy import Cauchy
from gradlite.distributions.dirichlet import Dirichlet
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.exponential import Exponential
from gradlite.distributions.gamma import Gamma
from gradlite.distributions.geometric import Geometric
from gradlite.distributions.gumbel import Gumbel
from gradlite.distributions.half_normal import HalfNormal
from gradlite.distributions.independent import Independent
from gradlite.distributions.laplace import Laplace
from gradlite.distributions.multivariate_normal import MultivariateNormal
from gradlite.distributions.normal import Normal
from gradlite.distributions.one_hot_categorical import OneHotCategorical
from gradlite.distributions.poisson import Poisson
from gradlite.distributions.transformed_distribution import TransformedDistribution
from gradlite.distributions.uniform import Uniform
from gradlite.distributions.utils import euler_constant, sum_rightmost
from gradlite.ops.activation import softplus
from gradlite.ops.choose import where
from gradlite.ops.like import full_like
from gradlite.ops.matmul import matmul
from gradlite.ops.special import xlogy

__all__ = ["kl_divergence", "register_kl"]

Divergence = Callable[[Any, Any], Any]
_REGISTRY: dict[tuple[type, type], Divergence] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Divergence], Divergence]:
    """Register a function of two distributions as `kl_divergence` of their classes.

    Of several that fit, the one of the closest base classes is called.

    >>> from gradlite.distributions import Normal, kl_divergence
    >>> class Mine(Normal):
    ...     pass
    >>> @register_kl(Mine, Normal)
    ... def divergence(p, q):
    ...     return 7
    >>> kl_divergence(Mine(0.0, 1.0), Normal(0.0, 1.0))
    7

    Raises:
        TypeError: what is no class of distributions.
    """
    for name, given in (("type_p", type_p), ("type_q", type_q)):
        if not (isinstance(given, type) and issubclass(given, Distribution)):
            raise TypeError(f"Expected {name} to be a Distribution subclass but got {given}")

    def enter(function: Divergence) -> Divergence:
        _REGISTRY[type_p, type_q] = function
        return function

    return enter


def kl_divergence(p: Distribution, q: Distribution) -> Any:
    """The Kullback-Leibler divergence of q from p: the mean of log p(x) - log q(x) over p.

    >>> from gradlite.distributions import Normal
    >>> kl_divergence(Normal(0.0, 1.0), Normal(1.0, 1.0))
    tensor(0.5000)

    Raises:
        NotImplementedError: no function is registered for the two classes.
    """
    above_p, above_q = type(p).__mro__, type(q).__mro__
    known = [(a, b) for a, b in _REGISTRY if a in above_p and b in above_q]
    if not known:
        raise NotImplementedError(
            f"No KL(p || q) is implemented for p type {p.__class__.__name__} and q type "
            f"{q.__class__.__name__}"
        )
    places = {pair: (above_p.index(pair[0]), above_q.index(pair[1])) for pair in known}
    by_p = min(known, key=lambda pair: places[pair])
    by_q = min(known, key=lambda pair: places[pair][::-1])
    if _REGISTRY[by_p] is not _REGISTRY[by_q]:
        warnings.warn(
            f"Ambiguous kl_divergence({type(p).__name__}, {type(q).__name__}). Please "
            f"register_kl({by_p[0].__name__}, {by_q[1].__name__})",
            RuntimeWarning,
            stacklevel=2,
        )
    return _REGISTRY[by_p](p, q)


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Any, q: Any) -> Any:
    one = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    one = where(p.probs == 0, 0.0, where(q.probs == 0, math.inf, one))
    other: Any = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    other = where(p.probs == 1, 0.0, where(q.probs == 1, math.inf, other))
    return one + other


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


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_normal(p: Any, q: Any) -> Any:
    if p.event_shape != q.event_shape:
        raise ValueError(
            "KL-divergence between two Multivariate Normals with different event shapes cannot be "
            "computed"
        )
    ratio: Any = matmul(q._inverse_scale, p._narrow_scale)
    shift: Any = matmul(q._inverse_scale, (q.loc - p.loc).unsqueeze(-1))
    terms = (ratio**2).sum((-2, -1)) + (shift**2).sum((-2, -1)) - p.event_shape[0]
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


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Any, q: Any) -> Any:
    return q.rate - p.probs * q.rate.log() - p.entropy()


# Of distributions of different families: minus p's entropy, minus the mean of q's log density.
@register_kl(Beta, Uniform)
def _beta_uniform(p: Any, q: Any) -> Any:
    result = (q.high - q.low).log() - p.entropy()
    return where((q.low > 0) | (q.high < 1), math.inf, result)


@register_kl(Beta, Normal)
@register_kl(Exponential, Normal)
@register_kl(Gamma, Normal)
@register_kl(Gumbel, Normal)
@register_kl(Laplace, Normal)
@register_kl(Uniform, Normal)
def _to_normal(p: Any, q: Any) -> Any:
    square = (p.variance + (p.mean - q.loc) ** 2) / q.scale**2
    return q.scale.log() + 0.5 * math.log(2 * math.pi) + 0.5 * square - p.entropy()


@register_kl(Beta, Exponential)
@register_kl(Gamma, Exponential)
@register_kl(Uniform, Exponential)
def _to_exponential(p: Any, q: Any) -> Any:
    return _where_positive(p, q.rate * p.mean - q.rate.log() - p.entropy())


@register_kl(Beta, Gamma)
@register_kl(Exponential, Gamma)
@register_kl(Uniform, Gamma)
def _to_gamma(p: Any, q: Any) -> Any:
    a = q.concentration
    normalizer = a.lgamma() - a * q.rate.log()
    return _where_positive(p, normalizer - (a - 1) * _mean_log(p) + q.rate * p.mean - p.entropy())


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


@register_kl(Exponential, Beta)
@register_kl(Exponential, Uniform)
@register_kl(Gamma, Beta)
@register_kl(Gamma, Uniform)
@register_kl(Gumbel, Beta)
@register_kl(Gumbel, Exponential)
@register_kl(Gumbel, Gamma)
@register_kl(Gumbel, Uniform)
@register_kl(Laplace, Beta)
@register_kl(Laplace, Exponential)
@register_kl(Laplace, Gamma)
@register_kl(Laplace, Uniform)
@register_kl(Normal, Beta)
@register_kl(Normal, Exponential)
@register_kl(Normal, Gamma)
@register_kl(Normal, Uniform)
@register_kl(Poisson, Bernoulli)
@register_kl(Poisson, Binomial)
def _beyond(p: Any, q: Any) -> Any:
    """Values of p lie where q has none."""
    return full_like(p.mean, math.inf)


def _where_positive(p: Any, result: Any) -> Any:
    return where(p.low < 0, math.inf, result) if isinstance(p, Uniform) else result


def _mean_log(p: Any) -> Any:
    """The mean of log x."""
    if isinstance(p, Beta):
        return p.concentration1.digamma() - (p.concentration1 + p.concentration0).digamma()
    if isinstance(p, Exponential):
        return -p.rate.log() - euler_constant
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
