"""Kullback-Leibler divergences, by the classes of two distributions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from gradlite.distributions.bernoulli import Bernoulli
from gradlite.distributions.categorical import Categorical
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.independent import Independent
from gradlite.distributions.normal import Normal
from gradlite.distributions.one_hot_categorical import OneHotCategorical
from gradlite.distributions.uniform import Uniform
from gradlite.distributions.utils import sum_rightmost
from gradlite.ops.activation import softplus
from gradlite.ops.choose import where

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


@register_kl(Uniform, Uniform)
def _uniform(p: Any, q: Any) -> Any:
    result = ((q.high - q.low) / (p.high - p.low)).log()
    return where((q.low > p.low) | (q.high < p.high), math.inf, result)


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Any:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)
