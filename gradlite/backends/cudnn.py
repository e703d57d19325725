"""PyTorch's switches of cuDNN, which is not used here: programs may set them, to no effect.

>>> import gradlite
>>> with gradlite.backends.cudnn.flags(enabled=True, benchmark=True):
...     gradlite.backends.cudnn.is_available()
False
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

allow_tf32 = True
benchmark = False
benchmark_limit = 10
deterministic = False
enabled = True


def is_available() -> bool:
    """Always False."""
    return False


def is_acceptable(tensor: Any) -> bool:
    """Always False."""
    return False


def version() -> int | None:
    """Always None."""
    return None


def _set(*values: Any) -> tuple[Any, ...]:
    names = ("enabled", "benchmark", "benchmark_limit", "deterministic", "allow_tf32")
    before = tuple(globals()[name] for name in names)
    globals().update(zip(names, values))
    return before


@contextmanager
def flags(
    enabled: bool = False,
    benchmark: bool = False,
    benchmark_limit: int = 10,
    deterministic: bool = False,
    allow_tf32: bool = True,
) -> Iterator[None]:
    """Have the switches like this in a region."""
    before = _set(enabled, benchmark, benchmark_limit, deterministic, allow_tf32)
    try:
        yield
    finally:
        _set(*before)
