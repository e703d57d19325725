"""The regularised incomplete gamma functions, which NumPy lacks.

P(a, x) is the integral of t^(a-1) exp(-t) from 0 to x, over gamma(a), and Q(a, x) = 1 - P(a, x).
Small x have a power series (Abramowitz and Stegun, Handbook of Mathematical Functions, 6.5.29). For
others the smaller of both is integrated along the side where the integrand falls: with
t = x exp(s) it is x^a exp(-x) / gamma(a) times the integral of exp(a s - x (exp(s) - 1)), which
falls like an exponential function or a Gaussian, and which Gauss and Legendre's rule has to double
precision. No value is looked at, so that a recorded step can hold the calls.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gradlite.backends import gamma, special

_SERIES = 1.5  # up to this x the power series is taken
_TERMS = 25
_AT_ONCE = 8  # nodes: all of them would take 48 times the memory of the arguments


@functools.cache
def rule() -> tuple[Any, Any]:
    """Places on [0, 1] and their weights: Gauss and Legendre's rule for the square root.

    The squares lie close to 0, where a small shape's integrand changes fast.
    """
    nodes, weights = np.polynomial.legendre.leggauss(48)
    roots = (nodes + 1) / 2
    return roots * roots, weights * roots


def reach_above(xp: Any, a: Any, z: Any) -> Any:
    """No less than the s with z (exp(s) - 1) - a s = 40, for z > a, and not much more."""
    near = xp.sqrt(80 / z)  # exp(s) - 1 - s >= s^2 / 2
    far = xp.log(160 / z)  # and >= exp(s) / 4 from 1 on
    reach = xp.where(far > 1, xp.minimum(near, far), near)
    return xp.minimum(reach, 40 / xp.where(z > a, z - a, 1e-300))


def reach_below(xp: Any, a: Any, z: Any) -> Any:
    """No less than the s with a s - z (1 - exp(-s)) = 40, for z <= a, and not much more."""
    # s - 1 + exp(-s) >= s^2 / 3 up to 1, and >= s / e from there on.
    reach = xp.where(z >= 120, xp.sqrt(120 / xp.maximum(z, 1.0)), 40 / (a - z * (1 - 1 / math.e)))
    return xp.minimum(reach, 40 / xp.where(a > z, a - z, 1e-300))


def lower(xp: Any, a: Any, x: Any) -> Any:
    """P(a, x); NaN for negative arguments, for two zeros and for two infinities."""
    return _of_library("gammainc", a, x) if xp is not np else _both(a, x, 0)


def upper(xp: Any, a: Any, x: Any) -> Any:
    """Q(a, x), with its relative accuracy where it is small."""
    return _of_library("gammaincc", a, x) if xp is not np else _both(a, x, 1)


def _of_library(name: str, a: Any, x: Any) -> Any:
    kind = np.float64 if x.dtype.itemsize == 8 else np.float32  # it has no halves
    found = getattr(special.library(), name)(a.astype(kind), x.astype(kind))
    return found.astype(x.dtype, copy=False)


def _both(shape: Any, value: Any, which: int) -> Any:
    """P (0) or Q (1)."""
    a, x = np.asarray(shape, np.float64), np.asarray(value, np.float64)
    inside = (a > 0) & (x > 0) & (a < np.inf) & (x < np.inf)
    safe_a, safe_x = np.where(inside, a, 1.0), np.where(inside, x, 1.0)
    few, many = np.minimum(safe_x, _SERIES), np.maximum(safe_x, _SERIES)
    log = _log_by_series(safe_a, few)
    below = many <= safe_a
    part = _integral(safe_a, many, below)
    by_series = -np.expm1(log) if which else np.exp(log)
    by_rule = np.where(below, 1 - part, part) if which else np.where(below, part, 1 - part)
    result = np.where(safe_x <= _SERIES, by_series, by_rule)
    # Where a is 0 all lies at 0, and where it is infinite all lies beyond.
    edge = np.where((x == 0) | (a == np.inf), float(which), 1.0 - which)
    wrong = ~((a >= 0) & (x >= 0)) | ((a == 0) & (x == 0)) | ((a == np.inf) & (x == np.inf))
    return np.where(inside, result, np.where(wrong, np.nan, edge)).astype(value.dtype, copy=False)


def _log_by_series(a: Any, x: Any) -> Any:
    """log P(a, x) = a log x - log gamma(a + 1) + log(1 + the sum of a (-x)^n / (n! (a + n)))."""
    total: Any = 0.0
    for n in range(_TERMS, 0, -1):
        total = (total + a / (a + n)) * (-x / n)
    small = np.minimum(a, 0.5)  # of whom 1 + a would lose digits
    near = gamma.near_two(small) - np.log1p(small)
    return a * np.log(x) - np.where(a <= 0.5, near, gamma.lgamma(np, a + 1)) + np.log1p(total)


def _log_density(a: Any, x: Any) -> Any:
    """log(x^a exp(-x) / gamma(a)), of large a without the difference of large numbers."""
    large = np.maximum(a, 10.0)
    excess = (x - large) / large
    # e - log(1 + e) = e r - 2 (r^3 / 3 + r^5 / 5 + ...) with r = e / (2 + e)
    r = np.minimum(np.maximum(excess, -0.5), 0.5)
    r = r / (2 + r)
    square = r * r
    sum_of_powers: Any = 0.0
    for n in range(35, 1, -2):
        sum_of_powers = (sum_of_powers + 1 / n) * square
    near = r * (excess - 2 * sum_of_powers)
    over = np.where(np.abs(excess) <= 0.5, near, excess - np.log1p(excess))
    tail = large * gamma.series(large, (1 / (k * (k - 1)) for k in range(2, 17, 2)))
    by_stirling = 0.5 * np.log(large / (2 * math.pi)) - large * over - tail
    few = np.minimum(a, 10.0)
    return np.where(a > 10, by_stirling, few * np.log(x) - x - gamma.lgamma(np, few))


def _integral(a: Any, x: Any, below: Any) -> Any:
    """P(a, x) where ``below``, x <= a, and else Q(a, x)."""
    step = np.where(below, -reach_below(np, a, x), reach_above(np, a, x))
    total: Any = 0.0
    nodes, weights = (array.reshape(-1, *[1] * step.ndim) for array in rule())
    for start in range(0, len(nodes), _AT_ONCE):
        s = nodes[start : start + _AT_ONCE] * step
        exponent = a * s - x * np.expm1(s)
        total = total + (np.exp(exponent) * weights[start : start + _AT_ONCE]).sum(0)
    return np.exp(_log_density(a, x)) * np.abs(step) * total
