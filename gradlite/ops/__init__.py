"""The ops, one file per family; importing this package gives Tensor its methods."""

from gradlite.ops import (
    arithmetic,
    creation,
    elementwise,
    index,
    matmul,
    random,
    reduce,
    shape,
)

__all__ = [
    "arithmetic",
    "creation",
    "elementwise",
    "index",
    "matmul",
    "random",
    "reduce",
    "shape",
]
