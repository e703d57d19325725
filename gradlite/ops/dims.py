"""Dimensions and sizes as users write them."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any


def wrap_dim(dim: int, ndim: int) -> int:
    """A dimension counted from the front.

    Raises:
        IndexError: it is out of range.
    """
    if dim.__class__ is not int:
        dim = integer(dim)
    n = ndim or 1
    if not -n <= dim < n:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], but got {dim})"
        )
    return dim % n


def integer(dim: Any) -> int:
    """What counts as an int where a dimension is asked for: neither bools nor floats do.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(dim, (bool, str)) and hasattr(dim, "__index__"):
        return operator.index(dim)
    raise TypeError(f"argument 'dim' must be int, not {dim.__class__.__name__}")


def wrap_dims(dims: Iterable[int], ndim: int) -> tuple[int, ...]:
    """Dimensions counted from the front; RuntimeError when one comes twice."""
    wrapped = tuple([wrap_dim(d, ndim) for d in dims])
    if len(set(wrapped)) != len(wrapped):
        twice = next(d for d in wrapped if wrapped.count(d) > 1)
        raise RuntimeError(f"dim {twice} appears multiple times in the list of dims")
    return wrapped


def sizes(args: tuple[Any, ...], size: Any = None) -> tuple[int, ...]:
    """Sizes given one by one, as one sequence, or by the name ``size``."""
    if size is not None:
        if args:
            raise TypeError("sizes were given both one by one and as size=")
        args = (size,)
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = tuple(args[0])
    try:
        return tuple(map(operator.index, args))
    except TypeError:
        bad = next(n for n in args if not hasattr(n, "__index__"))
        raise TypeError(
            f"argument 'size' (position 1) must be tuple of ints, not {bad.__class__.__name__}"
        ) from None


def infer_shape(shape: tuple[int, ...], numel: int) -> tuple[int, ...]:
    """Fill in a -1 of a shape; RuntimeError when the elements do not fit."""
    known = 1
    unknown = None
    for place, n in enumerate(shape):
        if n == -1:
            if unknown is not None:
                raise RuntimeError("only one dimension can be inferred")
            unknown = place
        elif n < 0:
            raise RuntimeError(f"invalid shape dimension {n}")
        else:
            known *= n
    if unknown is not None:
        if known == 0:
            if numel == 0:
                raise RuntimeError(
                    f"cannot reshape tensor of 0 elements into shape {list(shape)} because the "
                    "unspecified dimension size -1 can be any value and is ambiguous"
                )
            raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {numel}")
        if numel % known:
            raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {numel}")
        return (*shape[:unknown], numel // known, *shape[unknown + 1 :])
    if known != numel:
        raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {numel}")
    return shape
