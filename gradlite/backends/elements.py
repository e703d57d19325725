"""Functions of elements by compiled code (``compiled/elements.hpp``), called on NumPy's arrays.

Each is compiled by itself, at its first use.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from gradlite.backends import libraries
from gradlite.backends.multiply import DTYPES

LEAST = 1 << 8  # elements; fewer are not worth a library

SIGN = "REAL((x > 0) - (x < 0))"  # 0 for NaN
# By their names: the kind of function, and what it computes.
FUNCTIONS = {
    "abs_slope": ("SLOPES", f"g * {SIGN}"),
    "copysign": ("VALUES_OF_TWO", "f_copysign"),
    "digamma": ("VECTOR_VALUES", "digamma_of"),
    "digamma_slope": ("VECTOR_SLOPES", "trigamma_of"),
    "erf": ("VALUES", "float_math::erf(x)"),
    "erfc": ("VALUES", "float_math::erfc(x)"),
    "erfinv": ("VECTOR_VALUES", "inverse_of_erf"),
    "floor_divide": ("BY_REMAINDER", "floored"),
    "fmod": ("BY_REMAINDER", "rest_itself"),
    "from_bfloat16": ("CASTS", "u16, float, of_bfloat16"),
    "from_float16": ("CASTS", "u16, float, of_float16"),
    "hypot": ("VALUES_OF_TWO", "length_of"),
    "lgamma": ("VECTOR_VALUES", "log_gamma"),
    "lgamma_slope": ("VECTOR_SLOPES", "digamma_of"),
    "logaddexp": ("VALUES_OF_TWO", "log_sum"),
    "logaddexp2": ("VALUES_OF_TWO", "log2_sum"),
    "remainder": ("BY_REMAINDER", "of_divisor"),
    "sign": ("VALUES", SIGN),
    "to_bfloat16": ("CASTS", "float, u16, bfloat16_of"),
    "to_float16": ("CASTS", "float, u16, float16_of"),
    "trigamma": ("VECTOR_VALUES", "trigamma_of"),
}
WITH_NUMBERS = ("VALUES_OF_TWO", "BY_REMAINDER")
OF_TWO = (*WITH_NUMBERS, "SLOPES", "VECTOR_SLOPES")


def values(xp: Any, name: str, *arrays: Any, dtype: Any = None) -> Any:
    """A function of the elements of arrays of one shape, in the order of their memory.

    A second array may be one number, and the result's dtype another one.
    """
    first, *more = arrays
    function = find(name, "f" if dtype is not None else first.dtype.char)
    kind = DTYPES[first.dtype.char] if dtype is None else dtype
    if all(a.flags.c_contiguous for a in arrays):
        out = np.empty(first.shape, kind)
        if function(*arrays, out):
            return out
    leader = more[0] if more and more[0].ndim else first
    order = sorted(range(first.ndim), key=lambda d: -abs(leader.strides[d]))
    out = np.empty([first.shape[d] for d in order], kind)
    own = [np.ascontiguousarray(a.transpose(order) if a.ndim else a) for a in arrays]
    if not function(*own, out):
        if not function(*map(anew, own), out):
            raise RuntimeError(f"{name} does not take its arrays")
    return out.transpose(sorted(range(first.ndim), key=order.__getitem__))


def anew(array: Any) -> Any:
    """A copy that compiled code takes: of one that lies askew, or has another object as dtype, as
    arrays from a file do."""
    copy = np.empty(array.shape, DTYPES.get(array.dtype.char, array.dtype))
    copy[...] = array
    return copy


@cache
def find(name: str, char: str) -> Any:
    """A function for a dtype, by its character; None where there is no compiler, or none for it."""
    if char not in DTYPES:
        return None
    kind, what = FUNCTIONS[name]
    line = f"{kind}({name}, {what})"
    library = libraries.called("elements", DTYPES[char].name, line)
    if library is None:
        return None
    function = getattr(library, f"of_{name}")  # the C library has functions of these names
    function.argtypes = (ctypes.py_object,) * (3 if kind in OF_TWO else 2)
    return function if _finds_arrays(function, kind, DTYPES[char]) else None


def _finds_arrays(function: Any, kind: str, dtype: np.dtype[Any]) -> bool:
    """Whether NumPy's array object is what arrays.hpp takes it for."""
    x, out = np.ones((3, 4), dtype), np.zeros((4, 3), dtype)
    if kind == "CASTS":
        return function(x[:, ::2], out) == 0 and function(x, out) == 1
    others = (x[:, ::2], x.T, x[1:], x.astype(np.int64), None)
    more = (x,) if kind in OF_TWO else ()
    if any(function(other, *more, out) for other in others) or out.any():
        return False
    return function(x, *more, out) == 1
