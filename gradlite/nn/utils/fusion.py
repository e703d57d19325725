"""Batch normalisation folded into the layer in front of it, for models that are only evaluated."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from gradlite.nn.module import Module
from gradlite.nn.parameter import Parameter
from gradlite.ops.elementwise import rsqrt
from gradlite.ops.like import ones_like, zeros_like
from gradlite.tensor import Tensor

__all__ = [
    "fuse_conv_bn_eval",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_eval",
    "fuse_linear_bn_weights",
]

ModuleT = TypeVar("ModuleT", bound=Module)


def fuse_conv_bn_eval(conv: ModuleT, bn: Any, transpose: bool = False) -> ModuleT:
    """A copy of a convolution that does what it and the batch normalisation behind it do.

    Args:
        conv, bn: both in evaluation mode.
        transpose: whether it is a transposed convolution.

    >>> import gradlite
    >>> from gradlite import nn
    >>> conv, norm = nn.Conv2d(1, 2, 3).eval(), nn.BatchNorm2d(2).eval()
    >>> x = gradlite.randn(1, 1, 4, 4)
    >>> gradlite.allclose(fuse_conv_bn_eval(conv, norm)(x), norm(conv(x)), atol=1e-6)
    True
    """
    fused, statistics = _copy_of(conv, bn)
    channels = 1 if transpose else 0
    fused.weight, fused.bias = _fused(fused.weight, fused.bias, statistics, channels)
    return fused  # type: ignore[no-any-return]


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a convolution with batch normalisation folded in."""
    channels = 1 if transpose else 0
    return _fused(conv_w, conv_b, (bn_rm, bn_rv, bn_eps, bn_w, bn_b), channels)


def fuse_linear_bn_eval(linear: ModuleT, bn: Any) -> ModuleT:
    """A copy of a Linear that does what it and the batch normalisation behind it do."""
    fused, statistics = _copy_of(linear, bn)
    if fused.out_features != bn.num_features and bn.num_features != 1:
        raise AssertionError(
            "To fuse, linear.out_features == bn.num_features or bn.num_features == 1, got "
            f"linear.out_features={fused.out_features} and bn.num_features={bn.num_features}"
        )
    fused.weight, fused.bias = _fused(fused.weight, fused.bias, statistics, 0)
    return fused  # type: ignore[no-any-return]


def fuse_linear_bn_weights(
    linear_w: Tensor,
    linear_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a Linear with batch normalisation folded in."""
    return _fused(linear_w, linear_b, (bn_rm, bn_rv, bn_eps, bn_w, bn_b), 0)


def _copy_of(layer: Module, bn: Any) -> tuple[Any, Any]:
    if layer.training or bn.training:
        raise AssertionError("Fusion only for eval!")
    if bn.running_mean is None or bn.running_var is None:
        raise AssertionError("bn.running_mean and bn.running_var must not be None")
    statistics = (bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
    return copy.deepcopy(layer), statistics


def _fused(
    weight: Any, bias: Any, statistics: tuple[Any, ...], channels: int
) -> tuple[Parameter, Parameter]:
    mean, var, eps, scale, shift = statistics
    given = bias
    bias = zeros_like(mean) if bias is None else bias
    scale = ones_like(mean) if scale is None else scale
    shift = zeros_like(mean) if shift is None else shift
    factor = scale * rsqrt(var + eps)
    shape = [-1 if d == channels else 1 for d in range(weight.dim())]
    new_weight = (weight * factor.reshape(shape)).to(weight.dtype)
    new_bias = ((bias - mean) * factor + shift).to(weight.dtype)
    bias_grad = given is not None and given.requires_grad
    return Parameter(new_weight, weight.requires_grad), Parameter(new_bias, bias_grad)
