"""FloatTensor, LongTensor, ...: PyTorch's old names for tensors of one dtype on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.creation import empty, tensor
from gradlite.tensor import Tensor

__all__ = [
    "BFloat16Tensor",
    "BoolTensor",
    "ByteTensor",
    "CharTensor",
    "DoubleTensor",
    "FloatTensor",
    "HalfTensor",
    "IntTensor",
    "LongTensor",
    "ShortTensor",
]


class TensorType(type):
    """Their class: no tensor is an instance of one, but of the dtype that it stands for."""

    dtype: dtypes.dtype

    def __instancecheck__(cls, instance: Any) -> bool:
        return (
            isinstance(instance, Tensor)
            and isinstance(instance.array, np.ndarray)
            and instance.dtype is cls.dtype
        )

    def __call__(cls, *data: Any) -> Tensor:
        if not data:
            return empty(0, dtype=cls.dtype, device="cpu")
        if len(data) > 1 or isinstance(data[0], int):
            return empty(*data, dtype=cls.dtype, device="cpu")
        (source,) = data
        if isinstance(source, Tensor) and source.dtype is not cls.dtype:
            raise TypeError(f"expected a tensor of {cls.dtype}, but got {source.dtype}")
        if isinstance(source, tuple) and type(source) is not tuple:  # a Size
            return empty(source, dtype=cls.dtype, device="cpu")
        if isinstance(source, Tensor):
            return source.detach()
        return tensor(source, dtype=cls.dtype, device="cpu")


class BFloat16Tensor(metaclass=TensorType):
    """``BFloat16Tensor(data)`` or ``BFloat16Tensor(*sizes)``: a bfloat16 tensor."""

    dtype = dtypes.bfloat16


class BoolTensor(metaclass=TensorType):
    """``BoolTensor(data)`` or ``BoolTensor(*sizes)``: a bool tensor."""

    dtype = dtypes.bool_


class ByteTensor(metaclass=TensorType):
    """``ByteTensor(data)`` or ``ByteTensor(*sizes)``: a uint8 tensor."""

    dtype = dtypes.uint8


class CharTensor(metaclass=TensorType):
    """``CharTensor(data)`` or ``CharTensor(*sizes)``: an int8 tensor."""

    dtype = dtypes.int8


class DoubleTensor(metaclass=TensorType):
    """``DoubleTensor(data)`` or ``DoubleTensor(*sizes)``: a float64 tensor."""

    dtype = dtypes.float64


class FloatTensor(metaclass=TensorType):
    """``FloatTensor(data)`` or ``FloatTensor(*sizes)``: a float32 tensor.

    >>> import gradlite
    >>> gradlite.FloatTensor([1, 2])
    tensor([1., 2.])
    >>> isinstance(gradlite.zeros(2), gradlite.FloatTensor)
    True
    """

    dtype = dtypes.float32


class HalfTensor(metaclass=TensorType):
    """``HalfTensor(data)`` or ``HalfTensor(*sizes)``: a float16 tensor."""

    dtype = dtypes.float16


class IntTensor(metaclass=TensorType):
    """``IntTensor(data)`` or ``IntTensor(*sizes)``: an int32 tensor."""

    dtype = dtypes.int32


class LongTensor(metaclass=TensorType):
    """``LongTensor(data)`` or ``LongTensor(*sizes)``: an int64 tensor."""

    dtype = dtypes.int64


class ShortTensor(metaclass=TensorType):
    """``ShortTensor(data)`` or ``ShortTensor(*sizes)``: an int16 tensor."""

    dtype = dtypes.int16
