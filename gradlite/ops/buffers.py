"""Tensors on the memory of buffers: `frombuffer`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.creation import finish
from gradlite.tensor import Tensor

__all__ = ["frombuffer"]


def frombuffer(
    buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Tensor:
    """A vector on the memory of an object that has Python's buffer protocol, on the CPU.

    Args:
        buffer: such as ``bytearray``, ``array.array`` or a memory map.
        dtype: of the elements.
        count: how many of them; all that there are when negative.
        offset: bytes in front of the first one.

    >>> import gradlite
    >>> gradlite.frombuffer(bytearray([1, 0, 2, 0]), dtype=gradlite.int16)
    tensor([1, 2], dtype=gradlite.int16)

    Raises:
        ValueError: not a buffer, no element, or elements that do not fit into it.
    """
    try:
        view = memoryview(buffer)
    except TypeError:
        raise ValueError("object does not implement Python buffer protocol.") from None
    wanted = dtypes.as_dtype(dtype)
    length, size = view.nbytes, wanted.itemsize
    if not length or not count:
        raise ValueError(f"both buffer length ({length}) and count ({count}) must not be 0")
    if not 0 <= offset < length:
        raise ValueError(
            f"offset ({offset} bytes) must be non-negative and no greater than buffer length "
            f"({length} bytes) minus 1"
        )
    if count < 0 and (length - offset) % size:
        raise ValueError(
            f"buffer length ({length - offset} bytes) after offset ({offset} bytes) must be a "
            f"multiple of element size ({size})"
        )
    if count > 0 and offset + count * size > length:
        raise ValueError(
            f"requested buffer length ({count} * {size} bytes) after offset ({offset} bytes) must "
            f"not be greater than actual buffer length ({length} bytes)"
        )
    if view.readonly:
        warnings.warn(NOT_WRITABLE, stacklevel=2)
    return finish(np.frombuffer(buffer, wanted.numpy, max(count, -1), offset), requires_grad)


NOT_WRITABLE = (
    "The given buffer is not writable, and PyTorch does not support non-writable tensors. This "
    "means you can write to the underlying (supposedly non-writable) buffer using the tensor. You "
    "may want to copy the buffer to protect its data or make it writable before converting it to a "
    "tensor."
)
