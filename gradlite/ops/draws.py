"""Draws where they are wanted: by kernels on the device, and by kernels or NumPy on the CPU.

A kernel is handed the place of its draw in the generator's stream and makes the very numbers that
`Generator` makes for it; nothing is computed on the host, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gradlite.device import array_module
from gradlite.device import device as Device
from gradlite.ops.conversion import array_on
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.natively import LAUNCHERS
from gradlite.random import Generator

_UNIFORM_PER_BLOCK = {"float16": 16, "bfloat16": 16, "float32": 8, "float64": 4}
_NORMAL_PER_BLOCK = {"float16": 8, "bfloat16": 8, "float32": 8, "float64": 4}
LEAST = 1 << 8  # numbers for which kernels on the CPU are loaded
_loaded: dict[tuple[str, str], np.dtype[Any]] = {}
_HALF = 1 << 63
_ANY = np.dtype(np.float32)  # for kernels whose file is compiled for a dtype that they do not use


# Set while a step is recorded: gives the state that a draw begins at, which a replay takes anew.
intercept: Callable[[Generator, int], Any] | None = None


class Place(NamedTuple):
    """Where a draw begins, as kernels take it: a pointer to a state or None, seed and offset."""

    state: Any
    seed: int
    offset: int


def signed(value: int) -> int:
    """The 64-bit integer with the same bits, as a kernel's i64 takes it."""
    if 0 <= value < _HALF:  # as most are
        return value
    value %= 2 * _HALF
    return value - 2 * _HALF if value >= _HALF else value


def place(generator: Generator, values: int, per_block: int) -> Place:
    """Take the blocks of a draw from a generator's stream."""
    blocks = -(-values // per_block)
    state = None if intercept is None else intercept(generator, blocks)
    if state is not None:
        return Place(state, 0, 0)
    seed, offset = generator.reserve(blocks)
    return Place(None, signed(seed), signed(offset))


def threshold(p: float) -> int:
    """What a lane of 32 bits is below with probability p."""
    return int(p * 4294967296.0 + 0.5)


def _compiled(kernel: str, out: Any, seed: int, offset: int, *numbers: int) -> bool:
    """Make the values of a draw by a kernel on the CPU; see `Generator.compiled`.

    For few numbers alone none is loaded, which takes some 30 ms.
    """
    key, size = (kernel, out.dtype.char), out.size
    if np not in LAUNCHERS or size < LEAST and key not in _loaded:
        return False
    K, dtype = LAUNCHERS[np](), _loaded.get(key)
    if dtype is None:
        dtype = out.dtype if key[1] in "fd" else _ANY
    if K is None or not K.ready(kernel, dtype):
        return False
    _loaded[key] = dtype
    if size:
        values = map(signed, numbers)
        K.elementwise(kernel, dtype, size, out, None, signed(seed), signed(offset), size, *values)
    return True


Generator.compiled = staticmethod(_compiled)  # type: ignore[method-assign]


def _launch(
    K: Any, kernel: str, dtype: Any, out: Any, generator: Generator, per_block: int, *more: int
) -> Any:
    n = out.size
    where = place(generator, n, per_block)
    if n:
        # A thread to a block; a launch over elements has one for every four of them.
        K.elementwise(kernel, dtype, 4 * -(-n // per_block), out, *where, n, *more)
    return out


def _by_kernel(
    K: Any, generator: Generator, method: str, shape: tuple[int, ...], dtype: Any, args: Any
) -> Any:
    if method in ("random", "normal"):
        name = "random_uniform" if method == "random" else "random_normal"
        per_block = (_UNIFORM_PER_BLOCK if method == "random" else _NORMAL_PER_BLOCK)[dtype.name]
        return _launch(K, name, dtype, K.empty(shape, dtype), generator, per_block)
    if method == "integers":
        low, high = args
        integers = K.empty(shape, np.dtype(np.int64))
        bounds = signed(low), signed(high - low)
        _launch(K, "random_integers", _ANY, integers, generator, 4, *bounds)
        return integers.astype(dtype, copy=False)
    if method == "bernoulli_mask":
        mask = K.empty(shape, np.dtype(np.bool_))
        return _launch(K, "random_mask", _ANY, mask, generator, 8, threshold(*args))
    assert method == "permutation"
    keys = _launch(K, "random_words", _ANY, K.empty(shape, np.dtype(np.uint64)), generator, 4)
    return K.xp.argsort(keys, kind="stable").astype(np.int64, copy=False)


def drawn(
    generator: Generator,
    method: str,
    shape: tuple[int, ...],
    dtype: Any,
    where: Device,
    *args: Any,
) -> Any:
    """An array on a device, drawn by one of the generator's methods.

    Args:
        generator: what is drawn from.
        method: "random", "normal", "integers", "bernoulli_mask" or "permutation".
        shape: of the array; ``(n,)`` for a permutation.
        dtype: of the array, in NumPy's spelling; bool for a mask, int64 for a permutation.
        where: the device.
        args: the method's arguments that are not the shape and the dtype.
    """
    xp = array_module(where)
    K = None if xp is np else NAMESPACES[xp.ndarray].launcher
    if K is not None:
        with xp.cuda.Device(where.index):
            return _by_kernel(K, generator, method, shape, dtype, args)
    if method == "bernoulli_mask":
        array = generator.bernoulli_mask(shape, *args)
    elif method == "permutation":
        array = generator.permutation(*shape)
    else:
        array = getattr(generator, method)(*args, shape, dtype)
    return array_on(array, where, dtype, copy=False)
