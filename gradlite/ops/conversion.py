"""Converting tensors to another dtype and device."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends import cuda, stream_uses, transfer
from gradlite.device import as_device, device, device_of
from gradlite.memory_format import memory_format, preserve_format
from gradlite.ops.dispatch import apply
from gradlite.ops.op import TYPE_NAMES, Op, type_name
from gradlite.ops.operands import cast
from gradlite.tensor import Tensor

# Where a parameter is called device.
_Device = device


def array_on(
    source: Any, where: device, numpy_dtype: Any, copy: bool, non_blocking: bool = False
) -> Any:
    """An array on a device in a dtype."""
    if where.type != "cpu":
        return transfer.to_gpu(source, where.index, numpy_dtype, copy, non_blocking)
    if not isinstance(source, np.ndarray):
        source, copy = transfer.to_host(source, non_blocking), False
    return np.array(source, dtype=numpy_dtype, copy=True if copy else None)


class ToDevice(Op):
    """A copy on another device."""

    moves = True
    grad_name = "ToCopyBackward0"
    has_aux = True
    used_up = False

    def forward(xp: Any, x: Any, where: device, copy: bool, non_blocking: bool = False) -> Any:
        return array_on(x, where, x.dtype, copy, non_blocking), device_of(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.to_device(grad, ctx.aux, True),)


def to(
    self: Tensor,
    *args: Any,
    dtype: Any = None,
    device: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: memory_format = preserve_format,
) -> Tensor:
    """The tensor with another dtype and/or on another device; itself when nothing changes.

    ``to(dtype)``, ``to(device)``, ``to(device, dtype)``, ``to(other)``, each followed by
    ``non_blocking`` and ``copy``. With ``non_blocking`` a copy from page-locked memory
    (`pin_memory`) to a GPU goes on while the program does, and so does one to the CPU, whose
    values may be read after ``gradlite.cuda.synchronize()``.
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
        non_blocking = bool(rest.pop(0))
    if rest:
        copy = bool(rest.pop(0))
    result = self
    if device is not None:
        target, here = as_device(device), self.device
        if target.type != here.type or (target.index is not None and target.index != here.index):
            wanted = result.array.dtype if dtype is None else dtypes.as_dtype(dtype).numpy
            changed = wanted != result.array.dtype or memory_format is not preserve_format
            if target.type == "cpu" and changed:
                non_blocking = False  # what follows on the CPU reads the values
            result = apply(ToDevice, (result,), target, True, non_blocking)
    if dtype is not None:
        result = cast(result, dtypes.as_dtype(dtype).numpy)
    if memory_format is not preserve_format:
        result = result.contiguous(memory_format)  # type: ignore[attr-defined]
    return result.clone() if copy and result is self else result  # type: ignore[attr-defined,no-any-return]


class PinMemory(Op):
    """A copy in page-locked memory."""

    moves = True

    def forward(xp: Any, x: Any) -> Any:
        return transfer.pinned(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (grad,)


def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """The tensor in page-locked memory, from which copies to a GPU are fast and asynchronous.

    Itself when it is there already.

    Raises:
        RuntimeError: CUDA cannot be used, or the tensor is not on the CPU.
    """
    if not self.is_cpu:
        raise RuntimeError(f"cannot pin '{type(self)}' only dense CPU tensors can be pinned")
    if is_pinned(self):
        return self
    cuda.module()  # says what is missing
    return apply(PinMemory, (self,))  # type: ignore[no-any-return]


def record_stream(self: Tensor, stream: Any) -> None:
    """Say that another stream uses the tensor's memory than the one it was made on.

    When nothing refers to the memory any more, it is not given away before the GPU has passed the
    place which that stream has been filled up to by then.

    Raises:
        NotImplementedError: the tensor is not on a GPU.
        RuntimeError: ``stream`` is no stream.
    """
    if self.is_cpu:
        raise NotImplementedError(
            "Could not run 'aten::record_stream' with arguments from the 'CPU' backend: memory of "
            "the CPU is not given to streams"
        )
    if not hasattr(stream, "cupy_stream"):
        raise RuntimeError("unknown parameter type")
    stream_uses.note(cuda.module(), self.array, stream.cupy_stream, stream.device_index)


def is_pinned(self: Tensor, device: Any = None) -> bool:
    """Whether the tensor is in page-locked memory.

    >>> import gradlite
    >>> gradlite.zeros(2).is_pinned()
    False
    """
    return self.is_cpu and transfer.is_pinned(self.array)


def _converter(name: str, target: dtypes.dtype) -> Any:
    def method(self: Tensor, memory_format: memory_format = preserve_format) -> Tensor:
        result = cast(self, target.numpy)
        if memory_format is not preserve_format:
            result = result.contiguous(memory_format)  # type: ignore[attr-defined]
        return result

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"The tensor as {target.name}; itself when it is that already."
    return method


def type(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The tensor as another dtype; without one, the name of its tensor type.

    The dtype may also be a tensor type, such as ``gradlite.LongTensor`` or its name, which says
    where the tensor shall be too: on the CPU, or on a GPU for ``gradlite.cuda.LongTensor``.
    ``gradlite.Tensor`` stands for the default one.
    """
    if dtype is None:
        prefix = "gradlite.cuda" if self.is_cuda else "gradlite"
        return f"{prefix}.{type_name(self.array.dtype)}Tensor"
    if isinstance(dtype, str):
        path, _, name = dtype.rpartition(".")
        name = name.removesuffix("Tensor")
        found = next((d for d in dtypes.ALL if TYPE_NAMES[d.name] == name), None)
        if found is None or not dtype.endswith("Tensor"):
            raise ValueError(f"invalid type: '{dtype}'")
        where: Any = "cuda" if path.endswith(".cuda") else "cpu"
    elif dtype is Tensor:
        found, where = dtypes.get_default_dtype(), "cpu"
    else:  # a tensor type stands for a dtype and a type of device, a dtype for no device
        found = dtypes.as_dtype(getattr(dtype, "dtype", dtype))
        where = getattr(dtype, "device_type", None)
    return to(self, dtype=found, device=where, non_blocking=non_blocking)


def _cuda(self: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """The tensor on a GPU, by default the current one."""
    if isinstance(device, int) and device < 0:
        raise RuntimeError("Device index must not be negative")
    where = as_device("cuda" if device is None else device)
    if where.type != "cuda":
        raise RuntimeError("Invalid device, must be cuda device")
    return to(self, where, non_blocking=non_blocking)


def _attach() -> None:
    t: Any = Tensor
    t.to, t.type = to, type
    for name in ("float", "double", "half", "bfloat16", "int", "long", "short", "bool"):
        setattr(t, name, _converter(name, getattr(dtypes, name)))
    t.byte, t.char = _converter("byte", dtypes.uint8), _converter("char", dtypes.int8)
    t.type_as = lambda self, other: cast(self, other.array.dtype)
    t.cpu = lambda self: to(self, "cpu")
    t.cuda = _cuda
    t.pin_memory, t.is_pinned, t.record_stream = pin_memory, is_pinned, record_stream


_attach()
