"""Detection of CUDA without importing CuPy before somebody asks for a CUDA device."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import threading
from collections.abc import Callable
from typing import Any

from gradlite.backends.precision import matmul as matmul
from gradlite.backends.sdp import cudnn_sdp_enabled as cudnn_sdp_enabled
from gradlite.backends.sdp import enable_cudnn_sdp as enable_cudnn_sdp
from gradlite.backends.sdp import enable_flash_sdp as enable_flash_sdp
from gradlite.backends.sdp import enable_math_sdp as enable_math_sdp
from gradlite.backends.sdp import enable_mem_efficient_sdp as enable_mem_efficient_sdp
from gradlite.backends.sdp import flash_sdp_enabled as flash_sdp_enabled
from gradlite.backends.sdp import math_sdp_enabled as math_sdp_enabled
from gradlite.backends.sdp import mem_efficient_sdp_enabled as mem_efficient_sdp_enabled
from gradlite.backends.sdp import sdp_kernel as sdp_kernel

_cache: tuple[bool, str] | None = None
_handed_out = _busy = False
_first_use = threading.RLock()  # those who are told of it may ask for the module themselves
_when_used: list[Callable[[Any], None]] = []

INSTALL = 'pip install "gradlite[cuda12]" (or "gradlite[cuda13]" with a CUDA 13 driver)'
NO_CUDA = (
    "this machine has neither an NVIDIA driver nor CuPy. Without an NVIDIA GPU use device='cpu'; "
    "with one install its driver (https://www.nvidia.com/drivers), and CuPy: "
    f"{INSTALL}"
)
NO_CUPY = f"CuPy is not installed: {INSTALL}"
NO_DRIVER = (
    "no NVIDIA driver was found: install one for your GPU "
    f"(https://www.nvidia.com/drivers); CuPy comes with {INSTALL}"
)
NO_GPU = (
    "the NVIDIA driver sees no GPU: check `nvidia-smi` and the variable CUDA_VISIBLE_DEVICES; "
    f"CuPy comes with {INSTALL}"
)


def is_built() -> bool:
    """Whether CuPy is installed; `gradlite.cuda.is_available` says whether it can be used."""
    return _has_cupy()


def status() -> tuple[bool, str]:
    """Whether CUDA can be used, and if not, what is missing and how to get it.

    The cheap questions come first, so that a machine without CUDA never pays for
    importing CuPy: is CuPy installed, is there an NVIDIA driver. Then CuPy says whether the
    driver is new enough and sees a GPU.
    """
    global _cache
    if _cache is None:
        _cache = _detect()
    return _cache


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _has_cupy() -> bool:
    try:
        return "cupy" in sys.modules or importlib.util.find_spec("cupy") is not None
    except (ImportError, ValueError):  # sys.modules["cupy"] = None, or a module without a spec
        return False


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1" if sys.platform != "win32" else "nvcuda.dll")
    except OSError:
        return False
    return True


def _detect() -> tuple[bool, str]:
    if not _has_cupy():
        return False, NO_CUPY if _has_driver() else NO_CUDA
    if not _has_driver():
        return False, NO_DRIVER
    try:
        import cupy

        if cupy.cuda.is_available():
            return True, ""
        runtime = cupy.cuda.runtime
        driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        if driver == 0:
            return False, NO_DRIVER
        # Within one major version of CUDA, newer libraries run on an older driver.
        if driver // 1000 < needed // 1000:
            return False, (
                f"the NVIDIA driver is too old: it supports CUDA {_version(driver)}, and CuPy was "
                f"built for CUDA {_version(needed)}. Update the driver, or install the CuPy that "
                f"fits it: {INSTALL}"
            )
        count = runtime.getDeviceCount()
        return (True, "") if count else (False, NO_GPU)
    except Exception as error:  # CuPy raises many types here: the text is what helps
        if "NoDevice" in str(error):
            return False, NO_GPU
        return False, f"CuPy cannot use the GPU: {error}. To install it anew: {INSTALL}"


def module(index: int | None = None) -> Any:
    """The cupy module, for a GPU when its number is given.

    Raises:
        RuntimeError: CUDA cannot be used, and what is missing; or there is no such GPU.
    """
    ok, reason = status()
    if not ok:
        raise RuntimeError(f"CUDA is not available: {reason}")
    import cupy

    if _busy or not _handed_out:
        _hand_out(cupy)
    if index:  # where CUDA can be used, there is a first one
        count = cupy.cuda.runtime.getDeviceCount()
        if index >= count:
            there = "one GPU, cuda:0" if count == 1 else f"GPUs from cuda:0 to cuda:{count - 1}"
            raise RuntimeError(
                f"CUDA error: invalid device ordinal: there is no cuda:{index} but {there}"
            )
    return cupy


def _hand_out(cupy: Any) -> None:
    """Prepare everything for CuPy's arrays, or wait for the thread that does."""
    global _handed_out, _busy
    with _first_use:
        if _handed_out:
            return
        _handed_out = _busy = True
        try:
            import cupyx  # noqa: F401  # threads that import it at once may find it half done

            # It is the one place that every array of a GPU comes through.
            cupy.cuda.set_allocator(explaining(cupy, cupy.cuda.get_allocator()))
            for call in _when_used:
                call(cupy)
        finally:
            _busy = False


def when_used(call: Callable[[Any], None]) -> Callable[[Any], None]:
    """Let a function be called with the cupy module before anybody gets an array of it."""
    _when_used.append(call)
    return call


class OutOfMemoryError(RuntimeError):
    """A GPU's memory does not suffice; the message says what was asked for and what is free."""


def explaining(cupy: Any, allocate: Callable[[int], Any]) -> Callable[[int], Any]:
    """An allocator of CuPy's that says what PyTorch would when a GPU is full.

    The error is CuPy's too, so programs that catch that one still do.
    """
    full: Any = cupy.cuda.memory.OutOfMemoryError

    class CudaOutOfMemoryError(OutOfMemoryError, full):  # type: ignore[misc]
        def __init__(self, message: str) -> None:
            RuntimeError.__init__(self, message)

        def __reduce__(self) -> Any:
            return OutOfMemoryError, self.args

    CudaOutOfMemoryError.__name__ = CudaOutOfMemoryError.__qualname__ = OutOfMemoryError.__name__

    def allocate_or_explain(size: int) -> Any:
        try:
            return allocate(size)
        except full as error:
            raise CudaOutOfMemoryError(_full_gpu(cupy, size)) from error

    return allocate_or_explain


def _full_gpu(cupy: Any, size: int) -> str:
    index = cupy.cuda.runtime.getDevice()
    free, total = cupy.cuda.runtime.memGetInfo()
    pool = cupy.get_default_memory_pool()
    used, reserved = pool.used_bytes(), pool.total_bytes()
    limit = pool.get_limit()
    allowed = f"{in_units(limit)} allowed (set_per_process_memory_fraction); " if limit else ""
    return (
        f"CUDA out of memory. Tried to allocate {in_units(size)}. GPU {index} has a total capacity "
        f"of {in_units(total)} of which {in_units(free)} is free. {allowed}"
        f"{in_units(used)} is held by tensors, "
        f"and {in_units(reserved - used)} is reserved by the memory pool but unused. A smaller "
        "batch, no_grad() for evaluation, utils.checkpoint, autocast, or cuda.empty_cache() may "
        "help."
    )


def in_units(number: int) -> str:
    """A number of bytes as people read it."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return f"{number} bytes"


def in_use() -> bool:
    """Whether anything has asked for the cupy module."""
    return _handed_out
