"""Dimensions whose places are weighted sums of an input's: resized images, and how kernels do it.

A line (`Resized` in ``resampling.py``) says how the places of one dimension are made. Its adjoint,
which gradients go through, is a line as well.
"""

from __future__ import annotations

import math
from typing import Any

from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.ops.resampling import Resized, result_size, terms

MOST = 1 << 31  # elements that are told apart by 32-bit numbers
# From so many terms on, a place is the sum of sums along one dimension each.
TERMS = 64


# ----------------------------------------------------------------------------- kernels
def _tables(K: Any, line: Any, dtype: Any) -> tuple[Any, ...]:
    """`terms` on the device, and how many terms a place has at most."""
    acc = K.acc(dtype)
    return K.constants(("line", line, acc), lambda: terms(line, acc))  # type: ignore[no-any-return]


def run(K: Any, x: Any, lines: tuple[tuple[int, Any], ...]) -> Any:
    """An array with dimensions made anew, of which the last three may be."""
    sizes = list(x.shape)
    for axis, line in lines:
        sizes[axis] = result_size(line)
    if K.serial or not K.takes(x) or not lines or min(lines)[0] < x.ndim - 3:
        return NotImplemented  # NumPy's products with matrices are faster on the CPU
    if math.prod(sizes) >= MOST or x.size >= MOST or not all(sizes):
        return NotImplemented
    found = {axis - x.ndim: _tables(K, line, x.dtype) for axis, line in lines}
    if len(lines) > 1 and math.prod(most for *_, most in found.values()) > TERMS:
        for axis, line in reversed(lines):
            x = run(K, x, ((axis, line),))
        return x
    out = K.empty(tuple(sizes), x.dtype)
    tables = [found.get(axis, (None, None, None))[:3] for axis in (-3, -2, -1)]
    K.elementwise(
        "resample", x.dtype, out.size, K.dense(x), out, math.prod(x.shape[:-3]),
        *_last_three(x.shape), *_last_three(out.shape), *tables[0], *tables[1], *tables[2],
    )  # fmt: skip
    return out


def _last_three(shape: tuple[int, ...]) -> tuple[int, ...]:
    return ((1, 1, *shape)[-3:]) if len(shape) < 3 else shape[-3:]


# --------------------------------------------------------------------------------- ops
def _sums_of_copies(xp: Any, x: Any, axis: int, line: Any) -> Any:
    """Each place's copies added up, the first of all, then the second of those that have one."""
    before = (slice(None),) * axis
    places, rounds = line.copies_of_places()
    sums = x.take(xp.asarray(rounds[0][1]), axis=axis)
    for which, copies in rounds[1:]:
        more = x.take(xp.asarray(copies), axis=axis)
        if len(which) == len(places):
            sums += more
        else:
            sums[(*before, xp.asarray(which))] += more
    if len(places) == line.size:
        return sums
    out = xp.zeros((*x.shape[:axis], line.size, *x.shape[axis + 1 :]), x.dtype)
    out[(*before, xp.asarray(places))] = sums
    return out


class Resample(Op):
    """Dimensions resized, each as its line says."""

    row_major = True

    def forward(xp: Any, x: Any, lines: tuple[tuple[int, Resized], ...]) -> Any:
        F = NAMESPACES[x.__class__]
        result = x
        turned = bool(lines) and lines[0][1].turned
        for axis, line in lines if turned else reversed(lines):  # the adjoint's steps come first
            if line.copies:
                if turned:
                    result = _sums_of_copies(xp, result, axis, line)
                else:
                    result = result.take(xp.asarray(line.sources()), axis=axis)
                continue
            matrix = line.matrix() if line.turned else line.matrix().T
            rows = result.swapaxes(axis, -1)
            result = F.matmul(rows, xp.asarray(matrix.astype(x.dtype))).swapaxes(axis, -1)
        return x.copy() if result is x else result

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (lines,) = ctx.attrs
        return (F.resample(grad, tuple((a, i._replace(turned=not i.turned)) for a, i in lines)),)

    def fused_forward(K: Any, x: Any, lines: tuple[tuple[int, Resized], ...]) -> Any:
        return run(K, x, lines)


class UpsampleNearest1D(Resample):
    pass


class UpsampleNearest2D(Resample):
    pass


class UpsampleNearest3D(Resample):
    pass


class UpsampleNearestExact1D(Resample):
    pass


class UpsampleNearestExact2D(Resample):
    pass


class UpsampleNearestExact3D(Resample):
    pass


class UpsampleLinear1D(Resample):
    pass


class UpsampleBilinear2D(Resample):
    pass


class UpsampleBilinear2DAa(Resample):
    pass


class UpsampleBicubic2D(Resample):
    pass


class UpsampleBicubic2DAa(Resample):
    pass


class UpsampleTrilinear3D(Resample):
    pass


NEAREST = (UpsampleNearest1D, UpsampleNearest2D, UpsampleNearest3D)
EXACT = (UpsampleNearestExact1D, UpsampleNearestExact2D, UpsampleNearestExact3D)
WEIGHTED = {
    ("linear", False): UpsampleLinear1D,
    ("bilinear", False): UpsampleBilinear2D,
    ("bilinear", True): UpsampleBilinear2DAa,
    ("bicubic", False): UpsampleBicubic2D,
    ("bicubic", True): UpsampleBicubic2DAa,
    ("trilinear", False): UpsampleTrilinear3D,
}


def op_of(mode: str, dims: int, antialias: bool) -> Any:
    """The op of a mode for images of so many dimensions, named as PyTorch names it."""
    if mode == "nearest":
        return NEAREST[dims - 1]
    return EXACT[dims - 1] if mode == "nearest-exact" else WEIGHTED[mode, antialias]
