"""Copies between the host and GPUs, from one GPU to another, and page-locked memory.

A copy is asynchronous where the caller allows it (``non_blocking``) and the host's memory is
page-locked. It then is kept until the GPU has read it, whatever becomes of the tensor.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import numpy as np

from gradlite.backends import asserts, cuda

_in_flight: deque[tuple[Any, Any]] = deque()  # an event, and the host array it stands for
_lock = threading.Lock()  # of the above: a thread must not take away what another has looked at


def to_gpu(source: Any, index: int | None, dtype: Any, copy: bool, non_blocking: bool) -> Any:
    """An array of the host or of a GPU as an array of a GPU, in a dtype."""
    cupy = cuda.module(index)
    with cupy.cuda.Device(index) as target:
        if isinstance(source, np.ndarray):
            locked = is_pinned(source)
            ready = source.dtype == dtype and source.flags.c_contiguous
            if not (non_blocking and ready and locked):
                # What is not page-locked CuPy copies to a place of its own first, the rest while
                # the caller may already write to it.
                return cupy.array(source, dtype=dtype, blocking=locked)
            out = cupy.empty(source.shape, dtype)
            out.set(source)
            _keep(cupy, source)
            return out
        if getattr(source, "device", target) == target:
            return cupy.array(source, dtype=dtype, copy=copy)
        return _between(cupy, source, target).astype(dtype, copy=False)


def _between(cupy: Any, source: Any, target: Any) -> Any:
    """A copy of another GPU's array on the current one, in the order of both GPUs' streams."""
    here = cupy.cuda.get_current_stream()
    with source.device:
        source = source if source.flags.c_contiguous else cupy.ascontiguousarray(source)
        there = cupy.cuda.get_current_stream()
        made = there.record(cupy.cuda.Event(disable_timing=True))
    here.wait_event(made)
    out = source.copy()
    copied = here.record(cupy.cuda.Event(disable_timing=True))
    with source.device:
        there.wait_event(copied)  # before the memory of the source is used for something else
    return out


def to_host(array: Any, non_blocking: bool) -> np.ndarray[Any, Any]:
    """An array of a GPU as an array of the host.

    With ``non_blocking`` its values are there only when the GPU's current stream has got there.
    """
    if not (non_blocking and array.size):
        values = array.get()
        asserts.check()
        return values  # type: ignore[no-any-return]
    with array.device:
        out = empty_pinned(array.shape, array.dtype)
        array.get(out=out, blocking=False)
        _keep(cuda.module(), out)
    return out


def _keep(cupy: Any, array: Any) -> None:
    event = cupy.cuda.Event(disable_timing=True)
    event.record(cupy.cuda.get_current_stream())
    with _lock:
        while _in_flight and _in_flight[0][0].done:
            _in_flight.popleft()
    keep_until(event, array)


def keep_until(event: Any, array: Any) -> None:
    """Keep page-locked memory until an event that has been recorded: CuPy's pool does not wait."""
    _in_flight.append((event, array))  # without the lock: it may be a finalizer that calls


# ------------------------------------------------------------------------- page-locked memory
def empty_pinned(shape: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """A new NumPy array in page-locked memory, with any values."""
    cuda.module()
    import cupyx

    return cupyx.empty_pinned(shape, dtype)  # type: ignore[no-any-return]


def is_pinned(array: np.ndarray[Any, Any]) -> bool:
    """Whether a NumPy array lies in page-locked memory."""
    if not (cuda.in_use() and array.size):
        return False
    runtime = cuda.module().cuda.runtime
    kind = runtime.pointerGetAttributes(array.ctypes.data).type
    return bool(kind == runtime.memoryTypeHost)


def pinned(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array itself if it is page-locked (or empty), or a copy that is."""
    if not array.size or is_pinned(array):
        return array
    out = empty_pinned(array.shape, array.dtype)
    out[...] = array
    return out
