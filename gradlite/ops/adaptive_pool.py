"""Max-pooling and mean-pooling over windows that divide the input evenly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite import dtypes
from gradlite.ops import pool_launch, pooling
from gradlite.ops.dispatch import OUT, apply, apply1
from gradlite.ops.op import Op, type_name
from gradlite.ops.pool_arguments import check_dimensions, check_tensor, one
from gradlite.ops.samples import S, distinct, normal
from gradlite.ops.table import public
from gradlite.ops.windows import Pair
from gradlite.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
]


# ---------------------------------------------------------------------------------- ops
def _check_grad(name: str, shape: tuple[int, ...]) -> None:
    """No windows at all have no gradient."""
    for dim in range(1, len(shape)):
        if shape[dim] == 0:
            raise RuntimeError(
                f"{name}_backward(): Expected grad_output to have non-zero size for non-batch "
                f"dimensions, but grad_output has sizes {list(shape)} with dimension {dim} being "
                "empty"
            )


class AdaptiveMaxPool2d(Op):
    """The maxima of windows that divide the input evenly; second output: where they were."""

    delegates = True
    fname = "adaptive_max_pool2d"
    grad_name = "AdaptiveMaxPool2DBackward0"
    outputs = 2
    kept = 1
    reads = ((OUT,),)

    def forward(xp: Any, x: Any, size: Pair) -> Any:
        return pooling.adaptive_maxima(xp, x, size)

    def fused_forward(K: Any, x: Any, size: Pair) -> Any:
        return pool_launch.adaptive_max_pool(K, x, size)

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        places, shape = F.array(ctx.saved[0]), tuple(ctx.shapes[0])
        _check_grad("adaptive_max_pool2d", shape[:-2] + places.shape[-2:])
        return (F.max_pool_scatter(grads[0], places, shape, None, None),)


class AdaptiveAvgPool2d(Op):
    delegates = True
    fname = "adaptive_avg_pool2d"
    grad_name = "AdaptiveAvgPool2DBackward0"

    def forward(xp: Any, x: Any, size: Pair) -> Any:
        return pooling.adaptive_means(xp, x, size)

    def fused_forward(K: Any, x: Any, size: Pair) -> Any:
        return pool_launch.adaptive_avg_pool(K, x, size)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        shape = tuple(ctx.shapes[0])
        _check_grad("adaptive_avg_pool2d", shape[:-2] + ctx.attrs[0])
        return (F.adaptive_avg_pool2d_grad(grad, shape, *ctx.attrs),)


class AdaptiveAvgPool2dGrad(Op):
    delegates = True
    fname = "adaptive_avg_pool2d_grad"
    grad_name = "AdaptiveAvgPool2DBackwardBackward0"

    def forward(xp: Any, g: Any, shape: Any, size: Pair) -> Any:
        return pooling.spread_adaptive_means(xp, g, shape)

    def fused_forward(K: Any, g: Any, shape: Any, size: Pair) -> Any:
        return pool_launch.adaptive_avg_pool_grad(K, g, shape)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.adaptive_avg_pool2d(grad, ctx.attrs[1]),)


# ----------------------------------------------------------------------------- functions
def _adaptive_size(name: str, x: Tensor, output_size: Any) -> tuple[int, ...]:
    """The output size; None keeps the input's."""
    shape = x.array.shape
    if not isinstance(output_size, Sequence):
        return (int(output_size),) * 2
    if len(shape) <= len(output_size):
        raise ValueError(f"Input dimension should be at least {len(output_size) + 1}")
    own = shape[len(shape) - len(output_size) :]
    return tuple(n if size is None else int(size) for size, n in zip(output_size, own))


def check_filled(name: str, shape: tuple[int, ...], dims: int) -> None:
    """RuntimeError when one of the last dimensions is empty."""
    for dim in range(len(shape) - dims, len(shape)):
        if shape[dim] == 0:
            raise RuntimeError(
                f"{name}(): Expected input to have non-zero size for non-batch dimensions, but "
                f"input has sizes {list(shape)} with dimension {dim} being empty"
            )


def _check_adaptive(name: str, x: Tensor, dims: int) -> None:
    shape = x.array.shape
    if len(shape) not in (3, 4):
        raise RuntimeError(f"{name}(): Expected 3D or 4D tensor, but got {list(shape)}")
    check_filled(name, shape, dims)
    if x.array.dtype not in dtypes.FLOATING:
        raise NotImplementedError(f"\"{name}\" not implemented for '{type_name(x.array.dtype)}'")


@public(
    samples=lambda: [
        S(normal(2, 3, 4, 6), (2, 3)),
        S(normal(2, 3, 7, 5), (3, 2)),
        S(normal(2, 5, 4), (None, 7)),
        S(normal(2, 3, 4, 4), 1),
        S(normal(0, 3, 4, 4), 2),
    ],
    torch="nn.functional.adaptive_avg_pool2d",
    errors=lambda: [
        S(normal(8, 8), (2, 3)),
        S(normal(2, 3, 8, 8), (-1, 3)),
        S(normal(2, 3, 0, 8), 2),
    ],
)
def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means over windows that divide the image evenly into ``output_size``.

    Row i of the output is the mean of the rows from floor(i H / OH) to ceil((i + 1) H / OH).

    Shapes: input (N, C, H, W) or (C, H, W); output (N, C, *output_size); one number is both,
    None keeps the input's size.

    >>> import gradlite
    >>> x = gradlite.arange(6.0).view(1, 2, 3)
    >>> gradlite.nn.functional.adaptive_avg_pool2d(x, (1, 2))
    tensor([[[2., 3.]]])

    Raises:
        RuntimeError, ValueError: sizes that do not fit.
    """
    name = "adaptive_avg_pool2d"
    check_tensor(name, input)
    size = _adaptive_size(name, input, output_size)
    if len(size) != 2:
        raise RuntimeError("adaptive_avg_pool2d: output_size must be 2")
    if min(size) < 0:
        raise RuntimeError(
            "adaptive_avg_pool2d: elements of output_size must be greater than or equal to 0 but "
            f"received {{{size[0]}, {size[1]}}}"
        )
    if size == (1, 1):
        return input.mean((-1, -2), keepdim=True)
    _check_adaptive(name, input, 2)
    return apply1(AdaptiveAvgPool2d, input, size)


@public(
    samples=lambda: [S(normal(2, 3, 6), 3), S(normal(3, 7), 2), S(normal(2, 3, 4), 1)],
    torch="nn.functional.adaptive_avg_pool1d",
    errors=lambda: [S(normal(8), 2), S(normal(2, 3, 8), (3, 2))],
)
def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means over windows that divide sequences (N, C, L) or (C, L) evenly.

    >>> import gradlite
    >>> gradlite.nn.functional.adaptive_avg_pool1d(gradlite.tensor([[1.0, 3.0, 2.0]]), 2)
    tensor([[2.0000, 2.5000]])
    """
    name = "adaptive_avg_pool1d"
    check_dimensions(name, input)
    size = one(name, "output_size", output_size)
    image: Tensor = input.unsqueeze(-2)
    return adaptive_avg_pool2d(image, (1, size)).squeeze(-2)


@public(
    samples=lambda: [
        S(distinct(2, 3, 4, 6), (2, 3)),
        S(distinct(2, 3, 7, 5), (3, 2)),
        S(distinct(2, 5, 4), (None, 7)),
        S(distinct(0, 3, 4, 4), 2),
        S(distinct(2, 3, 5, 5), 2, return_indices=True),
    ],
    torch="nn.functional.adaptive_max_pool2d",
    errors=lambda: [S(normal(8, 8), (2, 3)), S(normal(2, 3, 0, 8), 2)],
)
def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over windows that divide the image evenly; see `adaptive_avg_pool2d`.

    >>> import gradlite
    >>> x = gradlite.arange(6.0).view(1, 2, 3)
    >>> gradlite.nn.functional.adaptive_max_pool2d(x, (1, 2))
    tensor([[[4., 5.]]])
    """
    name = "adaptive_max_pool2d"
    check_tensor(name, input)
    size = _adaptive_size(name, input, output_size)
    if len(size) != 2:
        raise RuntimeError("adaptive_max_pool2d(): internal error: output_size.size() must be 2")
    _check_adaptive(name, input, min(input.array.ndim - 1, 3))
    if min(size) < 0:
        shape = [*input.array.shape[:-2], *size]
        negative = next(n for n in size if n < 0)
        raise RuntimeError(f"Trying to create tensor with negative dimension {negative}: {shape}")
    result, places = apply(AdaptiveMaxPool2d, (input,), size)
    return (result, places) if return_indices else result


@public(
    samples=lambda: [S(distinct(2, 3, 6), 3), S(distinct(3, 7), 2, True)],
    torch="nn.functional.adaptive_max_pool1d",
    errors=lambda: [S(normal(8), 2), S(normal(2, 3, 8), (3, 3))],
)
def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over windows that divide sequences (N, C, L) or (C, L) evenly.

    >>> import gradlite
    >>> gradlite.nn.functional.adaptive_max_pool1d(gradlite.tensor([[1.0, 3.0, 2.0]]), 2)
    tensor([[3., 3.]])
    """
    name = "adaptive_max_pool1d"
    check_dimensions(name, input)
    size = one(name, "output_size", output_size)
    check_filled(name, input.array.shape, input.array.ndim - 1)
    image: Tensor = input.unsqueeze(-2)
    result = adaptive_max_pool2d(image, (1, size), return_indices)
    if return_indices:
        return result[0].squeeze(-2), result[1].squeeze(-2)
    return result.squeeze(-2)
