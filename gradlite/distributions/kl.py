"""Kullback-Leibler divergences, by the classes of two distributions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from gradlite.distributions.distribution import Distribution

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
