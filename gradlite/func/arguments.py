"""``argnums``: which positional arguments a transform differentiates by."""

from __future__ import annotations

from typing import Any

__all__ = ["chosen", "replaced"]

Argnums = int | tuple[int, ...]


def _wrapped(argnum: Any, count: int) -> int:
    if not isinstance(argnum, int):
        raise RuntimeError(f"argnum must be int, got: {type(argnum)}")
    if not -count <= argnum < count:
        raise RuntimeError(f"Got argnum={argnum}, but only {count} positional inputs")
    return argnum % count


def _numbers(argnums: Any, count: int) -> Argnums:
    if isinstance(argnums, int):
        return _wrapped(argnums, count)
    if not isinstance(argnums, tuple):
        raise RuntimeError(f"argnums must be int or Tuple[int, ...], got: {type(argnums)}")
    numbers = tuple(_wrapped(n, count) for n in argnums)
    if not numbers:
        raise RuntimeError("argnums must be non-empty")
    if len(set(numbers)) != len(numbers):
        raise RuntimeError(f"argnums elements must be unique, got {numbers}")
    return numbers


def chosen(args: tuple[Any, ...], argnums: Argnums) -> Any:
    """The argument of a number, or the tuple of those of several.

    Raises:
        RuntimeError: ``argnums`` is neither an int nor a tuple of ints, or does not fit.
    """
    numbers = _numbers(argnums, len(args))
    return args[numbers] if isinstance(numbers, int) else tuple(args[n] for n in numbers)


def replaced(args: tuple[Any, ...], new: Any, argnums: Argnums) -> tuple[Any, ...]:
    """The arguments with new values for those that `chosen` gives."""
    numbers = _numbers(argnums, len(args))
    result = list(args)
    if isinstance(numbers, int):
        result[numbers] = new
    else:
        for n, value in zip(numbers, new):
            result[n] = value
    return tuple(result)
