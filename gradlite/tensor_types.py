"""FloatTensor, LongTensor, ...: PyTorch's old names for tensors of one dtype on the CPU."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends import cuda
from gradlite.device import set_default_device
from gradlite.ops.creation import empty, tensor
from gradlite.tensor import Tensor, wrap

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
    "set_default_tensor_type",
]


# Every tensor type by its type of device and its name.
_KINDS: dict[tuple[str, str], TensorType] = {}


class TensorType(type):
    """Their class: no tensor is an instance of one, but of the dtype and device it stands for."""

    dtype: dtypes.dtype
    device_type: str = "cpu"

    def __init__(cls, *args: Any) -> None:
        super().__init__(*args)
        _KINDS[cls.device_type, cls.__name__] = cls

    def __instancecheck__(cls, instance: Any) -> bool:
        return (
            isinstance(instance, Tensor)
            and isinstance(instance.array, np.ndarray) == (cls.device_type == "cpu")
            and instance.dtype is cls.dtype
        )

    def __call__(cls, *data: Any) -> Tensor:
        where = _usable(cls)
        if not data:
            return empty(0, dtype=cls.dtype, device=where)
        if len(data) > 1 or isinstance(data[0], int):
            return empty(*data, dtype=cls.dtype, device=where)
        (source,) = data
        if isinstance(source, Tensor) and source.dtype is not cls.dtype:
            raise TypeError(f"expected a tensor of {cls.dtype}, but got {source.dtype}")
        if isinstance(source, tuple) and type(source) is not tuple:  # a Size
            return empty(source, dtype=cls.dtype, device=where)
        if isinstance(source, Tensor):
            return source.detach()
        if isinstance(source, np.ndarray) and where == "cpu":  # shared where the dtype is its own
            return wrap(np.asarray(source, dtype=cls.dtype.numpy))
        return tensor(source, dtype=cls.dtype, device=where)


def _usable(kind: TensorType) -> str:
    """The type of device of a tensor type, where it can be used."""
    if kind.device_type != "cpu" and not (found := cuda.status())[0]:
        raise TypeError(f"type {kind.__module__}.{kind.__name__} not available: {found[1]}")
    return kind.device_type


def set_default_tensor_type(t: Any, /) -> None:
    """Make a tensor type's dtype and device those of new tensors: deprecated.

    Args:
        t: a floating-point tensor type or its name: ``gradlite.DoubleTensor`` or
            ``"gradlite.cuda.FloatTensor"``.

    Raises:
        TypeError: not a tensor type, or one of integers; or CUDA cannot be used.
    """
    warnings.warn(
        "gradlite.set_default_tensor_type() is deprecated as of PyTorch 2.1, please use "
        "gradlite.set_default_dtype() and gradlite.set_default_device() as alternatives.",
        UserWarning,
        stacklevel=2,
    )
    if isinstance(t, str):
        path, _, name = t.rpartition(".")
        kind = _KINDS.get(("cuda" if path.endswith(".cuda") else "cpu", name))
        if kind is None:
            raise TypeError(f"invalid type: '{t}'")
        t = kind
    if not isinstance(t, TensorType):
        raise TypeError(
            "invalid type object: only floating-point types are supported as the default type"
        )
    if not t.dtype.is_floating_point:
        raise TypeError("only floating-point types are supported as the default type")
    where = _usable(t)
    dtypes.set_default_dtype(t.dtype)
    set_default_device(where)


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
