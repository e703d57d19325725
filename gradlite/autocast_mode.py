"""The autocast mode: in which dtype listed ops compute, for each thread and asyncio task.

What the ops do with it is in `gradlite.ops.casting`; regions are `gradlite.autocast`.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from gradlite import dtypes
from gradlite.dtypes import dtype

DEVICES = ("cpu", "cuda")


class Mode(NamedTuple):
    """The state of a thread or task, as an immutable value.

    Attributes:
        cpu, cuda: whether ops on such tensors are cast.
        cpu_dtype, cuda_dtype: the lower precision.
        cache_enabled: whether casts of parameters are kept until the region ends.
        cache: these casts, by the id of the tensor; None outside of any region.
    """

    cpu: bool = False
    cuda: bool = False
    cpu_dtype: dtype = dtypes.bfloat16
    cuda_dtype: dtype = dtypes.float16
    cache_enabled: bool = True
    cache: dict[int, Any] | None = None

    @property
    def dtypes(self) -> tuple[Any, ...]:
        """What decides about casts, for comparison."""
        return self[:4]

    def casts_on(self, on_gpu: bool) -> bool:
        """Whether ops on tensors of the GPU, or else of the CPU, are cast."""
        return self.cuda if on_gpu else self.cpu

    def lower(self, on_gpu: bool) -> Any:
        """The NumPy dtype of the lower precision there."""
        return (self.cuda_dtype if on_gpu else self.cpu_dtype).numpy

    @property
    def off(self) -> Mode:
        """The same where no op is cast."""
        return self._replace(cpu=False, cuda=False)


_OFF = Mode()
_mode: contextvars.ContextVar[Mode] = contextvars.ContextVar("gradlite_autocast_mode", default=_OFF)
current_autocast = _mode.get
# Whether autocasting was ever switched on in this process: ops look at nothing else before.
used = False


def set_mode(mode: Mode) -> None:
    """Enter a mode."""
    global used
    used = used or mode.cpu or mode.cuda
    _mode.set(mode)


@contextmanager
def again(mode: Mode) -> Iterator[None]:
    """In a mode of before, with no casts kept from outside, nor for outside."""
    before = current_autocast()
    set_mode(mode if mode.cache is None else mode._replace(cache={}))
    try:
        yield
    finally:
        set_mode(before)


def checked_device(device_type: Any) -> str:
    """The type of a device that ops can be cast on; RuntimeError for any other."""
    kind = str(device_type).partition(":")[0]
    if kind not in DEVICES:
        raise RuntimeError(
            f"Expected one of cpu, cuda device type at start of device string: {device_type}"
        )
    return kind


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether listed ops on a type of device compute in lower precision.

    >>> import gradlite
    >>> gradlite.is_autocast_enabled("cpu")
    False
    """
    return bool(getattr(current_autocast(), checked_device(device_type)))


def set_autocast_enabled(device_type: Any, enabled: bool | None = None) -> None:
    """Switch autocasting on or off for a type of device; with one argument, for CUDA."""
    if enabled is None:
        device_type, enabled = "cuda", device_type
    change: dict[str, Any] = {checked_device(device_type): bool(enabled)}
    set_mode(current_autocast()._replace(**change))


def get_autocast_dtype(device_type: str) -> dtype:
    """The lower precision of a type of device: bfloat16 on the CPU, float16 on CUDA by default.

    >>> import gradlite
    >>> gradlite.get_autocast_dtype("cuda")
    gradlite.float16
    """
    found: dtype = getattr(current_autocast(), f"{checked_device(device_type)}_dtype")
    return found


def set_autocast_dtype(device_type: str, dtype: Any) -> None:
    """Choose the lower precision of a type of device."""
    change: dict[str, Any] = {f"{checked_device(device_type)}_dtype": dtypes.as_dtype(dtype)}
    set_mode(current_autocast()._replace(**change))


def is_autocast_cache_enabled() -> bool:
    """Whether casts of parameters are kept until the outermost region ends."""
    return current_autocast().cache_enabled


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Switch the cache of casts on or off."""
    set_mode(current_autocast()._replace(cache_enabled=bool(enabled)))


def clear_autocast_cache() -> None:
    """Drop the casts that are kept."""
    cache = current_autocast().cache
    if cache is not None:
        cache.clear()
