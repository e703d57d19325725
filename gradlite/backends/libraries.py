"""Libraries of C++ functions on the CPU's arrays that are compiled once, at their first use.

Their text is in `gradlite.backends.compiled`. Captured steps call them through pointers.
"""

from __future__ import annotations

import ctypes
from importlib.resources import files

from gradlite.backends import native
from gradlite.backends.threads import use_threads

OPTIONS = (
    "-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno",
    "-fno-trapping-math", "-fno-strict-aliasing", "-fwrapv", "-fopenmp-simd", "-fPIC", "-shared",
    "-Wno-psabi", "-fno-associative-math", "-fsigned-zeros",
)  # fmt: skip
# What a library needs besides prelude.hpp and its own file.
NEEDED = {"products": ("shuffles",), "convolution": ("images",), "batches": ("images",)}


def load(name: str) -> ctypes.CDLL:
    """A library by the name of its file, compiled unless the cache has it.

    Raises:
        RuntimeError: there is no compiler, or it refuses the text.
        OSError: the cache folder cannot be written, or the library not loaded.
    """
    whole = text("prelude", *NEEDED.get(name, ()), name)
    library = ctypes.CDLL(str(native.build(name, whole, OPTIONS)))
    use_threads(library)
    return library


def text(*names: str) -> str:
    """The text of some of the files, one after the other."""
    folder = files("gradlite.backends.compiled")
    return "\n".join(folder.joinpath(f"{name}.hpp").read_text("utf-8") for name in names)
