"""What optimizers do to many arrays at once, in one launch where a kernel can do it.

Each function gives False (or None), and has done nothing, where kernels cannot serve the arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite.backends.tables import BLOCK, TensorTable, table
from gradlite.device import device_of
from gradlite.ops import guard
from gradlite.ops.namespaces import NAMESPACES

Arrays = Sequence[Any]


def _table(arrays: Arrays, *more: Arrays) -> TensorTable | None:
    """A table that points to arrays of one dtype and device, and to others of the same sizes."""
    first = arrays[0]
    K = NAMESPACES[first.__class__].launcher
    if K is None or not K.takes(first) or not all(array.size for array in arrays):
        return None
    columns = [list(arrays), *map(list, more)]
    if K.xp is not np and not all(_are_with(first, column) for column in columns):
        return None
    with guard.on(first):
        found = table(K, arrays, len(columns))
    return found if found.point(*columns) else None


def _are_with(first: Any, arrays: Arrays) -> bool:
    """Whether arrays are of the class of another one, and on its device."""
    cls = first.__class__
    if any(array.__class__ is not cls for array in arrays):
        return False
    if guard.several is None:
        return True
    place = first.device.id
    return all(array.device.id == place for array in arrays)


def by_place(arrays: Arrays) -> list[list[Any]]:
    """The arrays in lists of one dtype and device each."""
    found: dict[Any, list[Any]] = {}
    for array in arrays:
        device = device_of(array)
        found.setdefault((array.dtype, device.type, device.index), []).append(array)
    return list(found.values())


def total_norm(arrays: Arrays, order: float) -> Any:
    """The norm of all arrays together, in their dtype, 0-d; not for orders of 0 and below."""
    tensors = _table(arrays) if order > 0 else None
    if tensors is None:
        return None
    K, dtype = tensors.K, tensors.dtype
    with guard.on(arrays[0]):
        parts = K.empty((tensors.chunk_count,), K.acc(dtype))
        norm = K.empty((), dtype)
        tensors.launch("norm_parts", parts, order)
        K.launch("norm_total", dtype, (1,), (BLOCK,), parts, norm, order, tensors.chunk_count)
    return norm


def _each(name: str, arrays: Arrays, *arguments: Any) -> bool:
    places = by_place(arrays)
    tables = [_table(together) for together in places]
    if None in tables:
        return False
    for tensors, together in zip(tables, places):
        with guard.on(together[0]):
            tensors.launch(name, *arguments)  # type: ignore[union-attr]
    return True


def clip(arrays: Arrays, norm: Any, max_norm: float) -> bool:
    """Multiply arrays of one dtype by max_norm / (norm + 1e-6) where that is less than 1."""
    tensors = _table(arrays) if device_of(norm) == device_of(arrays[0]) else None
    if tensors is None or norm.dtype != tensors.dtype:
        return False
    with guard.on(norm):
        tensors.launch("clip_tensors", norm, max_norm)
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
    with guard.on(scale):
        found = flags[0] if len(flags) == 1 else K.xp.asarray(sum(flags[1:], flags[0]))
        K.launch(
            "scale_update", scale.dtype, (1,), (32,), scale, good_steps, found, float(growth),
            float(backoff), int(interval),
        )  # fmt: skip
    return True


def average(averages: Arrays, newcomers: Arrays, weight: float = 0.0, count: Any = None) -> bool:
    """Move averages of one dtype towards newcomers by a weight, or by 1 / (count + 1)."""
    tensors = _table(averages, newcomers)
    if tensors is None:
        return False
    with guard.on(averages[0]):
        tensors.launch("average_tensors", count, float(weight))
    return True
