"""Products of matrices by compiled code (``compiled/multiply.hpp``), called on NumPy's arrays."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from gradlite.backends import libraries

# The characters of the dtypes that there are products of.
DTYPES: dict[str, np.dtype[Any]] = {"f": np.dtype(np.float32), "d": np.dtype(np.float64)}
LEAST_VECTOR = 32  # bytes: with narrower ones BLAS is faster


@cache
def function(char: str) -> Any:
    """What multiplies arrays of a dtype, by its character; None where there is no compiler.

    It takes two stacks of matrices of one shape, the array for their products, whose rows are
    contiguous, and a vector that is added to the rows of a single product, or None. It returns 0,
    and has done nothing, when the arrays are anything else.
    """
    if char not in DTYPES:
        return None
    dtype = DTYPES[char]
    library = libraries.called("multiply", dtype.name)
    if library is None or ctypes.c_int.in_dll(library, "vector_bytes").value < LEAST_VECTOR:
        return None
    library.multiply.argtypes = (ctypes.py_object,) * 4
    return library.multiply if _finds_arrays(library.multiply, dtype) else None


def _finds_arrays(multiply: Any, dtype: np.dtype[Any]) -> bool:
    """Whether NumPy's array object is what multiply.hpp takes it for."""
    a = np.arange(24).reshape(2, 3, 4).astype(dtype)
    b = a.swapaxes(1, 2)
    others = (a[0, 0], a.astype(np.int64), b[:1], None)
    out = np.zeros((2, 3, 3), dtype)
    if any(multiply(a, other, out, None) for other in others) or out.any():
        return False
    return multiply(a[:, ::-1], b, out, None) == 1 and bool((out == a[:, ::-1] @ b).all())
