"""Where the elements of results lie in memory.

A later ``view`` works or not by the strides, so they are PyTorch's: elementwise ops keep the
order of their inputs' dimensions, as NumPy does by itself; most other ops give row-major results,
where NumPy's functions often keep the order too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


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
