"""Ways that ops choose by values: in one place, so that a recording can do without the choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def allowed(usual: Any) -> bool:
    """Whether a shortcut may be taken: where its condition holds, as it mostly does."""
    return bool(usual)


def require(
    condition: Any, error: type[Exception], message: str | Callable[..., str], *values: Any
) -> None:
    """Raise ``error`` unless a condition holds.

    Args:
        condition: a bool, or an array of one.
        error: the type of the exception.
        message: its text, or a function of a module that makes it from the values.
    """
    if not condition:
        raise error(message if isinstance(message, str) else message(*values))


def verify(
    condition: Any, error: type[Exception], message: str | Callable[..., str], *values: Any
) -> None:
    """`require`, but not of arrays of a GPU whose graph is recorded: it cannot stop to look.

    For checks that a program can do without.
    """
    require(condition, error, message, *values)
