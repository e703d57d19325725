"""Names of parameters that functions take beside those in their signatures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def other_keywords(**names: str) -> Callable[[Function], Function]:
    """Let a function take parameters by other names, as by those of another overload."""

    def taking_them(function: Function) -> Function:
        @functools.wraps(function)
        def renamed(*args: Any, **kwargs: Any) -> Any:
            if kwargs:
                for other in kwargs.keys() & names:
                    kwargs[names[other]] = kwargs.pop(other)
            return function(*args, **kwargs)

        return renamed  # type: ignore[return-value]

    return taking_them


def numpy_keywords(function: Function) -> Function:
    """Let a function take ``axis`` and ``keepdims`` for ``dim`` and ``keepdim``."""
    return other_keywords(axis="dim", keepdims="keepdim")(function)
