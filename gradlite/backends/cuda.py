"""Detection of CUDA without importing CuPy before somebody asks for a CUDA device."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from typing import Any

_cache: tuple[bool, str] | None = None
_handed_out = False

INSTALL = 'pip install "gradlite[cuda12]" (or "gradlite[cuda13]" with a CUDA 13 driver)'
NO_CUPY = f"CuPy is not installed: {INSTALL}"
NO_DRIVER = (
    "no NVIDIA driver was found: install one for your GPU "
    f"(https://www.nvidia.com/drivers); CuPy comes with {INSTALL}"
)
NO_GPU = (
    "the NVIDIA driver sees no GPU: check `nvidia-smi` and the variable CUDA_VISIBLE_DEVICES; "
    f"CuPy comes with {INSTALL}"
)


def status() -> tuple[bool, str]:
    """Whether CUDA can be used, and if not, what is missing and how to get it.

    The cheap questions come first, so that a machine without CUDA never pays for
    importing CuPy: is CuPy installed, is there an NVIDIA driver, does it see a GPU.
    """
    global _cache
    if _cache is None:
        _cache = _detect()
    return _cache


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _detect() -> tuple[bool, str]:
    try:
        if "cupy" not in sys.modules and importlib.util.find_spec("cupy") is None:
            return False, NO_CUPY
    except (ImportError, ValueError):  # sys.modules["cupy"] = None, or a module without a spec
        return False, NO_CUPY
    try:
        ctypes.CDLL("libcuda.so.1" if sys.platform != "win32" else "nvcuda.dll")
    except OSError:
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


def module() -> Any:
    """The cupy module; RuntimeError saying what is missing when CUDA cannot be used."""
    global _handed_out
    ok, reason = status()
    if not ok:
        raise RuntimeError(f"CUDA is not available: {reason}")
    import cupy

    _handed_out = True
    return cupy


def in_use() -> bool:
    """Whether anything has asked for the cupy module."""
    return _handed_out
