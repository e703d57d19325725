"""Libraries of C++ functions on the CPU's arrays that are compiled once, at their first use.

Their text is in `gradlite.backends.compiled`. Captured steps call them through pointers.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from functools import cache
from importlib.resources import files

import numpy as np

from gradlite.backends import native
from gradlite.backends.kernel_source import expand
from gradlite.backends.threads import use_threads

OPTIONS = (
    "-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno",
    "-fno-trapping-math", "-fno-strict-aliasing", "-fwrapv", "-fopenmp-simd", "-fPIC", "-shared",
    "-Wno-psabi", "-fno-associative-math", "-fsigned-zeros",
)  # fmt: skip
# Written with vectors throughout, single precision's products gain nothing from what -O3 tries,
# which takes three times as long. Those of double precision let the compiler transpose.
QUICKLY = {("multiply", "float"): ("-O2",)}
# What a library needs besides prelude.hpp and its own file.
NEEDED = {
    "products": ("shuffles", "tiles", "zeros"),
    "convolution": ("shuffles", "images"),
    "batches": ("shuffles", "images"),
    "maxima": ("images",),
    "planes": ("shuffles", "images", "batches"),
    "few": ("shuffles", "images", "convolution"),
    "depthwise": ("shuffles", "images", "convolution"),
    "multiply": ("shuffles", "tiles", "zeros", "products", "arrays"),
    "small": ("arrays",),
    "sums": ("arrays",),
    "extremes": ("arrays",),
    "elements": ("gamma", "arrays"),
    "attention": ("shuffles", "heads"),
    "attend": ("shuffles", "heads", "attention", "arrays"),
}
# The types of C++ whose numbers functions outside of captured steps are compiled for.
REAL = {"float32": "float", "float64": "double"}


def options() -> tuple[str, ...]:
    """The compiler's options on this machine."""
    return (*OPTIONS, *native.vector_functions())


def load(name: str, real: str = "", last: str = "") -> ctypes.CDLL:
    """A library by the name of its file, compiled unless the cache has it.

    Args:
        name: the file without its ending.
        real: what REAL is in it.
        last: a line to come behind it.

    Raises:
        RuntimeError: there is no compiler, or it refuses the text.
        OSError: the cache folder cannot be written, or the library not loaded.
    """
    whole = text("prelude", *NEEDED.get(name, ()), name)
    if real:
        header = f"#define GRADLITE_OBJECT_HEADER {object.__basicsize__}\n"
        whole = f"{header}#define REAL {real}\n{whole}\n{last}\n"
    own = (*options(), *QUICKLY.get((name, real), ()))
    library = ctypes.CDLL(str(native.build(name, whole, own)))
    use_threads(library)
    return library


@cache
def found(name: str, dtype: str, last: str = "") -> ctypes.CDLL | None:
    """A library for numbers of one dtype, for calls outside of captured steps.

    None where there is no compiler, where ``GRADLITE_NATIVE`` is 0, and for other dtypes.
    """
    if dtype not in REAL or os.environ.get("GRADLITE_NATIVE") == "0":
        return None
    try:
        return load(name, REAL[dtype], last)
    except (RuntimeError, OSError, subprocess.SubprocessError):
        return None


def functions(name: str, dtype: str, counts: dict[str, int]) -> ctypes.CDLL | None:
    """`found`, of the libraries whose functions take pointers: so many, by their names."""
    library = found(name, dtype)
    for function, count in counts.items() if library is not None else ():
        pointers = getattr(library, function)
        pointers.argtypes, pointers.restype = (ctypes.c_void_p,) * count, None
    return library


def called(name: str, dtype: str, last: str = "") -> ctypes.PyDLL | None:
    """`found`, of the libraries whose functions take NumPy's arrays (``arrays.hpp``)."""
    library = found(name, dtype, last)
    if library is None:
        return None
    # The same library once more: those that take Python's objects are called with its lock held.
    library = ctypes.PyDLL(library._name)
    library.arrays_bind.argtypes, library.arrays_bind.restype = (ctypes.py_object,) * 4, None
    library.arrays_bind(None, np.ndarray, np.dtype(dtype), np.dtype(np.bool_))
    return library


def text(*names: str) -> str:
    """The text of some of the files, one after the other, and of what they include of kernels/."""
    folder = files("gradlite.backends.compiled")
    texts = [folder.joinpath(f"{name}.hpp").read_text("utf-8") for name in names]
    return expand("compiled", "\n".join(texts))
