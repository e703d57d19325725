"""What PyTorch calls the accelerator: CUDA where it can be used, and none elsewhere.

>>> import gradlite
>>> use = gradlite.accelerator.is_available()
>>> device = gradlite.accelerator.current_accelerator() if use else gradlite.device("cpu")
>>> gradlite.ones(2, device=device).sum().item()
2.0
"""

from __future__ import annotations

import warnings

from gradlite import cuda
from gradlite.cuda.devices import DeviceLike
from gradlite.device import device as Device

__all__ = [
    "current_accelerator",
    "current_device_idx",
    "current_device_index",
    "current_stream",
    "device_count",
    "device_index",
    "empty_cache",
    "get_memory_info",
    "is_available",
    "max_memory_allocated",
    "memory_allocated",
    "memory_reserved",
    "reset_peak_memory_stats",
    "set_device_idx",
    "set_device_index",
    "synchronize",
]


def is_available() -> bool:
    """Whether there is an accelerator. Never raises."""
    return cuda.is_available()


def device_count() -> int:
    """The number of accelerators; 0 without one."""
    return cuda.device_count()


def current_accelerator(check_available: bool = False) -> Device | None:
    """The accelerator, ``device(type='cuda')`` without a number; None where there is none.

    Args:
        check_available: changes nothing: what cannot be used is not returned either way.
    """
    return Device("cuda") if cuda.is_available() else None


def _needed() -> None:
    if not cuda.is_available():
        raise RuntimeError("Cannot access accelerator device when none is available.")


def current_device_index() -> int:
    """The number of the current accelerator.

    Raises:
        RuntimeError: as all functions below, where there is none.
    """
    _needed()
    return cuda.current_device()


def set_device_index(device: DeviceLike, /) -> None:
    """Make an accelerator the current one; a negative number changes nothing."""
    _needed()
    cuda.set_device(device)


def current_device_idx() -> int:
    """`current_device_index`: deprecated."""
    warnings.warn("Use `current_device_index` instead.", FutureWarning, stacklevel=2)
    return current_device_index()


def set_device_idx(device: DeviceLike, /) -> None:
    """`set_device_index`: deprecated."""
    warnings.warn("Use `set_device_index` instead.", FutureWarning, stacklevel=2)
    set_device_index(device)


class device_index:
    """Context manager: the current accelerator inside the block; None: no change."""

    def __init__(self, device: int | None, /) -> None:
        self.idx = device

    def __enter__(self) -> None:
        if self.idx is not None:
            _needed()
            self._entered = cuda.device(self.idx)
            self._entered.__enter__()

    def __exit__(self, *exc: object) -> None:
        if self.idx is not None:
            self._entered.__exit__(*exc)


def current_stream(device: DeviceLike = None, /) -> cuda.Stream:
    """The stream that work of this thread goes to."""
    _needed()
    return cuda.current_stream(device)


def synchronize(device: DeviceLike = None, /) -> None:
    """Wait until an accelerator has done everything it was asked to do."""
    _needed()
    cuda.synchronize(device)


def empty_cache() -> None:
    """Give the memory that no tensor holds back to the device."""
    _needed()
    cuda.empty_cache()


def memory_allocated(device_index: DeviceLike = None, /) -> int:
    """Bytes held by tensors."""
    _needed()
    return cuda.memory_allocated(device_index)


def max_memory_allocated(device_index: DeviceLike = None, /) -> int:
    """The most bytes held by tensors at once since `reset_peak_memory_stats`."""
    _needed()
    return cuda.max_memory_allocated(device_index)


def memory_reserved(device_index: DeviceLike = None, /) -> int:
    """Bytes held by the allocator."""
    _needed()
    return cuda.memory_reserved(device_index)


def reset_peak_memory_stats(device_index: DeviceLike = None, /) -> None:
    """Start measuring `max_memory_allocated` anew."""
    _needed()
    cuda.reset_peak_memory_stats(device_index)


def get_memory_info(device_index: DeviceLike = None, /) -> tuple[int, int]:
    """Free and total bytes of the device's memory."""
    _needed()
    return cuda.mem_get_info(device_index)
