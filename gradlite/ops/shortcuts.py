"""Ways that ops choose by values: in one place, so that a recording can do without the choice."""

from __future__ import annotations

from typing import Any


def allowed(usual: Any) -> bool:
    """Whether a shortcut may be taken: where its condition holds, as it mostly does."""
    return bool(usual)


def require(condition: Any, error: type[Exception], message: str) -> None:
    """Raise ``error`` unless a condition holds."""
    if not condition:
        raise error(message)
