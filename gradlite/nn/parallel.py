"""The wrappers that PyTorch trains on several devices with; here a model is trained on one.

Programs that put a model into `DataParallel` where they may run as they are, with the same
``.module`` and the same keys in ``state_dict()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from gradlite.backends import cuda
from gradlite.device import device as Device
from gradlite.nn.module import Module
from gradlite.tensor import Tensor

__all__ = ["DataParallel", "DistributedDataParallel", "data_parallel"]


def _index(device: int | str | Device) -> int:
    if isinstance(device, int):
        return device
    wanted = Device(device) if isinstance(device, str) else device
    return wanted.index or 0


def _only(device_ids: Sequence[int | str | Device] | None) -> Device:
    """The one device that is given or there."""
    if device_ids is None:
        device_ids = range(cuda.module().cuda.runtime.getDeviceCount())
    if len(device_ids) != 1:
        raise RuntimeError(
            f"gradlite trains a model on one device, but DataParallel was to use "
            f"{len(device_ids)}: pass device_ids=[0]"
        )
    return Device("cuda", _index(device_ids[0]))


def _moved(value: Any, device: Device) -> Any:
    """The tensors in tuples, lists and dicts on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        moved = [_moved(item, device) for item in value]
        return type(value)(*moved) if hasattr(value, "_fields") else tuple(moved)
    if isinstance(value, list):
        return [_moved(item, device) for item in value]
    if isinstance(value, dict):
        return type(value)((key, _moved(item, device)) for key, item in value.items())
    return value


def _check(tensors: Iterable[Tensor], device: Device) -> None:
    for t in tensors:
        if t.device != device:
            raise RuntimeError(
                f"module must have its parameters and buffers on device {device} (device_ids[0]) "
                f"but found one of them on device: {t.device}"
            )


class DataParallel(Module):
    """Calls ``module`` on the one GPU that there is, or on the CPU where there is none.

    Args:
        module: whose parameters are moved to the GPU.
        device_ids: the GPU, in a list; by default the only one. Ignored where there is none.
        output_device: the same device.
        dim: the dimension that PyTorch would split the inputs along.

    Raises:
        RuntimeError: several GPUs are given, or there and none is given.

    >>> from gradlite import nn
    >>> model = nn.DataParallel(nn.Linear(2, 3))
    >>> list(model.state_dict())
    ['module.weight', 'module.bias']
    """

    def __init__(
        self,
        module: Module,
        device_ids: Sequence[int | str | Device] | None = None,
        output_device: int | str | Device | None = None,
        dim: int = 0,
    ) -> None:
        super().__init__()
        self.module = module
        self.device_ids: list[int] = []
        if not cuda.status()[0]:
            return
        device = _only(device_ids)
        self.dim, self.src_device_obj = dim, device
        self.device_ids, self.output_device = [_index(device)], _index(device)
        module.to(device)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if self.device_ids:
            device = self.src_device_obj
            _check(chain(self.module.parameters(), self.module.buffers()), device)
            inputs, kwargs = _moved(inputs, device), _moved(kwargs, device)
        return self.module(*inputs, **kwargs)


def data_parallel(
    module: Module,
    inputs: Any,
    device_ids: Sequence[int | str | Device] | None = None,
    output_device: int | str | Device | None = None,
    dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:
    """``module(*inputs, **module_kwargs)`` on the one GPU that there is.

    Raises:
        RuntimeError: there is none, or several are given, or the module is not on it.
    """
    if not cuda.status()[0]:
        raise RuntimeError("device type could not be determined")
    device = _only(device_ids)
    _check(chain(module.parameters(), module.buffers()), device)
    inputs = inputs if isinstance(inputs, tuple) else () if inputs is None else (inputs,)
    return module(*_moved(inputs, device), **_moved(module_kwargs or {}, device))


class DistributedDataParallel(Module):
    """A name that programs import; there is no training on several devices here.

    Raises:
        RuntimeError: always.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            "gradlite trains a model on one device, in one process: call the module itself "
            "instead of DistributedDataParallel(module)"
        )
