"""Calls with arguments that programs seldom give: results, refusals and messages of PyTorch."""

from __future__ import annotations

import builtins
import itertools
from typing import Any

import numpy as np
import pytest

import gradlite
from tests.oracle import outcome_of, same, torch


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
    "split by its method's name": lambda T: ones(T, 5, 2).split(split_size=[2, 3], dim=0),
    "split by the name of a size": lambda T: ones(T, 2, 5).split(dim=-1, split_size=2),
    "tensor_split into sections": lambda T: T.tensor_split(ones(T, 5), sections=2),
    "tensor_split at indices": lambda T: ones(T, 5).tensor_split(indices=(1, 3)),
    "hsplit into sections": lambda T: T.hsplit(ones(T, 2, 4), sections=2),
    "vsplit at indices": lambda T: ones(T, 4, 2).vsplit(indices=(1, 3)),
    "dsplit into sections": lambda T: T.dsplit(ones(T, 1, 2, 4), sections=2),
    "swapaxes by name": lambda T: T.swapaxes(ones(T, 2, 3), axis0=0, axis1=1),
    "swapaxes of a tensor by name": lambda T: ones(T, 2, 3).swapaxes(axis1=0, axis0=1),
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


MAKING = {
    "full of a byte below 0": lambda T: T.full((2,), -100, dtype=T.uint8),
    "full beyond bytes": lambda T: T.full((2,), 300, dtype=T.uint8),
    "full far below 0": lambda T: T.full((2,), -300, dtype=T.uint8),
    "fill_ bytes": lambda T: T.zeros(2, dtype=T.uint8).fill_(-1),
    "fill_ beyond bytes": lambda T: T.zeros(2, dtype=T.int8).fill_(128),
    "tensor beyond bytes": lambda T: T.tensor([300], dtype=T.uint8),
    "tensor of bytes below 0": lambda T: T.tensor([-1, 255], dtype=T.uint8),
    "tensor beyond int8": lambda T: T.tensor([[1], [-129]], dtype=T.int8),
    "tensor of tensors of one": lambda T: T.tensor([T.tensor([1]), T.tensor([2])]),
    "unequal lists": lambda T: T.tensor([[1, 2], [3]]),
    "unequal deep lists": lambda T: T.tensor([[[1], [2]], [[3], [4, 5]]]),
    "hstack of a tensor": lambda T: T.hstack(ones(T, 2)),
    "vstack of a tensor": lambda T: T.vstack(ones(T, 2)),
    "dstack of a tensor": lambda T: T.dstack(ones(T, 2)),
    "column_stack of a tensor": lambda T: T.column_stack(ones(T, 2)),
    "stack of a tensor": lambda T: T.stack(ones(T, 2)),
    "cat of a tensor": lambda T: T.cat(ones(T, 2)),
    "logspace of -1": lambda T: T.logspace(0, 1, -1),
    "linspace of bools": lambda T: T.linspace(0, 1, 3, dtype=T.bool),
    "arange of bools": lambda T: T.arange(-1, 1, dtype=T.bool),
    "arange to infinity": lambda T: T.arange(float("inf")),
    "arange beyond int64": lambda T: T.arange(0, 2**63),
    "zeros of a layout": lambda T: T.zeros(2, layout=T.strided, pin_memory=False),
    "zeros of a float": lambda T: outcome_of(lambda: T.zeros(2.0)).__class__,
    "randint into bytes": lambda T: T.randint(0, 300, (1,), dtype=T.uint8),
    "random_ into bytes": lambda T: T.zeros(2, dtype=T.int8).random_(300),
    "random_ into bools": lambda T: T.zeros(2, dtype=T.bool).random_(0, 3),
    "random_ from below": lambda T: T.zeros(2, dtype=T.uint8).random_(-1, 3),
    "random_ of nothing": lambda T: T.zeros(2).random_(5, 5),
    "uniform_ backwards": lambda T: T.zeros(2).uniform_(2, 1),
    "uniform_ beyond halves": lambda T: T.zeros(2, dtype=T.float16).uniform_(0, 1e6),
    "rand of integers": lambda T: T.rand(2, dtype=T.int64),
    "randperm beyond bytes": lambda T: T.randperm(300, dtype=T.uint8),
    "randperm beyond halves": lambda T: T.randperm(3000, dtype=T.float16),
    "randperm below 0": lambda T: T.randperm(-1),
    "normal of other shapes": lambda T: T.normal(T.zeros(2), ones(T, 3)),
    "roll by nothing": lambda T: T.roll(ones(T, 2, 2), (), (0, 1)),
    "eye below 0": lambda T: T.eye(-1),
    "eye of -1 columns": lambda T: T.eye(2, -1),
    "empty beyond memory": lambda T: T.empty(2**62, 2**3),
    "combinations of none": lambda T: T.combinations(T.tensor([1, 2]), 0),
    "block_diag of none": lambda T: T.block_diag(),
    "clamp of bools": lambda T: T.clamp(T.tensor([True, False]), 0, 1),
    "clamp_min of bools": lambda T: T.clamp_min(T.tensor([True, False]), 1),
    "vander of small ints": lambda T: T.vander(T.tensor([1, 2], dtype=T.int8), 9),
    "asarray of a number": lambda T: T.asarray(1.5, copy=False),
    "asarray of a dtype": lambda T: T.asarray(ones(T, 2), dtype=T.float64, copy=False),
}  # fmt: skip
CALLS |= MAKING


def sizes_of_tensors(T: Any) -> Any:
    return tuple(T.tensor([2, 3]))


def frombuffer(T: Any, dtype: str, **options: Any) -> Any:
    return T.frombuffer(bytearray(range(8)), dtype=getattr(T, dtype), **options)


CALLS |= {
    "randint of tensors": lambda T: T.randint(0, 3, sizes_of_tensors(T)).shape.numel(),
    "numbers alone": lambda T: T.mul(2.0, 2.0),
    "whole numbers alone": lambda T: T.add(2, 3),
    "reversed": lambda T: reversed(T.arange(3)),
    "reversed number": lambda T: reversed(T.tensor(1)),
    "text in a tensor": lambda T: "a" in T.tensor([1]),
    "None in a tensor": lambda T: None in T.tensor([1]),
    "number in a tensor": lambda T: 1 in T.tensor([1]),
    "random_ of halves": lambda T: bool((T.zeros(300, dtype=T.float16).random_() <= 2048).all()),
    "uniform_ of all floats": lambda T: T.zeros(2).uniform_(-3e38, 3e38),
    "flip of nothing": lambda T: T.ones(2).flip(),
    "unflatten into nothing": lambda T: T.tensor([1, 2]).unflatten(0, ()),
    "unflatten into too much": lambda T: T.tensor([1, 2]).unflatten(0, (3,)),
    "device -1": lambda T: T.device("cuda", -1),
    "device number -1": lambda T: T.device(-1),
    "device by text": lambda T: T.device("cpu", "0"),
    "device of no name": lambda T: T.device(""),
    "device 01": lambda T: T.device("cuda:01"),
    "Size times": lambda T: [(T.Size([1, 2]) * 2).numel(), (2 * T.Size([1, 2])).numel()],
    "full beyond int64": lambda T: T.full((1,), 2**63),
    "asarray out of the graph": lambda T: T.asarray(
        T.ones(2, requires_grad=True), requires_grad=False
    ),
    "asarray in the graph": lambda T: T.asarray(
        T.ones(2, requires_grad=True) * 2, copy=True, requires_grad=True
    ),
    "mul_ by two": lambda T: outcome_of(lambda: T.ones(2).mul_(2, T.ones(2))).__class__,
    "exp_": lambda T: T.exp_(T.zeros(2)),
    "fill_": lambda T: T.fill_(T.zeros(2), 3),
    "clamp_": lambda T: T.clamp_(T.tensor([-1.0, 2.0]), 0, 1),
    "unravel_index below 0": lambda T: T.unravel_index(T.tensor(1), (2, -2)),
    "nonzero into floats": lambda T: T.nonzero(T.ones(2), out=T.empty(0)),
    "frombuffer": lambda T: frombuffer(T, "int16"),
    "frombuffer from the second": lambda T: frombuffer(T, "uint8", offset=2, count=3),
    "frombuffer requiring grad": lambda T: frombuffer(T, "float32", requires_grad=True),
    "frombuffer of whole numbers": lambda T: frombuffer(T, "int32", requires_grad=True),
    "frombuffer beyond": lambda T: frombuffer(T, "int16", offset=1, count=4),
    "frombuffer of a part": lambda T: frombuffer(T, "int32", offset=1),
    "frombuffer of none": lambda T: frombuffer(T, "int32", count=0),
    "frombuffer from the end": lambda T: frombuffer(T, "int32", offset=8),
    "frombuffer of a list": lambda T: T.frombuffer([1], dtype=T.int32),
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


def test_buffers_are_shared() -> None:
    buffer = bytearray(4)
    gradlite.frombuffer(buffer, dtype=gradlite.uint8)[1] = 7
    assert buffer[1] == 7
    with pytest.warns(UserWarning, match="The given buffer is not writable"):
        assert gradlite.frombuffer(b"ab", dtype=gradlite.uint8).tolist() == [97, 98]


def test_capsules_are_shared() -> None:
    from gradlite.utils.dlpack import from_dlpack, to_dlpack

    x = gradlite.zeros(3)
    y = from_dlpack(to_dlpack(x))
    y[0] = 5
    assert x.tolist() == [5, 0, 0]
    assert from_dlpack(np.arange(2)).tolist() == [0, 1]


@pytest.mark.filterwarnings("ignore:This overload of .* is deprecated")
def test_factors_in_front() -> None:
    def program(T: Any) -> Any:
        x = T.ones(2)
        x.add_(-0.5, T.ones(2)).sub_(2, T.ones(2))
        return x.addcmul_(2, T.ones(2), T.ones(2)), T.addcdiv(x, 3, T.ones(2), T.ones(2))

    for a, b in zip(program(gradlite), program(torch)):
        assert a.tolist() == b.tolist()
    with pytest.warns(UserWarning, match="This overload of add_ is deprecated"):
        gradlite.ones(2).add_(2, gradlite.ones(2))


@pytest.mark.parametrize("dims", list(itertools.product((0, 1), repeat=3)), ids=str)
def test_all_three_dtypes_decide_about_that_of_clamp(dims: tuple[int, ...]) -> None:
    def program(T: Any) -> Any:
        names = ("int32", "float32", "float64")
        return [
            T.clamp(*(T.full((1,) * n, 2, dtype=getattr(T, d)) for n, d in zip(dims, kinds)))
            for kinds in itertools.product(names, repeat=3)
        ]

    same(program)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
def test_an_index_of_select_is_a_number_whatever_its_dtype(dtype: str) -> None:
    same(lambda T: T.arange(12).reshape(3, 4).select(0, T.tensor(2, dtype=getattr(T, dtype))))
