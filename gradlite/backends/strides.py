"""How matrices, and stacks of them, lie in memory: what a GEMM can read without a copy.

Sizes and strides are in elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Matrix(NamedTuple):
    """How a matrix lies in memory.

    Attributes:
        transposed: whether the elements of a column lie side by side, not those of a row.
        ld: the leading dimension, from one row to the next (or one column, when transposed).
        stride: from one matrix of a stack to the next; 0 when it is the same one.
    """

    transposed: bool
    ld: int
    stride: int = 0

    def folded(self, rows: int) -> Matrix | None:
        """The stack as one matrix of all rows, when they are equally far apart."""
        if self.transposed:
            return None
        if rows == 1:
            return Matrix(False, self.stride) if self.stride >= self.ld else None
        return Matrix(False, self.ld) if self.stride == rows * self.ld else None


def matrix(
    shape: Sequence[int], strides: Sequence[int], transposed_first: bool = False
) -> Matrix | None:
    """How a matrix lies in memory; None when it lies in neither of the two ways.

    A single row or column may lie in both: then ``transposed_first`` decides.
    """
    (rows, columns), (down, along) = shape, strides
    by_row = by_column = None
    if (columns == 1 or along == 1) and (rows == 1 or down >= columns):
        by_row = Matrix(False, down if rows > 1 else columns)
    if (rows == 1 or down == 1) and (columns == 1 or along >= rows):
        by_column = Matrix(True, along if columns > 1 else rows)
    return (by_column or by_row) if transposed_first else (by_row or by_column)


def spread_strides(
    stack: Sequence[int], shape: Sequence[int], strides: Sequence[int]
) -> tuple[int, ...]:
    """The strides of an array broadcast to a shape: 0 where it is repeated."""
    own = tuple([0 if size == 1 else step for size, step in zip(shape, strides)])
    return (0,) * (len(stack) - len(own)) + own


def collapse(shape: Sequence[int], strides: Sequence[int]) -> int | None:
    """The one stride with which all indices can be counted through; None when there is none."""
    step, reach = 0, None
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size == 1:
            continue
        if reach is None:
            step = stride
        elif stride != reach:
            return None
        reach = stride * size
    return step if step >= 0 else None
