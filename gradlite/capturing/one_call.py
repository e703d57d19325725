"""Functions of raw arrays that a recording makes one call of, so that replays do them their way."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np

from gradlite.backends import elements, special
from gradlite.capturing.library import GpuLibrary
from gradlite.capturing.recorded import active
from gradlite.ops import (
    attention_compiled,
    bags,
    columns,
    conv_maxima,
    ctc_states,
    depthwise_compiled,
    pooling,
    products,
    reduce,
    small,
    sums_compiled,
)

CONVOLUTIONS = (
    columns.convolve, columns.input_gradient, columns.weight_gradient, columns.gradients,
    conv_maxima.convolve_and_pool, conv_maxima.spread_gradients, conv_maxima.spread_weight_gradient,
)  # fmt: skip
POOLINGS = (pooling.maxima, pooling.scatter, conv_maxima.channel_sums)
STATES = (ctc_states.walk, ctc_states.gradient)
BAGS = (bags.pool, bags.spread, bags.slopes)
# What stands for a kernel on the CPU where ops launch them, and code with kernels of its own.
BY_LAUNCHES = (
    elements.values, sums_compiled.variances, depthwise_compiled.convolve,
    depthwise_compiled.input_gradient, depthwise_compiled.weight_gradient,
)  # fmt: skip
# What compiled code does outside of captured steps, and the same by NumPy's calls, of which a
# compiled plan makes its own.
IN_PARTS = (
    (products, "multiplied", products.by_numpy),
    (reduce, "total", reduce.by_numpy),
    (reduce, "column_total", reduce.column_product),
    (small, "layer", small.layer_in_parts),
    (small, "gradients", small.gradients_in_parts),
)


def replacements(kernels: bool) -> list[tuple[Any, str, Any]]:
    """``(module, name, what to make of it)`` for every such function.

    Args:
        kernels: whether replays call compiled functions as the ops do, or have code of their own.
    """
    whole = (*CONVOLUTIONS, *POOLINGS, *STATES, *BAGS, special.normal_cdf32)
    made: list[tuple[Any, str, Any]] = [_entry(f) for f in whole]
    if not kernels:
        way = _in_parts(attention_compiled.in_parts)
        made.append((attention_compiled, "worth_masked", way))
    for module, name, parts in IN_PARTS:
        way = _as_one_call if kernels else _in_parts(parts)
        made.append((module, name, way))
    if kernels:
        made += [_entry(f) for f in BY_LAUNCHES]
    return [*made, *((attention_compiled, name, _written) for name in attention_compiled.WRITTEN)]


def _entry(function: Any) -> tuple[Any, str, Any]:
    return sys.modules[function.__module__], function.__name__, _as_one_call


def _as_one_call(original: Any) -> Any:
    @functools.wraps(original)
    def call(xp: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is None or isinstance(xp, GpuLibrary):
            return original(xp, *args, **kwargs)
        return recorder.run(original, (np, *args), kwargs)

    return call


def _in_parts(parts: Any) -> Any:
    def around(original: Any) -> Any:
        def call(xp: Any, *args: Any, **kwargs: Any) -> Any:
            return (original if active() is None else parts)(xp, *args, **kwargs)

        return call

    return around


def _written(original: Any) -> Any:
    """A function of `attention_compiled`, recorded as one call that writes to its arguments."""
    written = attention_compiled.WRITTEN[original.__name__]

    def call(xp: Any, *args: Any) -> Any:
        recorder = active()
        if recorder is None:
            return original(xp, *args)
        writes = [args[i - 1] for i in written if args[i - 1] is not None]
        return recorder.run(original, (np, *args), {}, writes)

    return call
