"""Names for how the elements of a tensor lie in memory, as PyTorch's functions take them."""

from __future__ import annotations

from typing import Any

__all__ = [
    "channels_last",
    "channels_last_3d",
    "contiguous_format",
    "layout",
    "memory_format",
    "preserve_format",
    "strided",
]


class layout:
    """How a tensor stores its elements; ``gradlite.strided`` is the only one."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"gradlite.{self.name}"


class memory_format:
    """The order of a tensor's dimensions in memory.

    ``contiguous_format`` is row-major, ``channels_last`` has the second of four dimensions
    innermost (``channels_last_3d`` that of five), ``preserve_format`` is the order of an input.
    """

    __slots__ = ("name", "order")

    def __init__(self, name: str, order: tuple[int, ...] | None = None) -> None:
        self.name, self.order = name, order

    def __repr__(self) -> str:
        return f"gradlite.{self.name}"

    def order_of(self, ndim: int) -> tuple[int, ...]:
        """The dimensions from the outermost in memory to the innermost.

        Raises:
            RuntimeError: the format is for another number of dimensions.
        """
        if self.order is None:
            if self.name == "preserve_format":
                raise RuntimeError(
                    "preserve memory format is unsupported by the contiguous operator"
                )
            return tuple(range(ndim))
        if len(self.order) != ndim:
            raise RuntimeError(f"required rank {len(self.order)} tensor to use {self.name} format")
        return self.order

    def fits(self, array: Any) -> bool:
        """Whether an array's elements lie in this order without gaps."""
        if self.order is None:
            return bool(array.flags.c_contiguous)
        same = len(self.order) == array.ndim
        return same and bool(array.transpose(self.order).flags.c_contiguous)


strided = layout("strided")
contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last", (0, 2, 3, 1))
channels_last_3d = memory_format("channels_last_3d", (0, 2, 3, 4, 1))


def is_dense(array: Any) -> bool:
    """Whether the elements fill a piece of memory without gaps, in some order of dimensions."""
    expected = array.itemsize
    for stride, n in sorted(zip(array.strides, array.shape)):
        if n != 1:
            if stride != expected:
                return False
            expected *= n
    return True
