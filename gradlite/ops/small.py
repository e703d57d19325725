"""Layers of small networks on raw arrays: one call of compiled code each way, where there is any.

A small layer's call of NumPy takes longer than what it computes, and ``x @ weight.T + bias`` with
a relu is three of them, its gradients seven more. Which layers are small depends on shapes and
dtype alone; ``python -m benchmarks.products --layers`` measures where one call is faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.backends import launches, small
from gradlite.backends.cpu import clip
from gradlite.ops import products
from gradlite.ops.piecewise import BOUNDS, ThresholdBackward
from gradlite.ops.reduce import ones

# Up to so many elements: of x, and of the weight, which is turned for few rows of x as for many.
MOST_READ, MOST_WEIGHTS, WEIGHTS_A_ROW = 1 << 14, 1 << 12, 1 << 9
MOST_GRADIENTS = 1 << 12  # the elements of x, and of its layer's result, on the way back


def worth(x: Any, weight: Any) -> bool:
    """Whether `layer` is faster for a matrix and a weight than NumPy, and can be had."""
    size = weight.size
    return (
        x.size <= MOST_READ
        and size <= MOST_WEIGHTS
        and size <= x.shape[0] * WEIGHTS_A_ROW
        and small.functions(x.dtype.char) is not None
    )


def layer(xp: Any, x: Any, weight: Any, bias: Any, relu: bool, out: Any = None) -> Any:
    """``x @ weight.T + bias``, or its relu, for matrices; ``out`` is a place for it.

    Recorded as one call, which a replay of array calls makes again.
    """
    made = np.empty((x.shape[0], weight.shape[0]), x.dtype) if out is None else out
    run = small.functions(x.dtype.char)
    if run is None or not run[0]((x, weight, bias, made, relu or None)):
        return layer_in_parts(xp, x, weight, bias, relu)
    if launches.recordings:
        launches.note("layer")
    return made


def layer_in_parts(xp: Any, x: Any, weight: Any, bias: Any, relu: bool) -> Any:
    """`layer` as compiled plans record it: they have products of their own."""
    out = products.mm(x, weight.T, bias)
    if relu:
        zero, infinity = BOUNDS[out.dtype]
        clip(out, zero, infinity, out)
    return out


def worth_gradients(grad: Any, x: Any) -> bool:
    """Whether `gradients` is faster for two matrices than NumPy, and can be had."""
    return (
        grad.size <= MOST_GRADIENTS
        and x.size <= MOST_GRADIENTS
        and grad.shape[1] * x.shape[1] <= MOST_WEIGHTS
        and small.functions(x.dtype.char) is not None
    )


def gradients(
    xp: Any, grad: Any, result: Any, x: Any, weight: Any, out: tuple[Any, ...] = ()
) -> tuple[Any, ...]:
    """The gradients of x, weight and bias from that of the `layer`'s result.

    ``result`` is the relu's, or None where there was none. Without a weight there is no gradient
    of x. ``out`` has row-major places for all of them. Recorded as `layer` is.
    """
    dtype, of_x = x.dtype, None
    if out:
        *first, of_weight, of_bias = out
        if weight is not None:
            (of_x,) = first
    else:
        columns = grad.shape[1]
        of_weight, of_bias = np.empty((columns, x.shape[1]), dtype), np.empty(columns, dtype)
        if weight is not None:
            of_x = np.empty(x.shape, dtype)
    run = small.functions(dtype.char)
    if run is None or not run[1]((grad, result, x, weight, of_x, of_weight, of_bias)):
        return gradients_in_parts(xp, grad, result, x, weight)
    if launches.recordings:
        launches.note("layer_gradients")
    return (of_weight, of_bias) if of_x is None else (of_x, of_weight, of_bias)


def gradients_in_parts(xp: Any, grad: Any, result: Any, x: Any, weight: Any) -> tuple[Any, ...]:
    """`gradients` as compiled plans record it."""
    if result is not None:
        grad = ThresholdBackward.forward(np, grad, result)
    rows = grad.T
    made = products.mm(rows, x), rows.dot(ones(rows.shape[1], grad.dtype))
    return made if weight is None else (products.mm(grad, weight), *made)


def direct(function: Any, args: tuple[Any, ...], outs: tuple[Any, ...]) -> Any:
    """The compiled function behind a call of `layer` or `gradients`, and its tuple of arguments.

    None where it does not take these arrays.
    """
    found = small.functions(outs[0].dtype.char)
    if found is None:
        return None
    if function is layer:
        run, given = found[0], (*args[1:4], *outs, args[4] or None)
    else:
        run, given = found[1], (*args[1:], *(() if len(outs) == 3 else (None,)), *outs)
    kept = [a.copy() for a in outs]
    fits = run(given)
    for array, before in zip(outs, kept):
        array[...] = before
    return (run, given) if fits else None
