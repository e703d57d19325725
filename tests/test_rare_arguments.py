"""Calls with arguments that programs seldom give: results, refusals and messages of PyTorch."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from tests.oracle import outcome_of, same


def ones(T: Any, *shape: int, **options: Any) -> Any:
    return T.ones(shape, **options)


def reduced(T: Any, dtype: str, reduce: str, include_self: bool) -> Any:
    kind = getattr(T, dtype)
    x = T.tensor([2, 2, 2]).to(kind)
    source = T.tensor([1, 3, 4]).to(kind)
    return x.scatter_reduce(0, T.tensor([0, 0, 1]), source, reduce, include_self=include_self)


def like_channels_last(T: Any) -> Any:
    other = ones(T, 2, 3, 4, 5).to(memory_format=T.channels_last)
    return T.empty(120).resize_as_(other, memory_format=T.preserve_format)


CALLS = {
    "flip a number": lambda T: T.flip(T.tensor(5), [0]),
    "flip twice": lambda T: T.flip(ones(T, 2, 2), [0, -2]),
    "flip nothing": lambda T: T.flip(ones(T, 2, 2), []),
    "movedim of other length": lambda T: T.movedim(ones(T, 2, 2), (0, 1), (0,)),
    "movedim from twice": lambda T: T.movedim(ones(T, 2, 2), (0, 0), (0, 1)),
    "movedim to twice": lambda T: T.movedim(ones(T, 2, 2), (0, 1), (0, 0)),
    "unique_consecutive of none": lambda T: T.unique_consecutive(T.zeros(0, 3), dim=0),
    "unique_consecutive of empty": lambda T: T.unique_consecutive(T.zeros(0, 3), dim=1),
    "topk True": lambda T: T.zeros(2, 2).topk(1, True),
    "trace of bytes": lambda T: T.trace(ones(T, 2, 2, dtype=T.uint8)),
    "trace of int32": lambda T: T.trace(ones(T, 2, 2, dtype=T.int32)),
    "broadcast_shapes": lambda T: T.broadcast_shapes(-1, 1),
    "narrow from a tensor": lambda T: ones(T, 3).narrow(0, T.tensor(1), 1),
    "narrow from a float": lambda T: ones(T, 3).narrow(0, T.tensor(0.0), 1),
    "narrow from a row": lambda T: ones(T, 3).narrow(0, T.tensor([0]), 1),
    "Python's float": lambda T: ones(T, 2, dtype=builtins.float),
    "Python's int": lambda T: ones(T, 2, dtype=builtins.int),
    "Python's bool": lambda T: ones(T, 2, dtype=builtins.bool),
    "to Python's float": lambda T: ones(T, 2).to(builtins.float),
    "unravel_index of a float": lambda T: T.unravel_index(T.tensor(0.5), (2, 2)),
    "unravel_index by floats": lambda T: T.unravel_index(T.tensor(1), (2, 2.0)),
    "tensor_split by a float": lambda T: T.tensor_split(ones(T, 4), T.tensor(1.5)),
    "tensor_split by a matrix": lambda T: T.tensor_split(ones(T, 4), T.tensor([[1]])),
    "resize_as_ of its own": lambda T: (lambda x: x.resize_as_(x))(T.empty(2, 3).t()).stride(),
    "resize_ to channels_last": lambda T: (
        T.empty(0).resize_(2, 3, 4, 5, memory_format=T.channels_last).stride()
    ),
    "resize_as_ to channels_last": lambda T: like_channels_last(T).stride(),
    "resize_ beyond memory": lambda T: T.empty(0).resize_(2**62),
    "strides of new dimensions": lambda T: ones(T, 1, 5).expand(2, 1, 1, 5).stride(),
    "strides of a new last dimension": lambda T: T.tensor(1.0).expand(1, 3, 1).stride(),
    "gather with sparse_grad": lambda T: ones(T, 5).gather(0, T.tensor([0]), sparse_grad=False),
    **{
        f"scatter_reduce {reduce} of {dtype} {include_self}": (
            lambda T, d=dtype, r=reduce, i=include_self: reduced(T, d, r, i)
        )
        for dtype in ("bool", "uint8", "int64", "float32")
        for reduce in ("prod", "amax", "amin", "sum")
        for include_self in (True, False)
    },
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_rare_arguments(call: Any) -> None:
    same(lambda T: outcome_of(lambda: call(T)), message="prefix")


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_gradients_of_products_with_zeros(zeros: int, include_self: bool) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([0.0, 2.0, 3.0], requires_grad=True)
        source = T.tensor([0.0] * zeros + [5.0] * (3 - zeros) + [7.0], requires_grad=True)
        index = T.tensor([1, 1, 1, 0])
        result = x.scatter_reduce(0, index, source, "prod", include_self=include_self)
        (result * T.tensor([1.0, 2.0, 3.0])).sum().backward()
        return result, x.grad, source.grad

    same(program)
