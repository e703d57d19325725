"""Lists of numbers, tensors and arrays in every mixture: their shape, dtype, values and errors."""

from __future__ import annotations

import collections
import enum
import fractions
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.oracle import same

Pair = collections.namedtuple("Pair", "a b")


class Kind(enum.IntEnum):
    LOW = 1
    HIGH = 7


class Real:
    def __float__(self) -> float:
        return 2.5


class Place:
    def __index__(self) -> int:
        return 3


class Two:
    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> int:
        return [5, 6][i]


def nested_in_itself() -> list[Any]:
    values: list[Any] = [1]
    values.append(values)
    return values


N = np
DATA: dict[str, Callable[[Any], Any]] = {
    "tensors of one element": lambda t: [t([1.0]), t([[2.0]]), t(3.0)],
    "tensors and numbers": lambda t: [t([1]), 2.5, True],
    "tensors in lists": lambda t: [[t([1.0])], [t([2.0])]],
    "a tuple of bools": lambda t: (t([True]), t([False])),
    "small ints of tensors": lambda t: [t([1]).char(), t([2]).byte()],
    "doubles of tensors": lambda t: [t(1.0).double(), 2],
    "halves of two kinds": lambda t: [t(1.0).half(), t(2.0).bfloat16()],
    "float64": lambda t: [N.float64(1)],
    "float64 and float32": lambda t: [N.float64(1), N.float32(2)],
    "float32 and an int": lambda t: [N.float32(1), 2],
    "float16 and an int": lambda t: [N.float16(1), 2],
    "int64 and a float": lambda t: [N.int64(1), 2.5],
    "int32": lambda t: [N.int32(1), N.int32(2)],
    "int32 and an int": lambda t: [N.int32(1), 2],
    "uint8 and int8": lambda t: [N.uint8(1), N.int8(2)],
    "float32 and int64": lambda t: [N.float32(1.5), N.int64(2)],
    "float32 and a bool": lambda t: [N.float32(1.5), True],
    "arrays": lambda t: [N.array([1, 2]), N.array([3, 4])],
    "arrays of two dtypes": lambda t: [N.array([1, 2]), N.array([3.0, 4.0])],
    "an array and a list": lambda t: [N.array([1, 2]), [3, 4]],
    "a list and an array": lambda t: [[1, 2], N.array([3.0, 4.0])],
    "ints and a float": lambda t: [[1, 2], [3, 4.5]],
    "a bool and a float": lambda t: [[True], [2.0]],
    "nothing": lambda t: [],
    "rows of nothing": lambda t: [[], []],
    "nothing, then something": lambda t: [[], [1]],
    "a range": lambda t: range(3),
    "ranges": lambda t: [range(2), range(2, 4)],
    "bytes that can be edited": lambda t: bytearray(b"ab"),
    "a named tuple": lambda t: [Pair(1, 2.0), Pair(3, 4)],
    "enumerated": lambda t: [Kind.LOW, Kind.HIGH],
    "a sequence of one's own": lambda t: [Two(), Two()],
    "the largest int": lambda t: [2**63 - 1, -(2**63)],
    "a large float": lambda t: [1e40, -1e40, float("nan")],
    "three levels": lambda t: [[[1, 2], [3, 4]], [[5, 6], [7, 8]]],
}
WRONG: dict[str, tuple[type[Exception], Callable[[Any], Any]]] = {
    "a tensor of two": (ValueError, lambda t: [t([1.0, 2.0])]),
    "a tensor of none": (ValueError, lambda t: [t([])]),
    "a tensor of two ints": (TypeError, lambda t: [t([1, 2])]),
    "a short row": (ValueError, lambda t: [[1, 2], [3]]),
    "a long row": (ValueError, lambda t: [[1, 2], [3, 4, 5]]),
    "an empty row": (ValueError, lambda t: [[1], []]),
    "a short row inside": (ValueError, lambda t: [[[1, 2]], [[3]]]),
    "a short column inside": (ValueError, lambda t: [[[1], [2]], [[3]]]),
    "arrays of two lengths": (ValueError, lambda t: [N.array([1]), N.array([2, 3])]),
    "a number among rows": (TypeError, lambda t: [[1], 2]),
    "a row among numbers": (TypeError, lambda t: [1, [2]]),
    "a row among floats": (TypeError, lambda t: [1.5, [2.0]]),
    "in itself": (TypeError, lambda t: nested_in_itself()),
    "text": (TypeError, lambda t: "a"),
    "a text": (ValueError, lambda t: ["a"]),
    "a text behind": (TypeError, lambda t: [1, "a"]),
    "bytes": (TypeError, lambda t: b"ab"),
    "bytes inside": (TypeError, lambda t: [b"ab"]),
    "None": (RuntimeError, lambda t: None),
    "None behind": (RuntimeError, lambda t: [1, None]),
    "a set": (RuntimeError, lambda t: {1, 2}),
    "a dict": (RuntimeError, lambda t: [{1: 2}]),
    "a fraction": (RuntimeError, lambda t: [fractions.Fraction(1, 2)]),
    "no number without a dtype": (RuntimeError, lambda t: [Real()]),
    "too large": (ValueError, lambda t: [2**63]),
    "too large alone": (ValueError, lambda t: 2**63),
    "much too large": (ValueError, lambda t: [2**64]),
}
CAST: dict[str, tuple[str, Any]] = {
    "floats to int64": ("int64", [1.9, -1.9, 3]),
    "floats to uint8": ("uint8", [1.5, 255]),
    "negative to uint8": ("uint8", [-1, -255]),
    "a mixture to int8": ("int8", [2.7, True, -128]),
    "to bool": ("bool", [0.0, 0.5, float("nan"), 2]),
    "bools to float32": ("float32", [True, False]),
    "large to float16": ("float16", [70000, 1e40, 1.0009765625]),
    "twice rounded to bfloat16": ("bfloat16", [1.0039062500000002, 1.01171875]),
    "an int beyond int64 to float32": ("float32", [2**70]),
    "an int beyond int64 alone": ("float64", 2**70),
    "a real number": ("float32", [Real()]),
    "a fraction": ("float64", [fractions.Fraction(1, 2)]),
    "a place": ("int64", [Place()]),
}
NOT_CAST: dict[str, tuple[type[Exception], str, Any]] = {
    "300 to uint8": (RuntimeError, "uint8", [300]),
    "-256 to uint8": (RuntimeError, "uint8", [-256]),
    "128 to int8": (RuntimeError, "int8", [128]),
    "-129 to int8": (RuntimeError, "int8", [-129]),
    "a large float to int32": (RuntimeError, "int32", [3e9]),
    "inf to int64": (RuntimeError, "int64", [float("inf")]),
    "NaN to int64": (RuntimeError, "int64", [float("nan")]),
    "None to float32": (TypeError, "float32", [None]),
    "None to int64": (TypeError, "int64", [None]),
    "text to float32": (ValueError, "float32", ["a"]),
    "text behind a number to float32": (TypeError, "float32", [1.0, "2"]),
    "a row to float32": (TypeError, "float32", [1.0, [2.0]]),
}


@pytest.mark.parametrize("name", DATA)
def test_shape_dtype_and_values(name: str) -> None:
    same(lambda T: T.tensor(DATA[name](T.tensor)))
    same(lambda T: T.as_tensor(DATA[name](T.tensor)))
    same(lambda T: T.zeros(2).new_tensor(DATA[name](T.tensor)))
    if name not in ("bytes that can be edited", "the largest int"):
        same(lambda T: T.Tensor(DATA[name](T.tensor)))
        same(lambda T: T.DoubleTensor(DATA[name](T.tensor)))


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_data(name: str) -> None:
    error, data = WRONG[name]
    same(lambda T: T.tensor(data(T.tensor)), raises=error)
    same(lambda T: T.as_tensor(data(T.tensor)), raises=error)


@pytest.mark.parametrize("name", CAST)
def test_a_wanted_dtype(name: str) -> None:
    dtype, data = CAST[name]
    same(lambda T: T.tensor(data, dtype=getattr(T, dtype)))


@pytest.mark.parametrize("name", NOT_CAST)
def test_numbers_that_do_not_fit_a_wanted_dtype(name: str) -> None:
    error, dtype, data = NOT_CAST[name]
    same(lambda T: T.tensor(data, dtype=getattr(T, dtype)), raises=error)


def test_the_default_dtype_is_that_of_floats() -> None:
    def program(T: Any) -> Any:
        T.set_default_dtype(T.float64)
        try:
            return T.tensor([1.0, 2]), T.tensor(1.5), T.tensor([]), T.tensor([1]), T.Tensor([1])
        finally:
            T.set_default_dtype(T.float32)

    same(program)


def test_a_tensor_that_requires_grad_warns() -> None:
    same(lambda T: T.tensor([T.ones(1).requires_grad_(), 2]), warns="requires_grad=True to a sca")


def test_which_data_is_copied() -> None:
    array = np.zeros(2, np.float32)

    def program(T: Any) -> Any:
        array[:] = 0
        made = T.tensor(array), T.tensor([array, array]), T.Tensor(array), T.as_tensor(array)
        made = (*made, T.FloatTensor(array), T.DoubleTensor(array))
        array[:] = 1
        return made

    same(program)
