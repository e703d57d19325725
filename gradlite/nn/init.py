"""Filling tensors with initial values, in place; autograd does not see it.

Every function returns the tensor it filled. `xavier_*` is Glorot and Bengio (2010),
`kaiming_*` He et al. (2015), `orthogonal_` Saxe et al. (2013), `sparse_` Martens (2010).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np

from gradlite.backends.special import erf
from gradlite.device import array_module
from gradlite.grad_mode import no_grad
from gradlite.ops.guard import on_its_device
from gradlite.random import Generator, default_generator
from gradlite.tensor import Tensor

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_LINEAR = {
    *("linear", "conv1d", "conv2d", "conv3d"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The recommended scale of the weights in front of a nonlinearity.

    1 for linear layers and the sigmoid, 5/3 for tanh, sqrt(2) for relu, 3/4 for selu and
    sqrt(2 / (1 + param**2)) for leaky_relu with the slope ``param`` (0.01 when None).

    >>> calculate_gain("leaky_relu", 1)
    1.0

    Raises:
        ValueError: another nonlinearity, or a slope that is no number.
    """
    if nonlinearity in _LINEAR or nonlinearity == "sigmoid":
        return 1
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise ValueError(f"Unsupported nonlinearity {nonlinearity}")


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """How many inputs feed one output of a weight, and how many outputs one input feeds."""
    if tensor.ndim < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions"
        )
    receptive_field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive_field, tensor.shape[0] * receptive_field


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    modes = ["fan_in", "fan_out"]
    if mode.lower() not in modes:
        raise ValueError(f"Mode {mode} not supported, please use one of {modes}")
    return _calculate_fan_in_and_fan_out(tensor)[modes.index(mode.lower())]


@on_its_device
def _fill(tensor: Tensor, values: Any) -> Tensor:
    """Put values, an array of the tensor's shape or a number, into a tensor."""
    tensor.array[...] = values
    tensor._bump()
    return tensor


def uniform_(
    tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with draws from the uniform distribution between ``a`` and ``b``."""
    with no_grad():
        tensor.uniform_(a, b, generator=generator)  # type: ignore[attr-defined]
    return tensor


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with draws from the normal distribution of a mean and a standard deviation."""
    with no_grad():
        tensor.normal_(mean, std, generator=generator)  # type: ignore[attr-defined]
    return tensor


@on_its_device
def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Fill with draws from the normal distribution cut off below ``a`` and above ``b``.

    The bounds are values, not multiples of ``std``. By inversion: the uniform distribution
    between the two bounds' probabilities goes through the normal distribution's quantiles.
    """
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. "
            "The distribution of values may be incorrect.",
            stacklevel=2,
        )
    low, high = (math.erf((bound - mean) / (std * math.sqrt(2.0))) for bound in (a, b))
    draws = (generator or default_generator).random(tensor.shape, np.float64)
    values = _inverse_erf(low + (high - low) * draws) * (std * math.sqrt(2.0)) + mean
    return _fill(tensor, array_module(tensor.device).asarray(np.clip(values, a, b)))


def _inverse_erf(y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The x with erf(x) = y: Winitzki's approximation (2008), then Newton steps on erf."""
    x: Any
    y = np.clip(y, np.nextafter(-1, 0), np.nextafter(1, 0))
    a = 0.147
    logarithm = np.log1p(-y * y)
    half = 2 / (math.pi * a) + logarithm / 2
    x = np.copysign(np.sqrt(np.sqrt(half * half - logarithm / a) - half), y)
    for _ in range(3):
        slope = 2 / math.sqrt(math.pi) * np.exp(-x * x)
        x = x - (erf(np, x) - y) / slope
    return x  # type: ignore[no-any-return]


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one value."""
    return _fill(tensor, val)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return _fill(tensor, 1)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return _fill(tensor, 0)


@on_its_device
def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with ones on the diagonal and zeros elsewhere.

    Raises:
        ValueError: the tensor does not have two dimensions.
    """
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    return _fill(tensor, array_module(tensor.device).eye(*tensor.shape))


@on_its_device
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill a convolution's weight so that it hands on as many channels as it can.

    Raises:
        ValueError: the tensor does not have 3, 4 or 5 dimensions, or ``groups`` does not
            divide the output channels.
    """
    if tensor.ndim not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    if tensor.shape[0] % groups != 0:
        raise ValueError("dim 0 must be divisible by groups")
    per_group = tensor.shape[0] // groups
    centre = tuple(size // 2 for size in tensor.shape[2:])
    _fill(tensor, 0)
    for group in range(groups):
        for channel in range(min(per_group, tensor.shape[1])):
            place = (group * per_group + channel, channel, *centre)
            tensor.array[place] = 1
    return tensor


def xavier_uniform_(
    tensor: Tensor, gain: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill uniformly between -r and r, r = gain * sqrt(6 / (fan_in + fan_out))."""
    bound = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill from the normal distribution with std = gain * sqrt(2 / (fan_in + fan_out))."""
    std = gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return normal_(tensor, 0.0, std, generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill uniformly between -r and r, r = gain * sqrt(3 / fan).

    Args:
        a: the slope of the leaky_relu that follows; 0 means a relu.
        mode: "fan_in" keeps the variance in the forward pass, "fan_out" in the backward pass.
        nonlinearity: what follows, see `calculate_gain`.
    """
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    fan = _calculate_correct_fan(tensor, mode)
    bound = math.sqrt(3.0) * calculate_gain(nonlinearity, a) / math.sqrt(fan)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill from the normal distribution with std = gain / sqrt(fan); see `kaiming_uniform_`."""
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    fan = _calculate_correct_fan(tensor, mode)
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(fan), generator)


@on_its_device
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    """Fill with a (semi-)orthogonal matrix, all dimensions after the first taken together.

    Raises:
        ValueError: the tensor has fewer than two dimensions.
    """
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if tensor.numel() == 0:
        return tensor
    xp = array_module(tensor.device)
    rows, columns = tensor.shape[0], tensor.numel() // tensor.shape[0]
    draws = xp.asarray((generator or default_generator).normal((rows, columns), "float64"))
    q, r = xp.linalg.qr(draws if rows >= columns else draws.T)
    # Signs that make R's diagonal positive make Q uniformly distributed (Mezzadri 2007).
    q = q * xp.sign(xp.diagonal(r))
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


@on_its_device
def sparse_(
    tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None
) -> Tensor:
    """Fill a matrix from the normal distribution with a fraction of each column set to zero.

    Raises:
        ValueError: the tensor does not have two dimensions.
    """
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    normal_(tensor, 0.0, std, generator)
    for column in range(columns):
        chosen = (generator or default_generator).permutation(rows)[:zeros]
        tensor.array[array_module(tensor.device).asarray(chosen), column] = 0
    return tensor


P = ParamSpec("P")


def _deprecated(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """The function under its old name, without the underscore."""
    name = function.__name__

    def old(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        warnings.warn(
            f"`nn.init.{name[:-1]}` is now deprecated in favor of `nn.init.{name}`.",
            FutureWarning,
            stacklevel=2,
        )
        return function(*args, **kwargs)

    old.__name__ = old.__qualname__ = name[:-1]
    old.__doc__ = f"`{name}`: deprecated."
    return old


uniform = _deprecated(uniform_)
normal = _deprecated(normal_)
constant = _deprecated(constant_)
eye = _deprecated(eye_)
dirac = _deprecated(dirac_)
xavier_uniform = _deprecated(xavier_uniform_)
xavier_normal = _deprecated(xavier_normal_)
kaiming_uniform = _deprecated(kaiming_uniform_)
kaiming_normal = _deprecated(kaiming_normal_)
orthogonal = _deprecated(orthogonal_)
sparse = _deprecated(sparse_)
