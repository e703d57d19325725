"""What the command line says when it cannot go on, and how it asks for optional packages."""

from __future__ import annotations

import importlib
from types import ModuleType

INTERRUPTED = 130
"""The exit code after Ctrl-C, as a shell would report it."""


class UserError(Exception):
    """A fault the user can mend: one line on stderr, no traceback."""


def optional(module: str) -> ModuleType | None:
    """The module, or None where its package is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def missing(package: str, purpose: str) -> str:
    """One line that says which package is missing, what it is for and how to get it."""
    return f'{purpose} needs {package}, which is not installed: pip install "gradlite[examples]"'


def because(error: BaseException) -> str:
    """The reason an operation failed, on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
