"""Moving a module to another device or dtype: the `to` part of `Module`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from gradlite import changes, dtypes
from gradlite.device import device as Device
from gradlite.grad_mode import no_grad
from gradlite.nn.members import type_name
from gradlite.nn.parameter import is_lazy
from gradlite.ops.like import empty_like
from gradlite.tensor import Tensor

__all__ = ["ConversionMethods"]

Self = TypeVar("Self", bound="ConversionMethods")


class ConversionMethods:
    """The part of `Module` that converts parameters and buffers, in place."""

    _parameter_names: dict[str, bool]
    _buffer_names: dict[str, bool]
    _named_slots: Callable[[dict[str, bool]], list[tuple[str, Any]]]
    children: Callable[[], Iterator[Any]]

    def _apply(self: Self, fn: Callable[[Any], Any], recurse: bool = True) -> Self:
        """Replace the data of all parameters, their gradients and the buffers by ``fn`` of it.

        The parameters stay the same objects, so that an optimizer keeps them.
        """
        if recurse:
            for child in self.children():
                child._apply(fn)
        with no_grad():
            for _, parameter in self._named_slots(self._parameter_names):
                if parameter is None:
                    continue
                if is_lazy(parameter):
                    parameter.convert(fn)
                    continue
                grad = parameter._grad
                parameter._grad = None
                parameter.data = fn(parameter)
                if grad is not None:
                    grad.data = fn(grad.data)
                    parameter.grad = grad
            for name, buffer in self._named_slots(self._buffer_names):
                if is_lazy(buffer):
                    buffer.convert(fn)
                elif buffer is not None:
                    self.__dict__[name] = fn(buffer)
                    changes.count[0] += 1
        return self

    def to(self: Self, *args: Any, **kwargs: Any) -> Self:
        """Move to a device and cast floating parameters and buffers to a dtype, in place.

        Called as ``to(device, dtype, non_blocking)``, ``to(dtype)`` or ``to(tensor)``, which
        means that tensor's device and dtype. Integer buffers keep their dtype.

        Raises:
            TypeError: the dtype is not a floating one.
        """
        device, dtype, non_blocking = _parse_to(*args, **kwargs)
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(
                "nn.Module.to only accepts floating point or complex dtypes, but got desired "
                f"dtype={dtype}"
            )

        def convert(tensor: Any) -> Any:
            wanted = dtype if tensor.is_floating_point() else None
            return tensor.to(device or tensor.device, wanted or tensor.dtype, non_blocking)

        return self._apply(convert)

    def to_empty(self: Self, *, device: str | int | Device | None, recurse: bool = True) -> Self:
        """Move to a device without copying: parameters and buffers have any values there."""
        return self._apply(lambda tensor: empty_like(tensor, device=device), recurse)

    def cpu(self: Self) -> Self:
        """Move all parameters and buffers to the CPU."""
        return self._apply(lambda tensor: tensor.cpu())

    def cuda(self: Self, device: int | Device | None = None) -> Self:
        """Move all parameters and buffers to a CUDA device."""
        return self._apply(lambda tensor: tensor.cuda(device))

    def float(self: Self) -> Self:
        """Cast floating parameters and buffers to float32."""
        return self._cast(dtypes.float32)

    def double(self: Self) -> Self:
        """Cast floating parameters and buffers to float64."""
        return self._cast(dtypes.float64)

    def half(self: Self) -> Self:
        """Cast floating parameters and buffers to float16."""
        return self._cast(dtypes.float16)

    def bfloat16(self: Self) -> Self:
        """Cast floating parameters and buffers to bfloat16."""
        return self._cast(dtypes.bfloat16)

    def _cast(self: Self, dtype: dtypes.dtype) -> Self:
        return self._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)

    def type(self: Self, dst_type: Any) -> Self:
        """Cast all parameters and buffers to a dtype."""
        return self._apply(lambda tensor: tensor.type(dst_type))


def _parse_to(*args: Any, **kwargs: Any) -> tuple[Device | None, dtypes.dtype | None, bool]:
    """Sort out the three ways to call `Module.to`."""
    values = list(args)
    given = [type_name(a) for a in args] + [f"{key}={type_name(v)}" for key, v in kwargs.items()]
    device = kwargs.pop("device", None)
    dtype = kwargs.pop("dtype", None)
    tensor = kwargs.pop("tensor", None)
    if values and isinstance(values[0], Tensor):
        tensor = values.pop(0)
    elif values and isinstance(values[0], dtypes.dtype):
        dtype = values.pop(0)
    elif values:
        device = values.pop(0)
        dtype = values.pop(0) if values else dtype
    non_blocking = kwargs.pop("non_blocking", values.pop(0) if values else False)
    copies = "copy" in kwargs or bool(values)
    copy = kwargs.pop("copy", values.pop(0) if values else False)
    kwargs.pop("memory_format", None)
    fits = isinstance(non_blocking, bool) and isinstance(copy, bool)
    fits = fits and (dtype is None or isinstance(dtype, dtypes.dtype))
    fits = fits and (tensor is None or isinstance(tensor, Tensor))
    fits = fits and (device is None or _names_a_device(device))
    if kwargs or values or not fits:
        raise TypeError(
            f"to() received an invalid combination of arguments - got ({', '.join(given)}), but "
            "expected one of: (device, dtype, non_blocking), (dtype, non_blocking), "
            "(tensor, non_blocking)"
        )
    if copies:
        raise RuntimeError(".to() does not accept copy argument")
    if tensor is not None:
        device, dtype = tensor.device, tensor.dtype
    if device is not None and not isinstance(device, Device):
        device = Device(device)
    return device, dtype, non_blocking


def _names_a_device(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or isinstance(value, (str, Device))
