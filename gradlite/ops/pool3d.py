"""Max-pooling and mean-pooling of volumes: over the plane of each frame, then along the depth.

The maximum of a box is that of its frames' maxima, and its first element in row-major order is
in the first frame that has it; the mean is the mean of its frames' means, as all frames of a
box have windows of one size. So these are two steps of pooling of images each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import pool_launch
from gradlite.ops.adaptive_pool import check_filled
from gradlite.ops.guard import on_its_device
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import type_name
from gradlite.ops.operands import in_single
from gradlite.ops.pool import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    max_pool2d,
)
from gradlite.ops.pool_arguments import check_tensor, is_given, triple, window_count
from gradlite.ops.samples import S, distinct, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["adaptive_avg_pool3d", "adaptive_max_pool3d", "avg_pool3d", "max_pool3d"]

Three = tuple[int, int, int]


def _check(name: str, x: Tensor, **numbers: Three) -> None:
    if 0 in numbers["stride"]:
        raise RuntimeError("stride should not be zero")
    for argument, (depth, height, width) in numbers.items():
        if min(depth, height, width) <= 0:
            short = {"kernel_size": "k", "stride": "d", "dilation": "dilation"}[argument]
            raise RuntimeError(
                f"{argument.replace('_', ' ')} should be greater than zero, but got {short}T: "
                f"{depth} {short}H: {height} {short}W: {width}"
            )
    shape = x.array.shape
    if len(shape) not in (4, 5):
        raise RuntimeError(f"{name}: Expected 4D or 5D tensor for input, but got: {list(shape)}")
    for dim, n in enumerate(shape):
        if n == 0 and (dim or len(shape) == 4):
            raise RuntimeError(
                "Expected input's non-batch dimensions to have positive length, but input has a "
                f"shape of {list(shape)} and non-batch dimension {n} has length zero!"
            )
    if x.array.dtype not in dtypes.FLOATING and (name != "max_pool3d" or x.array.dtype == np.bool_):
        raise NotImplementedError(f"\"{name}\" not implemented for '{type_name(x.array.dtype)}'")


def _check_room(x: Tensor, kernel: Three, stride: Three, pad: Three, far: Three, up: bool) -> None:
    """RuntimeError when no box fits; pool_geometry checks the other numbers."""
    c, *sizes = x.array.shape[-4:]
    every = zip(sizes, kernel, stride, pad, far)
    counts = [window_count(n, k, s, p, d, up) for n, k, s, p, d in every]
    if min(counts) < 1 and all(2 * p <= k for k, p in zip(kernel, pad)):
        own, new = ("x".join(map(str, (c, *numbers))) for numbers in (sizes, counts))
        raise RuntimeError(
            f"Given input size: ({own}). Calculated output size: ({new}). Output size is too small"
        )


def _flat(x: Tensor) -> tuple[tuple[int, ...], Any]:
    """The leading dimensions, and the volumes of all of them one after another."""
    *lead, depth, height, width = x.array.shape
    count = 1
    for n in lead:
        count *= n
    return tuple(lead), x.reshape(count, depth, height, width)


def _rows(frames: Any) -> Any:
    """Frames (count, D, H, W) with each frame as one row: images (count, 1, D, H * W)."""
    count, depth, height, width = frames.shape
    return frames.reshape(count, 1, depth, height * width)


@on_its_device
def _places(lead: Any, plane: Any, inner: Any, outer: Any, counts: Any) -> Tensor:
    """Where in its volume each maximum was, from the places in its frame and along the depth."""
    n, row = inner.shape[0], inner.shape[2] * inner.shape[3]
    area = plane[0] * plane[1]
    K = NAMESPACES[inner.array.__class__].launcher
    if K is not None:
        found = pool_launch.box_places(K, inner.array, outer.array, row, area)
        if found is not NotImplemented:
            return wrap(found).reshape(*lead, *counts)  # type: ignore[no-any-return]
    chosen = inner.reshape(n, inner.shape[1] * row).gather(1, outer.reshape(n, counts[0] * row))
    frame = outer.reshape(n, counts[0] * row) // row
    result: Any = frame * area + chosen
    return result.reshape(*lead, *counts)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(distinct(2, 3, 4, 4, 6), 2),
        S(distinct(2, 2, 5, 7, 6), 3, 2, 1),
        S(distinct(2, 4, 7, 6), (2, 2, 3), (1, 1, 2), (1, 1, 0), (1, 2, 1)),
        S(distinct(1, 2, 5, 5, 3), 2, ceil_mode=True),
        S(distinct(0, 2, 4, 4, 4), 2),
        S(distinct(2, 2, 4, 5, 5), 3, 1, 1, return_indices=True),
        S(distinct(2, 4, 5, 5), (2, 1, 3), return_indices=True),
    ],
    torch="nn.functional.max_pool3d",
    errors=lambda: [
        S(normal(2, 3, 8, 8, 8), 2, padding=2),
        S(normal(2, 3, 2, 4, 4), 3),
        S(normal(2, 3, 8, 8, 8), (2, 2)),
        S(normal(2, 3, 8, 8, 8), 0),
        S(normal(8, 8, 8), 2),
    ],
    # PyTorch casts the maxima that come without their places.
    autocast=(lambda *args, return_indices=False, **_: "" if return_indices else "float32", ""),
)
def max_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of every box of ``kernel_size`` in volumes (N, C, D, H, W) or (C, D, H, W).

    See `max_pool2d`; indices are places in a volume of D * H * W elements.

    >>> import gradlite
    >>> x = gradlite.arange(8.0).view(1, 2, 2, 2)
    >>> gradlite.nn.functional.max_pool3d(x, 2)
    tensor([[[[7.]]]])
    """
    name = "max_pool3d"
    check_tensor(name, input)
    kernel = triple(name, "kernel_size", kernel_size)
    steps = triple(name, "stride", stride) if is_given(stride) else kernel
    around = triple(name, "padding", padding)
    spread = triple(name, "dilation", dilation)
    _check(name, input, kernel_size=kernel, stride=steps, dilation=spread)
    _check_room(input, kernel, steps, around, spread, ceil_mode)
    lead, volumes = _flat(input)
    plane = (kernel[1:], steps[1:], around[1:], spread[1:], ceil_mode, return_indices)
    depth = ((kernel[0], 1), (steps[0], 1), (around[0], 0), (spread[0], 1), ceil_mode)
    if not return_indices:
        frames = max_pool2d(volumes, *plane)
        result = max_pool2d(_rows(frames), *depth)
        return result.reshape(*lead, result.shape[2], *frames.shape[2:])
    frames, inner = max_pool2d(volumes, *plane)
    result, outer = max_pool2d(_rows(frames), *depth, True)
    counts = (result.shape[2], *frames.shape[2:])
    places = _places(lead, volumes.shape[2:], inner, outer, counts)
    return result.reshape(*lead, *counts), places


@public(
    samples=lambda: [
        S(normal(2, 3, 4, 4, 6), 2),
        S(normal(2, 2, 5, 7, 7), 3, 2, 1),
        S(normal(2, 4, 7, 6), (2, 2, 3), (1, 1, 2), (1, 1, 0), count_include_pad=False),
        S(normal(1, 2, 5, 5, 3), 2, 2, 1, True),
        S(normal(1, 2, 5, 5, 3), 2, 2, 1, True, False),
        S(normal(1, 2, 5, 5, 4), 3, 1, divisor_override=2),
        S(normal(0, 2, 4, 4, 4), 2),
    ],
    torch="nn.functional.avg_pool3d",
    errors=lambda: [
        S(normal(2, 3, 8, 8, 8), 2, padding=2),
        S(normal(2, 3, 2, 4, 4), 3),
        S(normal(2, 3, 8, 8, 8), 2, divisor_override=0),
        S(normal(8, 8, 8), 2),
    ],
    autocast=("float32", ""),
)
@in_single
def avg_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of every box of ``kernel_size`` in volumes (N, C, D, H, W) or (C, D, H, W).

    See `avg_pool2d`.

    >>> import gradlite
    >>> x = gradlite.arange(8.0).view(1, 2, 2, 2)
    >>> gradlite.nn.functional.avg_pool3d(x, 2)
    tensor([[[[3.5000]]]])
    """
    name = "avg_pool3d"
    check_tensor(name, input)
    kernel = triple(name, "kernel_size", kernel_size)
    steps = triple(name, "stride", stride) if is_given(stride) else kernel
    around = triple(name, "padding", padding)
    _check(name, input, kernel_size=kernel, stride=steps)
    sizes = input.array.shape[-3:]
    if any(n < k for n, k in zip(sizes, kernel)):
        raise RuntimeError(
            f"input image (T: {sizes[0]} H: {sizes[1]} W: {sizes[2]}) smaller than kernel size "
            f"(kT: {kernel[0]} kH: {kernel[1]} kW: {kernel[2]})"
        )
    _check_room(input, kernel, steps, around, (1, 1, 1), ceil_mode)
    lead, volumes = _flat(input)
    count, whole = (ceil_mode, count_include_pad), divisor_override
    frames: Any = avg_pool2d(
        *(volumes, kernel[1:], steps[1:], around[1:], *count, None if whole is None else 1)
    )
    depth = ((kernel[0], 1), (steps[0], 1), (around[0], 0))
    result: Any = avg_pool2d(_rows(frames), *depth, *count, whole)
    return result.reshape(*lead, result.shape[2], *frames.shape[2:])  # type: ignore[no-any-return]


# -------------------------------------------------------------------------------- adaptive
def _adaptive_size(name: str, x: Tensor, output_size: Any) -> Three:
    check_tensor(name, x)
    own = x.array.shape[-3:]
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * 3
    if x.array.ndim <= len(given):
        raise ValueError(f"Input dimension should be at least {len(given) + 1}")
    if len(given) != 3:
        raise RuntimeError(f"{name}: internal error: output_size.size() must be 3")
    if x.array.ndim not in (4, 5):
        raise RuntimeError(f"{name}(): Expected 4D or 5D tensor, but got {list(x.array.shape)}")
    depth, height, width = (n if g is None else int(g) for g, n in zip(given, own))
    if min(depth, height, width) < 0:
        raise RuntimeError(
            f"{name}: elements of output_size must be greater than or equal to 0 but received "
            f"{{{depth}, {height}, {width}}}"
        )
    return depth, height, width


def _as_images(input: Any) -> Tensor:
    """Volumes as images of any shape, of which a gradient of no windows is asked for."""
    *lead, depth, height, width = input.shape
    return input.reshape(*lead[-2:], depth * height, width)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(2, 3, 4, 4, 6), (2, 2, 3)),
        S(normal(2, 3, 5, 7, 5), (3, 3, 2)),
        S(normal(2, 3, 5, 4), (None, 2, 7)),
        S(normal(2, 3, 4, 4, 4), 1),
        S(normal(0, 3, 4, 4, 4), 2),
    ],
    torch="nn.functional.adaptive_avg_pool3d",
    errors=lambda: [S(normal(8, 8, 8), (2, 3, 3)), S(normal(2, 3, 8, 8, 8), (2, 3))],
    autocast=("float32", ""),
)
@in_single
def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means over boxes that divide the volume evenly into ``output_size``.

    Shapes: input (N, C, D, H, W) or (C, D, H, W); output (N, C, *output_size); one number is
    all three, None keeps the input's size.

    >>> import gradlite
    >>> x = gradlite.arange(8.0).view(1, 2, 2, 2)
    >>> gradlite.nn.functional.adaptive_avg_pool3d(x, (2, 1, 1)).flatten()
    tensor([1.5000, 5.5000])
    """
    size = _adaptive_size("adaptive_avg_pool3d", input, output_size)
    check_filled("adaptive_avg_pool3d", input.array.shape, 3)
    if 0 in size:
        none: Any = adaptive_avg_pool2d(_as_images(input), (0, 1))
        return none.reshape(*input.shape[:-3], *size)  # type: ignore[no-any-return]
    lead, volumes = _flat(input)
    frames: Any = adaptive_avg_pool2d(volumes, size[1:])
    result: Any = adaptive_avg_pool2d(_rows(frames), (size[0], size[1] * size[2]))
    return result.reshape(*lead, *size)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(distinct(2, 3, 4, 4, 6), (2, 2, 3)),
        S(distinct(2, 3, 5, 7, 5), (3, 3, 2)),
        S(distinct(2, 3, 5, 4), (None, 2, 7)),
        S(distinct(2, 3, 4, 5, 5), 2, return_indices=True),
    ],
    torch="nn.functional.adaptive_max_pool3d",
    errors=lambda: [S(normal(8, 8, 8), (2, 3, 3)), S(normal(2, 3, 8, 8, 8), (2, 3))],
    autocast=("float32", ""),
)
def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over boxes that divide the volume evenly; see `adaptive_avg_pool3d`.

    >>> import gradlite
    >>> x = gradlite.arange(8.0).view(1, 2, 2, 2)
    >>> gradlite.nn.functional.adaptive_max_pool3d(x, (2, 1, 1)).flatten()
    tensor([3., 7.])
    """
    size = _adaptive_size("adaptive_max_pool3d", input, output_size)
    check_filled("adaptive_max_pool3d", input.array.shape, input.array.ndim - 1)
    if 0 in size:
        empty = adaptive_max_pool2d(_as_images(input), (0, 1), True)
        none, places = (t.reshape(*input.shape[:-3], *size) for t in empty)
        return (none, places) if return_indices else none
    lead, volumes = _flat(input)
    frames, inner = adaptive_max_pool2d(volumes, size[1:], True)
    result, outer = adaptive_max_pool2d(_rows(frames), (size[0], size[1] * size[2]), True)
    result = result.reshape(*lead, *size)
    if not return_indices:
        return result
    return result, _places(lead, volumes.shape[2:], inner, outer, size)
