"""The version of the package, and of CUDA where it can be used.

>>> import gradlite
>>> gradlite.version.__version__ == gradlite.__version__
True
"""

from __future__ import annotations

from typing import Any

from gradlite.backends import cuda as backend

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Asked for, and not when imported: it is CuPy that knows.
    if name != "cuda":
        raise AttributeError(f"module 'gradlite.version' has no attribute {name!r}")
    if not backend.status()[0]:
        return None
    number = backend.module().cuda.runtime.runtimeGetVersion()
    return f"{number // 1000}.{number % 1000 // 10}"
