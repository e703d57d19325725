"""The bilinear form of two inputs, written with matrix products."""

from __future__ import annotations

import math
from typing import Any

from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["bilinear"]


def _check(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if input1.dim() != input2.dim():
        raise RuntimeError(
            f"bilinear(): input dimensions do not match: got {input1.dim()} and {input2.dim()}"
        )
    for place in range(input1.dim() - 1):
        a, b = input1.shape[place], input2.shape[place]
        if a != b:
            raise RuntimeError(
                f"bilinear(): input batch dimensions do not match at dim {place}: got {a} and {b}"
            )
    for number, x in enumerate((input1, input2), start=1):
        if x.shape[-1] != weight.shape[number]:
            raise RuntimeError(
                f"bilinear(): input{number} size does not match weight size: got {x.shape[-1]} "
                f"but expected {weight.shape[number]}"
            )
    if bias is not None and bias.shape[0] != weight.shape[0]:
        raise RuntimeError(
            f"bilinear(): bias size does not match weight size: got {bias.shape[0]} but expected "
            f"{weight.shape[0]}"
        )


@public(
    samples=lambda: [
        S(normal(4, 2), normal(4, 3), normal(5, 2, 3), normal(5)),
        S(normal(2, 3, 2), normal(2, 3, 4), normal(3, 2, 4)),
        S(normal(2), normal(3), normal(4, 2, 3), normal(4)),
        S(normal(0, 2), normal(0, 3), normal(4, 2, 3)),
    ],
    torch="nn.functional.bilinear",
    autocast=("plain", "widest"),
)
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x1ᵀ W x2 + b: ``(*, in1)`` and ``(*, in2)`` with W ``(out, in1, in2)`` give ``(*, out)``.

    >>> from gradlite import eye, tensor
    >>> bilinear(tensor([[1.0, 2.0]]), tensor([[3.0, 4.0]]), eye(2).unsqueeze(0))
    tensor([[11.]])

    Raises:
        RuntimeError: sizes that do not fit.
    """
    _check(input1, input2, weight, bias)
    outputs, size1, size2 = weight.shape
    batch = input1.shape[:-1]
    rows = math.prod(batch)
    x1: Any = input1
    x2: Any = input2
    w: Any = weight
    # All outputs at once by (rows, in1) @ (in1, out * in2), then row by row (out, in2) @ (in2, 1).
    mixed = x1.reshape(rows, size1) @ w.permute(1, 0, 2).reshape(size1, outputs * size2)
    result = mixed.reshape(rows, outputs, size2) @ x2.reshape(rows, size2, 1)
    result = result.reshape(*batch, outputs)
    return result if bias is None else result + bias  # type: ignore[no-any-return]
