"""GPUs: how many there are, which one is current, and what they are called."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from gradlite.backends import asserts
from gradlite.backends import cuda as backend
from gradlite.backends.cuda import module as cupy_module
from gradlite.device import device as Device

DeviceLike = str | int | Device | None


def index_of(d: DeviceLike, cupy: Any) -> int:
    """The number of a CUDA device; None and a device without number mean the current one."""
    if d is None:
        return int(cupy.cuda.runtime.getDevice())
    if isinstance(d, bool) or not isinstance(d, (str, int, Device)):
        raise TypeError(f"expected a CUDA device, but got {type(d).__name__}")
    wanted = d if isinstance(d, Device) else Device(d)
    if wanted.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {wanted}")
    index = int(cupy.cuda.runtime.getDevice()) if wanted.index is None else wanted.index
    if index < 0:
        raise RuntimeError("CUDA error: invalid device ordinal")
    cupy_module(index)  # which says which GPUs there are when that is none of them
    return index


def is_available() -> bool:
    """Whether tensors can be put on a GPU. Never raises.

    >>> import gradlite
    >>> isinstance(gradlite.cuda.is_available(), bool)
    True
    """
    return backend.status()[0]


def init() -> None:
    """Use CUDA now; it is otherwise first used when something asks for it.

    Raises:
        RuntimeError: CUDA cannot be used; the message says what is missing.
    """
    cupy_module()


def is_initialized() -> bool:
    """Whether this process has used CUDA."""
    return backend.in_use()


def device_count() -> int:
    """The number of GPUs; 0 where CUDA cannot be used."""
    return int(cupy_module().cuda.runtime.getDeviceCount()) if is_available() else 0


def current_device() -> int:
    """The number of the device that ``"cuda"`` without a number means."""
    return index_of(None, cupy_module())


def set_device(device: DeviceLike) -> None:
    """Make a GPU the current one, for this thread."""
    cupy = cupy_module()
    if isinstance(device, int) and device < 0:
        return  # as in PyTorch: a negative number changes nothing
    cupy.cuda.Device(index_of(device, cupy)).use()


class device:
    """Context manager: the current GPU inside the block; None or a negative number: no change.

    Raises:
        RuntimeError: CUDA cannot be used, or there is no such GPU.
    """

    def __init__(self, device: DeviceLike) -> None:
        self.idx = -1
        if device is None or (isinstance(device, int) and device < 0):
            return
        self.idx = index_of(device, cupy_module())

    def __enter__(self) -> None:
        if self.idx >= 0:
            self._entered = cupy_module().cuda.Device(self.idx)
            self._entered.__enter__()

    def __exit__(self, *exc: object) -> None:
        if self.idx >= 0:
            self._entered.__exit__(*exc)


def _properties(device: DeviceLike) -> dict[str, Any]:
    cupy = cupy_module()
    found: dict[str, Any] = cupy.cuda.runtime.getDeviceProperties(index_of(device, cupy))
    return found


@dataclass(frozen=True)
class DeviceProperties:
    """What a GPU is: its name, its compute capability, its memory in bytes, its sizes."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    warp_size: int
    max_threads_per_multi_processor: int
    shared_memory_per_block: int
    L2_cache_size: int  # noqa: N815 (PyTorch's name)


def get_device_properties(device: DeviceLike = None) -> DeviceProperties:
    """What a GPU is."""
    found = _properties(device)
    return DeviceProperties(
        get_device_name(device),
        int(found["major"]),
        int(found["minor"]),
        int(found["totalGlobalMem"]),
        int(found["multiProcessorCount"]),
        int(found["warpSize"]),
        int(found["maxThreadsPerMultiProcessor"]),
        int(found["sharedMemPerBlock"]),
        int(found["l2CacheSize"]),
    )


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether there is a GPU and bfloat16 can be used on it. Never raises.

    Args:
        including_emulation: if False, only where the GPU computes products of bfloat16 itself,
            from compute capability 8.0 on.
    """
    if not is_available() or importlib.util.find_spec("ml_dtypes") is None:
        return False
    return including_emulation or get_device_capability()[0] >= 8


def get_device_name(device: DeviceLike = None) -> str:
    """The name of a GPU, as ``NVIDIA H200``."""
    name = _properties(device)["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def get_device_capability(device: DeviceLike = None) -> tuple[int, int]:
    """The compute capability of a GPU, as ``(9, 0)``."""
    found = _properties(device)
    return int(found["major"]), int(found["minor"])


def can_device_access_peer(device: DeviceLike, peer_device: DeviceLike) -> bool:
    """Whether a GPU can read and write another one's memory; not its own, as in PyTorch."""
    cupy = cupy_module()
    one, other = index_of(device, cupy), index_of(peer_device, cupy)
    return one != other and bool(cupy.cuda.runtime.deviceCanAccessPeer(one, other))


def synchronize(device: DeviceLike = None) -> None:
    """Wait until a GPU has done everything it was asked to do."""
    cupy = cupy_module()
    cupy.cuda.Device(index_of(device, cupy)).synchronize()
    asserts.check()
