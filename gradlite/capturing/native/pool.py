"""Max-pooling and its gradient as calls of the functions in pooling.hpp."""

from __future__ import annotations

import math

from gradlite.capturing.native.convolution import pointer, row_major
from gradlite.capturing.native.loops import Place
from gradlite.capturing.native.types import CTYPES
from gradlite.ops.windows import Geometry, Pair


def _windows(
    shape: tuple[int, ...], kernel: Pair, geometry: Geometry, counts: tuple[int, ...]
) -> str:
    (top, _), (left, _) = geometry.pads
    numbers = (
        *(math.prod(shape[:-2]), *shape[-2:], *counts),
        *(top, left, *geometry.stride, *geometry.dilation),
    )
    return "Windows{" + ", ".join(map(str, numbers)) + "}"


def _usable(*places: Place) -> bool:
    return all(row_major(p) and 0 not in p.shape and p.dtype.name in CTYPES for p in places)


def max_pool(
    x: Place, kernel: Pair, geometry: Geometry, y: Place, winners: Place
) -> list[str] | None:
    """The text of the maxima and winners of all windows."""
    if not _usable(x, y, winners) or x.dtype.name not in ("float32", "float64"):
        return None
    kinds = f"{CTYPES[x.dtype.name]}, {CTYPES[winners.dtype.name]}, {kernel[0]}, {kernel[1]}"
    return [
        f"{{ // max-pooling of {x.shape}",
        f"  const Windows s = {_windows(x.shape, kernel, geometry, y.shape[-2:])};",
        f"  max_pool<{kinds}>(s, {pointer(x)}, {pointer(y)}, {pointer(winners)});",
        "}",
    ]


def scatter(
    g: Place, winners: Place, kernel: Pair, geometry: Geometry, out: Place
) -> list[str] | None:
    """The text of max-pooling's gradient."""
    if not _usable(g, winners, out) or g.dtype.name not in ("float32", "float64"):
        return None
    if g.dtype != out.dtype:
        return None
    kinds = f"{CTYPES[g.dtype.name]}, {CTYPES[winners.dtype.name]}, {kernel[1]}"
    return [
        f"{{ // gradient of max-pooling, {out.shape}",
        f"  const Windows s = {_windows(out.shape, kernel, geometry, g.shape[-2:])};",
        f"  max_pool_scatter<{kinds}>(s, {pointer(g)}, {pointer(winners)}, {pointer(out)});",
        "}",
    ]


def scatter_at(g: Place, places: Place, out: Place, code: int) -> list[str] | None:
    """The text of zeros with values added at places in their images; ``code`` refuses a place."""
    if not _usable(g, places, out) or g.dtype != out.dtype or places.dtype.name != "int64":
        return None
    kind, area = CTYPES[g.dtype.name], math.prod(out.shape[-2:])
    return [
        f"{{ // values added at places of {out.shape}",
        f"  const {kind}* g = {pointer(g)};",
        f"  const i64* at = {pointer(places)};",
        f"  {kind}* image = {pointer(out)};",
        f"  memset(image, 0, {math.prod(out.shape) * out.dtype.itemsize});",
        f"  for (i64 n = 0; n < {math.prod(out.shape[:-2])}; n++, image += {area}) {{",
        f"  for (i64 i = 0; i < {math.prod(g.shape[-2:])}; i++) {{",
        f"    if (*at < 0 || *at >= {area}) return {code};",
        "    image[*at++] += *g++;",
        "  }",
        "  }",
        "}",
    ]
