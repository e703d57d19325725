"""Kernels on the CPU: an op runs with them on arrays from a size on, and by its rule below.

An op says in its class from how many elements on its kernels beat NumPy (``native_from``,
``native_backward_from``); ``python -m benchmarks.native`` measures that. Its forward and its rule
then look at the size first. Nothing is compiled for smaller arrays, nor for ops that say nothing,
and where kernels cannot be compiled the rules do everything. Which of the two runs depends on the
op, the dtype and the size alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from gradlite.backends.kernels import NoKernelError


@cache
def _on_demand() -> Any:
    from gradlite.backends import native  # late: it takes a while, and small programs need none

    return native.on_demand()


# What gives the launcher, or None, by the array library; a recording adds one of its own.
LAUNCHERS: dict[Any, Callable[[], Any]] = {np: _on_demand}


def launcher(op: Any, xp: Any, x: Any) -> Any:
    """What launches the kernels of an op on arrays such as x, or None where its rule runs."""
    least = op.native_from
    if least is None or x.size < least or xp not in LAUNCHERS:
        return None
    return LAUNCHERS[xp]() if x.dtype.char in op.native_dtypes else None


def launcher_of(array: Any, kernel: str, least: int) -> Any:
    """What launches a kernel for code that is no op, on an array of NumPy's of at least a size."""
    if array.__class__ is not np.ndarray or array.size < least or array.dtype.char not in "fd":
        return None
    K = LAUNCHERS[np]() if np in LAUNCHERS else None
    return K if K is not None and K.ready(kernel, array.dtype) else None


def forward(rule: Any, fused: Any, least: int, dtypes: str) -> Any:
    """An op's forward, with its function for kernels on first arrays of at least a size."""

    def forward(xp: Any, x: Any, *args: Any) -> Any:
        if x.size >= least and xp in LAUNCHERS and x.dtype.char in dtypes:
            K = LAUNCHERS[xp]()
            if K is not None:
                try:
                    result = fused(K, x, *args)
                except NoKernelError:
                    result = NotImplemented
                if result is not NotImplemented:
                    return result
        return rule(xp, x, *args)

    return forward


def backward(rule: Any, fused: Any, least: int, dtypes: str) -> Any:
    """An op's rule, with its function for kernels on gradients or saved values of a size."""

    def backward(ctx: Any, grad: Any, F: Any) -> Any:
        if not F.tensors and _size(ctx, grad) >= least and F.xp in LAUNCHERS:
            if isinstance(grad, np.generic):  # which NumPy makes of arrays of one number
                grad = np.asarray(grad)
            given = ctx.saved[0] if grad.__class__ is list else grad
            K = LAUNCHERS[F.xp]() if given.dtype.char in dtypes else None
            if K is not None:
                try:
                    result = fused(K, ctx, grad)
                except NoKernelError:
                    result = NotImplemented
                if result is not NotImplemented:
                    return result
        return rule(ctx, grad, F)

    return backward


def _size(ctx: Any, grad: Any) -> int:
    """How many elements a rule has to deal with: a loss's gradient is one alone.

    An op of several outputs has a list of gradients, and has saved its first input.
    """
    size: int = 0 if grad.__class__ is list else grad.size
    saved = ctx.saved
    return max(size, saved[0].size) if saved and saved[0] is not None else size
