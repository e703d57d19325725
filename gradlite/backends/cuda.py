"""Detection of CUDA without importing CuPy before somebody asks for a CUDA device."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from typing import Any

_cache: tuple[bool, str] | None = None

INSTALL = 'pip install "gradlite[cuda12]" (or "gradlite[cuda13]" with a CUDA 13 driver)'


def status() -> tuple[bool, str]:
    """Whether CUDA can be used, and if not, what is missing and how to get it.

    The cheap questions come first, so that a machine without CUDA never pays for
    importing CuPy: is CuPy installed, is there an NVIDIA driver, does it see a GPU.
    """
    global _cache
    if _cache is None:
        _cache = _detect()
    return _cache


def _detect() -> tuple[bool, str]:
    if "cupy" not in sys.modules and importlib.util.find_spec("cupy") is None:
        return False, f"CuPy is not installed: {INSTALL}"
    try:
        ctypes.CDLL("libcuda.so.1" if sys.platform != "win32" else "nvcuda.dll")
    except OSError:
        if "cupy" not in sys.modules:
            return False, "no NVIDIA driver was found: install one for your GPU, then try again"
    try:
        import cupy

        if cupy.cuda.is_available():
            return True, ""
        if cupy.cuda.runtime.driverGetVersion() == 0:
            return False, "no NVIDIA driver was found: install one for your GPU, then try again"
        count = cupy.cuda.runtime.getDeviceCount()
        return (True, "") if count else (False, "the NVIDIA driver sees no GPU")
    except Exception as error:  # CuPy raises many types here: the text is what helps
        return False, f"CuPy cannot use the GPU: {error}"


def module() -> Any:
    """The cupy module; RuntimeError saying what is missing when CUDA cannot be used."""
    ok, reason = status()
    if not ok:
        raise RuntimeError(f"CUDA is not available: {reason}")
    import cupy

    return cupy
