"""TorchScript as programs call it: what is scripted or traced runs as it is.

>>> import gradlite
>>> gradlite.jit.is_scripting()
False
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Final, TypeVar

__all__ = [
    "Final",
    "annotate",
    "export",
    "ignore",
    "is_scripting",
    "is_tracing",
    "script",
    "script_if_tracing",
    "trace",
    "unused",
]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
T = TypeVar("T")


def script(obj: FunctionT, *args: Any, **kwargs: Any) -> FunctionT:
    """A module or function as it is: Python runs it. PyTorch warns that this name is deprecated.

    Raises:
        TypeError: something that cannot be called.
    """
    if not callable(obj):
        raise TypeError(f"script(): expected a module or a function, not {type(obj).__name__}")
    _warn("script")
    return obj


def trace(
    func: FunctionT,
    example_inputs: Any = None,
    *args: Any,
    example_kwarg_inputs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> FunctionT:
    """A module or function as it is, after one call with the example inputs.

    All of its branches stay: a trace keeps those that the example takes. PyTorch warns that this
    name is deprecated.

    Args:
        example_inputs: a tensor, or the arguments in a tuple.
        example_kwarg_inputs: in place of them, the arguments by name.

    Raises:
        RuntimeError: there are no example inputs, or the call raises it.
    """
    _warn("trace")
    if example_inputs is not None:
        func(*(example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)))
    elif isinstance(example_kwarg_inputs, dict):
        func(**example_kwarg_inputs)
    else:
        raise RuntimeError("example_kwarg_inputs should be a dict")
    return func


def script_if_tracing(fn: FunctionT) -> FunctionT:
    """The function as it is."""
    return fn


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """The function as it is, or a decorator that gives it back."""
    return drop if callable(drop) else script_if_tracing


def unused(fn: FunctionT) -> FunctionT:
    """The function as it is."""
    return fn


def export(fn: FunctionT) -> FunctionT:
    """The function as it is."""
    return fn


def annotate(the_type: Any, the_value: T) -> T:
    """The value.

    >>> annotate(int, 3)
    3
    """
    return the_value


def is_scripting() -> bool:
    """False: Python runs everything."""
    return False


def is_tracing() -> bool:
    """False: Python runs everything."""
    return False


def _warn(name: str) -> None:
    warnings.warn(
        f"`gradlite.jit.{name}` gives back what it is given, and `torch.jit.{name}` is deprecated: "
        "gradlite.capture(step) compiles a whole training step",
        DeprecationWarning,
        stacklevel=3,
    )
