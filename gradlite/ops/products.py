"""Products of raw arrays for rules that multiply in the middle of something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite.ops.namespaces import NAMESPACES


def product_of(xp: Any) -> Callable[..., Any]:
    """What multiplies the matrices of an array library: a function ``(a, b, out=None)``."""
    return np.matmul if xp is np else product


def product(a: Any, b: Any, out: Any = None, alpha: float = 1.0) -> Any:
    """``alpha * a @ b`` for stacks of matrices, on a GPU with its backend's `gemm`."""
    F = NAMESPACES[a.__class__]
    if F.launcher is not None and F.launcher.multiplies:
        result = F.launcher.gemm.matmul(a, b, out, alpha)
        if result is not NotImplemented:
            return result
    result = F.xp.matmul(a, b, out=out)
    if alpha != 1.0:
        result *= a.dtype.type(alpha)
    return result
