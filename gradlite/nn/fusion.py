"""Layers in a row that run as one op where the array library has kernels for it.

A linear layer and an activation after it, and dropout before a shortcut's sum; and on the CPU a
convolution of a large batch with the relu and the max-pooling after it. The results are
those of the layers one after the other; one with hooks, or of a subclass, is always called itself.
"""

from __future__ import annotations

from typing import Any

from gradlite import autocast_mode
from gradlite.nn import functional as F
from gradlite.nn.module import Module
from gradlite.nn.modules import activation as layers
from gradlite.nn.modules.conv import Conv2d
from gradlite.nn.modules.dropout import Dropout
from gradlite.nn.modules.linear import Linear
from gradlite.nn.modules.pooling import MaxPool2d
from gradlite.ops.bias_activation import bias_activation
from gradlite.ops.casting import lowered
from gradlite.ops.conv_relu_pool import conv_relu_pool as convolved_and_pooled
from gradlite.ops.linear_relu import linear_relu
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.residual import bias_dropout_add
from gradlite.tensor import Tensor

# What an activation is among the ops, with the op's attrs.
_LAYERS: dict[type, Any] = {
    layers.ReLU: lambda layer: ("relu",),
    layers.LeakyReLU: lambda layer: ("leaky_relu", layer.negative_slope),
    layers.ELU: lambda layer: ("elu", layer.alpha, 1.0, 1.0),
    layers.GELU: lambda layer: ("gelu" if layer.approximate == "none" else "gelu_tanh",),
    layers.SiLU: lambda layer: ("silu",),
    layers.Mish: lambda layer: ("mish",),
    layers.Softplus: lambda layer: ("softplus", layer.beta, layer.threshold),
    layers.Sigmoid: lambda layer: ("sigmoid",),
    layers.Tanh: lambda layer: ("tanh",),
    layers.Hardtanh: lambda layer: ("hardtanh", layer.min_val, layer.max_val),
    layers.ReLU6: lambda layer: ("hardtanh", 0.0, 6.0),
    layers.Hardswish: lambda layer: ("hardswish",),
}
_FUNCTIONS: dict[Any, Any] = {F.relu: ("relu",), F.gelu: ("gelu",)}
_CALL = Module.__call__
# What these layers do as long as nobody has put other functions in their places.
_KINDS: tuple[Any, ...] = (Linear, Dropout, Conv2d, MaxPool2d, *_LAYERS)
_FORWARDS = {kind: kind.forward for kind in _KINDS}


def has_kernels(input: Any) -> bool:
    """Whether an input is a tensor of a library with kernels."""
    return isinstance(input, Tensor) and NAMESPACES[input.array.__class__].launcher is not None


def _plain(module: Any, kind: Any) -> bool:
    return (
        module.__class__ is kind
        and not module._hooked
        and "forward" not in module.__dict__
        and kind.forward is _FORWARDS[kind]
    )


def _activation(activation: Any) -> Any:
    """The name and the attrs of an activation's op, or None."""
    if not isinstance(activation, Module):
        return _FUNCTIONS.get(activation)
    found = _LAYERS.get(activation.__class__)
    if found is None or not _plain(activation, activation.__class__):
        return None
    return found(activation)


def linear_activation(linear: Any, activation: Any, input: Any) -> Any:
    """``activation(linear(input))``."""
    if _plain(linear, Linear) and isinstance(input, Tensor) and linear.bias is not None:
        if NAMESPACES[input.array.__class__].launcher is None:
            made = None
            if _plain(activation, layers.ReLU):
                made = linear_relu(input, linear.weight, linear.bias)
            return activation(linear(input)) if made is None else made
        found = _activation(activation)
        x, weight, bias = _operands(linear, input)
        if found is not None and x.dtype is bias.dtype:
            return bias_activation(F.linear(x, weight), bias, *found)
    return activation(linear(input))


def _operands(linear: Any, input: Any) -> tuple[Any, Any, Any]:
    """What a linear layer computes with, which under autocast are casts."""
    operands = (input, linear.weight, linear.bias)
    return lowered(*operands) if autocast_mode.used else operands  # type: ignore[return-value]


def _drops(dropout: Any, like: Any) -> bool:
    return (
        has_kernels(like)
        and _plain(dropout, Dropout)
        and dropout.training
        and 0 < dropout.p < 1
        and not dropout.inplace
    )


def residual(dropout: Any, block: Any, shortcut: Any) -> Any:
    """``shortcut + dropout(block)``."""
    if _drops(dropout, block) and block.shape == shortcut.shape and block.dtype is shortcut.dtype:
        return bias_dropout_add(block, None, shortcut, dropout.p)
    return shortcut + dropout(block)


def linear_residual(linear: Any, dropout: Any, input: Any, shortcut: Any) -> Any:
    """``shortcut + dropout(linear(input))``."""
    if _drops(dropout, input) and _plain(linear, Linear):
        x, weight, bias = _operands(linear, input)
        if x.dtype is shortcut.dtype:
            return bias_dropout_add(F.linear(x, weight), bias, shortcut, dropout.p)
    return shortcut + dropout(linear(input))


def convolution_relu_pool(conv: Any, relu: Any, pool: Any, input: Any) -> Any:
    """``pool(relu(conv(input)))``."""
    if (
        isinstance(input, Tensor)
        and NAMESPACES[input.array.__class__].launcher is None
        and _plain(conv, Conv2d)
        and _plain(relu, layers.ReLU)
        and _plain(pool, MaxPool2d)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and _halves(pool)
        and not (autocast_mode.used and autocast_mode.current_autocast().cpu)
    ):
        slides = (conv.stride, conv.padding, conv.dilation)
        made = convolved_and_pooled(input, conv.weight, conv.bias, *slides)
        if made is not None:
            return made
    return pool(relu(conv(input)))


def _halves(pool: Any) -> bool:
    """Whether a pooling layer has windows of 2 x 2 that do not overlap."""
    sizes = (pool.kernel_size, pool.stride)
    return (
        all(size in (2, (2, 2)) for size in sizes)
        and pool.padding in (0, (0, 0))
        and pool.dilation in (1, (1, 1))
        and not (pool.return_indices or pool.ceil_mode)
    )


def run(modules: list[Any], input: Any) -> Any:
    """The modules one after the other."""
    at, count = 0, len(modules)
    while at < count:
        module = modules[at]
        at += 1
        kind = module.__class__
        if kind is Linear and at < count and modules[at].__class__ in _LAYERS:
            input = linear_activation(module, modules[at], input)
            at += 1
        elif (
            kind is Conv2d
            and at + 1 < count
            and modules[at].__class__ is layers.ReLU
            and modules[at + 1].__class__ is MaxPool2d
        ):
            input = convolution_relu_pool(module, modules[at], modules[at + 1], input)
            at += 2
        elif kind.__call__ is _CALL and not module._hooked:
            input = module.forward(input)  # what calling it does, at half the cost
        else:
            input = module(input)
    return input
