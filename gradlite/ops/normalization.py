"""Normalisation layers as functions: batch, layer, group, instance and RMS normalisation.

The ops and their rules are in `gradlite.ops.norm_rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.grad_mode import current_mode
from gradlite.ops import response_norm
from gradlite.ops.dispatch import apply, same_device
from gradlite.ops.guard import on_its_device
from gradlite.ops.norm_rules import (
    InstanceNorm,
    NativeBatchNorm,
    NativeGroupNorm,
    NativeLayerNorm,
    RmsNorm,
    numel,
)
from gradlite.ops.op import type_name
from gradlite.ops.operands import cast
from gradlite.ops.samples import S, constant, normal, positive
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "rms_norm",
]


# ----------------------------------------------------------------------------- arguments
def _check(name: str, kernel: str, x: Any, *parameters: Tensor | None) -> Any:
    """Errors for what is not a tensor of the right dtype and device.

    Returns the dtype of the parameters.
    """
    _check_tensor(name, x)
    own = x.array
    if own.dtype not in dtypes.FLOATING:
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{type_name(own.dtype)}'")
    dtype = own.dtype
    for parameter in parameters:
        if parameter is None:
            continue
        _check_tensor(name, parameter)
        array = parameter.array
        if array.__class__ is not own.__class__:
            same_device(x, parameter)
        if array.dtype != own.dtype:
            if array.dtype != np.float32:
                raise RuntimeError(
                    "mixed dtype (CPU): expect parameter to have scalar type of Float"
                )
            if own.dtype not in dtypes.HALVES:
                raise RuntimeError("mixed dtype (CPU): all inputs must share same datatype.")
            dtype = array.dtype
    return dtype


def _check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}(): expected a Tensor argument, but got {value.__class__.__name__}")


def _check_normalized_shape(
    name: str, x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None
) -> tuple[int, ...]:
    if not isinstance(shape, (tuple, list)):
        raise TypeError(
            f"{name}(): argument 'normalized_shape' (position 2) must be tuple of ints, "
            f"not {shape.__class__.__name__}"
        )
    sizes = tuple(shape)
    if not sizes:
        raise RuntimeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least "
            "one element, but got normalized_shape = []"
        )
    for what, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.array.shape != sizes:
            raise RuntimeError(
                f"Expected {what} to be of same shape as normalized_shape, but got {what} of "
                f"shape {list(parameter.array.shape)} and normalized_shape = {list(sizes)}"
            )
    own = x.array.shape
    if own[max(len(own) - len(sizes), 0) :] != sizes:
        raise RuntimeError(
            f"Given normalized_shape={list(sizes)}, expected input with shape "
            f"[*{', ' if name == 'layer_norm' else ''}{', '.join(map(str, sizes))}], but got input "
            f"of size{list(own)}"
        )
    return sizes


def _more_than_one_value(sizes: Sequence[int]) -> None:
    if sizes[0] * numel(sizes[2:]) == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {sizes}"
        )


# ----------------------------------------------------------------------------- functions
@public(
    samples=lambda: [
        S(normal(4, 3), (3,)),
        S(normal(4, 5), [5], normal(5), normal(5)),
        S(normal(2, 3, 4), (3, 4), normal(3, 4), normal(3, 4), 1e-3),
        S(normal(2, 3, 4), (4,), normal(4)),
        S(normal(0, 3), (3,), normal(3), normal(3)),
    ],
    torch="nn.functional.layer_norm",
    errors=lambda: [
        S(normal(4, 3), (4,)),
        S(normal(4, 3), ()),
        S(normal(4, 3), (3,), normal(4)),
        S(normal(4, 3), (2, 4, 3)),
    ],
    autocast=("", "float32"),
)
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimensions.

    Ba, Kiros and Hinton (2016); the variance is the biased one.

    Shapes: input (*, *normalized_shape), weight and bias ``normalized_shape``.

    >>> import gradlite
    >>> gradlite.nn.functional.layer_norm(gradlite.tensor([[1.0, 2.0, 3.0]]), (3,))
    tensor([[-1.2247,  0.0000,  1.2247]])

    Raises:
        RuntimeError: shapes or dtypes that do not fit.
    """
    dtype = _check("layer_norm", "LayerNormKernelImpl", input, weight, bias)
    shape = _check_normalized_shape("layer_norm", input, normalized_shape, weight, bias)
    return apply(  # type: ignore[no-any-return]
        NativeLayerNorm, (input, weight, bias), shape, True, eps, dtype
    )


@public(
    samples=lambda: [
        S(normal(4, 3), (3,)),
        S(normal(4, 5), [5], normal(5)),
        S(normal(2, 3, 4), (3, 4), normal(3, 4), 1e-3),
        S(normal(0, 3), (3,), normal(3)),
    ],
    torch="nn.functional.rms_norm",
    errors=lambda: [S(normal(4, 3), (4,)), S(normal(4, 3), (3,), normal(4))],
)
def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions.

    Zhang and Sennrich (2019); eps is by default the smallest step above 1 of the dtype.

    Shapes: input (*, *normalized_shape), weight ``normalized_shape``.

    >>> import gradlite
    >>> gradlite.nn.functional.rms_norm(gradlite.tensor([[3.0, 4.0]]), (2,))
    tensor([[0.8485, 1.1314]])
    """
    _check("rms_norm", "rms_norm", input)
    if weight is not None:
        _check("rms_norm", "rms_norm", weight)
        same_device(input, weight)
    shape = _check_normalized_shape("rms_norm", input, normalized_shape, weight, None)
    dtype = input.array.dtype
    if eps is None:
        eps = float(np.finfo(np.float32 if dtype in dtypes.HALVES else dtype).eps)
    if weight is not None and weight.array.dtype in dtypes.HALVES and dtype not in dtypes.HALVES:
        weight = cast(weight, dtype)
    parameter_dtype = dtype if weight is None else weight.array.dtype
    return apply(  # type: ignore[no-any-return]
        RmsNorm, (input, weight, None), shape, False, eps, parameter_dtype
    )


def _running(channels: int) -> tuple[Any, Any]:
    """Running statistics for samples."""
    return constant(normal(channels)), constant(positive(channels))


@public(
    samples=lambda: [
        S(normal(4, 3), None, None, training=True),
        S(normal(4, 3, 5), None, None, normal(3), normal(3), True),
        S(normal(2, 3, 2, 2), None, None, normal(3), None, True, 0.1, 1e-3),
        S(normal(2, 3, 4), None, None, normal(3), training=True, momentum=0.5),
        S(normal(2, 3, 4), *_running(3), normal(3), normal(3)),
        S(normal(4, 3), *_running(3)),
    ],
    torch="nn.functional.batch_norm",
    errors=lambda: [
        S(normal(1, 3), None, None, training=True),
        S(normal(4, 3), None, None),
        S(normal(4, 3), None, None, normal(4), training=True),
        S(normal(4, 3), None, None, training=True, eps=0),
    ],
)
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias per channel.

    Ioffe and Szegedy (2015). In training mean and variance are the batch's, the variance the
    biased one, and the running ones, if given, move towards them in place:
    running = (1 - momentum) * running + momentum * batch, with the unbiased variance.
    Otherwise they are the running ones.

    Shapes: input (N, C, *), all others (C,).

    >>> import gradlite
    >>> x = gradlite.tensor([[1.0], [3.0]])
    >>> gradlite.nn.functional.batch_norm(x, None, None, training=True)
    tensor([[-1.0000],
            [ 1.0000]])

    Raises:
        ValueError: training with one value per channel, or eps that is not positive.
        RuntimeError: shapes or dtypes that do not fit, or running statistics missing.
    """
    if not isinstance(momentum, (int, float)):
        raise TypeError(
            "batch_norm(): argument 'momentum' (position 7) must be float, "
            f"not {momentum.__class__.__name__}"
        )
    shape = input.shape
    if training:
        _more_than_one_value(shape)
    if eps <= 0 and training:
        raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    if eps < 0:
        raise ValueError(f"batch_norm eps must be non-negative, but got {eps}")
    return _per_channel(input, running_mean, running_var, weight, bias, training, momentum, eps)


REPEATS = (
    "Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor"
)


def _vector(parameter: Tensor | None) -> Tensor | None:
    """A parameter of one element per channel, whatever its shape, as rules and kernels take it."""
    if parameter is None or parameter.array.ndim == 1:
        return parameter
    return parameter.reshape(-1)  # type: ignore[attr-defined,no-any-return]


def _per_channel(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """`batch_norm` with any eps, as it is allowed for samples by themselves."""
    shape = input.shape
    if training and (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must either both be None or neither be None")
    channels = shape[1] if len(shape) > 1 else 0
    for name, parameter in (
        ("running_mean", running_mean),
        ("running_var", running_var),
        ("weight", weight),
        ("bias", bias),
    ):
        if parameter is None:
            if name.startswith("running") and not training:
                raise RuntimeError(f"{name} must be defined in evaluation mode")
        elif parameter.array.size != channels:
            raise RuntimeError(
                f"{name} should contain {channels} elements not {parameter.array.size}"
            )
        elif not name.startswith("running"):
            continue
        elif parameter.array.ndim != 1:
            raise RuntimeError(
                f"TensorAccessor expected 1 dims but tensor has {parameter.array.ndim}"
            )
        elif parameter.requires_grad and current_mode() == 0:
            raise RuntimeError(
                "The function 'native_batch_norm' is not differentiable with respect to argument "
                f"'{name}'. This input cannot have requires_grad True."
            )
    weight, bias = (_vector(p) for p in (weight, bias))
    dtype = _check("batch_norm", "batch_norm", input, weight, bias, running_mean, running_var)
    if len(shape) < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but got {len(shape)}")
    if not input.array.size:
        result: Any = input.clone()
        result = result if weight is None else result * weight[0]
        return result if bias is None else result + bias[0]  # type: ignore[no-any-return]
    running = None
    if running_mean is not None and running_var is not None:
        running = (running_mean.array, running_var.array)
    y = apply(NativeBatchNorm, (input, weight, bias), running, training, momentum, eps, dtype)
    if training and running_mean is not None and running_var is not None:
        running_mean._bump()
        running_var._bump()
    return y  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(2, 4, 3), 2),
        S(normal(2, 6, 2, 2), 3, normal(6), normal(6)),
        S(normal(3, 4), 2, normal(4), None, 1e-3),
        S(normal(0, 4, 3), 2, normal(4), normal(4)),
    ],
    torch="nn.functional.group_norm",
    errors=lambda: [
        S(normal(6), 2),
        S(normal(4, 6, 5), 4),
        S(normal(4, 6, 5), -2),
        S(normal(4, 6, 5), 2, normal(5)),
        S(normal(1, 2), 2),
    ],
    autocast=("", "float32"),
)
def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias per sample and group of channels.

    Wu and He (2018).

    Shapes: input (N, C, *) with C divisible by ``num_groups``, weight and bias (C,).

    >>> import gradlite
    >>> x = gradlite.tensor([[1.0, 3.0, 2.0, 6.0]])
    >>> gradlite.nn.functional.group_norm(x, 2)
    tensor([[-1.0000,  1.0000, -1.0000,  1.0000]])

    Raises:
        RuntimeError: shapes or dtypes that do not fit.
        ValueError: one value per group.
    """
    shape = list(input.shape)
    if len(shape) < 2:
        raise RuntimeError(
            f"Expected at least 2 dimensions for input tensor but received {len(shape)}"
        )
    _more_than_one_value([shape[0] * shape[1] // num_groups, num_groups, *shape[2:]])
    if num_groups <= 0:
        raise RuntimeError(f"Expected num groups to be greater than 0, got {num_groups}")
    if shape[1] % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of "
            f"shape {shape} and num_groups={num_groups}"
        )
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.array.shape != (shape[1],):
            raise RuntimeError(
                f"Expected {name} to be a vector of size equal to the number of channels in "
                f"input, but got {name} of shape {list(parameter.array.shape)} and input of shape "
                f"{shape}"
            )
    dtype = _check("group_norm", "GroupNormKernelImpl", input, weight, bias)
    return apply(  # type: ignore[no-any-return]
        NativeGroupNorm, (input, weight, bias), num_groups, eps, dtype
    )


@public(
    samples=lambda: [
        S(normal(2, 3, 4)),
        S(normal(2, 3, 2, 3), None, None, normal(3), normal(3)),
        S(normal(2, 3, 4), weight=normal(3), eps=1e-3),
        S(normal(2, 3, 4), *_running(3), normal(3), normal(3), False),
        S(normal(0, 3, 4)),
    ],
    torch="nn.functional.instance_norm",
    errors=lambda: [
        S(normal(2, 3, 1)),
        S(normal(2, 3)),
        S(normal(2, 3, 4), weight=normal(4)),
        S(normal(2, 3, 4), use_input_stats=False),
    ],
)
@on_its_device
def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias per sample and channel.

    Ulyanov, Vedaldi and Lempitsky (2016). The running statistics, if given, move in place
    towards the means of the samples' own, which are used unless ``use_input_stats`` is False.

    Shapes: input (N, C, *), all others (C,).

    >>> import gradlite
    >>> gradlite.nn.functional.instance_norm(gradlite.tensor([[[1.0, 3.0]]]))
    tensor([[[-1.0000,  1.0000]]])

    Raises:
        ValueError: one value per channel.
        RuntimeError: shapes or dtypes that do not fit, or running statistics missing.
    """
    shape = input.shape
    if use_input_stats and numel(shape[2:]) == 1:
        raise ValueError(
            f"Expected more than 1 spatial element when training, got input size {shape}"
        )
    if not use_input_stats and (running_mean is None or running_var is None):
        raise RuntimeError(
            "Expected running_mean and running_var to be defined when use_input_stats is false"
        )
    n, c = shape[0], shape[1]
    if running_mean is None and running_var is None:
        for name, parameter in (("weight", weight), ("bias", bias)):
            if parameter is not None and parameter.array.size != c:
                raise RuntimeError(
                    f"{name} should contain {n * c} elements not {n * parameter.array.size}"
                )
            if parameter is not None and parameter.array.ndim > 1:
                raise RuntimeError(REPEATS)
        dtype = _check("instance_norm", "batch_norm", input, weight, bias)
        return apply(  # type: ignore[no-any-return]
            InstanceNorm, (input, weight, bias), c, eps, dtype
        )
    given: Any = (running_mean, running_var, weight, bias)
    if not use_input_stats and all(p is None or p.array.shape == (c,) for p in given):
        if eps < 0:
            raise ValueError(f"batch_norm eps must be non-negative, but got {eps}")
        x: Any = input.contiguous()  # type: ignore[attr-defined]
        y: Any = _per_channel(x, running_mean, running_var, weight, bias, False, momentum, eps)
        return y.view(shape)  # type: ignore[no-any-return]
    # Each sample's channels as channels of one sample of a batch normalisation.
    mean, var, scale, shift = (p if p is None else p.repeat(n) for p in given)
    if not use_input_stats and eps < 0:
        raise ValueError(f"batch_norm eps must be non-negative, but got {eps}")
    x = input.contiguous().view(1, n * c, *shape[2:])  # type: ignore[attr-defined]
    y = _per_channel(x, mean, var, scale, shift, use_input_stats, momentum, eps)
    if use_input_stats:
        for kept, moved in ((running_mean, mean), (running_var, var)):
            if kept is not None and moved is not None:
                kept.array[...] = moved.array.reshape(n, c).mean(0)
                kept._bump()
    return y.view(shape)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(2, 5, 4), 2),
        S(normal(2, 5, 3, 2), 3, 1e-2, 0.5, 2.0),
    ],
    torch="nn.functional.local_response_norm",
    errors=lambda: [S(normal(2, 3), 2), S(normal(2, 3, 4), 0)],
    # PyTorch pools volumes in between, which it casts; on CUDA it casts what it takes the power of.
    autocast=(lambda input, *_, **__: "float32" if input.dim() > 3 else "", "float32"),
)
def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha * m) ** beta, m the mean square of ``size`` neighbouring channels.

    Krizhevsky, Sutskever and Hinton (2012). Channels beyond the first and last count as 0.

    Shapes: input and output (N, C, *).

    >>> import gradlite
    >>> gradlite.nn.functional.local_response_norm(gradlite.ones(1, 2, 1), 2, alpha=1.0)
    tensor([[[0.7378],
             [0.5946]]])
    """
    shape = input.shape
    if len(shape) < 3:
        raise ValueError(
            "Expected 3D or higher dimensionality                          "
            f"input (got {len(shape)} dimensions)"
        )
    if not input.array.size:
        return input
    fused = response_norm.with_kernels(input, size, alpha, beta, k)
    return response_norm.composed(input, size, alpha, beta, k) if fused is None else fused
