"""A stand-in for ``nvmath.bindings.cublasLt`` on the stand-in for CuPy, for tests alone.

`install` lets gradlite find it where it looks for nvmath, so that the whole way of a product runs:
layouts, transposes, leading dimensions, batches, alignment, epilogues, workspaces. The calls are
those of the bindings; what cuBLASLt documents as an error, or is known to refuse, is refused here,
and the numbers come from NumPy, read and written where the pointers say.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from tests.cublaslt_stand_in import memory
from tests.cublaslt_stand_in.library import Library, cuBLASLtError
from tests.cupy_stand_in import MODULE, Array

__all__ = ["Library", "cuBLASLtError", "install"]


def install(monkeypatch: Any) -> Library:
    """Let gradlite find the stand-in where it looks for nvmath, until the test ends.

    The stand-in for CuPy has to be installed before.
    """
    memory.blocks.clear()
    monkeypatch.setattr(Array, "data", property(memory.data))
    library = Library(MODULE)
    nvmath, bindings = types.ModuleType("nvmath"), types.ModuleType("nvmath.bindings")
    bindings.cublasLt = library  # type: ignore[attr-defined]
    nvmath.bindings = bindings  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nvmath", nvmath)
    monkeypatch.setitem(sys.modules, "nvmath.bindings", bindings)
    return library
