"""Convolutions and their gradients as calls of the functions in convolution.hpp."""

from __future__ import annotations

from typing import NamedTuple

from gradlite.capturing.native.loops import Place, collapsed
from gradlite.capturing.native.reductions import open_loops, steps
from gradlite.capturing.native.types import CTYPES
from gradlite.ops.windows import Geometry, phases

# Sums of a kernel's gradient are kept for every lane of a vector: no more than this many bytes.
MOST_SUMS = 8_000_000


def row_major(p: Place) -> bool:
    """Whether the elements lie one after the other."""
    step = p.dtype.itemsize
    for n, s in zip(reversed(p.shape), reversed(p.strides)):
        if n != 1 and s != step:
            return False
        step *= n
    return True


def usable(*places: Place) -> bool:
    """Whether arrays are of one suitable dtype, and no elements lie across others."""
    kinds = {p.dtype.name for p in places}
    return (
        len(kinds) == 1
        and kinds <= {"float32", "float64"}
        and all(0 not in p.shape for p in places)
        and all(s % p.dtype.itemsize == 0 for p in places for s in p.strides)
    )


def slide(x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...], geometry: Geometry) -> str:
    """The text of a convolution's sizes, from the shapes of images, kernels and result."""
    (top, _), (left, _) = geometry.pads
    numbers = (*x, w[0], *w[2:], *y[2:], top, left, *geometry.stride, *geometry.dilation)
    return "Slide{" + ", ".join(map(str, numbers)) + "}"


def _sizes(
    x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...], geometry: Geometry
) -> tuple[int, int, int]:
    """Elements of one image's copy, pixels of its result as they are counted, and taps."""
    (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
    rows = ((y[2] - 1) * sh + dh * (w[2] - 1)) // sh + 1
    width = ((y[3] - 1) * sw + dw * (w[3] - 1)) // sw + 1
    return x[1] * sh * sw * rows * width, (y[2] - 1) * width + y[3], x[1] * w[2] * w[3]


def pointer(p: Place) -> str:
    """The address of the first element."""
    return f"({CTYPES[p.dtype.name]}*)(P[{p.base}] + {p.offset})"


def _strides(p: Place) -> str:
    return ", ".join(str(s // p.dtype.itemsize) for s in p.strides)


def convolve(
    x: Place, w: Place, geometry: Geometry, bias: Place | None, y: Place
) -> tuple[list[str], int] | None:
    """The text of ``y = x * w + bias``, and the bytes of scratch memory that it wants."""
    if not usable(x, w, y) or not row_major(w):
        return None
    if bias is not None and (not row_major(bias) or bias.dtype != x.dtype):
        return None
    image, pixels, taps = _sizes(x.shape, w.shape, y.shape, geometry)
    room = taps * 8 + (image + w.shape[0] * (pixels + 128) + 256) * 8 + 512
    added = "nullptr" if bias is None else pointer(bias)
    kind = CTYPES[x.dtype.name]
    return [
        f"{{ // convolution of {x.shape} with {w.shape}",
        f"  const Slide s = {slide(x.shape, w.shape, y.shape, geometry)};",
        f"  convolve<{kind}>(s, {pointer(x)}, {_strides(x)}, {pointer(w)}, {added}, "
        f"{pointer(y)}, {_strides(y)}, room);",
        "}",
    ], room


def weight_gradient(
    x: Place, g: Place, geometry: Geometry, out: Place
) -> tuple[list[str], int] | None:
    """The text of the kernels' gradient, and the bytes of scratch memory that it wants."""
    if not usable(x, g, out) or not row_major(out):
        return None
    image, pixels, taps = _sizes(x.shape, out.shape, g.shape, geometry)
    sums = out.shape[0] * taps * 64
    if sums > MOST_SUMS:
        return None
    # A group of images, GROUP_BYTES together, or one image.
    room = taps * 8 + 2 * (image + out.shape[0] * (pixels + 512)) * 8 + 800_000 + sums
    kind = CTYPES[x.dtype.name]
    return [
        f"{{ // gradient of the kernels {out.shape} of a convolution",
        f"  const Slide s = {slide(x.shape, out.shape, g.shape, geometry)};",
        f"  weight_gradient<{kind}>(s, {pointer(x)}, {_strides(x)}, {pointer(g)}, "
        f"{_strides(g)}, {pointer(out)}, room);",
        "}",
    ], room


def input_gradient(
    g: Place, w: Place, geometry: Geometry, out: Place
) -> tuple[list[str], int] | None:
    """The text of the input's gradient."""
    if not usable(g, w, out):
        return None
    o, c, _, _ = w.shape
    kind = CTYPES[g.dtype.name]
    lines, most = [], 0
    for phase in phases_of(w, geometry, out, g.shape[2:]):
        image, pixels, taps = _sizes(g.shape, phase.kernels, phase.out.shape, phase.geometry)
        size = -(-c * taps * 8 // 64) * 64
        most = max(most, size + taps * 8 + (image + c * (pixels + 128) + 256) * 8 + 512)
        _, _, kh, kw = phase.kernels
        sizes = slide(g.shape, phase.kernels, phase.out.shape, phase.geometry)
        lines += [
            f"{{ // gradient of the input {phase.out.shape} of a convolution",
            f"  const Slide s = {sizes};",
            f"  arranged<{kind}>({phase.turned}, ({kind}*)room, {c}, {o}, {kh}, {kw});",
            f"  convolve<{kind}>(s, {pointer(g)}, {_strides(g)}, ({kind}*)room, nullptr, "
            f"{pointer(phase.out)}, {_strides(phase.out)}, room + {size});",
            "}",
        ]
    return [*unreached(w, geometry, out), *lines], most


class PhaseOf(NamedTuple):
    """A `Phase` of an input gradient.

    Attributes:
        out: the elements of the input.
        kernels: the shape of the kernels (C, O, KH, KW) whose taps reach them.
        turned: the text of those kernels: where the last tap is, and strides.
        geometry: how they slide over the result's gradient.
    """

    out: Place
    kernels: tuple[int, ...]
    turned: str
    geometry: Geometry


def phases_of(w: Place, geometry: Geometry, out: Place, counts: tuple[int, ...]) -> list[PhaseOf]:
    """The convolutions by one step that an input gradient is made of."""
    o, c, kh, kw = w.shape
    so, sc, *taps = (s // w.dtype.itemsize for s in w.strides)
    found = []
    sizes = (out.shape[2], out.shape[3]), (counts[0], counts[1])
    for phase in phases(geometry, (kh, kw), *sizes):
        shape, strides, offset, last, back, kernel = (
            [*out.shape],
            [*out.strides],
            out.offset,
            0,
            [],
            [],
        )
        for d, part in enumerate((phase.rows, phase.columns)):
            first, step, many = phase.taps[d]
            shape[2 + d] = len(range(*part.indices(out.shape[2 + d])))
            offset += part.start * out.strides[2 + d]
            strides[2 + d] *= part.step
            last += (first + step * (many - 1)) * taps[d]
            back.append(-step * taps[d])
            kernel.append(many)
        place = Place(out.base, offset, tuple(shape), tuple(strides), out.dtype)
        turned = f"{pointer(w)} + {last}, {sc}, {so}, {back[0]}, {back[1]}"
        found.append(PhaseOf(place, (c, o, *kernel), turned, phase.geometry))
    return found


def unreached(w: Place, geometry: Geometry, out: Place) -> list[str]:
    """The text that clears an input gradient some of whose elements no tap reaches."""
    small = any(
        s > len({k * d % s for k in range(n)})
        for s, d, n in zip(geometry.stride, geometry.dilation, w.shape[2:])
    )
    if not small:
        return []
    loops, (by,) = collapsed(out.shape, [list(out.strides)])
    return [
        "{",
        f"  char* const ob = P[{out.base}] + {out.offset};",
        *open_loops("o", loops),
        f"  *({CTYPES[out.dtype.name]}*)(ob{steps('o', by)}) = 0;",
        *["  }"] * len(loops),
        "}",
    ]
