"""``python -m gradlite info``: versions, devices, and what CUDA would need."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib import metadata

import numpy as np

import gradlite
from gradlite.backends import cuda, gemm, native

CUPY_PACKAGES = ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy")
EXAMPLES = ("scikit-learn", "matplotlib", "tqdm", "safetensors")


def info() -> int:
    """Print the report; returns the exit code 0."""
    for name, value in report():
        print(f"{name:<13}{value}")
    return 0


def report() -> Iterator[tuple[str, str]]:
    """Names and values of the report, in the order of their lines."""
    yield "gradlite", gradlite.__version__
    yield "python", f"{platform.python_version()} ({platform.platform()})"
    yield "numpy", f"{np.__version__} ({blas()})"
    cupy = next((f"{name} {v}" for name in CUPY_PACKAGES if (v := version(name))), None)
    yield "cupy", cupy or "not installed"
    for name in EXAMPLES:
        yield name, version(name) or 'not installed: pip install "gradlite[examples]"'
    yield "ml_dtypes", version("ml_dtypes") or "not installed: bfloat16 needs it"
    yield "compiler", compiler()
    ok, reason = cuda.status()
    yield "devices", f"cpu ({os.cpu_count()} cores)"
    if not ok:
        yield "", "no cuda"
        yield "for CUDA", reason
        return
    runtime = cuda.module().cuda.runtime
    for number in range(runtime.getDeviceCount()):
        properties = runtime.getDeviceProperties(number)
        memory = properties["totalGlobalMem"] / 2**30
        yield "", f"cuda:{number} ({properties['name'].decode()}, {memory:.0f} GiB)"
    yield "products", gemm.described(gemm.gemm(cuda.module()))


def compiler() -> str:
    """What compiles code for ops on the CPU and for captured steps, and where that is kept."""
    found, folder = native.compiler(), native.cache_folder()
    if os.environ.get("GRADLITE_NATIVE") == "0":
        return "not used: GRADLITE_NATIVE is 0"
    if found is None:
        return "not found: with g++ or clang++ captured steps and large ops are faster"
    if native.launcher() is None:
        return f"{found}, but it does not work, or {folder} cannot be written"
    return f"{found}, compiled code is kept in {folder}"


def version(package: str) -> str | None:
    """The installed version of a package, found without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def blas() -> str:
    """The library that NumPy multiplies matrices with."""
    try:
        found = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"BLAS: {found['name']} {found['version']}"
    except (KeyError, TypeError):
        return "BLAS unknown"
