"""What a recording asks of arrays, of NumPy's and of CuPy's alike: where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from gradlite.backends.memory import address


def on_gpu(array: Any) -> bool:
    """Whether an array is CuPy's."""
    return not isinstance(array, np.ndarray)


def owner(array: Any) -> Any:
    """The array that owns an array's memory."""
    if not isinstance(array, np.ndarray):
        return array if array.base is None else array.base
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def bounds(array: Any) -> tuple[int, int]:
    """The addresses of an array's first byte and of the one behind its last."""
    if isinstance(array, np.ndarray):
        return byte_bounds(array)
    start = address(array)
    if not array.size:
        return start, start
    last = sum((n - 1) * s for n, s in zip(array.shape, array.strides))
    return start, start + last + array.dtype.itemsize


def twin(array: Any) -> Any:
    """A copy that lies in memory of its own as the array does in its, gaps included."""
    if on_gpu(array):
        return array.copy("K")
    start, stop = bounds(array)
    place, memory = address(array) - start, np.empty(stop - start, np.uint8)
    copy: Any = np.ndarray(array.shape, array.dtype, memory, place, array.strides)
    np.copyto(copy, array)
    return copy


def part(memory: Any, offset: int, like: Any) -> Any:
    """An array in another one's memory, so many bytes behind its start; ``like``: of which form."""
    if on_gpu(memory):
        return type(memory)(like.shape, like.dtype, memory.data + offset, like.strides)
    return np.ndarray(like.shape, like.dtype, memory, offset, like.strides)


def content(array: Any) -> bytes:
    """The values of an array, read by the host."""
    return (array if isinstance(array, np.ndarray) else array.get()).tobytes()
