"""Padding layers.

Paddings are given as one number for all sides or as (left, right[, top, bottom[, front,
back]]), from the last dimension on.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gradlite.nn import functional as F
from gradlite.nn.module import Module
from gradlite.tensor import Tensor

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class _Pad(Module):
    _dimensions: ClassVar[int]
    _mode: ClassVar[str]

    def __init__(self, padding: Any) -> None:
        super().__init__()
        sides = 2 * self._dimensions
        self.padding = (padding,) * sides if isinstance(padding, int) else tuple(padding)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """Put ``value`` around the last dimension."""

    _dimensions = 1


class ConstantPad2d(_ConstantPad):
    """Put ``value`` around the last two dimensions."""

    _dimensions = 2


class ConstantPad3d(_ConstantPad):
    """Put ``value`` around the last three dimensions."""

    _dimensions = 3


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad):
    """Put zeros around the last dimension."""

    _dimensions = 1


class ZeroPad2d(_ZeroPad):
    """Put zeros around the last two dimensions."""

    _dimensions = 2


class ZeroPad3d(_ZeroPad):
    """Put zeros around the last three dimensions."""

    _dimensions = 3


class ReflectionPad1d(_Pad):
    """Mirror the last dimension at its first and last element."""

    _dimensions = 1
    _mode = "reflect"


class ReflectionPad2d(_Pad):
    """Mirror the last two dimensions at their borders."""

    _dimensions = 2
    _mode = "reflect"


class ReflectionPad3d(_Pad):
    """Mirror the last three dimensions at their borders."""

    _dimensions = 3
    _mode = "reflect"


class ReplicationPad1d(_Pad):
    """Repeat the first and the last element of the last dimension."""

    _dimensions = 1
    _mode = "replicate"


class ReplicationPad2d(_Pad):
    """Repeat the borders of the last two dimensions."""

    _dimensions = 2
    _mode = "replicate"


class ReplicationPad3d(_Pad):
    """Repeat the borders of the last three dimensions."""

    _dimensions = 3
    _mode = "replicate"


class _CircularPad(_Pad):
    _mode = "circular"

    def forward(self, input: Tensor) -> Tensor:
        fewest = self._dimensions + 1
        if input.ndim not in (fewest, fewest + 1):
            raise ValueError(f"expected {fewest}D or {fewest + 1}D input (got {input.ndim}D input)")
        return super().forward(input)


class CircularPad1d(_CircularPad):
    """Continue the last dimension periodically."""

    _dimensions = 1


class CircularPad2d(_CircularPad):
    """Continue the last two dimensions periodically."""

    _dimensions = 2


class CircularPad3d(_CircularPad):
    """Continue the last three dimensions periodically."""

    _dimensions = 3
