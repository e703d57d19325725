"""What functions of NumPy write to, and what they give: what the recorder knows of them by name."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gradlite.capturing.calls import CaptureError

# Functions that write to their first argument and return nothing of interest.
WRITERS = frozenset(
    (
        np.copyto, np.put, np.place, np.putmask, np.put_along_axis, np.fill_diagonal,
        np.ndarray.fill, np.ndarray.put, np.ndarray.sort, np.ndarray.partition, operator.setitem,
    )
)  # fmt: skip
# Functions whose result is no array, and depends on shapes and dtypes alone.
DESCRIPTIONS = frozenset(
    (
        np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.may_share_memory,
        np.shares_memory, np.iscomplexobj, np.isrealobj, np.broadcast_shapes,
    )
)  # fmt: skip
# What arrays of NumPy's may hold but numbers: objects, text, times.
NO_NUMBERS = frozenset("OSUMm")
BYTE = np.dtype(np.uint8)
# The names that such functions have in CuPy.
DESCRIBING = frozenset(function.__name__ for function in DESCRIPTIONS)


def written(function: Callable[..., Any], args: Sequence[Any], given: Sequence[Any]) -> list[Any]:
    """The arrays that a call writes to.

    Args:
        function, args: the call.
        given: the places that it is given for its results, None for each that is not.
    """
    given = [o for o in given if o is not None]
    if given:
        return given
    name = getattr(function, "__name__", "")
    owner = getattr(function, "__self__", None)
    if function in WRITERS or (name == "at" and isinstance(owner, np.ufunc)):
        return [args[0]]
    return []


def refuse_objects(function: Callable[..., Any], results: Iterable[Any]) -> None:
    """CaptureError for arrays of what a replay has no memory for, or could not compare."""
    parts = [p for r in results for p in (r if isinstance(r, (tuple, list)) else [r])]
    kind = next((p.dtype for p in parts if getattr(p, "dtype", BYTE).kind in NO_NUMBERS), None)
    if kind is not None:
        raise CaptureError(
            f"{getattr(function, '__name__', function)}() makes an array of {kind.name}, which "
            "a recorded step cannot repeat: keep to arrays of numbers"
        )
