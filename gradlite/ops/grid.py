"""Images sampled at points of a grid, and the grid of an affine map (Jaderberg et al., 2015)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.dispatch import apply, apply1
from gradlite.ops.grid_sampler import GridSampler2D, GridSampler3D
from gradlite.ops.indexing import MOST
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.samples import S, normal, uniform
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["affine_grid", "grid_sample"]


def _aligned(align_corners: bool | None) -> bool:
    if align_corners is None:
        warnings.warn(
            "Default grid_sample and affine_grid behavior has changed to align_corners=False since "
            "1.3.0. Please specify align_corners=True if the old behavior is desired. See the "
            "documentation of grid_sample for details.",
            stacklevel=3,
        )
    return bool(align_corners)


# -------------------------------------------------------------------------------- affine_grid
def _centres(n: int, align_corners: bool) -> np.ndarray[Any, Any]:
    """The positions of n pixels, -1 and 1 being the ends (or the centres of the end pixels)."""
    if n == 1:
        return np.zeros(1)
    ends = np.linspace(-1, 1, n)
    return ends if align_corners else ends * ((n - 1) / n)


def _pixels(xp: Any, sizes: tuple[int, ...], align_corners: bool, dtype: Any) -> Any:
    """The positions of all pixels, (x, y[, z], 1) each."""
    axes = np.meshgrid(*(_centres(n, align_corners) for n in sizes), indexing="ij")
    points = np.stack([*axes[::-1], np.ones(sizes)], axis=-1).reshape(-1, len(sizes) + 1)
    return xp.asarray(points.astype(dtype))


class AffineGridGenerator(Op):
    """The points that maps (N, dims, dims + 1) send pixels to."""

    def forward(xp: Any, theta: Any, sizes: tuple[int, ...], align: bool) -> Any:
        F = NAMESPACES[theta.__class__]
        points = F.matmul(_pixels(xp, sizes, align, theta.dtype), theta.swapaxes(1, 2))
        return points.reshape(len(theta), *sizes, len(sizes))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        sizes, align = ctx.attrs
        raw = F.array(grad)
        pixels = _pixels(NAMESPACES[raw.__class__].xp, sizes, align, raw.dtype)
        grad = grad.reshape((raw.shape[0], len(pixels), len(sizes)))
        return (F.matmul(grad.swapaxes(1, 2), pixels),)

    def fused_forward(K: Any, theta: Any, sizes: tuple[int, ...], align: bool) -> Any:
        out = (len(theta), *sizes, len(sizes))
        if K.serial or not K.takes(theta) or math.prod(out) >= MOST:
            return NotImplemented
        points = K.empty(out, theta.dtype)
        K.elementwise(
            "affine_grid_forward", theta.dtype, points.size, K.dense(theta), points,
            *_launched(len(theta), sizes, align),
        )  # fmt: skip
        return points

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        sizes, align = ctx.attrs
        if K.serial or not K.takes(grad) or grad.size >= MOST:
            return NotImplemented
        dtheta = K.empty(tuple(ctx.shapes[0]), grad.dtype)
        K.rows(
            "affine_grid_backward", grad.dtype, dtheta.size, math.prod(sizes), K.dense(grad),
            dtheta, *_launched(len(dtheta), sizes, align),
        )  # fmt: skip
        return (dtheta,)


def _launched(batch: int, sizes: tuple[int, ...], align: bool) -> tuple[int, ...]:
    """What the kernels take behind the arrays."""
    return batch, *(1,) * (3 - len(sizes)), *sizes, len(sizes), int(align)


@public(
    samples=lambda: [
        S(normal(2, 2, 3), (2, 1, 3, 4), align_corners=False),
        S(normal(2, 2, 3), (2, 1, 3, 4), align_corners=True),
        S(normal(1, 3, 4), (1, 2, 2, 3, 2), align_corners=False),
    ],
    torch="nn.functional.affine_grid",
    errors=lambda: [
        S(normal(2, 3, 3), (2, 1, 3, 4), align_corners=False),
        S(normal(2, 2, 3), (2, 3, 4), align_corners=False),
        S(np.ones((1, 2, 3), np.int64), (1, 1, 3, 4), align_corners=False),
    ],
    autocast="lower",
)
def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The points that affine maps send the pixels of an image of a size to, for `grid_sample`.

    Shapes: theta (N, 2, 3) and size (N, C, H, W), result (N, H, W, 2); or theta (N, 3, 4) and
    size (N, C, D, H, W), result (N, D, H, W, 3).

    >>> import gradlite
    >>> theta = gradlite.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> gradlite.nn.functional.affine_grid(theta, (1, 1, 1, 2), align_corners=False)
    tensor([[[[-0.5000,  0.0000],
              [ 0.5000,  0.0000]]]])
    """
    align = _aligned(align_corners)
    if not theta.is_floating_point():
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    dims = len(size) - 2
    if dims not in (2, 3):
        raise NotImplementedError(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, "
            f"respectively. Got size {size}."
        )
    if theta.array.ndim != 3 or theta.array.shape[1:] != (dims, dims + 1):
        raise ValueError(
            f"Expected a batch of {dims}D affine matrices of shape Nx{dims}x{dims + 1} for size "
            f"{size}. Got {theta.shape}."
        )
    if min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {size}")
    if align and min(size[2:]) == 1:
        warnings.warn(
            "Since version 1.3.0, affine_grid behavior has changed for unit-size grids when "
            "align_corners=True. This is not an intended use case of affine_grid. See the "
            "documentation of affine_grid for details.",
            stacklevel=2,
        )
    return apply1(AffineGridGenerator, theta, tuple(size[2:]), align)


# -------------------------------------------------------------------------------- grid_sample
def _grid(n: int, *spatial: int) -> Any:
    return uniform(-1.3, 1.3, n, *spatial, len(spatial))


def _grid_samples() -> list[Any]:
    modes = [
        S(normal(2, 3, 4, 5), _grid(2, 3, 2), mode, padding, align)
        for mode in ("bilinear", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for align in (False, True)
    ]
    return [
        *modes,
        S(normal(2, 3, 4, 5), _grid(2, 3, 2), "nearest", "border", False, smooth=False),
        S(normal(2, 2, 3, 4, 3), _grid(2, 2, 3, 2), "bilinear", "zeros", False),
        S(normal(1, 2, 3, 4, 3), _grid(1, 2, 3, 2), "bilinear", "reflection", True),
    ]


@public(
    samples=_grid_samples,
    torch="nn.functional.grid_sample",
    errors=lambda: [
        S(normal(2, 3, 4, 5), _grid(1, 3, 2), align_corners=False),
        S(normal(2, 3, 4), _grid(2, 3, 2), align_corners=False),
        S(normal(2, 3, 4, 5), _grid(2, 3, 2), "linear", align_corners=False),
        S(normal(2, 3, 4, 5), _grid(2, 3, 2), padding_mode="ones", align_corners=False),
        S(normal(1, 1, 3, 4, 3), _grid(1, 2, 3, 2), "bicubic", align_corners=False),
    ],
    autocast=("float32", "widest"),
)
def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """Images at the points of a grid, whose coordinates (x, y) run from -1 to 1 over the image.

    Shapes: input (N, C, H, W), grid (N, OH, OW, 2), result (N, C, OH, OW); or input (N, C, D, H,
    W), grid (N, OD, OH, OW, 3).

    Args:
        mode: "bilinear", "nearest" or "bicubic" (images alone).
        padding_mode: what is outside: "zeros", "border" (the nearest pixel) or "reflection".
        align_corners: whether -1 and 1 are the centres of the end pixels, or their far sides.

    >>> import gradlite
    >>> image = gradlite.tensor([[[[0.0, 1.0]]]])
    >>> middle = gradlite.zeros(1, 1, 1, 2)
    >>> gradlite.nn.functional.grid_sample(image, middle, align_corners=False)
    tensor([[[[0.5000]]]])
    """
    start = "nn.functional.grid_sample(): expected"
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(
            f"{start} mode to be 'bilinear', 'nearest' or 'bicubic', but got: '{mode}'"
        )
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            f"{start} padding_mode to be 'zeros', 'border', or 'reflection', but got: "
            f"'{padding_mode}'"
        )
    align = _aligned(align_corners)
    shape, points = input.array.shape, grid.array.shape
    if shape[0] == points[0] and points[-1:] != (len(shape) - 2,):
        raise RuntimeError(
            f"grid_sampler(): expected grid to have size {len(shape) - 2} in last dimension, but "
            f"got grid with sizes {list(points)}"
        )
    if len(shape) not in (4, 5) or len(points) != len(shape):
        raise RuntimeError(
            "grid_sampler(): expected 4D or 5D input and grid with same number of dimensions, but "
            f"got input with sizes {list(shape)} and grid with sizes {list(points)}"
        )
    if shape[0] != points[0]:
        raise RuntimeError(
            "grid_sampler(): expected grid and input to have same batch size, but got input with "
            f"sizes {list(shape)} and grid with sizes {list(points)}"
        )
    dims = len(shape) - 2
    for dim in range(2, len(shape)):
        if shape[dim] == 0:
            raise RuntimeError(
                "grid_sampler(): expected input to have non-empty spatial dimensions, but input "
                f"has sizes {list(shape)} with dimension {dim} being empty"
            )
    if mode == "bicubic" and dims == 3:
        raise RuntimeError("grid_sampler(): bicubic interpolation only supports 4D input")
    _check_dtypes(input.array.dtype, grid.array.dtype, dims)
    op = GridSampler2D if dims == 2 else GridSampler3D
    return apply(op, (input, grid), mode, padding_mode, align)  # type: ignore[no-any-return]


def _check_dtypes(images: Any, points: Any, dims: int) -> None:
    if images not in dtypes.FLOATING:
        kernel = "grid_sampler_2d_cpu_kernel_impl" if dims == 2 else "grid_sampler3d_cpu"
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{type_name(images)}'")
    if images != points:
        raise RuntimeError(
            f"expected scalar type {type_name(images)} but found {type_name(points)}"
        )
