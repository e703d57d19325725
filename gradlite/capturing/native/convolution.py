"""Convolutions and their gradients as calls of the functions in convolution.hpp."""

from __future__ import annotations

from gradlite.capturing.native.loops import Place
from gradlite.capturing.native.types import CTYPES
from gradlite.ops.windows import Geometry, turned_back

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
    if not usable(x, w, y) or not row_major(w) or not row_major(y):
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
        f"{pointer(y)}, room);",
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
    """The text of the input's gradient when the kernels slide by one step."""
    if geometry.stride != (1, 1) or not usable(g, w, out):
        return None
    if not row_major(w) or not row_major(out):
        return None
    o, c, kh, kw = w.shape
    back = turned_back(geometry, (kh, kw))
    turned = (c, o, kh, kw)
    image, pixels, taps = _sizes(g.shape, turned, out.shape, back)
    size = -(-o * c * kh * kw * 8 // 64) * 64
    room = size + taps * 8 + (image + c * (pixels + 128) + 256) * 8 + 512
    kind = CTYPES[g.dtype.name]
    return [
        f"{{ // gradient of the input {out.shape} of a convolution",
        f"  const Slide s = {slide(g.shape, turned, out.shape, back)};",
        f"  turn<{kind}>({pointer(w)}, ({kind}*)room, {o}, {c}, {kh * kw});",
        f"  convolve<{kind}>(s, {pointer(g)}, {_strides(g)}, ({kind}*)room, nullptr, "
        f"{pointer(out)}, room + {size});",
        "}",
    ], room
