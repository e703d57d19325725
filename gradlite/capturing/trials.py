"""Calls that may find no result, and conditions: what a replay looks at, or raises an error for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlite.ops import shortcuts
from gradlite.ops.matrices import LinAlgError

_NAMES = ("cholesky", "eig", "eigh", "eigvals", "eigvalsh", "inv", "lstsq", "pinv", "solve", "svd")
# Of matrices alone it can not be told beforehand whether they have what is asked for.
FACTORING = frozenset(getattr(np.linalg, name) for name in _NAMES)
# What functions raise because of values: a ValueError is mostly of shapes, which do not change.
BY_VALUES = (np.linalg.LinAlgError, IndexError, FloatingPointError)


@dataclass(frozen=True, slots=True)
class _Named:
    """What takes a function's place in a recording, and has its name there."""

    function: Callable[..., Any]

    @property
    def __name__(self) -> str:
        return getattr(self.function, "__name__", str(self.function))


@dataclass(frozen=True, slots=True)
class Trial(_Named):
    """A function that says first, as a bool, whether it has raised an error of some type."""

    error: type[Exception]

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        try:
            found = self.function(*args, **kwargs)
        except self.error:
            return (np.True_,)
        return (np.False_, *found) if isinstance(found, (tuple, list)) else (np.False_, found)


@dataclass(frozen=True, slots=True)
class Factoring(_Named):
    """A function of linear algebra that raises the library's error in a replay, not NumPy's."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.function(*args, **kwargs)
        except np.linalg.LinAlgError as error:
            raise LinAlgError(f"linalg.{self.__name__}: {error}") from None


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a replay raises an error without."""

    error: type[Exception]
    message: str | Callable[..., str]

    @property
    def __name__(self) -> str:
        return "require"

    def __call__(self, condition: Any, *values: Any) -> None:
        shortcuts.require(condition, self.error, self.message, *values)
