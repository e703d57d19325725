"""Methods that compute on the host, which the replays of a captured step call anew.

Each asks here first, so that it does not matter how the program has got hold of it: a bound method
may have been kept from before the recording.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])

# What records such calls, as ``intercept(method, self, args, kwargs)``, while there is a recording.
intercept: Callable[..., Any] | None = None


def replayed(method: Method) -> Method:
    """A method that lets a recording take note of its calls."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if intercept is None:
            return method(self, *args, **kwargs)
        return intercept(method, self, args, kwargs)

    return call  # type: ignore[return-value]


def replay_own(cls: type, *names: str) -> None:
    """Make `replayed` the methods of these names that a class itself defines."""
    for name in names:
        if name in cls.__dict__:
            setattr(cls, name, replayed(cls.__dict__[name]))


def is_replayed(function: types.FunctionType) -> bool:
    """Whether a function is what `replayed` has made of a method."""
    return function.__code__ is _CODE


_CODE = replayed(lambda self: None).__code__
