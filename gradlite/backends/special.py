"""erf, its inverse and the normal distribution's cdf, which NumPy lacks, mostly as polynomials.

float64: on |x| <= 1 an even polynomial times x; beyond, 1 - erfc, erfc(z) = P(w) exp(-z²)/(z+2)
with w a Möbius image of z. Largest relative error 3.1e-16. float32: erf(z) = tanh(z R(z²)), error
3e-8. The coefficients are Chebyshev fits of our own, made with 40 digits.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gradlite.backends.cpu import clip

_SMALL = (
    0.9654687386698673, -0.1405360890227171, 0.019852496688983708, -0.0022854855611441132,
    0.00021751715604159932, -1.7537169441124866e-05, 1.223382738359897e-06,
    -7.511569286591727e-08, 4.115800583208149e-09, -2.035228405815769e-10,
    9.167619596865806e-12, -3.8078824063194953e-13, 1.4543887079465116e-14,
)  # fmt: skip
_LARGE = (
    0.8219967457503683, -0.3438094736704024, 0.1029178878235471, -0.01663314123086524,
    -0.0014137333868080356, 0.001257018177952542, -3.678926128781433e-05,
    -0.00010491720201251224, 6.343705767502616e-06, 1.1183328184416306e-05,
    -2.1023417196592568e-07, -1.4033518259838519e-06, -1.270142149868801e-07,
    1.7975098449859504e-07, 4.853609753422639e-08, -1.9549725593241168e-08,
    -1.1770705987471955e-08, 1.2938872769643012e-09, 2.065555148836586e-09,
    -6.009532899182568e-12, -2.065583955547007e-10,
)  # fmt: skip
_TANH = (
    1.12837918e00, 1.02772150e-01, -2.06571790e-04, -5.95465791e-04, 6.94621464e-05,
    1.26063198e-06, -1.27209083e-06, 1.53791006e-07, -8.30041423e-09, 1.74010995e-10,
)  # fmt: skip
_CDF = (
    7.97884941e-01, 3.63330846e-02, -3.25949790e-05, -5.53061931e-05, 3.96474446e-06,
    -1.32263353e-07, 1.75617143e-09,
)  # fmt: skip
# erfc(z) = exp(-z²) P(s) / (1 + z / 2) with s = z / (2 + z), for float32; see float_math.h.
_TAIL = (
    1.0, -1.25675893, 4.86515403e-01, 2.11101174e-01, -9.35262591e-02, -1.22659937e-01,
    8.98153633e-02, -1.68922588e-01, 2.64527887e-01, -1.62949264e-01, 3.49452645e-02,
)  # fmt: skip


@functools.lru_cache(256)
def cells(numbers: tuple[float, ...], dtype: np.dtype[Any]) -> list[Any]:
    """Numbers as arrays of no dimension, which NumPy reads faster than its own scalars."""
    return [np.array(number, dtype) for number in numbers]


_MINUS_40, _MINUS_6, _HALF, _6, _40 = [np.array(c, np.float32) for c in (-40, -6, 0.5, 6, 40)]
_BLOCK = 1 << 16


def _horner(coefficients: tuple[float, ...], w: Any) -> Any:
    *others, second, first = cells(coefficients, w.dtype)
    result = w * first
    result += second
    for c in reversed(others):
        result *= w
        result += c
    return result


def library() -> Any:
    """CuPy's special functions; a recording puts its own in this function's place."""
    import cupyx.scipy.special

    return cupyx.scipy.special


def _erf64(x: Any) -> Any:
    z = np.abs(x)
    near = np.minimum(z, 1.0)
    small = np.clip(x, -1.0, 1.0) * _horner(_SMALL, 2 * near * near - 1)
    far = np.maximum(np.minimum(z, 6.0), 1.0)
    w = 1.5 * ((far - 2) / (far + 2) + 1 / 3) - 1
    tail = _horner(_LARGE, w) / (far + 2) * np.exp(-far * far)
    return np.where(z <= 1, small, np.where(np.isnan(x), x, np.copysign(1 - tail, x)))


def _erf32(x: Any) -> Any:
    z = clip(x, _MINUS_6, _6)
    r = _horner(_TANH, z * z)
    r *= z
    return np.tanh(r, out=r)


def erf(xp: Any, x: Any) -> Any:
    """The error function of an array."""
    if xp is not np:
        return library().erf(x)
    x = np.asarray(x)
    if x.dtype == np.float64:
        return _erf64(x)
    x32 = x.reshape(x.shape or 1).astype(np.float32, copy=False)
    return _erf32(x32).reshape(x.shape).astype(x.dtype, copy=False)


def erfc(xp: Any, x: Any) -> Any:
    """1 - erf(x), with its relative accuracy in the right tail."""
    if xp is not np:
        return library().erfc(x)
    x = np.asarray(x)
    if x.dtype != np.float64:
        return _erfc32(x.astype(np.float32, copy=False)).astype(x.dtype, copy=False)
    wide = x
    z = np.maximum(np.minimum(np.abs(wide), 28.0), 1.0)
    w = 1.5 * ((z - 2) / (z + 2) + 1 / 3) - 1
    tail = _horner(_LARGE, w) / (z + 2) * np.exp(-z * z)
    result = np.where(np.abs(wide) <= 1, 1 - _erf64(wide), np.where(wide > 0, tail, 2 - tail))
    return np.where(np.isnan(wide), wide, result)


def _erfc32(x: Any) -> Any:
    z = np.minimum(np.abs(x), np.float32(11))
    inverse = np.float32(1) / (np.float32(0.5) * z + np.float32(1))
    # The square in two parts, of which the first is exact: exp() would magnify its rounding.
    c = z * np.float32(4097)
    high = c - (c - z)
    bell = np.exp(-(high * high)) * np.exp((high - z) * (high + z))
    right = _horner(_TAIL, np.float32(0.5) * z * inverse) * inverse * bell
    return np.where(x < 0, np.float32(2) - right, right)


def normal_cdf(xp: Any, x: Any) -> Any:
    """The standard normal distribution's cdf of an array."""
    if xp is not np:
        return library().ndtr(x)
    x = np.asarray(x)
    if x.dtype != np.float32:
        if x.dtype == np.float64:
            return 0.5 * erfc(np, x * -0.7071067811865476)
        return normal_cdf(np, x.astype(np.float32)).astype(x.dtype)
    return normal_cdf32(np, x)


def normal_cdf32(xp: Any, x: Any, out: Any = None) -> Any:
    """The standard normal distribution's cdf of float32, in blocks that fit the cache."""
    out = xp.empty(x.shape, x.dtype) if out is None else out
    flat, results = xp.ascontiguousarray(x).reshape(-1), out.reshape(-1)
    squares = xp.empty(min(_BLOCK, flat.size), x.dtype)
    multiply, add = xp.multiply, xp.add
    first, *middle, last = cells(_CDF, x.dtype)
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        r, u = results[start : start + _BLOCK], squares[: part.size]
        clip(part, _MINUS_6, _6, u)
        multiply(u, u, u)
        multiply(u, last, r)
        for c in reversed(middle):
            add(r, c, r)
            multiply(r, u, r)
        add(r, first, r)
        clip(part, _MINUS_40, _40, u)
        multiply(r, u, r)
        xp.tanh(r, r)
        multiply(r, _HALF, r)
        add(r, _HALF, r)
    return out


def erfinv(xp: Any, x: Any) -> Any:
    """The inverse of `erf`: Winitzki's approximation (2008), corrected by Halley's method."""
    if xp is not np:
        return library().erfinv(x)
    wide = np.asarray(x, np.float64)
    u = np.abs(wide)
    u = np.where(u < 1, u, 0)
    log = np.log1p(-u * u)
    a = 2 / (np.pi * 0.147) + log / 2
    y = np.sqrt(np.sqrt(a * a - log / 0.147) - a)
    for _ in range(3):
        error = np.where(u < 0.5, _erf64(y) - u, (1 - u) - erfc(np, y))
        step = error * (np.sqrt(np.pi) / 2) * np.exp(y * y)
        y = y - step / (1 + y * step)
    y = np.copysign(np.where(np.abs(wide) == 1, np.inf, y), wide)
    return np.where(np.abs(wide) <= 1, y, np.nan).astype(np.asarray(x).dtype, copy=False)
