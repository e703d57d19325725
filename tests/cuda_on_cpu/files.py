"""The kernel files of the repository, compiled for the CPU."""

from __future__ import annotations

from functools import cache

from gradlite.backends.kernel_source import source
from tests.cuda_on_cpu.module import CpuModule


@cache
def load(file: str, dtype: str = "f32", *, check: bool = True, only: str = "") -> CpuModule:
    """A kernel file, or only one of its kernels, compiled for a dtype: f16, bf16, f32 or f64."""
    return CpuModule(source(file), (f"-DGRADLITE_DTYPE={dtype}",), check=check, only=only)
