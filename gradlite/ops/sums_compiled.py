"""Sums and means of NumPy's arrays by compiled code (``compiled/sums.hpp``).

It is faster than NumPy's, and more precise where many rows are added up: NumPy adds one after the
other, and each is rounded to what the sum has grown to.
"""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from typing import Any

import numpy as np

from gradlite.backends import libraries
from gradlite.backends.elements import anew
from gradlite.backends.multiply import DTYPES
from gradlite.ops.reductions import merged

LEAST = 1 << 12  # elements; fewer are not worth a library


def fits(x: Any, dims: tuple[int, ...]) -> bool:
    """Whether the compiled code can go over dimensions of an array, and there is any."""
    if x.dtype.char not in DTYPES or not x.size or _functions(x.dtype.char) is None:
        return False
    return arranged(x, dims) is not None


def sums(x: Any, dims: tuple[int, ...], mean: bool) -> Any:
    """The sums or means over dimensions, which are left out of the shape.

    None where the compiled code does not fit: arrays with gaps, and dimensions that alternate more
    than once between those that go and those that stay.
    """
    if x.__class__ is not np.ndarray or not fits(x, dims):
        return None
    shape = tuple([n for d, n in enumerate(x.shape) if d not in dims])
    out = np.empty(shape, x.dtype)
    x, sizes = arranged(x, dims)
    done = _functions(x.dtype.char)[0](x, out, sizes, x.size / out.size if mean else 1.0)
    return out if done else None


def variances(
    xp: Any, x: Any, dims: tuple[int, ...], shape: tuple[int, ...], divisor: float, root: bool
) -> tuple[Any, Any]:
    """The squared distances from the means, summed over dimensions that fit and divided, or the
    roots of that; and the means, flat."""
    kind = DTYPES[x.dtype.char]
    out = np.empty(shape, kind)
    mean = np.empty(out.size, kind)
    x, sizes = arranged(x, dims)
    function = _functions(kind.char)[1]
    if not function(x, out, mean, sizes, divisor, root):
        if not function(anew(x), out, mean, sizes, divisor, root):
            raise RuntimeError("variances() does not take its arrays")
    return out, mean


def arranged(x: Any, dims: tuple[int, ...]) -> Any:
    """A row-major array with the same sums, and its sizes for the compiled code; or None."""
    if not x.flags.c_contiguous:
        order = sorted(range(x.ndim), key=x.strides.__getitem__, reverse=True)
        kept = [d for d in order if d not in dims]
        x = x.transpose(order)
        if kept != sorted(kept) or not x.flags.c_contiguous:
            return None
        dims = tuple([k for k, d in enumerate(order) if d in dims])
    sizes = _sizes(x.shape, dims)
    return None if sizes is None else (x, sizes)


@lru_cache(4096)
def _sizes(shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    """The shape as (before, kept, rows, columns), of which `before` and the rows are summed."""
    form = list(merged(shape, dims))
    sizes = [1, 1, 1, 1]
    for place, reduced in reversed(list(enumerate((True, False, True, False)))):
        if form and form[-1][1] == reduced:
            sizes[place] = form.pop()[0]
    return None if form else (ctypes.c_longlong * 4)(*sizes)


@cache
def _functions(char: str) -> Any:
    library = libraries.called("sums", DTYPES[char].name)
    if library is None:
        return None
    array, sizes, number = ctypes.py_object, ctypes.c_void_p, ctypes.c_double
    library.sums.argtypes = (array, array, sizes, number)
    library.variances.argtypes = (array, array, array, sizes, number, ctypes.c_int)
    found = library.sums, library.variances
    fits = finds_arrays(library.sums, DTYPES[char], 8.0, lambda x: x.mean((0, 2)))
    return found if fits else None


def finds_arrays(function: Any, dtype: np.dtype[Any], option: float, expected: Any) -> bool:
    """Whether NumPy's array object is what arrays.hpp takes it for."""
    x, out = np.arange(120).reshape(2, 3, 4, 5).astype(dtype), np.zeros((3, 5), dtype)
    sizes = (ctypes.c_longlong * 4)(*x.shape)
    others = (x[:, :, ::2], x.astype(np.int64), x.T, None)
    if any(function(other, out, sizes, option) for other in others) or out.any():
        return False
    return function(x, out, sizes, option) == 1 and bool((out == expected(x)).all())
