"""cuda.FloatTensor, cuda.LongTensor, ...: PyTorch's old names for tensors of one dtype on a GPU."""

from __future__ import annotations

from gradlite import tensor_types
from gradlite.tensor_types import TensorType

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


class BFloat16Tensor(tensor_types.BFloat16Tensor):
    """``BFloat16Tensor(data)`` or ``BFloat16Tensor(*sizes)``: a bfloat16 tensor on a GPU."""

    device_type = "cuda"


class BoolTensor(tensor_types.BoolTensor):
    """``BoolTensor(data)`` or ``BoolTensor(*sizes)``: a bool tensor on a GPU."""

    device_type = "cuda"


class ByteTensor(tensor_types.ByteTensor):
    """``ByteTensor(data)`` or ``ByteTensor(*sizes)``: a uint8 tensor on a GPU."""

    device_type = "cuda"


class CharTensor(tensor_types.CharTensor):
    """``CharTensor(data)`` or ``CharTensor(*sizes)``: an int8 tensor on a GPU."""

    device_type = "cuda"


class DoubleTensor(tensor_types.DoubleTensor):
    """``DoubleTensor(data)`` or ``DoubleTensor(*sizes)``: a float64 tensor on a GPU."""

    device_type = "cuda"


class FloatTensor(tensor_types.FloatTensor):
    """``FloatTensor(data)`` or ``FloatTensor(*sizes)``: a float32 tensor on a GPU.

    Raises:
        TypeError: CUDA cannot be used.

    >>> import gradlite
    >>> T = gradlite.cuda.FloatTensor if gradlite.cuda.is_available() else gradlite.FloatTensor
    >>> T([1, 2]).sum().item()
    3.0
    """

    device_type = "cuda"


class HalfTensor(tensor_types.HalfTensor):
    """``HalfTensor(data)`` or ``HalfTensor(*sizes)``: a float16 tensor on a GPU."""

    device_type = "cuda"


class IntTensor(tensor_types.IntTensor):
    """``IntTensor(data)`` or ``IntTensor(*sizes)``: an int32 tensor on a GPU."""

    device_type = "cuda"


class LongTensor(tensor_types.LongTensor):
    """``LongTensor(data)`` or ``LongTensor(*sizes)``: an int64 tensor on a GPU."""

    device_type = "cuda"


class ShortTensor(tensor_types.ShortTensor):
    """``ShortTensor(data)`` or ``ShortTensor(*sizes)``: an int16 tensor on a GPU."""

    device_type = "cuda"


def _in_package() -> None:
    for name in __all__:
        kind: TensorType = globals()[name]
        kind.__module__ = "gradlite.cuda"


_in_package()
