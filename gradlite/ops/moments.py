"""Variances and norms over dimensions with the kernels of ``variance.cu`` and ``vector_norm.cu``.

Forward they read rows: an array whose reduced dimensions are not the last ones is copied so that
they are. Backward they read it as it is, where these dimensions are neighbours.
"""

from __future__ import annotations

import math
from typing import Any

from gradlite.ops import sums_compiled
from gradlite.ops.reduce import count
from gradlite.ops.reductions import (
    as_last,
    copies_for_nothing,
    extreme_gradient,
    from_last,
    merged,
    pieces_for,
    reduced_shape,
)


def single(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, int, int] | None:
    """The sizes before, of and behind the dimensions that are reduced, if those are neighbours."""
    form = merged(shape, dims)
    places = [k for k, (_, reduced) in enumerate(form) if reduced]
    if len(places) > 1:
        return None
    at = places[0] if places else len(form)
    sizes = [n for n, _ in form]
    return (
        count(tuple(sizes[:at]), range(at)),
        sizes[at] if places else 1,
        count(tuple(sizes[at + 1 :]), range(len(sizes[at + 1 :]))),
    )


def variance(
    K: Any, x: Any, dims: tuple[int, ...], correction: float, keepdim: bool, root: bool
) -> Any:
    """Variances, or their roots, and the means, flat and in the dtype that is computed with."""
    if not K.takes(x):
        return NotImplemented
    shape, columns = reduced_shape(x.shape, dims, keepdim), count(x.shape, dims)
    if K.serial and sums_compiled.fits(x, dims):
        divisor = float(max(columns - correction, 0))
        return sums_compiled.variances(K.xp, x, dims, shape, divisor, root)
    if copies_for_nothing(K, x.ndim, dims):
        return NotImplemented
    x, rows = as_last(K, x, dims), x.size // columns
    out, mean = K.empty(shape, x.dtype), K.empty((rows,), K.acc(x.dtype))
    pieces, squares, own = pieces_for(rows, columns), None, mean
    divisor = float(max(columns - correction, 0))
    if pieces > 1:
        own, squares = (K.empty((rows, pieces), mean.dtype) for _ in range(2))
    K.kept_rows(
        "variance_rows", x.dtype, rows * pieces, columns // pieces, 1,
        x, out if pieces == 1 else None, own, squares, rows, columns, pieces, divisor, int(root),
    )  # fmt: skip
    if pieces > 1:
        K.rows(
            "variance_total", x.dtype, rows, pieces,
            x, own, squares, out, mean, rows, columns, pieces, divisor, int(root),
        )  # fmt: skip
    return out, mean


def variance_gradient(
    K: Any, grad: Any, x: Any, mean: Any, out: Any, dims: tuple[int, ...], scale: float
) -> Any:
    """The gradient by x; ``out`` is a standard deviation, or None."""
    arrays = (grad, x) if out is None else (grad, x, out)
    if not K.takes(*arrays) or mean.dtype != K.acc(x.dtype):
        return NotImplemented
    out = None if out is None else K.dense(out)
    return _by_elements(K, "variance_backward", grad, x, (mean, out), dims, scale)


def _by_elements(
    K: Any, kernel: str, grad: Any, x: Any, given: tuple[Any, ...], dims: tuple[int, ...], last: Any
) -> Any:
    """The gradient by x, each element of which reads one of ``grad`` and of what is given."""
    form = single(x.shape, dims)
    apart = form is None
    if x.size >= 1 << 31 or (apart and K.serial):
        return NotImplemented
    x = as_last(K, x, dims) if apart else K.dense(x)
    dx = K.empty(x.shape, x.dtype)
    sizes = form or (grad.size, x.size // grad.size, 1)
    K.elementwise(kernel, x.dtype, x.size, K.dense(grad), x, *given, dx, *sizes, last)
    return (from_last(K, dx, dims) if apart else dx,)


def norm(K: Any, x: Any, p: float, dims: tuple[int, ...], keepdim: bool) -> Any:
    """The p-norms, for p > 0."""
    if not p > 0 or not K.takes(x) or copies_for_nothing(K, x.ndim, dims):
        return NotImplemented
    if K.serial and p == 2 and len(dims) == x.ndim:
        return NotImplemented  # of all elements it is a product of NumPy's
    shape, columns = reduced_shape(x.shape, dims, keepdim), count(x.shape, dims)
    x, rows = as_last(K, x, dims), x.size // columns
    out, pieces, partials = K.empty(shape, x.dtype), pieces_for(rows, columns), None
    if pieces > 1:
        partials = K.empty((rows, pieces), K.acc(x.dtype))
    K.rows(
        "vector_norm_rows", x.dtype, rows * pieces, columns // pieces,
        x, partials, out if pieces == 1 else None, rows, columns, pieces, p,
    )  # fmt: skip
    if pieces > 1:
        K.rows("vector_norm_total", x.dtype, rows, pieces, partials, out, rows, pieces, p)
    return out


def norm_gradient(K: Any, grad: Any, x: Any, out: Any, p: float, dims: tuple[int, ...]) -> Any:
    """The gradient by x, for p > 0 and -inf."""
    if not p > 0 and p != -math.inf or not K.takes(grad, x, out):
        return NotImplemented
    if math.isinf(p):
        return NotImplemented if K.serial else extreme_gradient(K, grad, x, out, dims, 2)
    return _by_elements(K, "vector_norm_backward", grad, x, (K.dense(out),), dims, p)
