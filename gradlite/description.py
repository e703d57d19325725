"""What a tensor tells about its array: shape, dtype, device, layout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends.memory import address
from gradlite.device import device, device_of
from gradlite.memory_format import contiguous_format, memory_format, strided
from gradlite.memory_format import layout as Layout


class Size(tuple[int, ...]):
    """A tensor's shape: a tuple that prints as PyTorch's does and knows ``numel()``."""

    __slots__ = ()

    def numel(self) -> int:
        """The number of elements of a tensor of this shape."""
        result = 1
        for n in self:
            result *= n
        return result

    def __repr__(self) -> str:
        return f"gradlite.Size([{', '.join(map(str, self))}])"

    def __getitem__(self, index: Any) -> Any:
        item = tuple.__getitem__(self, index)
        return Size(item) if isinstance(index, slice) else item

    def __add__(self, other: Any) -> Size:
        return Size(tuple.__add__(self, tuple(other)))

    def __mul__(self, times: Any) -> Size:
        return Size(tuple.__mul__(self, times))

    __rmul__ = __mul__

    def __radd__(self, other: Any) -> Size:
        return Size(tuple(other) + tuple(self))


def owner(array: Any) -> Any:
    """The array in whose memory an array lies."""
    whole, base = array, array.base
    while base is not None:
        if isinstance(base, array.__class__):
            whole = base
        base = getattr(base, "base", None)
    return whole


class Description:
    """Base of Tensor: what can be read off its array alone."""

    __slots__ = ()
    array: Any

    @property
    def shape(self) -> Size:
        """The sizes of all dimensions."""
        return Size(self.array.shape)

    @property
    def dtype(self) -> dtypes.dtype:
        """The data type of the elements."""
        return dtypes.from_numpy_dtype(self.array.dtype)

    @property
    def device(self) -> device:
        """The device that holds the array."""
        return device_of(self.array)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return int(self.array.ndim)

    @property
    def is_cuda(self) -> bool:
        """Whether the array lives on a CUDA device."""
        return self.device.type == "cuda"

    @property
    def is_cpu(self) -> bool:
        """Whether the array is NumPy's."""
        return isinstance(self.array, np.ndarray)

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return int(self.array.itemsize)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return int(self.array.nbytes)

    def dim(self) -> int:
        """The number of dimensions."""
        return int(self.array.ndim)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one dimension."""
        if dim is None:
            return Size(self.array.shape)
        if not -self.array.ndim <= dim < self.array.ndim:
            n = max(self.array.ndim, 1)
            raise IndexError(
                f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], "
                f"but got {dim})"
            )
        return int(self.array.shape[dim])

    def numel(self) -> int:
        """The number of elements."""
        return int(self.array.size)

    nelement = numel

    def element_size(self) -> int:
        """Bytes per element."""
        return int(self.array.itemsize)

    def stride(self, dim: int | None = None) -> Any:
        """Steps in elements, per dimension or for one."""
        array = self.array
        strides = tuple(s // array.itemsize for s in array.strides)
        if not array.size:  # NumPy has zeros there
            strides = tuple(
                math.prod(n or 1 for n in array.shape[d + 1 :]) for d in range(array.ndim)
            )
        return strides if dim is None else strides[dim]

    def is_contiguous(self, memory_format: memory_format = contiguous_format) -> bool:
        """Whether the elements lie in row-major order, or in that of a format, without gaps."""
        return memory_format.fits(self.array)

    @property
    def layout(self) -> Layout:
        """How the elements are stored: always ``gradlite.strided``."""
        return strided

    def data_ptr(self) -> int:
        """The address of the first element."""
        return address(self.array)

    def storage_offset(self) -> int:
        """Elements between the start of the memory that views share and the first one."""
        array = self.array
        if not isinstance(array, np.ndarray):
            return int(array.data.ptr - array.data.mem.ptr) // int(array.itemsize)
        return (address(array) - address(owner(array))) // int(array.itemsize)

    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating one."""
        return self.array.dtype in dtypes.FLOATING

    def is_complex(self) -> bool:
        """Always False."""
        return False

    def is_signed(self) -> bool:
        """Whether the dtype is signed."""
        return self.dtype.is_signed

    def get_device(self) -> int:
        """The CUDA device number, -1 on the CPU."""
        index = self.device.index
        return -1 if index is None else index

    def __len__(self) -> int:
        if self.array.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return int(self.array.shape[0])
