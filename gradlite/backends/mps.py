"""PyTorch's back end for Apple's GPUs, which does not exist here.

>>> import gradlite
>>> device = "mps" if gradlite.backends.mps.is_available() else "cpu"
>>> device
'cpu'
"""

from __future__ import annotations


def is_available() -> bool:
    """Always False."""
    return False


def is_built() -> bool:
    """Always False."""
    return False
