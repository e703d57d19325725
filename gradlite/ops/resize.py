"""Changes of an image's size, written with other ops: interpolation and shuffles of channels."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import resampling
from gradlite.ops.adaptive_pool import adaptive_avg_pool1d, adaptive_avg_pool2d
from gradlite.ops.dispatch import apply1
from gradlite.ops.op import type_name
from gradlite.ops.operands import beside, in_single
from gradlite.ops.pool3d import adaptive_avg_pool3d
from gradlite.ops.resample import op_of
from gradlite.ops.resampling import Resized
from gradlite.ops.samples import S, normal
from gradlite.ops.shape import contiguous
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["channel_shuffle", "interpolate", "pixel_shuffle", "pixel_unshuffle"]

LINEAR_DIMS = {"linear": 3, "bilinear": 4, "bicubic": 4, "trilinear": 5}


AREA: dict[int, Any] = {3: adaptive_avg_pool1d, 4: adaptive_avg_pool2d, 5: adaptive_avg_pool3d}


def _bytes(image: Tensor, axis: int, line: Resized) -> Tensor:
    """Bytes of one dimension resized by weights in fixed point, and rounded."""
    matrix, bits = resampling.in_fixed_point(line.matrix())
    rows: Any = image.transpose(axis, -1)
    sums = rows.double() @ wrap(beside(image.array, matrix.T.copy()))
    bytes = ((sums + (1 << bits >> 1)) / (1 << bits)).floor().clamp(0, 255).to(image.dtype)
    return bytes.transpose(axis, -1)  # type: ignore[no-any-return]


def _check_dtype(input: Tensor, mode: str) -> None:
    """Of integers, only bytes of images can be resized by weights."""
    dtype = input.array.dtype
    if dtype in dtypes.FLOATING or (dtype == np.uint8 and mode in ("bilinear", "bicubic")):
        return
    kind = "cubic" if mode == "bicubic" else "linear"
    raise NotImplementedError(
        f"\"compute_indices_weights_{kind}\" not implemented for '{type_name(dtype)}'"
    )


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _sizes(
    input: Tensor, size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[list[int], list[float | None]]:
    """The output sizes, and the scales where they take precedence over the sizes' ratio."""
    dims = list(input.shape[2:])
    given = size if size is not None else scale_factor
    if size is None and scale_factor is None:
        raise ValueError("either size or scale_factor should be defined")
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    if recompute and size is not None:
        raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
    if isinstance(given, Sequence) and len(given) != len(dims):
        both, got, name, letter = (
            ("output", f"output size of {given}", "output size", "o")
            if size is not None
            else ("scale_factor", f"scale_factor of shape {given}", "scale_factor", "s")
        )
        raise ValueError(
            f"Input and {both} must have the same number of spatial dimensions, but got input "
            f"with spatial dimensions of {dims} and {got}. Please provide input tensor in "
            f"(N, C, d1, d2, ...,dK) format and {name} in ({letter}1, {letter}2, ...,{letter}K) "
            "format."
        )
    values = list(given) if isinstance(given, Sequence) else [given] * len(dims)
    if size is not None:
        if not all(_is_whole(v) for v in values):
            raise TypeError(
                "expected size to be one of int or Tuple[int] or Tuple[int, int] or "
                f"Tuple[int, int, int], but got size with types {[type(v) for v in values]}"
            )
        return [operator.index(v) for v in values], [None] * len(dims)
    sizes = [math.floor(n * factor) for n, factor in zip(dims, values, strict=True)]
    if any(abs(n) >= 1 << 63 for n in sizes):
        raise RuntimeError("value cannot be converted to type int64_t without overflow")
    return sizes, [None] * len(dims) if recompute else [float(v) for v in values]


def _cpu_policy(input: Any, *_: Any, **settings: Any) -> str:
    """Of all ways to resize on the CPU, PyTorch casts the means of volumes alone."""
    return "float32" if settings.get("mode") == "area" and input.dim() == 5 else "plain"


@public(
    samples=lambda: [
        S(normal(2, 3, 4), 7),
        S(normal(2, 3, 4, 5), scale_factor=2),
        S(normal(2, 3, 4, 5), (6, 3), mode="nearest-exact"),
        S(normal(1, 2, 2, 3, 2), (3, 2, 5)),
        S(normal(2, 3, 4), 7, mode="linear"),
        S(normal(2, 3, 4, 5), (7, 3), mode="bilinear"),
        S(normal(2, 3, 4, 5), (7, 3), mode="bilinear", align_corners=True),
        S(normal(2, 3, 4, 5), scale_factor=(1.7, 0.6), mode="bilinear"),
        S(
            normal(2, 3, 4, 5),
            scale_factor=(1.7, 0.6),
            mode="bilinear",
            recompute_scale_factor=True,
        ),
        S(normal(1, 2, 2, 3, 2), (3, 2, 5), mode="trilinear"),
        S(normal(2, 3, 4, 5), (7, 3), mode="bicubic"),
        S(normal(2, 3, 4, 5), scale_factor=(1.7, 0.6), mode="bicubic"),
        S(normal(2, 3, 4, 5), (7, 3), mode="bicubic", align_corners=True),
        S(normal(2, 3, 4, 5), (3, 2), mode="area"),
        S(normal(2, 3, 5), 2, mode="area"),
        S(normal(1, 2, 2, 3, 2), (2, 2, 1), mode="area"),
        S(normal(2, 3, 7, 5), (3, 2), mode="bilinear", antialias=True),
        S(normal(2, 3, 7, 5), (3, 8), mode="bicubic", antialias=True),
        S(normal(2, 3, 7, 5), scale_factor=0.6, mode="bilinear", antialias=True),
        S(normal(2, 3, 7, 5), (3, 2), mode="bilinear", antialias=True, align_corners=True),
    ],
    torch="nn.functional.interpolate",
    errors=lambda: [
        S(normal(2, 3, 4), 2, mode="bicubic"),
        S(normal(2, 3, 4), 2, mode="linear", antialias=True),
        S(normal(2, 3), 2),
        S(normal(2, 3, 4, 5), 2, mode="cubic"),
        S(normal(2, 3, 4, 5), 2, mode="area", align_corners=True),
    ],
    autocast=(_cpu_policy, "float32"),
)
def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resize everything behind the first two dimensions ``(N, C, ...)``.

    Args:
        size: the output size, one number for all dimensions or one for each.
        scale_factor: what to multiply the input's size with, instead of ``size``.
        mode: "nearest", "nearest-exact", "area" (means), or "linear", "bilinear", "trilinear" for
            one, two or three dimensions, or "bicubic" for two.
        align_corners: whether the corner elements' centres stay in place, rather than the corners.
        recompute_scale_factor: take the scale from the sizes instead of ``scale_factor``.
        antialias: weigh all pixels between the output's (of "bilinear" and "bicubic").

    >>> import gradlite
    >>> F = gradlite.nn.functional
    >>> F.interpolate(gradlite.tensor([[[1.0, 2.0]]]), scale_factor=2)
    tensor([[[1., 1., 2., 2.]]])
    >>> F.interpolate(gradlite.tensor([[[1.0, 2.0]]]), 3, mode="linear", align_corners=True)
    tensor([[[1.0000, 1.5000, 2.0000]]])

    Raises:
        ValueError: neither size nor scale, both, or not one for each dimension.
        NotImplementedError: the mode does not go with the number of dimensions.
    """
    if mode not in LINEAR_DIMS and align_corners is not None:
        raise ValueError(
            "align_corners option can only be set with the interpolating modes: "
            "linear | bilinear | bicubic | trilinear"
        )
    sizes, scales = _sizes(input, size, scale_factor, recompute_scale_factor)
    if antialias and not (mode in ("bilinear", "bicubic") and input.dim() == 4):
        raise ValueError(
            "Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and requires "
            "a 4-D tensor as input"
        )
    known = (*LINEAR_DIMS, "nearest", "nearest-exact", "area")
    if (
        input.dim() not in (3, 4, 5)
        or mode not in known
        or (mode == "bicubic" and input.dim() != 4)
    ):
        raise NotImplementedError(
            f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {input.dim()}D) for the "
            "modes: nearest | linear | bilinear | bicubic | trilinear | lanczos | area | "
            f"nearest-exact (got {mode})"
        )
    if mode in LINEAR_DIMS and input.dim() != LINEAR_DIMS[mode]:
        raise NotImplementedError(
            f"Got {input.dim()}D input, but {mode} mode needs {LINEAR_DIMS[mode]}D input"
        )
    if min(sizes) <= 0 or min(input.shape[2:]) <= 0:
        raise RuntimeError(
            "Input and output sizes should be greater than 0, but got input "
            f"{tuple(input.shape[2:])} output {tuple(sizes)}"
        )
    if mode == "area":
        return _means(input, tuple(sizes))
    weighs = mode in LINEAR_DIMS
    if weighs:
        _check_dtype(input, mode)
    lines = tuple(
        (axis, Resized(n, wanted, mode, scale, bool(align_corners), antialias))
        for axis, n, wanted, scale in zip(range(2, 5), input.shape[2:], sizes, scales)
        if wanted != n or not weighs  # of weights, whatever the scale says
    )
    if not weighs or input.array.dtype in dtypes.FLOATING:
        return apply1(op_of(mode, input.dim() - 2, antialias), input, lines)
    result: Any = input.clone()  # type: ignore[attr-defined]
    for axis, line in reversed(lines):  # bytes are rounded after every dimension
        result = _bytes(result, axis, line)
    return contiguous(result)


@in_single
def _means(input: Tensor, sizes: tuple[int, ...]) -> Tensor:
    return AREA[input.dim()](input, sizes)  # type: ignore[no-any-return]


@public(
    samples=lambda: [S(normal(2, 8, 3, 2), 2), S(normal(9, 1, 2), 3)],
)
def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """``(*, C r², H, W)`` to ``(*, C, H r, W r)``: channels become pixels (Shi et al., 2016).

    >>> import gradlite
    >>> gradlite.nn.functional.pixel_shuffle(gradlite.arange(4).reshape(4, 1, 1), 2)
    tensor([[[0, 1],
             [2, 3]]])

    Raises:
        RuntimeError: r² does not divide the channels.
    """
    r = upscale_factor
    if input.dim() < 3:
        raise RuntimeError(
            "pixel_shuffle expects input to have at least 3 dimensions, but got input with "
            f"{input.dim()} dimension(s)"
        )
    if r <= 0:
        raise RuntimeError(f"pixel_shuffle expects a positive upscale_factor, but got {r}")
    *batch, channels, height, width = input.shape
    if channels % (r * r) != 0:
        raise RuntimeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square "
            f"of upscale_factor, but input.size(-3)={channels} is not divisible by {r * r}"
        )
    x: Any = input.clone() if r == 1 else input  # type: ignore[attr-defined]
    x = x.reshape(math.prod(batch), channels // (r * r), r, r, height, width)
    x = x.permute(0, 1, 4, 2, 5, 3)
    return x.reshape(*batch, channels // (r * r), height * r, width * r)  # type: ignore[no-any-return]


@public(samples=lambda: [S(normal(2, 2, 4, 6), 2), S(normal(1, 3, 6), 3)])
def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """``(*, C, H r, W r)`` to ``(*, C r², H, W)``: the inverse of `pixel_shuffle`.

    >>> import gradlite
    >>> gradlite.nn.functional.pixel_unshuffle(gradlite.ones(1, 4, 6), 2).shape
    gradlite.Size([4, 2, 3])

    Raises:
        RuntimeError: r does not divide height and width.
    """
    r = downscale_factor
    if input.dim() < 3:
        raise RuntimeError(
            "pixel_unshuffle expects input to have at least 3 dimensions, but got input with "
            f"{input.dim()} dimension(s)"
        )
    if r <= 0:
        raise RuntimeError(f"pixel_unshuffle expects a positive downscale_factor, but got {r}")
    *batch, channels, height, width = input.shape
    for name, dim, n in (("height", -2, height), ("width", -1, width)):
        if n % r != 0:
            raise RuntimeError(
                f"pixel_unshuffle expects {name} to be divisible by downscale_factor, but "
                f"input.size({dim})={n} is not divisible by {r}"
            )
    x: Any = input.clone() if r == 1 else input  # type: ignore[attr-defined]
    x = x.reshape(math.prod(batch), channels, height // r, r, width // r, r)
    x = x.permute(0, 1, 3, 5, 2, 4)
    return x.reshape(*batch, channels * r * r, height // r, width // r)  # type: ignore[no-any-return]


@public(samples=lambda: [S(normal(2, 6, 3), 2), S(normal(1, 4, 2, 2), 4)])
def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Deal the channels of ``(N, C, *)`` out to groups like cards (Zhang et al., 2017).

    >>> import gradlite
    >>> x = gradlite.arange(4).reshape(1, 4, 1)
    >>> gradlite.nn.functional.channel_shuffle(x, 2).flatten()
    tensor([0, 2, 1, 3])

    Raises:
        RuntimeError: ``groups`` does not divide the channels.
    """
    if input.dim() < 3:
        raise RuntimeError(
            f"channel_shuffle expects input with > 2 dims, but got input with sizes "
            f"{list(input.shape)}"
        )
    if groups <= 0:
        raise RuntimeError(
            f"Number of groups to divide channels in must be positive. Value of groups:{groups}"
        )
    n, channels, *rest = input.shape
    if channels % groups != 0:
        raise RuntimeError(
            "Number of channels must be divisible by groups. "
            f"Got {channels} channels and {groups} groups."
        )
    x: Any = input
    x = x.reshape(n, groups, channels // groups, *rest).transpose(1, 2)
    return contiguous(x.reshape(n, channels, *rest))
