"""Max-pooling and mean-pooling over sliding windows.

Two-dimensional ops; one-dimensional pooling is that of images of height 1.
"""

from __future__ import annotations

from typing import Any

from gradlite import dtypes
from gradlite.grad_mode import current_mode
from gradlite.ops import pool_launch, pooling
from gradlite.ops.adaptive_pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
)
from gradlite.ops.dispatch import OUT, apply, apply1
from gradlite.ops.op import Op, type_name
from gradlite.ops.pool_arguments import (
    check_dimensions,
    check_tensor,
    is_given,
    one,
    pair,
    pool_geometry,
    window_count,
)
from gradlite.ops.samples import S, distinct, normal
from gradlite.ops.table import public
from gradlite.ops.windows import Geometry, Pair
from gradlite.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "max_pool1d",
    "max_pool2d",
]


# ---------------------------------------------------------------------------------- ops
class MaxPool2d(Op):
    """The maximum of every window, the first one on a tie; aux: which element it was."""

    delegates = True
    fname = "max_pool2d"
    grad_name = "MaxPool2DWithIndicesBackward0"
    has_aux = True

    def forward(xp: Any, x: Any, kernel: Pair, geometry: Geometry, winners: bool) -> Any:
        if winners:
            return pooling.maxima(xp, x, kernel, geometry)
        return pooling.maximum_values(xp, x, kernel, geometry), None

    def fused_forward(K: Any, x: Any, kernel: Pair, geometry: Geometry, winners: bool) -> Any:
        result = pool_launch.max_pool(K, x, kernel, geometry, winners, False)
        return result if result is NotImplemented else result[:2]

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        kernel, geometry, _ = ctx.attrs
        return (F.max_pool_scatter(grad, ctx.aux, tuple(ctx.shapes[0]), kernel, geometry),)


class MaxPool2dWithIndices(Op):
    """`MaxPool2d` with a second output: where in its image each maximum was."""

    delegates = True
    fname = "max_pool2d_with_indices"
    grad_name = "MaxPool2DWithIndicesBackward0"
    has_aux = True
    outputs = 2
    kept = 1
    reads = ((OUT,),)  # so that an edit of the positions is refused, as PyTorch does

    def forward(xp: Any, x: Any, kernel: Pair, geometry: Geometry) -> Any:
        out, winners = pooling.maxima(xp, x, kernel, geometry)
        return (out, pooling.positions(xp, winners, x.shape[-2:], kernel, geometry)), winners

    def fused_forward(K: Any, x: Any, kernel: Pair, geometry: Geometry) -> Any:
        result = pool_launch.max_pool(K, x, kernel, geometry, True, True)
        return result if result is NotImplemented else ((result[0], result[2]), result[1])

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        shape = tuple(ctx.shapes[0])
        return (F.max_pool_scatter(grads[0], ctx.aux, shape, *ctx.attrs),)


class MaxPoolScatter(Op):
    """Zeros with a value per window added at the window's winner."""

    delegates = True

    def forward(xp: Any, g: Any, winners: Any, shape: Any, kernel: Pair, geometry: Geometry) -> Any:
        return pooling.scatter(xp, g, winners, shape, kernel, geometry)

    def fused_forward(K: Any, g: Any, winners: Any, shape: Any, kernel: Any, geometry: Any) -> Any:
        if kernel is None:
            return pool_launch.adaptive_max_pool_scatter(K, g, winners, shape)
        return pool_launch.max_pool_scatter(K, g, winners, shape, kernel, geometry)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        winners, _, kernel, geometry = ctx.attrs
        return (F.max_pool_gather(grad, winners, kernel, geometry),)


class MaxPoolGather(Op):
    """The value at each window's winner."""

    delegates = True

    def forward(xp: Any, x: Any, winners: Any, kernel: Pair, geometry: Geometry) -> Any:
        return pooling.gather(xp, x, winners, kernel, geometry)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        winners, kernel, geometry = ctx.attrs
        return (F.max_pool_scatter(grad, winners, tuple(ctx.shapes[0]), kernel, geometry),)


class AvgPool2d(Op):
    delegates = True
    fname = "avg_pool2d"
    grad_name = "AvgPool2DBackward0"

    def forward(xp: Any, x: Any, kernel: Pair, geometry: Geometry, divisor: Any) -> Any:
        return pooling.means(xp, x, kernel, geometry, divisor)

    def fused_forward(K: Any, x: Any, kernel: Pair, geometry: Geometry, divisor: Any) -> Any:
        size = x.shape[-2:]
        counts = geometry.counts(size, kernel)
        shape = (*x.shape[:-2], *counts)
        slides = (size, counts, kernel, geometry, divisor)
        return pool_launch.avg_pool(K, "avg_pool_forward", x, shape, *slides)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.avg_pool2d_grad(grad, tuple(ctx.shapes[0]), *ctx.attrs),)


class AvgPool2dGrad(Op):
    delegates = True
    fname = "avg_pool2d_grad"
    grad_name = "AvgPool2DBackwardBackward0"

    def forward(xp: Any, g: Any, shape: Any, kernel: Pair, geometry: Geometry, divisor: Any) -> Any:
        return pooling.spread_means(xp, g, shape, kernel, geometry, divisor)

    def fused_forward(
        K: Any, g: Any, shape: Any, kernel: Pair, geometry: Geometry, divisor: Any
    ) -> Any:
        slides = (shape[-2:], g.shape[-2:], kernel, geometry, divisor)
        return pool_launch.avg_pool(K, "avg_pool_backward", g, shape, *slides)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.avg_pool2d(grad, *ctx.attrs[1:]),)


def _max_pool2d(x: Tensor, kernel: Pair, geometry: Geometry, return_indices: bool) -> Any:
    if x.array.dtype == bool:
        raise NotImplementedError("\"max_pool2d\" not implemented for 'Bool'")
    if return_indices:
        return apply(MaxPool2dWithIndices, (x,), kernel, geometry)
    return apply(MaxPool2d, (x,), kernel, geometry, current_mode() == 0 and x.requires_grad)


# ------------------------------------------------------------------------------- max-pool
@public(
    samples=lambda: [
        S(distinct(2, 3, 4, 6), 2),
        S(distinct(2, 2, 7, 7), 3, 2, 1),
        S(distinct(2, 7, 6), (2, 3), (1, 2), (1, 0), (2, 1)),
        S(distinct(1, 2, 5, 5), 2, ceil_mode=True),
        S(distinct(1, 1, 9, 9), 9),
        S(distinct(0, 2, 4, 4), 2),
        S(distinct(2, 2, 5, 5), 3, 1, 1, return_indices=True),
    ],
    torch="nn.functional.max_pool2d",
    errors=lambda: [
        S(normal(2, 3, 8, 8), 2, padding=2),
        S(normal(2, 3, 2, 2), 3),
        S(normal(2, 3, 8, 8), (2, 2, 2)),
        S(normal(8, 8), 2),
    ],
)
def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of every window of ``kernel_size``; NaN where the window has a NaN.

    On a tie the gradient goes to the first maximum in row-major order.

    Shapes: input (N, C, H, W) or (C, H, W); output (N, C, OH, OW) with OH = (H + 2 padding -
    dilation (KH - 1) - 1) / stride + 1, rounded down, or up with ``ceil_mode``.

    Args:
        stride: steps from window to window, by default ``kernel_size``.
        padding: rows and columns of -inf on both sides.
        return_indices: also return where in its H * W image each maximum was, as int64.

    >>> import gradlite
    >>> x = gradlite.arange(16.0).view(1, 1, 4, 4)
    >>> gradlite.nn.functional.max_pool2d(x, 2)
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])

    Raises:
        RuntimeError: numbers out of range, or an input too small.
    """
    name = "max_pool2d"
    check_tensor(name, input)
    kernel = pair(name, "kernel_size", kernel_size)
    steps = pair(name, "stride", stride) if is_given(stride) else kernel
    around = pair(name, "padding", padding)
    spread = pair(name, "dilation", dilation)
    if input.array.ndim not in (3, 4):
        raise RuntimeError("non-empty 3D or 4D (batch mode) tensor expected for input")
    geometry = pool_geometry(input.array.shape, kernel, steps, around, spread, ceil_mode)
    return _max_pool2d(input, kernel, geometry, return_indices)


@public(
    samples=lambda: [
        S(distinct(2, 3, 6), 2),
        S(distinct(3, 7), 3, 1, 1, 1, True),
        S(distinct(2, 2, 7), 2, 2, 0, 2, return_indices=True),
    ],
    torch="nn.functional.max_pool1d",
    errors=lambda: [
        S(normal(2, 3, 8), 0),
        S(normal(2, 3, 8), 2, padding=2),
        S(normal(2, 3, 1), 2),
        S(normal(8), 2),
    ],
)
def max_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of every window of sequences (N, C, L) or (C, L); see `max_pool2d`.

    >>> import gradlite
    >>> x = gradlite.tensor([[1.0, 3.0, 2.0, 4.0]])
    >>> gradlite.nn.functional.max_pool1d(x, 2)
    tensor([[3., 4.]])
    """
    name = "max_pool1d"
    check_tensor(name, input)
    shape = input.array.shape
    if len(shape) not in (2, 3) or 0 in shape[-2:]:
        raise RuntimeError(
            "max_pool1d: Expected 2D or 3D (batch mode) tensor with optional 0 dim batch size for "
            f"input, but got:{list(shape)}"
        )
    k = one(name, "kernel_size", kernel_size)
    s = one(name, "stride", stride) if is_given(stride) else k
    p, d = one(name, "padding", padding), one(name, "dilation", dilation)
    if not return_indices:
        _check_max_pool1d(input.array, k, s, p, d, ceil_mode)
    image: Tensor = input.unsqueeze(-2)
    geometry = pool_geometry(image.array.shape, (1, k), (1, s), (0, p), (1, d), ceil_mode)
    result = _max_pool2d(image, (1, k), geometry, return_indices)
    if return_indices:
        return result[0].squeeze(-2), result[1].squeeze(-2)
    return result.squeeze(-2)


def _check_max_pool1d(x: Any, k: int, s: int, p: int, d: int, ceil_mode: bool) -> None:
    for argument, value in (("kernel_size", k), ("stride", s)):
        if value <= 0:
            raise RuntimeError(
                f"max_pool1d() {argument} must be greater than zero, but got {value}"
            )
    if p < 0:
        raise RuntimeError(f"max_pool1d() padding must be non-negative, but got {p}")
    if p > k // 2:
        raise RuntimeError(
            "max_pool1d() padding should be at most half of kernel size, but got "
            f"padding={p} and kernel_size={k}"
        )
    if d <= 0:
        raise RuntimeError(f"max_pool1d() dilation must be greater than zero, but got {d}")
    if x.dtype not in dtypes.FLOATING:
        raise NotImplementedError(f"\"max_pool1d_impl\" not implemented for '{type_name(x.dtype)}'")
    count = window_count(x.shape[-1], k, s, p, d, ceil_mode)
    if count <= 0:
        raise RuntimeError(f"max_pool1d() Invalid computed output size: {count}")


# ------------------------------------------------------------------------------- avg-pool
def _avg_pool2d(
    x: Tensor,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    if divisor_override == 0:
        raise RuntimeError("divisor must be not zero")
    shape = x.array.shape
    geometry = pool_geometry(shape, kernel, stride, padding, (1, 1), ceil_mode)
    if x.array.dtype not in dtypes.FLOATING and x.array.dtype.name != "int64":
        raise NotImplementedError(
            f"\"avg_pool2d\" not implemented for '{type_name(x.array.dtype)}'"
        )
    if divisor_override is not None:
        divisor: Any = int(divisor_override)
    elif not geometry.padded:
        divisor = kernel[0] * kernel[1]
    else:
        divisor = pooling.window_areas(
            (shape[-2], shape[-1]), kernel, geometry, padding, count_include_pad
        )
    return apply1(AvgPool2d, x, kernel, geometry, divisor)


@public(
    samples=lambda: [
        S(normal(2, 3, 4, 6), 2),
        S(normal(2, 2, 7, 7), 3, 2, 1),
        S(normal(2, 7, 6), (2, 3), (1, 2), (1, 0), count_include_pad=False),
        S(normal(1, 2, 5, 5), 2, 2, 1, True),
        S(normal(1, 2, 5, 5), 2, 2, 1, True, False),
        S(normal(1, 2, 5, 5), 3, 1, divisor_override=2),
        S(normal(0, 2, 4, 4), 2),
    ],
    torch="nn.functional.avg_pool2d",
    errors=lambda: [
        S(normal(2, 3, 8, 8), 2, padding=2),
        S(normal(2, 3, 2, 2), 3),
        S(normal(2, 3, 8, 8), 2, divisor_override=0),
        S(normal(8, 8), 2),
    ],
)
def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of every window of ``kernel_size``.

    Shapes: as in `max_pool2d`.

    Args:
        stride: steps from window to window, by default ``kernel_size``.
        padding: rows and columns of zeros on both sides.
        count_include_pad: whether those zeros count in the number of elements.
        divisor_override: divide by this number instead.

    >>> import gradlite
    >>> x = gradlite.arange(16.0).view(1, 1, 4, 4)
    >>> gradlite.nn.functional.avg_pool2d(x, 2)
    tensor([[[[ 2.5000,  4.5000],
              [10.5000, 12.5000]]]])

    Raises:
        RuntimeError: numbers out of range, or an input too small.
    """
    name = "avg_pool2d"
    check_tensor(name, input)
    kernel = pair(name, "kernel_size", kernel_size)
    steps = pair(name, "stride", stride) if is_given(stride) else kernel
    around = pair(name, "padding", padding)
    n = input.array.ndim
    if n < 3:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-max(n, 1)}, {max(n, 1) - 1}], "
            f"but got {-3 if n == 2 else -2})"
        )
    return _avg_pool2d(input, kernel, steps, around, ceil_mode, count_include_pad, divisor_override)


@public(
    samples=lambda: [
        S(normal(2, 3, 6), 2),
        S(normal(3, 7), 3, 1, 1, True, False),
        S(normal(2, 2, 7), (2,), (3,), 1),
    ],
    torch="nn.functional.avg_pool1d",
    errors=lambda: [S(normal(8), 2), S(normal(2, 3, 8), (2, 2)), S(normal(2, 3, 8), 20)],
)
def avg_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of every window of sequences (N, C, L) or (C, L); see `avg_pool2d`.

    >>> import gradlite
    >>> x = gradlite.tensor([[1.0, 3.0, 2.0, 4.0]])
    >>> gradlite.nn.functional.avg_pool1d(x, 2)
    tensor([[2., 3.]])
    """
    name = "avg_pool1d"
    check_dimensions(name, input)
    k = one(name, "kernel_size", kernel_size)
    s = one(name, "stride", stride) if is_given(stride) else k
    p = one(name, "padding", padding)
    image: Tensor = input.unsqueeze(-2)
    result: Any = _avg_pool2d(image, (1, k), (1, s), (0, p), ceil_mode, count_include_pad, None)
    return result.squeeze(-2)  # type: ignore[no-any-return]
