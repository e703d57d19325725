"""Where the elements of results lie in memory.

A later ``view`` works or not by the strides, so they are PyTorch's: elementwise ops keep the
order of their inputs' dimensions, as NumPy does by itself; most other ops give row-major results,
where NumPy's functions often keep the order too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

Layout = tuple[tuple[int, ...], tuple[int, ...]]  # shape and strides


def copy_order(array: Any) -> str:
    """The order in which NumPy lays out a copy: that of the dimensions, when it has one."""
    return "C" if 0 in array.strides else "K"


def laid_out(xp: Any, array: Any, order: tuple[int, ...]) -> Any:
    """A copy whose dimensions lie in this order in memory, the outermost first."""
    out = xp.empty([array.shape[d] for d in order], array.dtype)
    out = out.transpose(sorted(range(len(order)), key=order.__getitem__))
    out[...] = array
    return out


def row_major(array: Any) -> Any:
    """The array, or a copy of it in row-major order when its elements lie otherwise."""
    return array if array.flags.c_contiguous else array.copy()


def row_major_result(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward function whose result is `row_major`: for ops that say so (`Op.row_major`)."""

    def laid_out(xp: Any, *args: Any) -> Any:
        out = forward(xp, *args)
        return out if out.ndim < 2 or out.flags.c_contiguous else out.copy()

    return laid_out


@lru_cache(maxsize=4096)
def order_of_result(*layouts: Layout) -> tuple[int, ...] | None:
    """The order in which the dimensions of an elementwise result lie, the outermost first.

    PyTorch's: that of the operands, of which the first decides unless it is spread along one of
    two dimensions. None for row-major order.
    """
    ndim = max(len(shape) for shape, _ in layouts)
    padded = [
        ((1,) * (ndim - len(shape)) + shape, (0,) * (ndim - len(shape)) + strides)
        for shape, strides in layouts
    ]
    sizes = [max(ns) for ns in zip(*(shape for shape, _ in padded))]
    steps = [
        [0 if n == 1 != size else step for n, size, step in zip(shape, sizes, strides)]
        for shape, strides in padded
    ]

    def swapped(inner: int, outer: int) -> int:
        for own in steps:
            if own[inner] == 0 or own[outer] == 0:
                continue
            if own[inner] != own[outer]:
                return 1 if own[inner] > own[outer] else -1
            if sizes[inner] > sizes[outer]:
                return 1
        return 0

    order = list(range(ndim))[::-1]  # the innermost first
    for i in range(1, ndim):
        place = i
        for j in range(i - 1, -1, -1):
            found = swapped(order[j], order[place])
            if found > 0:
                order[j], order[place] = order[place], order[j]
                place = j
            elif found < 0:
                break
    order.reverse()
    return None if order == sorted(order) else tuple(order)


def lies_row_major(*operands: Any) -> bool:
    """Whether an elementwise result of these arrays is row-major."""
    return all(a.flags.c_contiguous for a in operands) or (
        order_of_result(*[(a.shape, a.strides) for a in operands]) is None
    )


def as_operands_lie(function: Callable[..., Any], operands: int) -> Callable[..., Any]:
    """An elementwise function whose result lies as its operands do, where it gives row-major ones.

    So do CuPy's functions and kernels; they then run on memory from one end to the other, without
    copies of their operands.

    Args:
        function: of an array library or a launcher, so many operands, and attributes.
        operands: which may be numbers or None.
    """

    def laid_out(library: Any, *args: Any) -> Any:
        a = args[0]
        if operands == 1 and (a.ndim < 2 or a.flags.c_contiguous):
            return function(library, *args)
        for a in args[:operands]:
            if getattr(a, "ndim", 0) > 1 and not a.flags.c_contiguous:
                break
        else:
            return function(library, *args)
        arrays = [a for a in args[:operands] if getattr(a, "ndim", 0)]
        order = order_of_result(*[(a.shape, a.strides) for a in arrays])
        if order is None:
            return function(library, *args)
        given = [
            a[(None,) * (len(order) - a.ndim)].transpose(order) if getattr(a, "ndim", 0) else a
            for a in args[:operands]
        ]
        out = function(library, *given, *args[operands:])
        return _transposed(out, sorted(range(len(order)), key=order.__getitem__))

    return laid_out


def _transposed(out: Any, places: list[int]) -> Any:
    """A result, and what is computed with it, with its dimensions where they belong."""
    if out.__class__ is tuple:
        return tuple([_transposed(part, places) for part in out])
    return out.transpose(places) if getattr(out, "ndim", 0) == len(places) else out


def elementwise(xp: Any, name: str, *operands: Any) -> Any:
    """What a library's elementwise function of a name gives, which lies as the operands do."""
    if xp is np:  # whose results do so by themselves
        return getattr(np, name)(*operands)
    made = as_operands_lie(lambda _, *args: getattr(xp, name)(*args), len(operands))
    return made(xp, *operands)
