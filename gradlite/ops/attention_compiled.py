"""Attention head by head by compiled code (``compiled/attention.hpp``), on NumPy's arrays.

Recorded as calls that write to their arguments.
"""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from typing import Any

from gradlite.backends import launches, libraries

STRIP = 16  # queries, as in heads.hpp
LEAST_SIZE = 1 << 12  # elements of the queries; fewer are not worth a library
DTYPES = {"f": "float32"}
# The places of the arguments that the functions write to.
WRITTEN = {"attend": (4, 5), "gradients": (6, 7, 8)}


def worth(q: Any, k: Any, v: Any) -> bool:
    """Whether compiled code is for NumPy's arrays of one dtype, and there is any."""
    large = q.size >= LEAST_SIZE and k.size > 0 < v.size
    return large and _library(q.dtype.char) is not None


def worth_masked(xp: Any, q: Any, k: Any, v: Any, mask: Any) -> bool:
    """The same of a mask that is broadcast to the scores, without which nothing is gained."""
    scores = (*q.shape[:-1], k.shape[-2])
    fits = mask.ndim <= q.ndim and all(m in (1, n) for m, n in zip(mask.shape[::-1], scores[::-1]))
    return fits and worth(q, k, v)


def in_parts(xp: Any, q: Any, k: Any, v: Any, mask: Any) -> bool:
    """The same for a compiled plan, which has loops of its own for every call of the rule."""
    return True


@lru_cache(256)
def room(queries: int, keys: int, causal: bool) -> int:
    """How many numbers of a head are kept for the gradients."""
    seen = [min(first + STRIP, keys) if causal else keys for first in range(0, queries, STRIP)]
    return STRIP * (sum(seen) + len(seen))


def attend(
    xp: Any, q: Any, k: Any, v: Any, strips: Any, out: Any, causal: bool, scale: float,
    mask: Any = None,
) -> bool:  # fmt: skip
    """Write softmax(scale q kᵀ + mask) v, and what the gradients need; whether that has been done.

    A mask has the shape of the scores: bools, or numbers of the others' dtype.
    """
    library = _library(q.dtype.char)
    if library is None or not library.attend_arrays(q, k, v, strips, out, causal, scale, mask):
        return False
    if launches.recordings:
        launches.note("attention")
    return True


def gradients(
    xp: Any, grad: Any, q: Any, k: Any, v: Any, strips: Any, dq: Any, dk: Any, dv: Any,
    causal: bool, scale: float,
) -> bool:  # fmt: skip
    """Write the gradients, None for those that nobody wants; whether that has been done."""
    library = _library(q.dtype.char)
    arrays = grad, q, k, v, strips, dq, dk, dv
    if library is None or not library.gradients_of_arrays(*arrays, causal, scale):
        return False
    if launches.recordings:
        launches.note("attention_gradients")
    return True


@cache
def _library(char: str) -> Any:
    library = libraries.called("attend", DTYPES[char]) if char in DTYPES else None
    if library is not None:
        numbers = ctypes.c_int, ctypes.c_double
        objects = (ctypes.py_object,) * 5
        library.attend_arrays.argtypes = (*objects, *numbers, ctypes.py_object)
        library.gradients_of_arrays.argtypes = (*(ctypes.py_object,) * 8, *numbers)
    return library
