"""Converting tensors to another dtype and device."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.device import array_module, as_device, device, device_of
from gradlite.ops.dispatch import apply
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import cast
from gradlite.tensor import Tensor

# Where a parameter is called device.
_Device = device


def array_on(source: Any, where: device, numpy_dtype: Any, copy: bool) -> Any:
    """An array on a device in a dtype."""
    xp = array_module(where)
    if xp is np:
        if not isinstance(source, np.ndarray):
            source, copy = source.get(), False
        return np.array(source, dtype=numpy_dtype, copy=True if copy else None)
    with xp.cuda.Device(where.index):
        return xp.array(source, dtype=numpy_dtype, copy=copy)


class ToDevice(Op):
    """A copy on another device."""

    grad_name = "ToCopyBackward0"
    has_aux = True
    used_up = False

    def forward(xp: Any, x: Any, where: device, copy: bool) -> Any:
        return array_on(x, where, x.dtype, copy), device_of(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.to_device(grad, ctx.aux, True),)


def to(
    self: Tensor,
    *args: Any,
    dtype: Any = None,
    device: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
) -> Tensor:
    """The tensor with another dtype and/or on another device; itself when nothing changes.

    ``to(dtype)``, ``to(device)``, ``to(device, dtype)``, ``to(other)``, each followed by
    ``non_blocking`` and ``copy``.
    """
    rest = list(args)
    if rest and isinstance(rest[0], Tensor):
        other = rest.pop(0)
        dtype, device = other.dtype, other.device
    elif rest and (isinstance(rest[0], (str, int, _Device)) and not isinstance(rest[0], bool)):
        device = rest.pop(0)
        if rest and rest[0] is not None and not isinstance(rest[0], bool):
            dtype = rest.pop(0)
        elif rest and rest[0] is None:
            rest.pop(0)
    elif rest:
        dtype = rest.pop(0)
    if rest:
        rest.pop(0)  # non_blocking
    if rest:
        copy = bool(rest.pop(0))
    result = self
    if device is not None:
        target, here = as_device(device), self.device
        if target.type != here.type or (target.index is not None and target.index != here.index):
            result = apply(ToDevice, (result,), target, True)
    if dtype is not None:
        result = cast(result, dtypes.as_dtype(dtype).numpy)
    return result.clone() if copy and result is self else result  # type: ignore[attr-defined,no-any-return]


def _converter(name: str) -> Any:
    target = getattr(dtypes, name)

    def method(self: Tensor) -> Tensor:
        return cast(self, target.numpy)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"The tensor as {target.name}; itself when it is that already."
    return method


def type(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The tensor as another dtype; without one, the name of its tensor type."""
    if dtype is None:
        prefix = "gradlite.cuda" if self.is_cuda else "gradlite"
        return f"{prefix}.{type_name(self.array.dtype)}Tensor"
    return cast(self, dtypes.as_dtype(dtype).numpy)


def _attach() -> None:
    t: Any = Tensor
    t.to, t.type = to, type
    for name in ("float", "double", "half", "int", "long", "short", "bool"):
        setattr(t, name, _converter(name))
    t.byte, t.char = _named(dtypes.uint8, "byte"), _named(dtypes.int8, "char")
    t.type_as = lambda self, other: cast(self, other.array.dtype)
    t.cpu = lambda self: to(self, "cpu")
    t.cuda = lambda self, device=None, non_blocking=False: to(
        self, "cuda" if device is None else device
    )


def _named(target: Any, name: str) -> Any:
    def method(self: Tensor) -> Tensor:
        return cast(self, target.numpy)

    method.__name__ = method.__qualname__ = name
    return method


_attach()
