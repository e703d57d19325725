"""Convolutions in one to three dimensions, and their transposes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from gradlite.nn import functional as F
from gradlite.nn import init
from gradlite.nn.module import Module
from gradlite.nn.parameter import Parameter
from gradlite.ops.creation import empty
from gradlite.tensor import Tensor

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def ntuple(value: Any, length: int) -> tuple[Any, ...]:
    """One value for each of several dimensions; a sequence is taken as it is."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * length


class _ConvNd(Module):
    _dimensions: ClassVar[int]
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: Any,
        transposed: bool = False,
        output_padding: Any = 0,
    ) -> None:
        super().__init__()
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups != 0:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups != 0:
            raise ValueError("out_channels must be divisible by groups")
        n = self._dimensions
        self.stride = ntuple(stride, n)
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(
                    f"Invalid padding string {padding!r}, should be one of {{'valid', 'same'}}"
                )
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
        if padding_mode not in PADDING_MODES:
            raise ValueError(
                f"padding_mode must be one of {PADDING_MODES}, but got padding_mode="
                f"{padding_mode!r}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = ntuple(kernel_size, n)
        self.padding: Any = padding if isinstance(padding, str) else ntuple(padding, n)
        self.dilation = ntuple(dilation, n)
        self.transposed = transposed
        self.output_padding = ntuple(output_padding, n)
        self.groups = groups
        self.padding_mode = padding_mode
        outer, inner = (
            (in_channels, out_channels // groups)
            if transposed
            else (out_channels, in_channels // groups)
        )
        where = {"device": device, "dtype": dtype}
        self.weight = Parameter(empty((outer, inner, *self.kernel_size), **where))
        self.register_parameter("bias", Parameter(empty(out_channels, **where)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values again."""
        # With this slope the bound is 1 / sqrt(fan_in).
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            if fan_in != 0:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def _pad_sides(self) -> tuple[int, ...]:
        """The padding as `functional.pad` takes it."""
        sides: list[int] = []
        for axis in reversed(range(self._dimensions)):
            if self.padding == "same":
                total = self.dilation[axis] * (self.kernel_size[axis] - 1)
                sides += [total // 2, total - total // 2]
            elif self.padding == "valid":
                sides += [0, 0]
            else:
                sides += [self.padding[axis]] * 2
        return tuple(sides)

    def _padded(self, input: Tensor) -> tuple[Tensor, Any]:
        """The input with what a mode other than "zeros" puts around it, and the padding left."""
        if self.padding_mode == "zeros":
            return input, self.padding
        return F.pad(input, self._pad_sides(), self.padding_mode), (0,) * self._dimensions

    def extra_repr(self) -> str:
        n = self._dimensions
        extra = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        )
        if self.padding != (0,) * n:
            extra += f", padding={self.padding}"
        if self.dilation != (1,) * n:
            extra += f", dilation={self.dilation}"
        if self.output_padding != (0,) * n:
            extra += f", output_padding={self.output_padding}"
        if self.groups != 1:
            extra += f", groups={self.groups}"
        if self.bias is None:
            extra += ", bias=False"
        if self.padding_mode != "zeros":
            extra += f", padding_mode={self.padding_mode}"
        return extra


class _Conv(_ConvNd):
    def __init__(
        self,
        in_channels: int,
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
        super().__init__(
            *(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias),
            *(padding_mode, device, dtype),
        )


class Conv1d(_Conv):
    """Cross-correlation of ``(N, C_in, L)`` or ``(C_in, L)`` with ``out_channels`` kernels.

    Args:
        in_channels, out_channels: C_in and C_out; ``groups`` divides both.
        kernel_size, stride, dilation: integers or tuples of one.
        padding: added on both sides; "same" keeps L, "valid" is 0.
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Shapes: output ``(N, C_out, L_out)`` with L_out = (L + 2 padding - dilation (kernel_size - 1)
    - 1) // stride + 1; ``weight`` ``(C_out, C_in / groups, kernel_size)``.

    Initialised uniformly between -r and r, r = 1/sqrt(C_in / groups * kernel_size).
    """

    _dimensions = 1

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self._padded(input)
        return F.conv1d(
            *(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        )


class Conv2d(_Conv):
    """Cross-correlation of ``(N, C_in, H, W)`` or ``(C_in, H, W)`` with ``out_channels`` kernels.

    Args:
        in_channels, out_channels: C_in and C_out; ``groups`` divides both.
        kernel_size, stride, dilation: one integer for both dimensions or a pair.
        padding: added on both sides; "same" keeps H and W, "valid" is 0.
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Shapes: output ``(N, C_out, H_out, W_out)`` with H_out = (H + 2 padding - dilation
    (kernel_size - 1) - 1) // stride + 1; ``weight`` ``(C_out, C_in / groups, kernel_h,
    kernel_w)``.

    Initialised uniformly between -r and r, r = 1/sqrt(C_in / groups * kernel_h * kernel_w).

    >>> import gradlite
    >>> Conv2d(1, 8, 3, padding=1)(gradlite.zeros(4, 1, 28, 28)).shape
    gradlite.Size([4, 8, 28, 28])
    """

    _dimensions = 2

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self._padded(input)
        return F.conv2d(
            *(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        )


class Conv3d(_Conv):
    """Cross-correlation of volumes ``(N, C_in, D, H, W)`` or ``(C_in, D, H, W)`` with kernels.

    Arguments and shapes are those of `Conv2d`, with numbers for (depth, height, width).

    >>> import gradlite
    >>> Conv3d(1, 8, 3, padding=1)(gradlite.zeros(2, 1, 4, 8, 8)).shape
    gradlite.Size([2, 8, 4, 8, 8])
    """

    _dimensions = 3

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self._padded(input)
        return F.conv3d(
            *(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        )


class _ConvTransposeNd(_ConvNd):
    def __init__(
        self,
        in_channels: int,
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
        if padding_mode != "zeros":
            raise ValueError(
                f'Only "zeros" padding mode is supported for {self.__class__.__name__}'
            )
        super().__init__(
            *(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias),
            *(padding_mode, device, dtype),
            transposed=True,
            output_padding=output_padding,
        )

    def _output_padding(self, input: Tensor, output_size: Sequence[int] | None) -> tuple[int, ...]:
        """The output padding that makes the output as large as asked for."""
        n = self._dimensions
        if output_size is None:
            return self.output_padding
        wanted = list(output_size)
        if len(wanted) == input.dim():
            wanted = wanted[-n:]
        if len(wanted) != n:
            raise ValueError(
                f"ConvTranspose{n}D: for {input.dim()}D input, output_size must have {n} or "
                f"{input.dim()} elements (got {len(output_size)})"
            )
        smallest = [
            (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
            for size, stride, padding, dilation, kernel in zip(
                *(input.shape[-n:], self.stride, self.padding, self.dilation, self.kernel_size),
                strict=True,
            )
        ]
        extra = [size - least for size, least in zip(wanted, smallest, strict=True)]
        if any(not 0 <= e < stride for e, stride in zip(extra, self.stride, strict=True)):
            largest = [s + stride - 1 for s, stride in zip(smallest, self.stride, strict=True)]
            raise ValueError(
                f"requested an output size of {wanted}, but valid sizes range from {smallest} to "
                f"{largest} (for an input of {input.shape[-n:]})"
            )
        return tuple(extra)


class ConvTranspose1d(_ConvTransposeNd):
    """The transpose (the gradient) of `Conv1d`: upsampling with learned kernels.

    Shapes: input ``(N, C_in, L)``, output ``(N, C_out, L_out)`` with L_out = (L - 1) stride
    - 2 padding + dilation (kernel_size - 1) + output_padding + 1; ``weight`` ``(C_in, C_out /
    groups, kernel_size)``.

    Initialised uniformly between -r and r, r = 1/sqrt(C_out / groups * kernel_size).
    """

    _dimensions = 1

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        output_padding = self._output_padding(input, output_size)
        return F.conv_transpose1d(
            *(input, self.weight, self.bias, self.stride, self.padding, output_padding),
            *(self.groups, self.dilation),
        )


class ConvTranspose2d(_ConvTransposeNd):
    """The transpose (the gradient) of `Conv2d`: upsampling with learned kernels.

    Shapes: input ``(N, C_in, H, W)``, output ``(N, C_out, H_out, W_out)`` with H_out = (H - 1)
    stride - 2 padding + dilation (kernel_size - 1) + output_padding + 1; ``weight`` ``(C_in,
    C_out / groups, kernel_h, kernel_w)``.

    Initialised uniformly between -r and r, r = 1/sqrt(C_out / groups * kernel_h * kernel_w).
    """

    _dimensions = 2

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        output_padding = self._output_padding(input, output_size)
        return F.conv_transpose2d(
            *(input, self.weight, self.bias, self.stride, self.padding, output_padding),
            *(self.groups, self.dilation),
        )


class ConvTranspose3d(_ConvTransposeNd):
    """The transpose (the gradient) of `Conv3d`, with the arguments of `ConvTranspose2d`."""

    _dimensions = 3

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        output_padding = self._output_padding(input, output_size)
        return F.conv_transpose3d(
            *(input, self.weight, self.bias, self.stride, self.padding, output_padding),
            *(self.groups, self.dilation),
        )
