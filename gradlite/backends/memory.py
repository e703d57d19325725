"""Where arrays lie, NumPy's and CuPy's alike."""

from __future__ import annotations

from typing import Any

import numpy as np


def address(array: Any) -> int:
    """Where the first element of an array lies. No address of a GPU is one of the host's too."""
    if isinstance(array, np.ndarray):
        return array.__array_interface__["data"][0]  # type: ignore[no-any-return]
    return int(array.data.ptr)


def steps(array: Any) -> tuple[int, ...]:
    """The strides of an array, counted in elements."""
    item = array.itemsize
    return tuple([s // item for s in array.strides])
