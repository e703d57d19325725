"""Samples of the gamma, Poisson and binomial distributions, and the gamma samples' gradient.

Rejection takes any number of draws, which neither a stream of counters nor a recorded step can
follow. So each element here gets a fixed number of candidates, of which the first accepted one is
taken; that none is happens once in more than 10^10 elements, which then get the middle of their
distribution.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gradlite.backends.cpu import loud, quiet
from gradlite.backends.incomplete_gamma import reach_above, reach_below, rule
from gradlite.ops import shortcuts
from gradlite.ops.dispatch import OUT, apply
from gradlite.ops.draws import drawn
from gradlite.ops.guard import on_its_device
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.random import Generator, default_generator
from gradlite.tensor import Tensor, wrap

__all__ = ["binomial", "poisson"]

_DOUBLE = np.dtype(np.float64)
_GAMMA_CANDIDATES = 8
_COUNT_CANDIDATES = 16
_FEW = 10  # expected counts below which they are found by inversion
_INVERTED = 64  # counts that inversion looks at; a larger one has a probability below 1e-25


def _silent(function: Any) -> Any:
    """A function that NumPy gives no warnings in: what is divided by zero is not taken."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        token = quiet()
        try:
            return function(*args, **kwargs)
        finally:
            loud(token)

    return call


class StandardGamma(Op):
    """Given samples of gamma distributions, as functions of their shape parameters."""

    reads = ((0, OUT), ())
    constants = (1,)

    def forward(xp: Any, shape: Any, samples: Any) -> Any:
        return samples

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        shape, out = ctx.saved
        return grad * _implicit_gradient(F, shape, out), None


class Poisson(Op):
    """Given samples, whose gradient by the rates is 0."""

    constants = (1,)
    reads = ((), ())
    moves = True

    def forward(xp: Any, rate: Any, samples: Any) -> Any:
        return samples

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return F.zeros(grad.shape, grad), None


def _implicit_gradient(F: Any, a: Any, z: Any) -> Any:
    """How a sample z moves with the shape a, its place in the distribution staying the same.

    Figurnov, Mohamed and Mnih, "Implicit reparameterization gradients", 2018: minus the derivative
    of the distribution function by a, over the density. That is the integral of
    (log t - digamma(a)) times the density at t over the density at z, from 0 to z, or as well from
    z on with the other sign: along the side where the density falls. With t = z exp(s), s < 0 or
    s > 0, the integrand falls like an exponential function or a Gaussian, and is integrated by
    Gauss and Legendre to where 40 orders of e are left.
    """
    dtype = F.array(z).dtype
    a, z = F.to_copy(a, _DOUBLE), F.to_copy(z, _DOUBLE)
    shape, value = F.array(a), F.array(z)
    xp = NAMESPACES[value.__class__].xp
    nodes, weights = (xp.asarray(x).reshape(-1, *[1] * value.ndim) for x in rule())
    above = value > shape
    reach = xp.where(above, reach_above(xp, shape, value), reach_below(xp, shape, value))
    step = xp.where(above, reach, -reach)
    s = nodes * step
    exponent = a * s - z * xp.expm1(s)
    integrand = F.exp(exponent) * (F.log(z) + s - F.digamma(a)) * (weights * step)
    return F.to_copy(z * F.sum_dim(integrand, (0,), False), dtype)


@on_its_device
@_silent
def standard_gamma(concentration: Tensor, generator: Generator | None = None) -> Tensor:
    """Samples of gamma distributions of rate 1, differentiable with respect to their shape.

    Marsaglia and Tsang, "A simple method for generating gamma variables", 2000.
    """
    g = default_generator if generator is None else generator
    a, device = concentration.array, concentration.device
    xp = NAMESPACES[a.__class__].xp
    wide = a.astype(_DOUBLE)
    d = xp.where(wide < 1, wide + 1, wide) - 1 / 3
    many = (_GAMMA_CANDIDATES, *a.shape)
    x = drawn(g, "normal", many, _DOUBLE, device)
    u = drawn(g, "random", many, _DOUBLE, device)
    root = 1 + x / xp.sqrt(9 * d)
    v = root * root * root
    positive = v > 0
    bound = 0.5 * x * x + d * (1 - v + xp.log(xp.where(positive, v, 1.0)))
    samples = d * _first(xp, v, positive & (xp.log1p(-u) < bound), 1.0)
    # A shape below 1 is that of one more, times a power of a uniform number.
    u = drawn(g, "random", a.shape, _DOUBLE, device)
    samples = samples * xp.where(wide < 1, xp.exp(xp.log1p(-u) / xp.minimum(wide, 1.0)), 1.0)
    dtype = a.dtype
    samples = xp.maximum(samples, float(np.finfo(np.float32 if dtype.itemsize < 8 else dtype).tiny))
    return apply(StandardGamma, (concentration, wrap(samples.astype(dtype))))  # type: ignore[no-any-return]


def _first(xp: Any, candidates: Any, accepted: Any, otherwise: Any) -> Any:
    """The first accepted candidate of each element."""
    result = otherwise
    for values, fine in zip(candidates[::-1], accepted[::-1]):
        result = xp.where(fine, values, result)
    return result


@on_its_device
@_silent
def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Counts of Poisson distributions, whose expected values the elements are.

    Small ones by inversion, large ones by transformed rejection (Hörmann, "The transformed
    rejection method for generating Poisson random variables", 1993).

    >>> import gradlite
    >>> gradlite.poisson(gradlite.tensor([0.0, 0.0]))
    tensor([0., 0.])

    Raises:
        RuntimeError: a negative rate.
    """
    g = default_generator if generator is None else generator
    xp = NAMESPACES[input.array.__class__].xp
    rate = input.array.astype(_DOUBLE)
    invalid = "invalid Poisson rate, expected rate to be non-negative"
    shortcuts.verify((rate >= 0).all(), RuntimeError, invalid)
    small, mean = rate < _FEW, xp.maximum(rate, _FEW)
    few = xp.where(small, rate, 1.0)
    counts = xp.arange(1, _INVERTED, dtype=_DOUBLE).reshape(-1, *[1] * rate.ndim)
    low = _inverted(xp, g, xp.exp(-few), few / counts, input)
    b = 0.931 + 2.53 * xp.sqrt(mean)
    a = -0.059 + 0.02483 * b
    scale = xp.log(1.1239 + 1.1328 / (b - 3.4))

    def bound(k: Any) -> Any:
        return k * xp.log(mean) - mean - _log_factorial(xp, k)

    high = _transformed(xp, g, input, a, b, mean + 0.43, scale, bound, xp.inf)
    samples = wrap(xp.where(small, low, high).astype(input.array.dtype))
    return apply(Poisson, (input, samples)) if input.requires_grad else samples


def _inverted(xp: Any, g: Generator, none: Any, ratios: Any, like: Tensor) -> Any:
    """Counts by the probability of none, and the ratios of each one to the one before it."""
    u = drawn(g, "random", like.array.shape, _DOUBLE, like.device)
    places = (none * (1 + ratios.cumprod(axis=0).cumsum(axis=0))) <= u
    return places.sum(axis=0) + (none <= u)


def _log_factorial(xp: Any, k: Any) -> Any:
    """log k! to ten digits: Stirling's series at k + 6, less the factors on the way there."""
    y = k + 6
    square = 1 / (y * y)
    series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / y
    factors = xp.log((k + 1) * (k + 2) * (k + 3) * (k + 4) * (k + 5))
    return (y - 0.5) * xp.log(y) - y + 0.5 * math.log(2 * math.pi) + series - factors


def _transformed(
    xp: Any,
    g: Generator,
    like: Tensor,
    a: Any,
    b: Any,
    center: Any,
    scale: Any,
    bound: Any,
    top: Any,
) -> Any:
    """Counts by Hörmann's transformed rejection, of which ``bound`` is the log probability."""
    many = (_COUNT_CANDIDATES, *like.array.shape)
    u = drawn(g, "random", many, _DOUBLE, like.device) - 0.5
    v = drawn(g, "random", many, _DOUBLE, like.device)
    side = 0.5 - xp.abs(u)
    side = xp.where(side > 0, side, 1e-300)
    k = xp.floor((2 * a / side + b) * u + center)
    inside = (k >= 0) & (k <= top)
    accepted = xp.log1p(-v) + scale - xp.log(a / (side * side) + b) <= bound(
        xp.where(inside, k, 0.0)
    )
    return _first(xp, k, inside & accepted, xp.floor(center))


@on_its_device
@_silent
def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of ``count`` coins show 1, each with the probability ``prob``.

    Small expected values by inversion, large ones by transformed rejection (Hörmann, "The
    generation of binomial random variates", 1993).

    >>> import gradlite
    >>> gradlite.binomial(gradlite.tensor([3.0, 5.0]), gradlite.tensor([0.0, 1.0]))
    tensor([0., 5.])
    """
    g = default_generator if generator is None else generator
    xp = NAMESPACES[prob.array.__class__].xp
    n, chance = xp.broadcast_arrays(count.array.astype(_DOUBLE), prob.array.astype(_DOUBLE))
    like = wrap(chance)
    p = xp.minimum(chance, 1 - chance)
    small = n * p < _FEW
    few = xp.where(small, p, 0.0)
    counts = xp.arange(1, _INVERTED, dtype=_DOUBLE).reshape(-1, *[1] * n.ndim)
    ratios = xp.maximum(n - counts + 1, 0.0) / counts * (few / (1 - few))
    low = _inverted(xp, g, xp.exp(n * xp.log1p(-few)), ratios, like)
    q = xp.where(small, 0.5, p)
    trials = xp.where(small, 100.0, n)
    spread = xp.sqrt(trials * q * (1 - q))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * q
    scale = xp.log((2.83 + 5.1 / b) * spread)
    mode = xp.floor((trials + 1) * q)
    odds = xp.log(q / (1 - q))
    most = _log_factorial(xp, mode) + _log_factorial(xp, trials - mode)

    def bound(k: Any) -> Any:
        rest = _log_factorial(xp, k) + _log_factorial(xp, trials - k)
        return most - rest + (k - mode) * odds

    high = _transformed(xp, g, like, a, b, trials * q + 0.5, scale, bound, trials)
    result = xp.where(small, xp.minimum(low, n), high)
    result = xp.where(chance > 0.5, n - result, result)
    return wrap(result.astype(prob.array.dtype))
