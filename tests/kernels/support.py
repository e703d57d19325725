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
        module = load(declared.file, suffix, check=self.check, places=self.check)
        return module.get_function(f"{declared.name}_{suffix}")


def unwritten(shape: Any, dtype: Any) -> np.ndarray:
    """An array that shows what a kernel leaves out: NaN, -1 or True everywhere."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[:] = 0xFF
    return array


def host(array: Any) -> np.ndarray:
    """The values of a launcher's array in NumPy."""
    return array if isinstance(array, (np.ndarray, np.generic)) else array.get()


def taken(K: Any) -> list[str]:
    """What the kernels of a launcher have noted, which it forgets."""
    if K.xp is not np:
        K.xp.cuda.Device().synchronize()
    return [line for notes in K._notes.values() for line in notes.take()]


def said(what: str, index: int, size: int) -> str:
    return f"{what} {index} is out of bounds for dimension with size {size}"


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


# Rows and columns: a warp to a row and a block to a row, rows in registers, longer ones and those
# of odd lengths, and losses enough to be summed in two steps.
ROWS = [
    (1, 1), (2, 31), (40, 32), (5, 33), (3, 300), (2, 1023), (2, 1024), (3, 1025), (1, 9000),
    (5000, 2),
]  # fmt: skip
ROW_TOLERANCES = {"bfloat16": 1.6e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-12}


def compare(
    K: Any,
    op: Any,
    inputs: Sequence[Any],
    attrs: Sequence[Any],
    *,
    wanted: Sequence[bool] | None = None,
    tolerance: float | None = None,
    rounded: bool = True,
) -> list[Any]:
    """Compare an op's kernels with its rule in float64, for the gradient of a random weight.

    The rule's gradient reads the output as the kernel has rounded it, or its own one.

    Returns:
        The output and the gradients, by the kernels.
    """
    dtype = inputs[0].dtype.name
    if wanted is None:
        wanted = [a is not None and place not in op.constants for place, a in enumerate(inputs)]
    first = op.forward(np, *map(wide, inputs), *attrs)
    shape = (first[0] if op.has_aux else first).shape
    grad = np.asarray(np.random.default_rng(1).standard_normal(shape)).astype(dtype)
    found = by_kernel(K, op, inputs, attrs, grad, wanted)
    exact = [wide(a) for a in inputs]
    expected = by_rule(op, exact, attrs, wide(grad), wanted, wide(found[0]) if rounded else None)
    limit = ROW_TOLERANCES[dtype] if tolerance is None else tolerance
    for ours, reference, want in zip(found, expected, (True, *wanted)):
        if want:
            assert ours.dtype == dtype and ours.shape == reference.shape
            size = np.nanmax(np.abs(reference), where=np.isfinite(reference), initial=1e-2)
            np.testing.assert_allclose(ours, reference, limit, limit * float(size))
    return found


def normals(shape: tuple[int, ...], dtype: str, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Random numbers in a dtype."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(dtype)


def starting_anywhere(K: Any, rows: Sequence[np.ndarray], start: int) -> list[Any]:
    """Copies of arrays that begin ``start`` elements behind an aligned address."""
    copies = []
    for array in rows:
        flat = K.xp.asarray(np.concatenate([np.zeros(start, array.dtype), array.reshape(-1)]))
        copies.append(flat[start:].reshape(array.shape))
    return copies
