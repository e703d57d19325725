"""Tensors like another one: its shape, dtype or device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite import dtypes
from gradlite.device import array_module
from gradlite.memory_format import memory_format, preserve_format
from gradlite.ops.creation import filled, tensor
from gradlite.ops.dims import sizes
from gradlite.ops.layout import laid_out
from gradlite.ops.operands import as_number
from gradlite.tensor import Tensor

__all__ = ["empty_like", "full_like", "ones_like", "zeros_like"]


def _like(
    maker: str,
    input: Tensor,
    dtype: Any,
    where: Any,
    requires_grad: bool,
    memory: memory_format,
    *fill: Any,
) -> Tensor:
    numpy_dtype = input.array.dtype if dtype is None else dtypes.as_dtype(dtype).numpy
    target = input.device if where is None else where
    made = filled(maker, input.array.shape, numpy_dtype, target, requires_grad, *fill)
    if memory.order is not None:
        order = memory.order_of(made.array.ndim)
        made.array = laid_out(array_module(made.device), made.array, order)
    return made


def zeros_like(
    input: Tensor,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: memory_format = preserve_format,
) -> Tensor:
    """Zeros with another tensor's shape, dtype and device.

    >>> import gradlite
    >>> gradlite.zeros_like(gradlite.ones(2))
    tensor([0., 0.])
    """
    return _like("zeros", input, dtype, device, requires_grad, memory_format)


def ones_like(
    input: Tensor,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: memory_format = preserve_format,
) -> Tensor:
    """Ones with another tensor's shape, dtype and device.

    >>> import gradlite
    >>> gradlite.ones_like(gradlite.zeros(2))
    tensor([1., 1.])
    """
    return _like("ones", input, dtype, device, requires_grad, memory_format)


def empty_like(
    input: Tensor,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: memory_format = preserve_format,
) -> Tensor:
    """Uninitialised values with another tensor's shape, dtype and device.

    >>> import gradlite
    >>> gradlite.empty_like(gradlite.zeros(2)).shape
    gradlite.Size([2])
    """
    return _like("empty", input, dtype, device, requires_grad, memory_format)


def full_like(
    input: Tensor,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: memory_format = preserve_format,
) -> Tensor:
    """One value with another tensor's shape, dtype and device.

    >>> import gradlite
    >>> gradlite.full_like(gradlite.zeros(2), 7)
    tensor([7., 7.])
    """
    fill = as_number(fill_value)
    return _like("full", input, dtype, device, requires_grad, memory_format, fill)


def _new_method(maker: str) -> Any:
    def method(
        self: Tensor,
        *shape: Any,
        size: Any = None,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
    ) -> Tensor:
        numpy_dtype = self.array.dtype if dtype is None else dtypes.as_dtype(dtype).numpy
        target = self.device if device is None else device
        return filled(maker, sizes(shape, size), numpy_dtype, target, requires_grad)

    method.__name__ = method.__qualname__ = f"new_{maker}"
    return method


def _new_full(
    self: Tensor,
    size: Sequence[int],
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    numpy_dtype = self.array.dtype if dtype is None else dtypes.as_dtype(dtype).numpy
    target = self.device if device is None else device
    return filled("full", sizes((size,)), numpy_dtype, target, requires_grad, as_number(fill_value))


def _new_tensor(
    self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    return tensor(
        data,
        dtype=self.dtype if dtype is None else dtype,
        device=self.device if device is None else device,
        requires_grad=requires_grad,
    )


def _attach() -> None:
    t: Any = Tensor
    t.new_zeros, t.new_ones = _new_method("zeros"), _new_method("ones")
    t.new_empty, t.new_full = _new_method("empty"), _new_full
    t.new_tensor = _new_tensor


_attach()
