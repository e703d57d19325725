"""What optimizers do to many arrays at once, in one launch where a kernel can do it.

Each function gives False (or None), and has done nothing, where kernels cannot serve the arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite.backends.tables import BLOCK, TensorTable, table
from gradlite.device import device_of
from gradlite.ops.namespaces import NAMESPACES

Arrays = Sequence[Any]


def launcher_for(*arrays: Any) -> Any:
    """What launches kernels on different dense arrays of one dtype and device, or None."""
    K = NAMESPACES[arrays[0].__class__].launcher
    if K is None or not K.takes(*arrays) or len(set(map(id, arrays))) < len(arrays):
        return None
    if not all(array.flags.c_contiguous for array in arrays):
        return None
    if K.xp is not np and len({device_of(array).index for array in arrays}) > 1:
        return None
    return K


def by_place(arrays: Arrays) -> list[list[Any]]:
    """The arrays in lists of one dtype and device each."""
    found: dict[Any, list[Any]] = {}
    for array in arrays:
        device = device_of(array)
        found.setdefault((array.dtype, device.type, device.index), []).append(array)
    return list(found.values())


def total_norm(arrays: Arrays, order: float) -> Any:
    """The norm of all arrays together, in their dtype, 0-d; not for orders of 0 and below."""
    K = launcher_for(*arrays)
    if K is None or not order > 0:
        return None
    dtype = arrays[0].dtype
    tensors = table(K, arrays)
    parts = K.empty((tensors.chunk_count,), K.acc(dtype))
    norm = K.empty((), dtype)
    tensors.launch("norm_parts", dtype, (arrays,), parts, order)
    K.launch("norm_total", dtype, (1,), (BLOCK,), parts, norm, order, tensors.chunk_count)
    return norm


def _each(name: str, arrays: Arrays, *arguments: Any) -> bool:
    places = [(launcher_for(*together), together) for together in by_place(arrays)]
    if any(K is None for K, _ in places):
        return False
    for K, together in places:
        table(K, together).launch(name, together[0].dtype, (together,), *arguments)
    return True


def clip(arrays: Arrays, norm: Any, max_norm: float) -> bool:
    """Multiply arrays of one dtype by max_norm / (norm + 1e-6) where that is less than 1."""
    K = launcher_for(norm, *arrays)
    if K is None:
        return False
    table(K, arrays).launch("clip_tensors", norm.dtype, (arrays,), norm, max_norm)
    return True


def clamp(arrays: Arrays, bound: float) -> bool:
    """Bring all elements no further than ``bound`` from 0."""
    return _each("clamp_tensors", arrays, bound)


def zero(arrays: Arrays) -> bool:
    """Fill arrays with 0."""
    return _each("zero_tensors", arrays)


def unscale(arrays: Arrays, factor: Any, found_inf: Any) -> bool:
    """Multiply arrays of one device by a factor; ``found_inf`` becomes 1 if any is not finite.

    Both are arrays of one float32 there.
    """
    return _each("unscale_tensors", arrays, factor, found_inf)


def adapt_scale(
    scale: Any, good_steps: Any, flags: Arrays, growth: float, backoff: float, interval: int
) -> bool:
    """The scale of a loss after a step, in place; flags are not 0 where gradients overflowed."""
    K = NAMESPACES[scale.__class__].launcher
    if K is None:
        return False
    found = flags[0] if len(flags) == 1 else K.xp.asarray(sum(flags[1:], flags[0]))
    K.launch(
        "scale_update", scale.dtype, (1,), (32,), scale, good_steps, found, float(growth),
        float(backoff), int(interval),
    )  # fmt: skip
    return True


def average(averages: Arrays, newcomers: Arrays, weight: float = 0.0, count: Any = None) -> bool:
    """Move averages of one dtype towards newcomers by a weight, or by 1 / (count + 1)."""
    K = launcher_for(*averages, *newcomers)
    if K is None:
        return False
    tensors: TensorTable = table(K, averages, 2)
    dtype = averages[0].dtype
    tensors.launch("average_tensors", dtype, (averages, newcomers), count, float(weight))
    return True
