"""Layers without a number of input features or channels: they take it from the first input."""

from __future__ import annotations

from typing import Any

from gradlite import dtypes
from gradlite.grad_mode import no_grad
from gradlite.nn.modules.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from gradlite.nn.modules.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from gradlite.nn.modules.instancenorm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from gradlite.nn.modules.lazy import LazyModuleMixin
from gradlite.nn.modules.linear import Linear
from gradlite.nn.parameter import UninitializedBuffer, UninitializedParameter
from gradlite.ops.creation import zeros
from gradlite.tensor import Tensor

__all__ = [
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "LazyLinear",
]


class LazyLinear(LazyModuleMixin, Linear):
    """A `Linear` whose ``in_features`` is the size of the last dimension of the first input.

    >>> import gradlite
    >>> layer = LazyLinear(3)
    >>> _ = layer(gradlite.ones(2, 5))
    >>> layer
    Linear(in_features=5, out_features=3, bias=True)
    """

    cls_to_become = Linear

    def __init__(
        self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(0, 0, False)
        where = {"device": device, "dtype": dtype}
        self.weight = UninitializedParameter(**where)
        self.out_features = out_features
        if bias:
            self.bias = UninitializedParameter(**where)

    def reset_parameters(self) -> None:
        """Draw the initial values again, once there are parameters."""
        if not self.has_uninitialized_params() and self.in_features != 0:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Make weight and bias for an input, and draw their values."""
        if self.has_uninitialized_params():
            with no_grad():
                self.in_features = input.shape[-1]
                _materialize(self.weight, (self.out_features, self.in_features))
                _materialize(self.bias, (self.out_features,))
                self.reset_parameters()
        if self.in_features == 0:  # The parameters were loaded.
            if input.shape[-1] != self.weight.shape[-1]:
                raise AssertionError(
                    f"The in_features inferred from input: {input.shape[-1]} is not equal to "
                    f"in_features from self.weight: {self.weight.shape[-1]}"
                )
            self.in_features = input.shape[-1]


def _materialize(parameter: Any, shape: tuple[int, ...]) -> None:
    if parameter is not None:
        parameter.materialize(shape)


# -------------------------------------------------------------------------- convolutions
class _LazyConv(LazyModuleMixin):
    """What the lazy convolutions share; the class beside it is the convolution."""

    weight: Any
    bias: Any
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    groups: int
    transposed: bool
    _dimensions: int

    def _start(self, out_channels: int, bias: bool, device: Any, dtype: Any) -> None:
        where = {"device": device, "dtype": dtype}
        self.weight = UninitializedParameter(**where)
        self.out_channels = out_channels
        if bias:
            self.bias = UninitializedParameter(**where)

    def reset_parameters(self) -> None:
        """Draw the initial values again, once there are parameters."""
        if not self.has_uninitialized_params() and self.in_channels != 0:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """Make weight and bias for an input, and draw their values."""
        if not self.has_uninitialized_params():
            if self.in_channels == 0:  # The parameters were loaded.
                self.in_channels = self._channels_of(input)
            return
        self.in_channels = self._channels_of(input)
        if self.in_channels % self.groups != 0:
            raise ValueError("in_channels must be divisible by groups")
        outer, inner = self.out_channels, self.in_channels // self.groups
        if self.transposed:
            outer, inner = self.in_channels, self.out_channels // self.groups
        with no_grad():
            _materialize(self.weight, (outer, inner, *self.kernel_size))
            _materialize(self.bias, (self.out_channels,))
            self.reset_parameters()

    def _channels_of(self, input: Tensor) -> int:
        single = self._dimensions + 1
        if input.dim() not in (single, single + 1):
            raise RuntimeError(
                f"Expected {single}D (unbatched) or {single + 1}D (batched) input to "
                f"{type(self).__name__}, but got input of size: {input.shape}"
            )
        return input.shape[0 if input.dim() == single else 1]


class _LazyForward(_LazyConv):
    def __init__(
        self,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        arguments: Any = (0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode)
        super().__init__(*arguments)
        self._start(out_channels, bias, device, dtype)


class LazyConv1d(_LazyForward, Conv1d):
    """A `Conv1d` whose ``in_channels`` is that of the first input."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyForward, Conv2d):
    """A `Conv2d` whose ``in_channels`` is that of the first input."""

    cls_to_become = Conv2d


class LazyConv3d(_LazyForward, Conv3d):
    """A `Conv3d` whose ``in_channels`` is that of the first input."""

    cls_to_become = Conv3d


class _LazyTranspose(_LazyConv):
    def __init__(
        self,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        arguments: Any = (0, 0, kernel_size, stride, padding, output_padding, groups, False)
        super().__init__(*arguments, dilation, padding_mode)  # type: ignore[call-arg]
        self._start(out_channels, bias, device, dtype)


class LazyConvTranspose1d(_LazyTranspose, ConvTranspose1d):
    """A `ConvTranspose1d` whose ``in_channels`` is that of the first input."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyTranspose, ConvTranspose2d):
    """A `ConvTranspose2d` whose ``in_channels`` is that of the first input."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyTranspose, ConvTranspose3d):
    """A `ConvTranspose3d` whose ``in_channels`` is that of the first input."""

    cls_to_become = ConvTranspose3d


# ------------------------------------------------------------------------ normalisation
class _LazyNorm(LazyModuleMixin):
    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any
    num_batches_tracked: Tensor | None
    num_features: int

    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(0, eps, momentum, False, False)  # type: ignore[call-arg]
        where = {"device": device, "dtype": dtype}
        self.affine = affine
        self.track_running_stats = track_running_stats
        if affine:
            self.weight = UninitializedParameter(**where)
            if bias:
                self.bias = UninitializedParameter(**where)
        if track_running_stats:
            self.running_mean = UninitializedBuffer(**where)
            self.running_var = UninitializedBuffer(**where)
            self.num_batches_tracked = zeros((), dtype=dtypes.int64, device=device)

    def reset_parameters(self) -> None:
        """Set the initial values again, once there are parameters."""
        if not self.has_uninitialized_params() and self.num_features != 0:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor) -> None:
        """Make parameters and buffers for an input."""
        if not self.has_uninitialized_params():
            if self.num_features == 0:
                self.num_features = input.shape[1]
            return
        self.num_features = input.shape[1]
        for value in (self.weight, self.bias, self.running_mean, self.running_var):
            _materialize(value, (self.num_features,))
        self.reset_parameters()


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """A `BatchNorm1d` whose ``num_features`` is the number of channels of the first input."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """A `BatchNorm2d` whose ``num_features`` is the number of channels of the first input."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """A `BatchNorm3d` whose ``num_features`` is the number of channels of the first input."""

    cls_to_become = BatchNorm3d


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """An `InstanceNorm1d` whose ``num_features`` is that of the first input."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """An `InstanceNorm2d` whose ``num_features`` is that of the first input."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_LazyNorm, InstanceNorm3d):
    """An `InstanceNorm3d` whose ``num_features`` is that of the first input."""

    cls_to_become = InstanceNorm3d
