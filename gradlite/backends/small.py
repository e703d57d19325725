"""Layers of small networks by compiled code (``compiled/small.hpp``), called on NumPy's arrays."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from gradlite.backends import libraries
from gradlite.backends.multiply import DTYPES


@cache
def functions(char: str) -> tuple[Any, Any] | None:
    """``layer`` and ``layer_gradients`` of small.hpp for a dtype, by its character.

    None where there is no compiler. Each takes a tuple of arrays and returns 0, having done
    nothing, where these are anything but what it works on.
    """
    if char not in DTYPES:
        return None
    library = libraries.called("small", DTYPES[char].name)
    if library is None:
        return None
    found = library.layer, library.layer_gradients
    for function in found:
        function.argtypes = (ctypes.py_object,)
    return found if _finds_arrays(*found, DTYPES[char]) else None


def _finds_arrays(layer: Any, gradients: Any, dtype: np.dtype[Any]) -> bool:
    """Whether NumPy's array object is what arrays.hpp takes it for."""
    x = np.arange(8).reshape(2, 4).astype(dtype)[:, ::-1]
    weight, bias = np.arange(-6, 6).reshape(3, 4).astype(dtype), np.arange(3).astype(dtype)
    out = np.zeros((2, 3), dtype)
    others = (x[0], x.astype(np.int64), x[:, :3], None)
    if any(layer((other, weight, bias, out, None)) for other in others) or out.any():
        return False
    made = layer((x, weight, bias, out, None)), gradients((out, None, x, None, None, weight, bias))
    return made == (1, 1) and bool(
        (out == x @ np.arange(-6, 6).reshape(3, 4).T + np.arange(3)).all()
        and (weight == out.T @ x).all()
        and (bias == out.sum(0)).all()
    )
