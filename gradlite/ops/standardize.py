"""Standardisation of raw arrays, mean 0 and variance 1 of rows or of channels, and its gradient.

``rstd`` is 1 / sqrt(variance + eps). Sums are products with vectors of ones, several times
faster than ``sum``; arrays larger than the cache go by in blocks. Variances are those of
centred values, and where the mean is large against the spread the centring is done twice, so
results are as good as the input allows. Arrays are float32 or float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops.windows import blocks

BLOCK_ELEMENTS = 65536
# Standardised rows are kept for backward up to this size; larger ones are computed again.
KEEP_BYTES = 1 << 21
# From this ratio of squared mean to variance on, the rounding of the mean shows.
FAR_OFF = 1000


def wide(x: Any) -> Any:
    """float16 in float32, in which statistics are taken."""
    return x if x is None or x.dtype != np.float16 else x.astype(np.float32)


def in_blocks(xp: Any, rows: int, columns: int) -> list[slice]:
    """Rows in blocks that fit the cache; all at once on a GPU."""
    if xp is not np or rows * columns <= 2 * BLOCK_ELEMENTS:
        return [slice(0, rows)]
    return blocks(rows, max(BLOCK_ELEMENTS // columns // 8 * 8, 1))


def far_off(xp: Any, mean: Any, variance: Any) -> bool:
    """Whether some mean is so large that centring once leaves a part of it."""
    return xp is not np or bool((mean * mean > FAR_OFF * variance).any())


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
        row = xp.concatenate([row] * 8)
    function(x, row, out=out)


def rows_forward(
    xp: Any, x: Any, weight: Any, bias: Any, eps: float, center: bool
) -> tuple[Any, Any]:
    """Each row of x (R, n) standardised, times weight plus bias (n,).

    Without ``center`` the mean is not subtracted. Returns the result and what `rows_backward`
    wants: mean, rstd and, when small, the standardised rows.
    """
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


def rows_backward(
    xp: Any, g: Any, x: Any, weight: Any, aux: Any, wants_input: bool
) -> tuple[Any, Any, Any]:
    """The gradients of x, weight and bias of `rows_forward`."""
    mean, rstd, standard = aux
    count, n = g.shape
    share = xp.full(n, 1 / n, g.dtype)
    shares = share if weight is None else weight * g.dtype.type(1 / n)
    grad_weight, grad_bias = xp.zeros(n, g.dtype), xp.zeros(n, g.dtype)
    grad_x = xp.empty(g.shape, g.dtype) if wants_input else None
    parts = in_blocks(xp, count, n)
    scratch = xp.empty((2, parts[0].stop, n), g.dtype)
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
        grad_weight += xp.dot(ones[:many], product)
        grad_bias += xp.dot(ones[:many], grads)
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


# ------------------------------------------------------------------------------- channels
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


def channel_statistics(xp: Any, x: Any) -> tuple[Any, Any]:
    """The means and (biased) variances of the channels of x (N, C, L)."""
    n, c, length = x.shape
    total = x.dtype.type(n * length)
    mean = _over_batch(xp, _sums(xp, x)) / total
    variance = xp.zeros(c, x.dtype)
    rest = xp.zeros(c, x.dtype)
    for part in in_blocks(xp, n, c * length):
        rows = x[part] - mean[:, None]
        variance += _over_batch(xp, _products(xp, rows, rows))
        rest += _over_batch(xp, _sums(xp, rows))
    # What centring left of the mean does not belong to the variance.
    rest /= total
    variance /= total
    variance -= rest * rest
    mean += rest
    return mean, variance


def channels_forward(xp: Any, x: Any, mean: Any, rstd: Any, weight: Any, bias: Any) -> Any:
    """(x - mean) * rstd * weight + bias per channel of x (N, C, L)."""
    n, c, length = x.shape
    y = xp.empty(x.shape, x.dtype)
    scale = rstd if weight is None else rstd * weight
    for part in in_blocks(xp, n, c * length):
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
    parts = in_blocks(xp, n, c * length)
    grad_x = xp.empty(g.shape, g.dtype)
    if x is None:  # only the gradients of bias and, with constant statistics, of x
        if wants_input:
            xp.multiply(g, scale[:, None], out=grad_x)
        return grad_x, None, _over_batch(xp, _sums(xp, g))
    products, sums = xp.zeros(c, g.dtype), xp.zeros(c, g.dtype)
    for part in parts:
        rows = xp.subtract(x[part], mean[:, None], out=grad_x[part])
        products += _over_batch(xp, _products(xp, g[part], rows))
        sums += _over_batch(xp, _sums(xp, g[part]))
    grad_weight = products * rstd
    if not wants_input:
        return None, grad_weight, sums
    if not batch:
        xp.multiply(g, scale[:, None], out=grad_x)
        return grad_x, grad_weight, sums
    share = scale * g.dtype.type(1 / (n * length))
    slope, offset = share * grad_weight * rstd, share * sums
    for part in parts:
        rows = grad_x[part]
        rows *= slope[:, None]
        rows += offset[:, None]
        xp.subtract(g[part] * scale[:, None], rows, out=rows)
    return grad_x, grad_weight, sums


# --------------------------------------------------------------------------------- groups
def groups_forward(
    xp: Any, x: Any, groups: int, weight: Any, bias: Any, eps: float
) -> tuple[Any, Any, Any]:
    """Each group of channels of each sample of x (N, C, L) standardised.

    Returns the result, the means and rstd (N, groups).
    """
    n, c, length = x.shape
    inner = c // groups
    total = x.dtype.type(max(inner * length, 1))
    y = xp.empty(x.shape, x.dtype)
    mean, rstd = xp.empty((n, groups), x.dtype), xp.empty((n, groups), x.dtype)
    for part in in_blocks(xp, n, c * length):
        many = min(part.stop, n) - part.start
        out = y[part]
        rows = out.reshape(many * groups, inner * length)
        center = mean[part]
        center[...] = _sums(xp, x[part]).reshape(many, groups, inner).sum(2) / total
        xp.subtract(x[part].reshape(rows.shape), center.reshape(-1, 1), out=rows)
        variance = rstd[part]
        variance[...] = _products(xp, out, out).reshape(many, groups, inner).sum(2) / total
        if far_off(xp, center, variance):
            rest = _sums(xp, out).reshape(many, groups, inner).sum(2) / total
            rows -= rest.reshape(-1, 1)
            center += rest
            variance -= rest * rest
        _rstd(xp, variance, eps)
        if weight is None:
            rows *= variance.reshape(-1, 1)
        else:
            out *= (variance[:, :, None] * weight.reshape(groups, inner)).reshape(many, c, 1)
        if bias is not None:
            out += bias[:, None]
    return y, mean, rstd


def groups_backward(
    xp: Any, g: Any, x: Any, weight: Any, mean: Any, rstd: Any, wants_input: bool
) -> tuple[Any, Any, Any]:
    """The gradients of x, weight and bias of `groups_forward`."""
    n, c, length = g.shape
    groups = mean.shape[1]
    inner = c // groups
    grad_weight, grad_bias = xp.zeros(c, g.dtype), xp.zeros(c, g.dtype)
    grad_x = xp.empty(g.shape, g.dtype)
    share = g.dtype.type(1 / max(inner * length, 1))
    for part in in_blocks(xp, n, c * length):
        grads, scale = g[part], rstd[part]
        many = grads.shape[0]
        out = grad_x[part]
        rows = out.reshape(many * groups, inner * length)
        xp.subtract(x[part].reshape(rows.shape), mean[part].reshape(-1, 1), out=rows)
        products = _products(xp, grads, out).reshape(many, groups, inner) * scale[:, :, None]
        sums = _sums(xp, grads).reshape(many, groups, inner)
        grad_weight += products.sum(0).reshape(c)
        grad_bias += sums.sum(0).reshape(c)
        if not wants_input:
            continue
        if weight is not None:
            kernel = weight.reshape(groups, inner)
            products, sums = products * kernel, sums * kernel
        along = products.sum(2) * share
        rows *= (along * scale * scale).reshape(-1, 1)
        rows += (sums.sum(2) * share * scale).reshape(-1, 1)
        factor = scale[:, :, None] if weight is None else scale[:, :, None] * kernel
        factor = xp.broadcast_to(factor, (many, groups, inner)).reshape(many, c, 1)
        xp.subtract(grads * factor, out, out=out)
    return grad_x if wants_input else None, grad_weight, grad_bias
