"""The ops, one file per family; importing this package gives Tensor its methods."""

from gradlite.ops import (
    loss,
    softmax,
    activation,
    arithmetic,
    creation,
    elementwise,
    trigonometry,
    rounding,
    logic,
    choose,
    index,
    matmul,
    random,
    reduce,
    shape,
)

__all__ = [
    "loss",
    "softmax",
    "activation",
    "arithmetic",
    "creation",
    "elementwise",
    "trigonometry",
    "rounding",
    "logic",
    "choose",
    "index",
    "matmul",
    "random",
    "reduce",
    "shape",
]
