"""NumPy as the CPU's array library: what of it has to be arranged for tensors.

NumPy warns about overflow, division by zero and invalid operations; tensors, like PyTorch's,
give inf and NaN in silence. `quiet` and `loud` switch that off and on around the array calls
of an op, for this thread and asyncio task alone. `numpy.errstate` does the same at six times
the cost, which is more than a small op itself takes.

NumPy takes the memory of its arrays from the C library; `keep_memory` lets it stay there.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

quiet: Callable[[], Any]  # silences floating-point warnings; returns what `loud` needs
loud: Callable[[Any], None]  # undoes `quiet`

try:
    from numpy._core import umath

    _state = umath._extobj_contextvar
    _silence = umath._make_extobj(all="ignore")

    quiet = functools.partial(_state.set, _silence)
    loud = _state.reset
except (ImportError, AttributeError):  # a NumPy that keeps this state elsewhere
    quiet = functools.partial(np.seterr, all="ignore")

    def loud(token: Any) -> None:
        np.seterr(**token)


try:  # three times as fast as np.maximum(x, 0) on floats
    from numpy._core.umath import clip as clip  # type: ignore[attr-defined]
except ImportError:  # pragma: no cover - older or newer NumPy without it
    clip = np.clip


# Numbers of malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_DECIDED_BY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_memory() -> bool:
    """Keep the memory of freed arrays for the next ones; whether the C library was told so.

    A step frees what it took before, and the next one takes the same again. glibc hands large
    blocks back to the system in between, and to take them again page by page is a third of the
    time of `benchmarks.training --workloads W4,W5`. Up to a gigabyte stays; arrays of more than
    32 MiB still go back at once. Who sets one of glibc's own variables has decided otherwise.
    """
    if any(name in os.environ for name in _DECIDED_BY):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 25) and mallopt(_TRIM_THRESHOLD, 1 << 30))


keep_memory()
