"""PyTorch's switches of cuDNN, which is not used here: programs may set them, to no effect.

>>> import gradlite
>>> gradlite.backends.cudnn.benchmark = True
>>> gradlite.backends.cudnn.is_available()
False
"""

from __future__ import annotations

allow_tf32 = True
benchmark = False
deterministic = False
enabled = True


def is_available() -> bool:
    """Always False."""
    return False


def version() -> int | None:
    """Always None."""
    return None
