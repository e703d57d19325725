"""The arguments of the pooling functions, and the geometry of windows that follows from them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from gradlite.ops.windows import Geometry, Pair
from gradlite.tensor import Tensor


def check_tensor(name: str, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name}(): argument 'input' (position 1) must be Tensor, not {x.__class__.__name__}"
        )


def ints(name: str, argument: str, value: Any) -> tuple[int, ...]:
    given = tuple(value) if isinstance(value, Sequence) else (value,)
    for item in given:
        if not hasattr(item, "__index__"):
            position = " (position 2)" if argument == "kernel_size" else ""
            raise TypeError(
                f"{name}(): argument '{argument}'{position} must be tuple of ints, "
                f"not {item.__class__.__name__}"
            )
    return tuple(int(item) for item in given)


def pair(name: str, argument: str, value: Any) -> Pair:
    if value.__class__ is int:
        return value, value
    given = ints(name, argument, value)
    if len(given) not in (1, 2):
        must = {
            "stride": "must either be omitted, a single int,",
            "dilation": "must be either a single int,",
        }.get(argument, "must either be a single int,")
        raise RuntimeError(f"{name}: {argument} {must} or a tuple of two ints")
    return given[0], given[-1]


def triple(name: str, argument: str, value: Any) -> tuple[int, int, int]:
    given = ints(name, argument, value)
    if len(given) not in (1, 3):
        omitted = "either be omitted, a single int," if argument == "stride" else "be a single int,"
        raise RuntimeError(f"{name}: {argument} must {omitted} or a tuple of three ints")
    return (given[0], given[len(given) // 2], given[-1])


def one(name: str, argument: str, value: Any) -> int:
    given = ints(name, argument, value)
    if len(given) != 1:
        if name == "max_pool1d":
            raise RuntimeError(
                f"max_pool1d() {argument} must be an int, list of ints or tuple of ints of size 1 "
                f"but got size {len(given)}"
            )
        raise RuntimeError(
            f"{name}() argument '{argument}' should contain one int (got {len(given)})"
        )
    return given[0]


def is_given(value: Any) -> bool:
    return value is not None and not (isinstance(value, Sequence) and len(value) == 0)


def window_count(n: int, k: int, s: int, p: int, d: int, ceil: bool) -> int:
    count = (n + 2 * p - d * (k - 1) - 1 + (s - 1 if ceil else 0)) // s + 1
    # A window must start inside the input or its padding on the near side.
    return count - 1 if ceil and (count - 1) * s >= n + p else count


@functools.lru_cache(256, typed=True)
def pool_geometry(
    shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil: bool
) -> Geometry:
    """How the windows slide; in ceil mode the last one may reach beyond the padded input."""
    if min(stride) == 0:
        raise RuntimeError("stride should not be zero")
    for k, p, d in zip(kernel, padding, dilation):
        if p < 0:
            raise RuntimeError(f"pad must be non-negative, but got pad: {p}")
        if p > ((k - 1) * d + 1) // 2:
            raise RuntimeError(
                "pad should be at most half of effective kernel size, but got "
                f"pad={p}, kernel_size={k} and dilation={d}"
            )
    for name, short, (height, width) in (
        ("kernel size", "k", kernel),
        ("stride", "d", stride),
        ("dilation", "dilation", dilation),
    ):
        if height <= 0 or width <= 0:
            raise RuntimeError(
                f"{name} should be greater than zero, but got {short}H: {height} {short}W: {width}"
            )
    if len(shape) not in (3, 4) or 0 in shape[-3:]:
        raise RuntimeError(
            "Expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, but "
            f"got:{list(shape)}"
        )
    if any(2 * p > k for k, p in zip(kernel, padding)):
        raise RuntimeError(
            "pad should be smaller than or equal to half of kernel size, but got "
            f"padW = {padding[1]}, padH = {padding[0]}, kW = {kernel[1]}, kH = {kernel[0]}"
        )
    pads, counts = [], []
    for n, k, s, p, d in zip(shape[-2:], kernel, stride, padding, dilation):
        count = window_count(n, k, s, p, d, ceil)
        pads.append((p, p + max(0, (count - 1) * s + d * (k - 1) + 1 - n - 2 * p)))
        counts.append(count)
    if min(counts) < 1:
        c, h, w = shape[-3:]
        raise RuntimeError(
            f"Given input size: ({c}x{h}x{w}). Calculated output size: "
            f"({c}x{counts[0]}x{counts[1]}). Output size is too small"
        )
    return Geometry(stride, (pads[0], pads[1]), dilation)


def check_dimensions(name: str, x: Tensor) -> None:
    check_tensor(name, x)
    if x.array.ndim not in (2, 3):
        raise RuntimeError(
            f"Expected 2 to 3 dimensions, but got {x.array.ndim}-dimensional tensor for argument "
            f"#1 'self' (while checking arguments for {name})"
        )
