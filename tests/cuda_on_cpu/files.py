"""The kernel files of the repository, compiled for the CPU."""

from __future__ import annotations

from functools import cache

from gradlite.backends.kernel_source import alone, source
from tests.cuda_on_cpu.module import CpuModule


@cache
def load(
    file: str, dtype: str = "f32", *, check: bool = True, only: str = "", places: bool = True
) -> CpuModule:
    """A kernel file, or only one of its kernels, compiled for a dtype: f16, bf16, f32 or f64.

    One kernel is compiled without the text of the others, and so not again when that changes.
    """
    text = alone(only.removesuffix(f"_{dtype}"), source(file)) if only else source(file)
    return CpuModule(text, (f"-DGRADLITE_DTYPE={dtype}",), check=check, only=only, places=places)
