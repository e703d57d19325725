"""Convolutions of whole batches as calls of the functions in batches.hpp."""

from __future__ import annotations

from gradlite.capturing.native.convolution import (
    MOST_SUMS,
    phases_of,
    pointer,
    row_major,
    slide,
    unreached,
    usable,
)
from gradlite.capturing.native.loops import Place
from gradlite.capturing.native.types import CTYPES
from gradlite.ops.windows import VECTOR, Geometry, Pair, rows_of_copies

Text = tuple[list[str], int]
COPIES = 700_000  # bytes of images that are copied together, to stay in the second-level cache


def _steps(p: Place) -> str:
    return ", ".join(str(s // p.dtype.itemsize) for s in p.strides)


def _images(p: Place) -> str:
    return f"Images<{CTYPES[p.dtype.name]}>{{{pointer(p)}, {_steps(p)}}}"


def _source(g: Place, winners: Place | None) -> str:
    """Images, or gradients of maxima to be spread over their windows."""
    if winners is None:
        return _images(g)
    return (
        f"Spread<{CTYPES[g.dtype.name]}>{{{_images(g)}, {pointer(winners)}, {_steps(winners)}, "
        f"{g.shape[2]}, {g.shape[3]}}}"
    )


def _plain(y: Place) -> str:
    """The sink for images: squares of pixels are made at once where they leave no rest."""
    squares = y.shape[2] % 2 == y.shape[3] % 2 == 0
    return f"Plain<{CTYPES[y.dtype.name]}, {'2, 2' if squares else '1, 4'}>"


def convolve(
    x: Place,
    w: Place,
    geometry: Geometry,
    bias: Place | None,
    y: Place,
    winners: Place | None = None,
    relu: bool = False,
) -> Text | None:
    """The text of ``y = x * w + bias``, or of its maxima and their winners."""
    if not usable(x, w, y) or (bias is not None and not row_major(bias)):
        return None
    if bias is not None and bias.dtype != x.dtype:
        return None
    kind = CTYPES[x.dtype.name]
    added = "nullptr" if bias is None else pointer(bias)
    where = f"{{{pointer(y)}, {_steps(y)}, {added}}}"
    if winners is None:
        sink = _plain(y) + where
    else:
        pooled = f"Pooled<{kind}, {str(relu).lower()}>"
        sink = f"{pooled}{{Plain<{kind}>{where}, {pointer(winners)}, {_steps(winners)}}}"
    height, width = geometry.counts((x.shape[2], x.shape[3]), (w.shape[2], w.shape[3]))
    size = (x.shape[0], w.shape[0], height, width)
    text = f"{_images(x)}, {pointer(w)}, {_steps(w)}, {sink}"
    return _products(kind, x.shape, w.shape, y, size, geometry, text)


def input_gradient(
    g: Place,
    w: Place,
    geometry: Geometry,
    out: Place,
    winners: Place | None = None,
    size: Pair | None = None,
) -> Text | None:
    """The text of the input's gradient.

    With winners, ``g`` is the gradient of maxima of a result of that size.
    """
    if not usable(g, w, out):
        return None
    kind = CTYPES[g.dtype.name]
    grads = (g.shape[0], w.shape[0], *(size or g.shape[2:]))
    lines, room = unreached(w, geometry, out), 0
    for phase in phases_of(w, geometry, out, grads[2:]):
        own = phase.out
        sink = f"{_plain(own)}{{{pointer(own)}, {_steps(own)}, nullptr}}"
        text = f"{_source(g, winners)}, {phase.turned}, {sink}"
        more = _products(kind, grads, phase.kernels, own, own.shape, phase.geometry, text)
        lines += more[0]
        room = max(room, more[1])
    return lines, room


def _products(
    kind: str,
    x: tuple[int, ...],
    w: tuple[int, ...],
    out: Place,
    y: tuple[int, ...],
    geometry: Geometry,
    text: str,
) -> Text:
    # Results that are transposed take memory beside the copies of images until they are complete.
    own = 0 if out.strides[0] == out.dtype.itemsize else w[0] * y[3] * VECTOR
    rows = rows_of_copies(x[1], (y[2], y[3]), (w[2], w[3]), geometry, own, COPIES)
    taps = x[1] * w[2] * w[3]
    return [
        f"{{ // convolution of batches {x} with {w}",
        f"  const Slide s = {slide(x, w, y, geometry)};",
        f"  convolve_batch<{kind}>(s, {text}, {rows}, room);",
        "}",
    ], taps * 8 * (1 + w[0]) + 256


def weight_gradient(
    x: Place,
    g: Place,
    geometry: Geometry,
    out: Place,
    winners: Place | None = None,
    size: Pair | None = None,
) -> Text | None:
    """The text of the kernels' gradient; with winners as in `input_gradient`."""
    if not usable(x, g, out) or not row_major(out):
        return None
    o, c, kh, kw = out.shape
    taps = c * kh * kw
    if o * taps * VECTOR > MOST_SUMS:
        return None
    grads = (g.shape[0], o, *(size or g.shape[2:]))
    more = o * grads[3] * VECTOR
    rows = rows_of_copies(c, (grads[2], grads[3]), (kh, kw), geometry, more, COPIES)
    return [
        f"{{ // gradient of the kernels {out.shape} of a convolution of batches",
        f"  const Slide s = {slide(x.shape, out.shape, grads, geometry)};",
        f"  weight_gradient_batch<{CTYPES[x.dtype.name]}>(s, {_images(x)}, "
        f"{_source(g, winners)}, {pointer(out)}, {rows}, room);",
        "}",
    ], taps * 8 + 256
