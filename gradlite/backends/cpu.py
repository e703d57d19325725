"""NumPy as the CPU's array library: what of it has to be arranged for tensors.

NumPy warns about overflow, division by zero and invalid operations; tensors, like PyTorch's,
give inf and NaN in silence. `quiet` and `loud` switch that off and on around the array calls
of an op, for this thread and asyncio task alone. `numpy.errstate` does the same at six times
the cost, which is more than a small op itself takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

quiet: Callable[[], Any]
loud: Callable[[Any], None]

try:
    from numpy._core import umath

    _state = umath._extobj_contextvar
    _silence = umath._make_extobj(all="ignore")

    def quiet() -> Any:
        """Silence floating-point warnings; returns what `loud` needs to undo it."""
        return _state.set(_silence)

    loud = _state.reset
except (ImportError, AttributeError):  # a NumPy that keeps this state elsewhere

    def quiet() -> Any:
        """Silence floating-point warnings; returns what `loud` needs to undo it."""
        return np.seterr(all="ignore")

    def loud(token: Any) -> None:
        """Undo `quiet`."""
        np.seterr(**token)
