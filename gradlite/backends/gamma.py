"""The logarithm of the gamma function and its derivatives, which NumPy lacks.

Arguments are first moved up by the recurrence, to where Stirling's series and the sum of Euler
and Maclaurin have converged to float64's precision; negative ones are reflected (Abramowitz and
Stegun, Handbook of Mathematical Functions, chapter 6).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gradlite.backends import special

# B(2), B(4), ..., the numbers of Bernoulli.
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
_UP = 10
_DOUBLE = np.dtype(np.float64)
_ONE, _ENOUGH = special.cells((1.0, _UP), _DOUBLE)


def series(y: Any, factors: Any) -> Any:
    """The sum of B(2k) factor(k) / y^(2k), from the smallest term."""
    square = 1 / (y * y)
    terms = tuple([number * factor for number, factor in zip(_BERNOULLI, factors)])
    *others, last = special.cells(terms, _DOUBLE)
    total = last * square
    for term in reversed(others):
        total = (total + term) * square
    return total


def _reflected(x: Any) -> Any:
    return np.where(x < 0, 1 - x, x)


@functools.cache
def _taylor() -> tuple[float, ...]:
    """The coefficients of log gamma(2 + z): 1 - Euler's constant, then (-1)^k (zeta(k) - 1) / k."""
    zetas = [_zeta_from(_UP, k, 2.0) for k in range(2, 28)]
    return (1 - np.euler_gamma, *((-1) ** k * zeta / k for k, zeta in enumerate(zetas, start=2)))


def near_two(z: Any) -> Any:
    """log gamma(2 + z) for |z| <= 1/2, with its relative accuracy at the zero."""
    *others, last = special.cells(_taylor(), _DOUBLE)
    total = last * z
    for coefficient in reversed(others):
        total = (total + coefficient) * z
    return total


def lgamma(xp: Any, x: Any) -> Any:
    """log |gamma(x)|; inf at 0, -1, -2, ..."""
    if xp is not np:
        return special.library().gammaln(x)
    wide = np.asarray(x, np.float64)
    y = _reflected(wide)
    product = _ONE
    for _ in range(_UP):
        low = y < _ENOUGH
        product = product * np.where(low, y, _ONE)
        y = y + low
    tail = y * series(y, (1 / (k * (k - 1)) for k in range(2, 17, 2)))
    result = (y - 0.5) * np.log(y) - y + 0.5 * math.log(2 * math.pi) + tail - np.log(product)
    # At 1 and 2 it is 0, where differences of large terms would leave an error.
    of_one = wide < 1.5
    z = np.clip(wide - np.where(of_one, 1.0, 2.0), -0.5, 0.5)
    near = near_two(z)
    near = np.where(of_one, near - np.log1p(z), near)
    result = np.where((wide > 0.5) & (wide < 2.5), near, result)
    sine = np.abs(np.sin(np.pi * (wide - np.round(wide))))
    result = np.where(wide < 0, np.log(np.pi / sine) - result, result)
    result = np.where(np.isinf(wide) | ((wide <= 0) & (wide == np.floor(wide))), np.inf, result)
    return np.where(np.isnan(wide), wide, result).astype(x.dtype, copy=False)


def digamma(xp: Any, x: Any) -> Any:
    """The derivative of `lgamma`; NaN at -1, -2, ..., and -inf or inf at 0 or -0."""
    if xp is not np:
        return special.library().digamma(x)
    wide = np.asarray(x, np.float64)
    y = _reflected(wide)
    shift: Any = 0.0
    for _ in range(_UP):
        low = y < _ENOUGH
        shift = shift + low / y
        y = y + low
    result = np.log(y) - 0.5 / y - series(y, (1 / k for k in range(2, 17, 2))) - shift
    result = np.where(wide < 0, result - np.pi / np.tan(np.pi * (wide - np.trunc(wide))), result)
    result = np.where((wide < 0) & (wide == np.floor(wide)), np.nan, result)
    return np.where(wide == 0, np.copysign(np.inf, -wide), result).astype(x.dtype, copy=False)


def _zeta(s: int, x: Any) -> Any:
    """The sum of (x + k)^-s over k >= 0, by the formula of Euler and Maclaurin."""
    lowest = float(np.min(x, initial=0.0, where=np.isfinite(x)))
    return _zeta_from(_UP + min(math.ceil(-lowest), 1000), s, x)


def _zeta_from(count: int, s: int, x: Any) -> Any:
    """The sum of (x + k)^-s with ``count`` terms added one by one, up to where x is positive."""
    total: Any = 0.0
    for k in range(count):
        total = total + (x + k) ** -s
    y = x + count
    factors, factor = [], 1 / (s - 1)
    for k in range(2, 17, 2):  # s (s + 1) ... (s + k - 2) / k!
        factor *= (s + k - 3) * (s + k - 2) / (k * (k - 1))
        factors.append(factor)
    tail = y ** (1 - s) / (s - 1) + 0.5 * y**-s + y ** (1 - s) * series(y, factors)
    return total + tail


def _trigamma(x: Any) -> Any:
    """The derivative of `digamma`, by reflection of negative arguments: no value is looked at."""
    total = _zeta_from(_UP, 2, _reflected(x))
    sine = np.sin(np.pi * (x - np.round(x)))
    return np.where(x < 0, (np.pi / sine) ** 2 - total, total)


def polygamma(xp: Any, n: int, x: Any) -> Any:
    """The ``n``-th derivative of `digamma`: (-1)^(n+1) n! times the sum of (x + k)^-(n+1)."""
    if xp is not np:
        # CuPy broadcasts the order, which has to be an array for that, and computes in its dtype.
        return special.library().polygamma(xp.full((), n, np.float64), x).astype(x.dtype)
    if n == 0:
        return digamma(np, x)
    if n == 1:
        return _trigamma(np.asarray(x, np.float64)).astype(x.dtype, copy=False)
    total = _zeta(n + 1, np.asarray(x, np.float64))
    return ((-1.0) ** (n + 1) * math.factorial(n) * total).astype(x.dtype, copy=False)
