"""The memory behind the addresses that the stand-in is called with."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.cupy_stand_in.arrays import Pointer

# By the address where an array that owns its memory begins.
blocks: weakref.WeakValueDictionary[int, np.ndarray[Any, Any]] = weakref.WeakValueDictionary()


class IllegalAddressError(RuntimeError):
    """What a GPU answers when a kernel leaves the memory it was given."""


def data(array: Any) -> Pointer:
    """``cupy.ndarray.data``: whoever asks for an address makes its memory known."""
    blocks[array.root.ctypes.data] = array.root
    return Pointer(array.memory, array.root, array.host.ctypes.data)


def owners(addresses: Sequence[int]) -> list[np.ndarray[Any, Any]]:
    """The arrays in which the addresses lie; who keeps them keeps their memory."""
    return [
        owner
        for start, owner in list(blocks.items())
        if any(start <= address < start + owner.nbytes for address in addresses)
    ]


def view(
    what: str, address: int, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...]
) -> np.ndarray[Any, Any]:
    """The elements at an address; shape and strides in elements.

    Raises:
        IllegalAddressError: some of them are in no array, or not in the one where the first is.
    """
    dtype = np.dtype(dtype)
    last = sum((n - 1) * s for n, s in zip(shape, strides))
    size = (last + 1) * dtype.itemsize
    first = blocks.get(address)  # most matrices begin where their memory does
    for start, owner in [(address, first)] if first is not None else list(blocks.items()):
        if start <= address and address + size <= start + owner.nbytes:
            flat = np.frombuffer((ctypes.c_byte * size).from_address(address), dtype)
            steps = [s * dtype.itemsize for s in strides]
            return np.lib.stride_tricks.as_strided(flat, shape, steps)
    raise IllegalAddressError(f"cudaErrorIllegalAddressError: {what} leaves the array it begins in")
