"""Images sampled at points of a grid, and the grid of an affine map (Jaderberg et al., 2015)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite.ops.guard import on_its_device
from gradlite.ops.matmul import matmul
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.samples import S, normal, uniform
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

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
)
@on_its_device
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
    spatial = tuple(size[2:])
    axes = np.meshgrid(*(_centres(n, align) for n in spatial), indexing="ij")
    points = np.stack([*axes[::-1], np.ones(spatial)], axis=-1).reshape(-1, dims + 1)
    xp = NAMESPACES[theta.array.__class__].xp
    base = wrap(xp.asarray(points.astype(theta.array.dtype)))
    result: Any = matmul(base, theta.mT)  # type: ignore[attr-defined]
    return result.reshape(theta.array.shape[0], *spatial, dims)  # type: ignore[no-any-return]


# -------------------------------------------------------------------------------- grid_sample
def _reflected(x: Any, low: float, high: float) -> Any:
    """Coordinates mirrored at both ends until they are between them."""
    if low == high:
        return x * 0
    span = high - low
    away = (x - low).abs()
    times = (away.detach() / span).floor()
    extra = away - times * span
    odd = times % 2
    return odd * (span - extra) + (1 - odd) * extra + low


def _inside(x: Any, n: int, padding_mode: str, align: bool) -> Any:
    """Coordinates brought to pixels that exist, as a padding mode has it."""
    if padding_mode == "reflection":
        x = _reflected(x, 0, n - 1) if align else _reflected(x, -0.5, n - 0.5)
    if padding_mode == "zeros":
        return x
    # NaN, or infinite and reflected without end, is at the first pixel.
    return x.nan_to_num(0, np.inf, -np.inf).clamp(0, n - 1)


def _cubic_weights(t: Any) -> list[Any]:
    """The weights of four neighbours, a = -0.75 (Keys, 1981)."""
    a = -0.75

    def far(x: Any) -> Any:
        return ((x * a - 5 * a) * x + 8 * a) * x - 4 * a

    def near(x: Any) -> Any:
        return (x * (a + 2) - (a + 3)) * x * x + 1

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _taps(x: Any, n: int, mode: str, padding_mode: str, align: bool) -> list[tuple[Any, Any, Any]]:
    """For each neighbour along one dimension: its pixel, whether it exists, its weight."""
    x = ((x + 1) * (n - 1) if align else (x + 1) * n - 1) / 2
    if mode != "bicubic":
        x = _inside(x, n, padding_mode, align)
    base = x.detach()
    if mode == "nearest":
        pairs = [(base.round(), None)]
    elif mode == "bilinear":
        low = base.floor()
        pairs = [(low, low + 1 - x), (low + 1, x - low)]
    else:
        low = base.floor()
        places = [_inside(low + k, n, padding_mode, align) for k in range(-1, 3)]
        pairs = list(zip(places, _cubic_weights(x - low)))
    # Where a coordinate is NaN, so is the place: as outside, it must not be read at.
    return [
        (p.clamp(0, n - 1).nan_to_num(0).long(), (p >= 0) & (p <= n - 1), weight)
        for p, weight in pairs
    ]


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
    n, channels, *sizes = shape
    source: Any = input.reshape(n, channels, math.prod(sizes))
    flat: Any = grid.reshape(n, math.prod(points[1:-1]), dims)
    # Coordinates come innermost first.
    axes = [
        _taps(flat[..., dims - 1 - d], size, mode, padding_mode, align)
        for d, size in enumerate(sizes)
    ]
    total: Any = None
    xp = NAMESPACES[input.array.__class__].xp
    for number in np.ndindex(*(len(taps) for taps in axes)):
        place: Any = 0
        exists: Any = None
        weight: Any = None
        for k, taps, size in zip(number, axes, sizes):
            pixel, inside, factor = taps[k]
            place = place * size + pixel
            exists = inside if exists is None else exists & inside
            if factor is not None:
                weight = factor if weight is None else weight * factor
        index = wrap(xp.broadcast_to(place.array[:, None], (n, channels, place.shape[1])))
        values = source.gather(2, index).masked_fill(~exists.unsqueeze(1), 0)
        if weight is not None:
            values = values * weight.unsqueeze(1)
        total = values if total is None else total + values
    if mode == "nearest":  # PyTorch's gradient of the grid is 0, not none
        total = total + (flat.nan_to_num(0, 0, 0) * 0).sum()
    return total.reshape(n, channels, *points[1:-1])  # type: ignore[no-any-return]
