"""Standardisation of raw arrays, mean 0 and variance 1 of rows or of channels, and its gradient.

``rstd`` is 1 / sqrt(variance + eps). Sums are products with vectors of ones, several times
faster than ``sum``; arrays larger than the cache go by in blocks. Variances are those of
centred values, and where the mean is large against the spread the centring is done twice, so
results are as good as the input allows. Arrays are float32 or float64.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy import full

from gradlite.ops import shortcuts
from gradlite.ops.windows import blocks

ROWS, PLANES = 65536, 262144  # elements of a block
# Standardised rows are kept for backward up to this size; larger ones are computed again.
KEEP_BYTES = 1 << 21
FEW = 1 << 12  # elements; kernels serve from there on, where there are any
# From this ratio of squared mean to variance on, the rounding of the mean shows.
FAR_OFF = 1000


def in_blocks(xp: Any, rows: int, columns: int, elements: int = ROWS) -> list[slice]:
    """Rows in blocks that fit the cache; all at once on a GPU."""
    if xp is not np or rows * columns <= 2 * elements:
        return [slice(0, rows)]
    step = max(elements // columns, 1)
    return blocks(rows, step // 8 * 8 or step)


def far_off(xp: Any, mean: Any, variance: Any) -> bool:
    """Whether some mean is so large that centring once leaves a part of it."""
    if xp is not np:
        return True
    return not shortcuts.allowed(~(mean * mean > FAR_OFF * variance).any())


def _rstd(xp: Any, variance: Any, eps: float) -> None:
    """1 / sqrt(variance + eps), in place."""
    variance += eps
    xp.sqrt(variance, out=variance)
    xp.divide(1, variance, out=variance)


# ----------------------------------------------------------------------------------- rows
def _on_rows(xp: Any, function: Any, x: Any, row: Any, out: Any) -> None:
    """``function(x, row)``, on several short rows at a time: each one costs a loop."""
    rows, columns = x.shape
    if rows % 8 == 0 and columns <= 512:
        x, out = x.reshape(-1, 8 * columns), out.reshape(-1, 8 * columns)
        eight = xp.empty((8, columns), row.dtype)
        eight[...] = row
        row = eight.reshape(-1)
    function(x, row, out=out)


@lru_cache(256)
def _filled(shape: Any, value: float, dtype: Any) -> Any:
    """An array of one number, to be read alone.

    NumPy adds such an array without dimensions in half the time that it takes for a Python float.
    No face of an array that is recorded, which would outlive the recording here.
    """
    return full(shape, value, dtype)


def _few_rows_forward(
    xp: Any, x: Any, weight: Any, bias: Any, eps: float, center: bool
) -> tuple[Any, Any]:
    """`rows_forward` in as few calls as can be: each of them costs more than its arithmetic."""
    n, mean = x.shape[1], None
    share = _filled(n, 1 / n, x.dtype)
    if center:
        mean = x.dot(share)
        x = x - mean[:, None]
        x = x - x.dot(share)[:, None]  # what rounding has left of the mean, asked of nobody
    rstd = xp.reciprocal(xp.sqrt((x * x).dot(share) + _filled((), eps, x.dtype)))
    y = standard = x * rstd[:, None]
    if weight is not None:
        y = standard * weight
    if bias is not None:
        y = y + bias
    return (y.copy() if y is standard else y), (mean, rstd, standard)


def rows_forward(
    xp: Any, x: Any, weight: Any, bias: Any, eps: float, center: bool
) -> tuple[Any, Any]:
    """Each row of x (R, n) standardised, times weight plus bias (n,).

    Without ``center`` the mean is not subtracted. Returns the result and what `rows_backward`
    wants: mean, rstd and, when small, the standardised rows.
    """
    if x.size < FEW and xp is np:
        return _few_rows_forward(xp, x, weight, bias, eps, center)
    return _rows_forward(xp, x, weight, bias, eps, center)


def _rows_forward(
    xp: Any, x: Any, weight: Any, bias: Any, eps: float, center: bool
) -> tuple[Any, Any]:
    count, n = x.shape
    share = xp.full(n, 1 / n, x.dtype)
    y, rstd = xp.empty(x.shape, x.dtype), xp.empty(count, x.dtype)
    mean = xp.empty(count, x.dtype) if center else None
    parts = in_blocks(xp, count, n)
    keep = x.nbytes <= KEEP_BYTES
    standard = xp.empty(x.shape if keep else (parts[0].stop, n), x.dtype)
    for part in parts:
        rows, out, variance = x[part], y[part], rstd[part]
        unit = standard[part] if keep else standard[: rows.shape[0]]
        if mean is not None:
            rows = _centred(xp, rows, mean[part], share, unit, None)
        xp.multiply(rows, rows, out=out)
        xp.dot(out, share, out=variance)
        if mean is not None and far_off(xp, mean[part], variance):
            rest = xp.dot(rows, share)
            rows -= rest[:, None]
            xp.multiply(rows, rows, out=out)
            xp.dot(out, share, out=variance)
        _rstd(xp, variance, eps)
        xp.multiply(rows, variance[:, None], out=unit)
        if weight is None:
            out[...] = unit
        else:
            _on_rows(xp, xp.multiply, unit, weight, out)
        if bias is not None:
            _on_rows(xp, xp.add, out, bias, out)
    return y, (mean, rstd, standard if keep else None)


def _centred(xp: Any, rows: Any, mean: Any, share: Any, out: Any, rstd: Any) -> Any:
    """Rows minus their means, which are computed when ``rstd`` is not known yet."""
    if rstd is None:
        xp.dot(rows, share, out=mean)
    xp.subtract(rows, mean[:, None], out=out)
    if rstd is not None and far_off(xp, mean, 1 / (rstd * rstd)):
        out -= xp.dot(out, share)[:, None]
    return out


def _few_rows_backward(
    xp: Any, g: Any, weight: Any, aux: Any, wants_input: bool
) -> tuple[Any, Any, Any]:
    """`rows_backward` in as few calls as can be."""
    mean, rstd, standard = aux
    count, n = g.shape
    ones, shares, scaled = _filled(count, 1.0, g.dtype), _filled(n, 1 / n, g.dtype), g
    products = g * standard
    parameters = xp.dot(ones, products), xp.dot(ones, g)
    if not wants_input:
        return None, *parameters
    if weight is not None:
        shares, scaled = weight * shares, g * weight
    along = standard * products.dot(shares)[:, None]
    if mean is not None:
        along = along + g.dot(shares)[:, None]
    return (scaled - along) * rstd[:, None], *parameters


def rows_backward(
    xp: Any, g: Any, x: Any, weight: Any, aux: Any, wants_input: bool
) -> tuple[Any, Any, Any]:
    """The gradients of x, weight and bias of `rows_forward`, or of kernels, which keep no rows."""
    if x.size < FEW and xp is np and aux[-1] is not None:
        return _few_rows_backward(xp, g, weight, aux, wants_input)
    return _rows_backward(xp, g, x, weight, aux, wants_input)


def _rows_backward(
    xp: Any, g: Any, x: Any, weight: Any, aux: Any, wants_input: bool
) -> tuple[Any, Any, Any]:
    mean, rstd, standard = aux
    count, n = g.shape
    share = xp.full(n, 1 / n, g.dtype)
    shares = share if weight is None else weight * g.dtype.type(1 / n)
    grad_weight = grad_bias = None
    grad_x = xp.empty(g.shape, g.dtype) if wants_input else None
    parts = in_blocks(xp, count, n)
    scratch = xp.empty((1 if standard is not None else 2, parts[0].stop, n), g.dtype)
    ones = xp.ones(parts[0].stop, g.dtype)
    for part in parts:
        grads, scale = g[part], rstd[part]
        many = grads.shape[0]
        if standard is not None:
            unit = standard[part]
        else:
            unit = scratch[1, :many]
            if mean is not None:
                _centred(xp, x[part], mean[part], share, unit, scale)
                unit *= scale[:, None]
            else:
                xp.multiply(x[part], scale[:, None], out=unit)
        product = xp.multiply(grads, unit, out=scratch[0, :many])
        sums = xp.dot(ones[:many], product), xp.dot(ones[:many], grads)
        if grad_weight is None:
            grad_weight, grad_bias = sums
        else:
            grad_weight += sums[0]
            grad_bias += sums[1]
        if grad_x is None:
            continue
        along = xp.dot(product, shares)
        xp.multiply(unit, along[:, None], out=product)
        if mean is not None:
            product += xp.dot(grads, shares)[:, None]
        out = grad_x[part]
        if weight is None:
            xp.subtract(grads, product, out=out)
        else:
            _on_rows(xp, xp.multiply, grads, weight, out)
            out -= product
        out *= scale[:, None]
    return grad_x, grad_weight, grad_bias


# ------------------------------------------------------------------- channels and groups
def _sums(xp: Any, x: Any) -> Any:
    """The sums of x (N, C, L) over L."""
    n, c, length = x.shape
    if length == 1:
        return x[:, :, 0]
    return xp.dot(x.reshape(n * c, length), xp.ones(length, x.dtype)).reshape(n, c)


def _products(xp: Any, a: Any, b: Any) -> Any:
    """The sums of a * b over L."""
    if xp is np:
        return np.einsum("ncl,ncl->nc", a, b)
    return (a * b).sum(2)


def _over_batch(xp: Any, x: Any) -> Any:
    """The sums of x (N, C) over N."""
    return xp.dot(xp.ones(x.shape[0], x.dtype), x)


def _some(count: int) -> int:
    """How many of some values have a mean that is near enough that of all: a quarter, if many.

    Its distance squared is at most four times their variance, whatever the values are.
    """
    return count if count <= 16 else -(-count // 4)


def channel_statistics(xp: Any, x: Any) -> tuple[Any, Any]:
    """The means and (biased) variances of the channels of x (N, C, L)."""
    n, c, length = x.shape
    total = x.dtype.type(n * length)
    few = x[: _some(n)]
    mean = _over_batch(xp, _sums(xp, few)) / x.dtype.type(few.shape[0] * length)
    variance, rest = xp.zeros((2, c), x.dtype)
    for part in in_blocks(xp, n, c * length, PLANES):
        rows = x[part] - mean[:, None]
        variance += _over_batch(xp, _products(xp, rows, rows))
        rest += _over_batch(xp, _sums(xp, rows))
    # What centring left of the mean does not belong to the variance.
    rest /= total
    return mean + rest, variance / total - rest * rest


def channels_forward(xp: Any, x: Any, mean: Any, rstd: Any, weight: Any, bias: Any) -> Any:
    """(x - mean) * rstd * weight + bias per channel of x (N, C, L)."""
    n, c, length = x.shape
    y = xp.empty(x.shape, x.dtype)
    scale = rstd if weight is None else rstd * weight
    for part in in_blocks(xp, n, c * length, PLANES):
        out = xp.subtract(x[part], mean[:, None], out=y[part])
        out *= scale[:, None]
        if bias is not None:
            out += bias[:, None]
    return y


def channels_backward(
    xp: Any, g: Any, x: Any, weight: Any, mean: Any, rstd: Any, batch: bool, wants_input: bool
) -> tuple[Any, Any, Any]:
    """The gradients of x, weight and bias; ``batch``: mean and rstd are those of x itself."""
    n, c, length = g.shape
    scale = rstd if weight is None else rstd * weight
    parts = in_blocks(xp, n, c * length, PLANES)
    products, sums = xp.zeros((2, c), g.dtype)
    for part in parts:
        total = _sums(xp, g[part])
        sums += _over_batch(xp, total)
        if x is not None:
            rows = x[part] - mean[:, None]
            products += _over_batch(xp, _products(xp, g[part], rows))
    products *= rstd
    if not wants_input:
        return None, products, sums
    if not batch:
        return g * scale[:, None], products, sums
    grad_x = xp.empty(g.shape, g.dtype)
    share = scale * g.dtype.type(1 / (n * length))
    slope, offset = share * products * rstd, share * sums
    for part in parts:
        if len(parts) > 1:
            rows = x[part] - mean[:, None]
        out = xp.multiply(g[part], scale[:, None], out=grad_x[part])
        out -= rows * slope[:, None]
        out -= offset[:, None]
    return grad_x, products, sums


def groups_forward(
    xp: Any, x: Any, groups: int, weight: Any, bias: Any, eps: float
) -> tuple[Any, Any, Any]:
    """Each group of channels of each sample of x (N, C, L) standardised.

    Returns the result, the means and rstd (N, groups).
    """
    n, c, length = x.shape
    inner = c // groups
    total = x.dtype.type(inner * length)
    y = xp.empty(x.shape, x.dtype)
    mean, rstd = xp.empty((2, n, groups), x.dtype)
    for part in in_blocks(xp, n, c * length, PLANES):
        rows, out, center, variance = x[part], y[part], mean[part], rstd[part]
        many = rows.shape[0]
        whole = (many, groups, inner)
        few = rows[:, :, : _some(length)]
        share = x.dtype.type(inner * few.shape[2])
        center[...] = _sums(xp, few).reshape(whole).sum(2) / share
        rows = _without(rows, center, out)
        rest = _sums(xp, rows).reshape(whole).sum(2) / total
        variance[...] = _products(xp, rows, rows).reshape(whole).sum(2) / total - rest * rest
        center += rest
        _rstd(xp, variance, eps)
        scale = variance[:, :, None]
        scale = scale if weight is None else scale * weight.reshape(groups, inner)
        shift = rest[:, :, None] * scale
        shift = -shift if bias is None else bias.reshape(groups, inner) - shift
        xp.multiply(rows, _per_channel(xp, scale, whole), out=out)
        out += _per_channel(xp, shift, whole)
    return y, mean, rstd


def _without(rows: Any, mean: Any, out: Any) -> Any:
    """x (N, C, L) minus the mean (N, groups) of each group."""
    shape = (*mean.shape, -1)
    out.reshape(shape)[...] = rows.reshape(shape) - mean[:, :, None]
    return out


def _per_channel(xp: Any, values: Any, whole: tuple[int, ...]) -> Any:
    """(N, groups, 1 or inner) as (N, C, 1)."""
    return xp.broadcast_to(values, whole).reshape(whole[0], whole[1] * whole[2], 1)


def groups_backward(
    xp: Any, g: Any, x: Any, weight: Any, mean: Any, rstd: Any, wants_input: bool
) -> tuple[Any, Any, Any]:
    """The gradients of x, weight and bias of `groups_forward`."""
    n, c, length = g.shape
    groups = mean.shape[1]
    inner = c // groups
    grad_weight, grad_bias = xp.zeros((2, groups, inner), g.dtype)
    grad_x = xp.empty(g.shape, g.dtype) if wants_input else None
    share = g.dtype.type(1 / (inner * length))
    for part in in_blocks(xp, n, c * length, PLANES):
        grads, rows = g[part], x[part]
        scale = rstd[part][:, :, None]
        whole = (grads.shape[0], groups, inner)
        rows = _without(rows, mean[part], xp.empty(rows.shape, rows.dtype))
        sums = _sums(xp, grads).reshape(whole)
        products = _products(xp, grads, rows).reshape(whole) * scale
        grad_weight += products.sum(0)
        grad_bias += sums.sum(0)
        if grad_x is None:
            continue
        factor = scale
        if weight is not None:
            kernel = weight.reshape(groups, inner)
            products, sums, factor = products * kernel, sums * kernel, scale * kernel
        slope = products.sum(2, keepdims=True) * (share * scale * scale)
        offset = sums.sum(2, keepdims=True) * (share * scale)
        out = xp.multiply(grads, _per_channel(xp, factor, whole), out=grad_x[part])
        out -= rows * _per_channel(xp, slope, whole)
        out -= _per_channel(xp, offset, whole)
    return grad_x, grad_weight.reshape(c), grad_bias.reshape(c)
