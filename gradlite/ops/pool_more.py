"""Power-average pooling, and max-pooling undone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite.ops import shortcuts
from gradlite.ops.dispatch import apply1
from gradlite.ops.guard import on_its_device
from gradlite.ops.op import Op, number
from gradlite.ops.pointwise import slope_of, value_of
from gradlite.ops.pool import avg_pool1d, avg_pool2d, max_pool1d, max_pool2d
from gradlite.ops.pool3d import avg_pool3d, max_pool3d
from gradlite.ops.pool_arguments import is_given
from gradlite.ops.powers import Pow
from gradlite.ops.samples import S, distinct, normal, positive
from gradlite.ops.scatter import scatter
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]

_AVERAGES = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}
_MAXIMA = {1: max_pool1d, 2: max_pool2d, 3: max_pool3d}


def _numbers(value: Any, dims: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,) * dims


# ------------------------------------------------------------------------ power averages
class Root(Op):
    """``(factor * x) ** exponent`` with no slope where x is 0: sums of powers, from their means."""

    reads = ((0,),)
    grad_name = "PowBackward0"

    def forward(xp: Any, x: Any, factor: float, exponent: float) -> Any:
        return Pow.forward(xp, x * x.dtype.type(factor), exponent)

    def fused_forward(K: Any, x: Any, factor: float, exponent: float) -> Any:
        return value_of(K, "root", x, factor, exponent)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,), (factor, exponent) = ctx.saved, ctx.attrs
        flat, one = x == 0, F.zeros((), grad) + 1
        slope = (factor * F.where(flat, one, x)) ** (exponent - 1) * (factor * exponent)
        return (grad * F.where(flat, F.zeros((), grad), slope),)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return slope_of(K, "root", grad, ctx.saved[0], *ctx.attrs)


def _lp_pool(x: Any, p: float, kernel: Any, stride: Any, ceil_mode: bool, dims: int) -> Tensor:
    stride = stride if is_given(stride) else kernel
    if p == math.inf:
        return _MAXIMA[dims](x.abs(), kernel, stride, 0, 1, ceil_mode)  # type: ignore[no-any-return]
    if p == -math.inf:
        return -_MAXIMA[dims](-x.abs(), kernel, stride, 0, 1, ceil_mode)  # type: ignore[operator, no-any-return]
    mean: Any = _AVERAGES[dims](x.pow(p), kernel, stride, 0, ceil_mode)
    size = math.prod(_numbers(kernel, dims))
    if mean.is_floating_point():
        return apply1(Root, mean, float(size), 1.0 / p)
    return (mean.sign() * mean.abs().relu() * size).pow(1.0 / p)  # type: ignore[no-any-return]


@public(
    samples=lambda: [S(positive(2, 3, 6), 2, 2), S(positive(3, 7), 3.0, 3, 2, True)],
    torch="nn.functional.lp_pool1d",
)
def lp_pool1d(
    input: Tensor,
    norm_type: float,
    kernel_size: Any,
    stride: Any = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The p-norm of every window of sequences (N, C, L) or (C, L).

    >>> import gradlite
    >>> gradlite.nn.functional.lp_pool1d(gradlite.tensor([[3.0, 4.0]]), 2, 2)
    tensor([[5.]])
    """
    return _lp_pool(input, norm_type, kernel_size, stride, ceil_mode, 1)


@public(
    samples=lambda: [
        S(positive(2, 3, 4, 6), 2, 2),
        S(positive(2, 3, 5, 5), 1.5, (2, 3), 2),
        S(distinct(2, 3, 4, 4), math.inf, 2),
    ],
    torch="nn.functional.lp_pool2d",
)
def lp_pool2d(
    input: Tensor,
    norm_type: float,
    kernel_size: Any,
    stride: Any = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The p-norm of every window of images (N, C, H, W) or (C, H, W).

    >>> import gradlite
    >>> gradlite.nn.functional.lp_pool2d(gradlite.ones(1, 2, 2), 2, 2)
    tensor([[[2.]]])
    """
    return _lp_pool(input, norm_type, kernel_size, stride, ceil_mode, 2)


@public(
    samples=lambda: [S(positive(2, 3, 4, 4, 2), 2, 2), S(positive(2, 3, 4, 4), 3, (1, 2, 2), 1)],
    torch="nn.functional.lp_pool3d",
    autocast=("float32", ""),
)
def lp_pool3d(
    input: Tensor,
    norm_type: float,
    kernel_size: Any,
    stride: Any = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The p-norm of every box of volumes (N, C, D, H, W) or (C, D, H, W).

    >>> import gradlite
    >>> gradlite.nn.functional.lp_pool3d(gradlite.ones(1, 1, 2, 2), 2, (1, 2, 2))
    tensor([[[[2.]]]])
    """
    return _lp_pool(input, norm_type, kernel_size, stride, ceil_mode, 3)


# ----------------------------------------------------------------------------- unpooling
_COUNTED = {
    1: "one element (length)",
    2: "two elements (height, width)",
    3: "three elements (depth, height, width)",
}


def _unpool(
    input: Tensor, indices: Tensor, kernel: Any, stride: Any, padding: Any, wanted: Any, dims: int
) -> Tensor:
    kernels = _numbers(kernel, dims)
    if len(kernels) > dims:
        raise IndexError("tuple index out of range")
    if len(kernels) < dims:
        raise RuntimeError(
            f"There should be exactly {_COUNTED[dims]} in output_size, but got {len(kernels)} "
            "elements."
        )
    strides = _numbers(stride, dims) if is_given(stride) else kernels
    paddings = _numbers(padding, dims)
    own = input.array.shape[-dims:]
    sizes = [(n - 1) * s + k - 2 * p for n, s, k, p in zip(own, strides, kernels, paddings)]
    if wanted is not None:
        given = list(wanted)[2:] if len(wanted) == dims + 2 else list(wanted)
        if len(given) != dims:
            raise ValueError(
                f"output_size should be a sequence containing {dims} or {dims + 2} elements, but "
                f"it has a length of '{len(wanted)}'"
            )
        for d, (n, m, s) in enumerate(zip(given, sizes, strides)):
            if not m - s < n < m + s:
                raise ValueError(
                    f'invalid output_size "{given}" (dim {d} must be between {m - s} and {m + s})'
                )
        sizes = given
    if indices.array.dtype != np.int64:
        raise RuntimeError(
            "elements in indices should be type int64 but got: " + indices.dtype.name
        )
    if indices.array.shape != input.array.shape:
        raise RuntimeError(
            "Expected shape of indices to be same as that of the input tensor "
            f"({list(input.array.shape)}) but got indices tensor with shape: "
            f"{list(indices.array.shape)}"
        )
    lead = input.array.shape[:-dims]
    count = math.prod(sizes)
    places = indices.array
    if places.size and isinstance(places, np.ndarray):  # of a GPU's `scatter` hears
        inside = (places.min() >= 0) & (places.max() < count)
        shortcuts.require(inside, RuntimeError, _invalid_place, places, tuple(sizes))
    zeros: Any = input.new_zeros(*lead, count)
    flat = (*lead, math.prod(own))
    result: Any = scatter(zeros, -1, indices.reshape(flat), input.reshape(flat))
    return result.reshape(*lead, *sizes)  # type: ignore[no-any-return]


def _invalid_place(places: Any, sizes: tuple[int, ...]) -> str:
    wrong = places[(places < 0) | (places >= math.prod(sizes))][0]
    shown = "x".join(map(str, sizes if len(sizes) > 1 else (1, *sizes)))
    return f"Found an invalid max index: {number(wrong)} (output volumes are of size {shown})"


@public(
    samples=lambda: [
        S(normal(2, 3, 2), np.array([[[0, 3], [1, 2], [0, 2]]] * 2), 2),
        S(normal(1, 1, 2), np.array([[[0, 4]]]), 2, 2, 0, (5,)),
    ],
    torch="nn.functional.max_unpool1d",
    errors=lambda: [S(normal(1, 1, 2), np.array([[[0, 4]]]), 2, 2, 0, (7,))],
    autocast=("float32", ""),
)
@on_its_device
def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Tensor:
    """Zeros with the maxima of `max_pool1d` where they came from.

    >>> import gradlite
    >>> F = gradlite.nn.functional
    >>> x = gradlite.tensor([[[1.0, 2.0, 4.0, 3.0]]])
    >>> F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2)
    tensor([[[0., 2., 4., 0.]]])
    """
    return _unpool(input, indices, kernel_size, stride, padding, output_size, 1)


@public(
    samples=lambda: [
        S(normal(1, 1, 2, 2), np.array([[[[5, 3], [8, 11]]]]), 2),
        S(normal(1, 2, 2), np.array([[[0, 4], [10, 24]]]), 2, 2, 0, (5, 5)),
    ],
    torch="nn.functional.max_unpool2d",
    errors=lambda: [
        S(normal(1, 1, 2, 2), np.array([[[[5, 3], [8, 19]]]]), 2),
        S(normal(1, 1, 2, 2), np.array([[[[5, 3]]]]), 2),
    ],
    autocast=("float32", ""),
)
@on_its_device
def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Tensor:
    """Zeros with the maxima of `max_pool2d` where they came from.

    Args:
        indices: what `max_pool2d` returns with ``return_indices``.
        output_size: the size before pooling, where several are possible.

    >>> import gradlite
    >>> F = gradlite.nn.functional
    >>> x = gradlite.tensor([[[1.0, 2.0], [4.0, 3.0]]])
    >>> F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)
    tensor([[[0., 0.],
             [4., 0.]]])
    """
    return _unpool(input, indices, kernel_size, stride, padding, output_size, 2)


@public(
    samples=lambda: [S(normal(1, 1, 1, 2, 2), np.array([[[[[5, 3], [8, 27]]]]]), 2)],
    torch="nn.functional.max_unpool3d",
    autocast=("float32", ""),
)
@on_its_device
def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Tensor:
    """Zeros with the maxima of `max_pool3d` where they came from.

    >>> import gradlite
    >>> F = gradlite.nn.functional
    >>> x = gradlite.arange(8.0).view(1, 2, 2, 2)
    >>> F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2).flatten()
    tensor([0., 0., 0., 0., 0., 0., 0., 7.])
    """
    return _unpool(input, indices, kernel_size, stride, padding, output_size, 3)
