"""Convolutions of volumes, and their transposes: the ops of `gradlite.ops.conv` in 3 dimensions."""

from __future__ import annotations

from typing import Any

from gradlite.ops.conv import convolution, transposed_convolution
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["conv3d", "conv_transpose3d"]


@public(
    samples=lambda: [
        S(normal(2, 3, 4, 5, 4), normal(4, 3, 2, 3, 3), normal(4)),
        S(normal(2, 2, 5, 5, 6), normal(3, 2, 3, 2, 3), stride=(2, 1, 2), padding=(1, 0, 2)),
        S(normal(1, 4, 5, 5, 5), normal(6, 2, 2, 3, 2), normal(6), 1, 1, (2, 1, 2), 2),
        S(normal(2, 3, 3, 4, 4), normal(3, 1, 3, 3, 3), None, 1, 1, 1, 3),
        S(normal(3, 2, 4, 4), normal(2, 3, 3, 3, 1), padding="same"),
        S(normal(2, 5, 2, 3, 3), normal(3, 5, 1, 1, 1), normal(3)),
        S(normal(0, 3, 4, 4, 4), normal(2, 3, 2, 2, 2)),
    ],
    torch="nn.functional.conv3d",
    errors=lambda: [
        S(normal(2, 4, 5, 5, 5), normal(4, 3, 3, 3, 3)),
        S(normal(2, 3, 2, 5, 5), normal(4, 3, 3, 3, 3)),
        S(normal(2, 3, 5), normal(4, 3, 3, 3, 3)),
        S(normal(2, 3, 5, 5, 5), normal(4, 3, 3, 3, 3), stride=(1, 1)),
    ],
    autocast="lower",
)
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation of volumes with kernels; see `conv2d`.

    Shapes: input (N, C, D, H, W) or (C, D, H, W), weight (O, C / groups, KD, KH, KW), bias
    (O,); output (N, O, OD, OH, OW) with OD = (D + 2 padding - dilation (KD - 1) - 1) // stride
    + 1.

    >>> import gradlite
    >>> x = gradlite.ones(1, 1, 3, 3, 3)
    >>> gradlite.nn.functional.conv3d(x, gradlite.ones(1, 1, 2, 3, 3)).flatten()
    tensor([18., 18.])

    Raises:
        RuntimeError: sizes, dtypes or numbers that do not fit.
    """
    return convolution("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


@public(
    samples=lambda: [
        S(normal(2, 3, 3, 4, 3), normal(3, 2, 2, 3, 3), normal(2)),
        S(normal(2, 4, 3, 3, 2), normal(4, 3, 3, 3, 2), normal(6), 2, 1, (1, 0, 1), 2),
        S(normal(3, 2, 3, 3), normal(3, 1, 2, 2, 3), normal(3), 2, 0, 2, 3, 3),
        S(normal(1, 2, 3, 3, 3), normal(2, 2, 2, 2, 2), None, (2, 1, 2)),
    ],
    torch="nn.functional.conv_transpose3d",
    errors=lambda: [
        S(normal(2, 3, 5, 5, 5), normal(4, 2, 3, 3, 3)),
        S(normal(2, 3, 5, 5, 5), normal(3, 2, 3, 3, 3), output_padding=1),
    ],
    autocast="lower",
)
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transpose of `conv3d`, the map that its gradient applies; see `conv_transpose2d`.

    Shapes: input (N, C, D, H, W) or (C, D, H, W), weight (C, O / groups, KD, KH, KW), bias
    (O,); output (N, O, OD, OH, OW) with OD = (D - 1) stride - 2 padding + dilation (KD - 1) +
    output_padding + 1.

    >>> import gradlite
    >>> x = gradlite.ones(1, 1, 2, 1, 1)
    >>> gradlite.nn.functional.conv_transpose3d(x, gradlite.ones(1, 1, 2, 1, 1)).flatten()
    tensor([1., 2., 1.])

    Raises:
        RuntimeError: sizes, dtypes or numbers that do not fit.
    """
    settings = (stride, padding, output_padding, groups, dilation)
    return transposed_convolution("conv_transpose3d", 3, input, weight, bias, *settings)
