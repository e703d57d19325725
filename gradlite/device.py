"""Devices: where a tensor's array lives."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

import numpy as np

from gradlite import changes
from gradlite.backends import cuda

_TYPES = ("cpu", "cuda")
# The devices of the context managers that are open in this thread or asyncio task.
_entered: ContextVar[tuple[Any, ...]] = ContextVar("gradlite_devices", default=())


class device:
    """A device, as ``device("cpu")``, ``device("cuda:1")`` or ``device("cuda", 1)``.

    Also a context manager: factories called inside make their tensors there.

    >>> device("cuda:1").index
    1

    Raises:
        RuntimeError: an unknown device type or a malformed string.
    """

    __slots__ = ("type", "index")
    type: str
    index: int | None

    def __init__(self, type: str | int | device, index: int | None = None) -> None:
        if isinstance(type, device):
            self.type, self.index = type.type, type.index
            return
        if index is not None and not isinstance(index, int):
            given = index.__class__.__name__
            raise TypeError(f"device(): argument 'index' (position 2) must be int, not {given}")
        if (index or 0) < 0 or (isinstance(type, int) and type < 0):
            raise RuntimeError("Device index must not be negative")
        if isinstance(type, int):
            self.type, self.index = "cuda", type
            return
        if not isinstance(type, str):
            raise TypeError(f"device(): argument 'type' must be str, not {type.__class__.__name__}")
        if not type:
            raise RuntimeError("Device string must not be empty")
        name, colon, number = type.partition(":")
        if name not in _TYPES:
            raise RuntimeError(
                f"Expected one of {', '.join(_TYPES)} device type at start of device string: {type}"
            )
        if colon:
            if index is not None:
                raise RuntimeError(
                    f"type (string) must not include an index because index was passed "
                    f"explicitly: {type}"
                )
            if not number.isdigit() or (number[0] == "0" and number != "0"):
                raise RuntimeError(f"Invalid device string: '{type}'")
            index = int(number)
        self.type, self.index = name, index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and self.type == other.type and self.index == other.index

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        if self.index is None:
            return f"device(type='{self.type}')"
        return f"device(type='{self.type}', index={self.index})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (device, (self.type, self.index))

    def __enter__(self) -> device:
        changes.count[0] += self != get_default_device()
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(self, *exc: object) -> None:
        *outer, left = _entered.get()
        _entered.set(tuple(outer))
        changes.count[0] += left != get_default_device()


CPU = device("cpu")
_gpus: dict[int, device] = {}  # those that arrays were on
_default = CPU
_anywhere: AbstractContextManager[Any] = nullcontext()


def set_default_device(device: str | int | device | None) -> None:
    """Set the device on which factories make tensors when none is given."""
    global _default
    wanted = CPU if device is None else as_device(device)
    array_module(wanted)  # refuses what cannot be used before anything changes
    changes.count[0] += wanted != _default
    _default = wanted


def get_default_device() -> device:
    """The device on which factories make tensors when none is given."""
    entered = _entered.get()
    return entered[-1] if entered else _default  # type: ignore[no-any-return]


def as_device(d: str | int | device | None) -> device:
    """A device from what users write; None means the default device."""
    if d is None:
        return get_default_device()
    return d if isinstance(d, device) else device(d)


def array_module(d: device) -> Any:
    """numpy or cupy for a device; RuntimeError saying what is missing for CUDA, or which GPU."""
    return np if d.type == "cpu" else cuda.module(d.index)


def beside(array: Any) -> AbstractContextManager[Any]:
    """A context in which the device of a raw array is the current one, where copies of it go."""
    return _anywhere if isinstance(array, np.ndarray) else array.device  # type: ignore[no-any-return]


def device_of(array: Any) -> device:
    """The device of a raw array."""
    if isinstance(array, np.ndarray):
        return CPU
    index = array.device.id
    found = _gpus.get(index)
    if found is None:
        found = _gpus[index] = device("cuda", int(index))
    return found
