"""A CUDA driver for a machine without a GPU: CuPy itself runs on it, for tests alone.

    from tests import cuda_driver

    cuda_driver.install("lazy")  # before anything asks for CUDA
    import cupy

Memory is the host's, kernels are compiled for the CPU and run thread by thread
(tests/cuda_on_cpu), and streams do their work when the mode says:

    eager   at once
    lazy    when something waits for it, and what nobody waits for not at all
    random  some of it at once, in an order that the streams and events allow

so that a wait that is missing, memory that is freed too early and page-locked memory that is
written to too early give wrong numbers. What CuPy has compiled for GPUs alone (CUB, cuBLAS,
cuSOLVER, cuRAND, cuFFT) is not there; Thrust's sorting and cuBLASLt's products are.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from tests.cuda_driver import build, compile

MODES = ("eager", "lazy", "random")
_library: Any = None


def install(mode: str = "eager", devices: int = 1, seed: int = 0) -> Any:
    """Let this process have a driver; called again, it only changes how that works.

    Raises:
        RuntimeError: it cannot be had on this machine, or CuPy has been used without it.
    """
    global _library
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
    if _library is None:
        reason = build.why_not()
        if reason is not None:
            raise RuntimeError(reason)
        if "cupy" in sys.modules:
            raise RuntimeError("CuPy has been imported already")
        _library = _install()
    _library.cuda_driver_set(mode.encode(), devices, seed)
    return _library


def _install() -> Any:
    library = build.load()
    library.cuda_driver_set_compiler(compile.answer)
    place = build.kernels()
    os.environ["CUPY_CACHE_DIR"] = f"{place}/cupy"
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB is compiled for GPUs
    os.environ["CUDA_PATH"] = os.environ["CUDA_HOME"] = f"{place}/toolkit"
    import cupy.cuda.thrust
    import cupy_backends.cuda.api.runtime as runtime

    build.redirect(str(runtime.__file__), library, "(cuda[A-Z]\\w*)")
    build.redirect(
        str(cupy.cuda.thrust.__file__), library, r"(_Z\d+thrust_(?:sort|argsort|lexsort)\w+)"
    )
    return library
