"""Functions of elements, and gradients of some, by compiled code (``compiled/elements.hpp``).

They are those that take NumPy several passes, or slow ones. As `natively` has it, captured steps
that are compiled are of the rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.backends import elements
from gradlite.ops import natively


def made(xp: Any, name: str, *arrays: Any) -> Any:
    """What a function of elements.hpp makes of arrays of a shape; None where the rule is to run.

    A number may stand for the second array.
    """
    first, *more = arrays
    if first.size < elements.LEAST or xp not in natively.LAUNCHERS:
        return None
    dtype, shapes = first.dtype, [first.shape]
    if elements.FUNCTIONS[name][0] in elements.WITH_NUMBERS:
        shapes.append(())
    for k, other in enumerate(more):
        if other.__class__ in (int, float):
            more[k] = np.array(other, dtype)
        elif getattr(other, "dtype", None) != dtype or other.shape not in shapes:
            return None
    if elements.find(name, dtype.char) is None:
        return None
    return elements.values(xp, name, first, *more)


def slope(F: Any, name: str, grad: Any, saved: Any) -> Any:
    """A gradient times the slope at a saved value, alone in its tuple; None likewise."""
    found = None if F.tensors else made(F.xp, name, grad, saved)
    return None if found is None else (found,)


HALVES = ("float16", "bfloat16")
LEAST_CAST = 1 << 12  # elements; NumPy casts fewer in less time than a call takes


def cast(xp: Any, array: Any, dtype: Any) -> Any:
    """An array of float32 in half precision, or the other way round; None for NumPy to do it."""
    if array.size < LEAST_CAST or xp not in natively.LAUNCHERS or 0 in array.strides:
        return None
    kinds = array.dtype.name, dtype.name
    if kinds[1] in HALVES and kinds[0] == "float32":
        name = f"to_{kinds[1]}"
    elif kinds[0] in HALVES and kinds[1] == "float32":
        name = f"from_{kinds[0]}"
    else:
        return None
    if elements.find(name, "f") is None:
        return None
    return elements.values(xp, name, array, dtype=dtype)
