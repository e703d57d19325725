"""The kernel files of the repository, compiled for the CPU."""

from __future__ import annotations

from functools import cache

from gradlite.backends.kernel_source import source
from tests.cuda_on_cpu.module import CpuModule


@cache
def load(file: str, dtype: str = "f32", *, check: bool = True) -> CpuModule:
    """A kernel file compiled for a storage dtype: f16, bf16, f32 or f64."""
    return CpuModule(source(file), (f"-DGRADLITE_DTYPE={dtype}",), check=check)
