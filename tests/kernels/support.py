"""What the tests of kernels share: launchers for every way a kernel runs.

A test takes the fixture ``launcher`` (conftest.py) and uses it as the ops use ``K``: arrays come
from ``launcher.xp.asarray(...)`` and go back with `host`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends.kernel_source import SUFFIXES, Kernel
from gradlite.backends.kernels import Launcher
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import OUT
from tests.cuda_on_cpu import load

BFLOAT16 = dtypes.bfloat16.numpy  # asked for, so that NumPy knows the name
FLOATING = dtypes.FLOATING
DTYPES = ["bfloat16", "float16", "float32", "float64"]


class ThreadsLauncher(Launcher):
    """Launches kernels on NumPy's arrays, every CUDA thread as a fiber of its own.

    Attributes:
        check: whether memory accesses and races are checked.
        seed: of the order of threads and blocks.
        regions: arrays that a kernel reaches through pointers in other arrays.
        blocks: of a launch at most, in each direction: any grid has to give the right result.
    """

    def __init__(self, check: bool = False, seed: int = 0, blocks: int = 1 << 30) -> None:
        super().__init__(np, 4)
        self.check, self.seed, self.blocks = check, seed, blocks
        self.regions: Sequence[np.ndarray] = ()
        self.empty = unwritten

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def _load(self, declared: Kernel, dtype: Any) -> Any:
        suffix = SUFFIXES[dtype]

        def run(grid: Any, block: Any, arguments: Any, shared: int) -> None:
            grid = [min(n, self.blocks) for n in grid]
            self._function(declared, suffix)(
                grid, block, arguments, shared_mem=shared, seed=self.seed, regions=self.regions
            )

        return run

    def _function(self, declared: Kernel, suffix: str) -> Any:
        module = load(declared.file, suffix, check=self.check)
        return module.get_function(f"{declared.name}_{suffix}")


def unwritten(shape: Any, dtype: Any) -> np.ndarray:
    """An array that shows what a kernel leaves out: NaN, -1 or True everywhere."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[:] = 0xFF
    return array


def host(array: Any) -> np.ndarray:
    """The values of a launcher's array in NumPy."""
    return array if isinstance(array, np.ndarray) else array.get()


class Context:
    """What backward reads of a node: see `gradlite.ops.op`."""

    def __init__(
        self, op: Any, inputs: Sequence[Any], attrs: Any, out: Any, aux: Any, wanted: Any
    ) -> None:
        values = {**dict(enumerate(inputs)), OUT: out}
        self.saved = tuple(None if p is None else values[p] for p in op.plan(wanted))
        self.attrs, self.aux = attrs, aux
        self.shapes = tuple(None if a is None else a.shape for a in inputs)
        self.edges = tuple(True if w else None for w in wanted)
        self.needs_input_grad = wanted


def by_rule(
    op: Any,
    inputs: Sequence[Any],
    attrs: Sequence[Any],
    grad: Any,
    wanted: Sequence[bool],
    result: Any = None,
) -> list[Any]:
    """The output of an op's rule and the gradients of its inputs, from NumPy's arrays.

    Backward reads ``result`` in the place of the output where that is given: what a kernel has
    rounded, when its gradient is compared.
    """
    out = op.forward(np, *inputs, *attrs)
    out, aux = out if op.has_aux else (out, None)
    read = out if result is None else result
    context = Context(op, inputs, tuple(attrs), read, aux, tuple(wanted))
    return [out, *op.backward(context, grad, NAMESPACES[np.ndarray])]


def by_kernel(
    K: Any,
    op: Any,
    inputs: Sequence[Any],
    attrs: Sequence[Any],
    grad: Any,
    wanted: Sequence[bool],
) -> list[Any]:
    """What `by_rule` gives, with an op's kernels."""
    inputs = [None if a is None else K.xp.asarray(a) for a in inputs]
    out = op.fused_forward(K, *inputs, *attrs)
    assert out is not NotImplemented
    out, aux = out if op.has_aux else (out, None)
    context = Context(op, inputs, tuple(attrs), out, aux, tuple(wanted))
    gradients = op.fused_backward(K, context, K.xp.asarray(grad))
    assert gradients is not NotImplemented
    assert [g is not None for g in gradients] == [bool(w) for w in wanted]
    return [None if a is None else host(a) for a in (out, *gradients)]


def epsilon(dtype: str) -> float:
    """The distance from 1 to the next number."""
    return dtypes.finfo(getattr(dtypes, dtype)).eps


def wide(array: Any) -> Any:
    """A floating array in float64; anything else as it is."""
    return array.astype("f8") if getattr(array, "dtype", np.dtype(bool)) in FLOATING else array
