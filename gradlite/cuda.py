"""CUDA devices, their memory, streams and events: ``gradlite.cuda``, thin over CuPy.

Importing this module imports no CuPy, and asking `is_available` without a GPU never fails.
Whatever needs a GPU raises RuntimeError on a machine without one, saying what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gradlite.backends import cuda as backend
from gradlite.backends.cuda import OutOfMemoryError
from gradlite.device import device as Device
from gradlite.random import default_generator

__all__ = [
    "Event",
    "OutOfMemoryError",
    "Stream",
    "current_device",
    "current_stream",
    "default_stream",
    "device",
    "device_count",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "initial_seed",
    "is_available",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_device",
    "stream",
    "synchronize",
]

DeviceLike = str | int | Device | None
_used = False
_peaks: dict[int, Any] = {}  # of each watched GPU: [bytes now, most bytes]
_hooks: list[Any] = []


def _cupy() -> Any:
    """The cupy module; RuntimeError saying what is missing."""
    global _used
    module = backend.module()
    _used = True
    return module


def _index(d: DeviceLike, cupy: Any) -> int:
    """The number of a CUDA device; None and a device without number mean the current one."""
    if d is None:
        return int(cupy.cuda.runtime.getDevice())
    if isinstance(d, bool) or not isinstance(d, (str, int, Device)):
        raise TypeError(f"expected a CUDA device, but got {type(d).__name__}")
    wanted = d if isinstance(d, Device) else Device(d)
    if wanted.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {wanted}")
    index = int(cupy.cuda.runtime.getDevice()) if wanted.index is None else wanted.index
    if not 0 <= index < cupy.cuda.runtime.getDeviceCount():
        raise RuntimeError("CUDA error: invalid device ordinal")
    return index


# ------------------------------------------------------------------------------ devices
def is_available() -> bool:
    """Whether tensors can be put on a GPU. Never raises.

    >>> import gradlite
    >>> isinstance(gradlite.cuda.is_available(), bool)
    True
    """
    return backend.status()[0]


def is_initialized() -> bool:
    """Whether this process has used CUDA."""
    return _used or backend.in_use()


def device_count() -> int:
    """The number of GPUs; 0 where CUDA cannot be used."""
    return int(backend.module().cuda.runtime.getDeviceCount()) if is_available() else 0


def current_device() -> int:
    """The number of the device that ``"cuda"`` without a number means."""
    return _index(None, _cupy())


def set_device(device: DeviceLike) -> None:
    """Make a GPU the current one, for this thread."""
    cupy = _cupy()
    if isinstance(device, int) and device < 0:
        return  # as in PyTorch: a negative number changes nothing
    cupy.cuda.Device(_index(device, cupy)).use()


class device:
    """Context manager: the current GPU inside the block; None or a negative number: no change.

    Raises:
        RuntimeError: CUDA cannot be used, or there is no such GPU.
    """

    def __init__(self, device: DeviceLike) -> None:
        self.idx = -1
        if device is None or (isinstance(device, int) and device < 0):
            return
        self.idx = _index(device, _cupy())

    def __enter__(self) -> None:
        if self.idx >= 0:
            self._entered = _cupy().cuda.Device(self.idx)
            self._entered.__enter__()

    def __exit__(self, *exc: object) -> None:
        if self.idx >= 0:
            self._entered.__exit__(*exc)


def _properties(device: DeviceLike) -> dict[str, Any]:
    cupy = _cupy()
    found: dict[str, Any] = cupy.cuda.runtime.getDeviceProperties(_index(device, cupy))
    return found


def get_device_name(device: DeviceLike = None) -> str:
    """The name of a GPU, as ``NVIDIA H200``."""
    name = _properties(device)["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def get_device_capability(device: DeviceLike = None) -> tuple[int, int]:
    """The compute capability of a GPU, as ``(9, 0)``."""
    found = _properties(device)
    return int(found["major"]), int(found["minor"])


def synchronize(device: DeviceLike = None) -> None:
    """Wait until a GPU has done everything it was asked to do."""
    cupy = _cupy()
    cupy.cuda.Device(_index(device, cupy)).synchronize()


# ------------------------------------------------------------------------------- memory
def _pool_bytes(device: DeviceLike, method: str) -> int:
    """A number that CuPy's pool knows of a GPU; 0 before CUDA is first used."""
    if not is_initialized():
        return 0
    cupy = _cupy()
    with cupy.cuda.Device(_index(device, cupy)):
        return int(getattr(cupy.get_default_memory_pool(), method)())


def empty_cache() -> None:
    """Give the memory that no tensor holds back to the GPU. Does nothing before CUDA is used."""
    if is_initialized():
        cupy = _cupy()
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()


def memory_allocated(device: DeviceLike = None) -> int:
    """Bytes of a GPU's memory held by tensors (and everything else made with CuPy)."""
    return _pool_bytes(device, "used_bytes")


def memory_reserved(device: DeviceLike = None) -> int:
    """Bytes of a GPU's memory held by the allocator, whether or not a tensor uses them."""
    return _pool_bytes(device, "total_bytes")


def mem_get_info(device: DeviceLike = None) -> tuple[int, int]:
    """Free and total bytes of a GPU's memory."""
    cupy = _cupy()
    with cupy.cuda.Device(_index(device, cupy)):
        free, total = cupy.cuda.runtime.memGetInfo()
    return int(free), int(total)


def reset_peak_memory_stats(device: DeviceLike = None) -> None:
    """Start measuring `max_memory_allocated` anew, from what is allocated now."""
    cupy = _cupy()
    index = _index(device, cupy)
    now = memory_allocated(index)
    if not _hooks:
        _hooks.append(_peak_hook(cupy))
        _hooks[0].__enter__()
    _peaks[index] = [now, now]


def max_memory_allocated(device: DeviceLike = None) -> int:
    """The most bytes that were allocated at once since `reset_peak_memory_stats`.

    CuPy keeps no peak by itself, and watching every allocation costs time, so the measurement
    begins with the first `reset_peak_memory_stats`, in the thread that calls it; before, this
    is the number of bytes the allocator has reserved, which the peak cannot exceed unless the
    cache was emptied meanwhile.
    """
    if not is_initialized():
        return 0
    index = _index(device, _cupy())
    peak = _peaks.get(index)
    if peak is None:
        return memory_reserved(index)
    now = memory_allocated(index)
    peak[0], peak[1] = now, max(peak[1], now)
    return int(peak[1])


def _peak_hook(cupy: Any) -> Any:
    """A CuPy memory hook that keeps ``[bytes now, most bytes]`` of each watched GPU."""

    class Peak(cupy.cuda.MemoryHook):  # type: ignore[misc]
        name = "gradlite peak memory"

        def malloc_postprocess(self, **call: Any) -> None:
            peak = _peaks.get(call["device_id"])
            if peak is not None:
                peak[0] += call["mem_size"]
                if peak[0] > peak[1]:
                    peak[1] = peak[0]

        def free_postprocess(self, **call: Any) -> None:
            peak = _peaks.get(call["device_id"])
            if peak is not None:
                peak[0] -= call["mem_size"]

    return Peak()


# ------------------------------------------------------------------- streams and events
class Event:
    """A mark in a stream, to wait for or to measure the time between.

    Raises:
        RuntimeError: CUDA cannot be used.
    """

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        self.cupy_event = _cupy().cuda.Event(
            block=blocking, disable_timing=not enable_timing, interprocess=interprocess
        )

    def record(self, stream: Stream | None = None) -> None:
        """Mark the place a stream (the current one) has been filled up to."""
        self.cupy_event.record((stream or current_stream()).cupy_stream)

    def wait(self, stream: Stream | None = None) -> None:
        """Let later work of a stream (the current one) wait for the mark."""
        (stream or current_stream()).wait_event(self)

    def query(self) -> bool:
        """Whether the GPU has reached the mark."""
        return bool(self.cupy_event.done)

    def synchronize(self) -> None:
        """Wait until the GPU has reached the mark."""
        self.cupy_event.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds of the GPU between this mark and a later one; both measure time."""
        return float(_cupy().cuda.get_elapsed_time(self.cupy_event, end_event.cupy_event))


class Stream:
    """A queue of work on a GPU, beside the default one.

    Raises:
        RuntimeError: CUDA cannot be used.
    """

    def __init__(self, device: DeviceLike = None, priority: int = 0) -> None:
        cupy = _cupy()
        index = _index(device, cupy)
        with cupy.cuda.Device(index):
            self._hold(cupy.cuda.Stream(non_blocking=True, priority=priority), index)

    def _hold(self, cupy_stream: Any, index: int) -> None:
        self.cupy_stream = cupy_stream
        self.device_index = index
        self.device = Device("cuda", index)

    @property
    def cuda_stream(self) -> int:
        """The stream's address, for other libraries."""
        return int(self.cupy_stream.ptr)

    def synchronize(self) -> None:
        """Wait until the stream's work is done."""
        self.cupy_stream.synchronize()

    def query(self) -> bool:
        """Whether the stream's work is done."""
        return bool(self.cupy_stream.done)

    def record_event(self, event: Event | None = None) -> Event:
        """Mark the place the stream has been filled up to."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let later work of this stream wait for a mark."""
        self.cupy_stream.wait_event(event.cupy_event)

    def wait_stream(self, stream: Stream) -> None:
        """Let later work of this stream wait for what another holds now."""
        self.wait_event(stream.record_event())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.device_index, self.cuda_stream) == (
            other.device_index,
            other.cuda_stream,
        )

    def __hash__(self) -> int:
        return hash((self.device_index, self.cuda_stream))

    def __repr__(self) -> str:
        return f"<gradlite.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"


def _around(cupy_stream: Any, index: int) -> Stream:
    found = Stream.__new__(Stream)
    found._hold(cupy_stream, index)
    return found


def current_stream(device: DeviceLike = None) -> Stream:
    """The stream that takes up a GPU's work now."""
    cupy = _cupy()
    index = _index(device, cupy)
    with cupy.cuda.Device(index):
        return _around(cupy.cuda.get_current_stream(), index)


def default_stream(device: DeviceLike = None) -> Stream:
    """The stream that takes up a GPU's work unless another is chosen."""
    cupy = _cupy()
    return _around(cupy.cuda.Stream.null, _index(device, cupy))


@contextmanager
def stream(stream: Stream | None) -> Iterator[None]:
    """Context manager: work inside the block goes to a stream; None changes nothing."""
    if stream is None:
        yield
        return
    cupy = _cupy()
    with cupy.cuda.Device(stream.device_index), stream.cupy_stream:
        yield


# ---------------------------------------------------------------------- random numbers
def manual_seed(seed: int) -> None:
    """Seed the random numbers. One generator serves all devices, so the CPU's too.

    >>> import gradlite
    >>> gradlite.cuda.manual_seed(3)
    >>> gradlite.initial_seed()
    3
    """
    default_generator.manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seed the random numbers of all devices, as `manual_seed`."""
    default_generator.manual_seed(seed)


def seed() -> None:
    """Seed the random numbers from the system's entropy."""
    default_generator.seed()


def seed_all() -> None:
    """Seed the random numbers of all devices from the system's entropy."""
    default_generator.seed()


def initial_seed() -> int:
    """The seed of the random numbers."""
    return default_generator.initial_seed()
