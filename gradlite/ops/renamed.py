"""Functions under the names that they had once, which PyTorch has deprecated."""

from __future__ import annotations

import warnings
from typing import Any

from gradlite.ops.resize import interpolate
from gradlite.tensor import Tensor

__all__ = ["upsample", "upsample_bilinear", "upsample_nearest"]


def _interpolate_instead(name: str) -> None:
    warnings.warn(
        f"`nn.functional.{name}` is deprecated. Use `nn.functional.interpolate` instead.",
        stacklevel=3,
    )


def upsample(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """`interpolate`: deprecated."""
    _interpolate_instead("upsample")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "nearest": deprecated."""
    _interpolate_instead("upsample_nearest")
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "bilinear" and aligned corners: deprecated."""
    _interpolate_instead("upsample_bilinear")
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)
