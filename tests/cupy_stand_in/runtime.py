"""``cupy.cuda`` on the CPU: two devices, their memory, streams and events.

Everything that is asked for is done at once, so a stream has nothing to wait for, but for what a
capturing stream keeps for its graph (``graphs.py``); what is kept beside that is what a test may
want to know: who allocated how much, and which stream was asked.
"""

from __future__ import annotations

import ctypes
import gc
import threading
import types
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.cupy_stand_in.graphs import INVALIDATED, Capture, CUDARuntimeError, Graph

COUNT = 1  # devices, of up to MOST
MOST = 4
CAPACITY = 1 << 30  # bytes of a device
current = [0]  # the number of the current device


class Device:
    """``cupy.cuda.Device``."""

    def __init__(self, device: Any = None) -> None:
        self.id = current[0] if device is None else int(device)
        if not 0 <= self.id < COUNT:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def use(self) -> None:
        current[0] = self.id

    def synchronize(self) -> None:
        refuse_to_wait("cudaErrorStreamCaptureUnsupported: a device that captures")

    def __enter__(self) -> Device:
        self._before = current[0]
        current[0] = self.id
        return self

    def __exit__(self, *exc: object) -> None:
        current[0] = self._before

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return self.id


# ------------------------------------------------------------------------------- memory
class OutOfMemoryError(MemoryError):
    """``cupy.cuda.memory.OutOfMemoryError``."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,}).")


class MemoryHook:
    """``cupy.cuda.MemoryHook``: told of every allocation while it is entered."""

    entered: list[MemoryHook] = []

    def __enter__(self) -> MemoryHook:
        MemoryHook.entered.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        MemoryHook.entered.remove(self)

    def malloc_postprocess(self, **call: Any) -> None:
        pass

    def free_postprocess(self, **call: Any) -> None:
        pass


class Block:
    """A piece of a device's memory; the pool has it back when nobody refers to it."""

    __slots__ = ("pool", "device", "size", "chunk", "__weakref__")

    def __init__(self, pool: MemoryPool, device: int, size: int) -> None:
        self.pool, self.device, self.size = pool, device, size
        self.chunk = pool.chunks[-1] if pool.chunks else None

    def __del__(self) -> None:
        self.pool.used[self.device] -= self.size
        for hook in MemoryHook.entered:
            hook.free_postprocess(device_id=self.device, mem_size=self.size)


class MemoryPool:
    """``cupy.cuda.MemoryPool``: counts, in units of 512 bytes, what each device holds."""

    def __init__(self, allocator: Any = None) -> None:
        self.used, self.reserved = [0] * MOST, [0] * MOST
        self.allocator = allocator  # asked for what the pool does not hold yet
        self.chunks: list[Any] = []  # what it gave
        self.limits = [0] * MOST

    @property
    def is_default(self) -> bool:
        """Whether it is the pool that others take memory from as well."""
        return self in (pool, pinned_pool)

    def malloc(self, size: int) -> Block:
        device, size = current[0], -(-size // 512) * 512
        if self.is_default and capturing() is not None:
            raise MemoryError("memory of the default pool is taken during a capture")
        used = self.used[device] + size
        if used > (self.limits[device] or CAPACITY):
            raise OutOfMemoryError(size, self.used[device])
        if self.allocator is not None and used > self.reserved[device]:
            try:
                self.chunks.append(self.allocator(used - self.reserved[device]))
            except CUDARuntimeError:
                raise OutOfMemoryError(size, self.used[device]) from None
        self.used[device] = used
        self.reserved[device] = max(used, self.reserved[device])
        for hook in MemoryHook.entered:
            hook.malloc_postprocess(device_id=device, mem_size=size)
        return Block(self, device, size)

    def used_bytes(self) -> int:
        return self.used[current[0]]

    def total_bytes(self) -> int:
        return self.reserved[current[0]]

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        self.limits[current[0]] = int(fraction * CAPACITY) if size is None else size

    def get_limit(self) -> int:
        return self.limits[current[0]]

    def free_all_blocks(self) -> None:
        self.reserved[current[0]] = self.used[current[0]]
        self.chunks.clear()


pool = MemoryPool()
pinned_pool = MemoryPool()
_allocator: list[Any] = [pool.malloc]


class _OfThread(threading.local):
    """What each thread has chosen for itself: allocators, and streams that it has entered."""

    def __init__(self) -> None:
        self.allocators: list[Any] = []
        self.streams: list[Stream] = []


of_thread = _OfThread()


def get_allocator() -> Any:
    return of_thread.allocators[-1] if of_thread.allocators else _allocator[0]


def set_allocator(allocator: Any) -> None:
    if of_thread.allocators:
        raise ValueError("Can't change the global allocator inside `using_allocator`")
    _allocator[0] = allocator


@contextmanager
def using_allocator(allocator: Any) -> Iterator[None]:
    of_thread.allocators.append(allocator)
    try:
        yield
    finally:
        of_thread.allocators.pop()


# ------------------------------------------------------------------- page-locked memory
class _PageLocked(bytearray):
    """The memory of a page-locked array."""


_page_locked: weakref.WeakValueDictionary[int, _PageLocked] = weakref.WeakValueDictionary()
under_way: list[Any] = []  # page-locked arrays that a copy may still read


def empty_pinned(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray[Any, Any]:
    """``cupyx.empty_pinned``."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, _PageLocked(max(size, 1)), order=order)
    _page_locked[array.ctypes.data] = array.base  # type: ignore[assignment]
    return array


class UnownedMemory:
    """``cupy.cuda.UnownedMemory``: page-locked memory as a GPU sees it."""

    def __init__(self, ptr: int, size: int, owner: Any, device_id: int = -1) -> None:
        if not is_page_locked(ptr):
            raise RuntimeError("cudaErrorInvalidValue: a GPU cannot read this memory")
        self.owner, self.buffer = owner, (ctypes.c_char * size).from_address(ptr)


class Memory:
    """``cupy.cuda.Memory``: what a device gives, without a pool."""

    def __init__(self, size: int) -> None:
        self.size, self.device_id = size, current[0]


class MemoryPointer:
    """``cupy.cuda.MemoryPointer``: a place in a memory."""

    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self.offset = mem, offset


def is_page_locked(address: int) -> bool:
    return any(low <= address < low + len(held) for low, held in _page_locked.items())


# ------------------------------------------------------------------- streams and events
class Stream:
    """``cupy.cuda.Stream``."""

    null: Any

    def __init__(
        self, null: bool = False, non_blocking: bool = False, priority: Any = None
    ) -> None:
        self.ptr = 0 if null else id(self)
        self.is_non_blocking = non_blocking
        self.waited: list[Event] = []
        self.waited_for: list[Stream] = []  # where these had been recorded
        self.capture: Capture | None = None

    @property
    def done(self) -> bool:
        if self.capture is not None:
            self.capture.invalid = True
        return self.capture is None

    def __enter__(self) -> Stream:
        of_thread.streams.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        of_thread.streams.pop()

    def use(self) -> Stream:
        of_thread.streams[-1:] = [self]
        return self

    def synchronize(self) -> None:
        if self.capture is not None:
            raise self.capture.refuse(
                "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is "
                "capturing"
            )

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if event.recorded is not None and event.capture is not self.capture:
            capture = self.capture or event.capture
            assert capture is not None
            raise capture.refuse(
                "cudaErrorStreamCaptureIsolation: dependency created on uncaptured work in "
                "another stream"
            )
        self.waited.append(event)
        self.waited_for.append(event.recorded)

    # -- capture
    def begin_capture(self, mode: Any = None) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.capture is not None:
            raise self.capture.refuse("cudaErrorIllegalState: the stream captures already")
        self.capture = Capture()
        if not self.is_non_blocking:
            _blocking.append(self)

    def end_capture(self) -> Graph:
        capture, self.capture = self.capture, None
        if self in _blocking:
            _blocking.remove(self)
        if capture is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream does not capture")
        if capture.invalid:
            raise CUDARuntimeError(INVALIDATED)
        return Graph(capture, get_current_stream)

    def is_capturing(self) -> bool:
        return self.capture is not None


_blocking: list[Stream] = []  # that capture
Stream.null = Stream(null=True)


def get_current_stream() -> Stream:
    return of_thread.streams[-1] if of_thread.streams else Stream.null


def capturing() -> Capture | None:
    """What the current stream captures; an error where its work would break another's capture."""
    stream = get_current_stream()
    if stream.ptr == 0 and _blocking:
        capture = _blocking[0].capture
        assert capture is not None
        raise capture.refuse("cudaErrorStreamCaptureImplicit: a blocking stream is capturing")
    return stream.capture


def refuse_to_wait(why: str) -> None:
    """An error if the current stream captures: the host can wait for nothing then."""
    capture = capturing()
    if capture is not None:
        raise capture.refuse(why)


def refuse_copies(which: str) -> None:
    """CuPy's own error, before CUDA is asked, if the current stream captures."""
    if capturing() is not None:
        raise RuntimeError(f"the current stream is capturing, so {which} are disallowed")


class Event:
    """``cupy.cuda.Event``."""

    done = True

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        self.recorded: Any = None
        self.capture: Capture | None = None

    def record(self, stream: Any = None) -> None:
        self.recorded = get_current_stream() if stream is None else stream
        self.capture = self.recorded.capture

    def synchronize(self) -> None:
        if self.capture is not None:
            raise self.capture.refuse("cudaErrorCapturedEvent: the event is part of a capture")


class CompileException(Exception):  # noqa: N818
    """``cupy.cuda.compiler.CompileException``."""


def _properties(index: int) -> dict[str, Any]:
    return {
        "name": b"Stand-in", "major": 9, "minor": 0, "totalGlobalMem": CAPACITY,
        "multiProcessorCount": 4, "warpSize": 32, "maxThreadsPerMultiProcessor": 2048,
        "sharedMemPerBlock": 49152, "l2CacheSize": 1 << 20,
    }  # fmt: skip


CUDA = types.SimpleNamespace(
    Device=Device,
    Stream=Stream,
    Event=Event,
    Graph=Graph,
    MemoryHook=MemoryHook,
    MemoryPool=MemoryPool,
    Memory=Memory,
    MemoryPointer=MemoryPointer,
    UnownedMemory=UnownedMemory,
    compiler=types.SimpleNamespace(CompileException=CompileException),
    memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    get_allocator=get_allocator,
    set_allocator=set_allocator,
    using_allocator=using_allocator,
    is_available=lambda: True,
    get_current_stream=get_current_stream,
    get_elapsed_time=lambda start, end: 0.5,
    runtime=types.SimpleNamespace(
        memoryTypeHost=1,
        CUDARuntimeError=CUDARuntimeError,
        getDevice=lambda: current[0],
        getDeviceCount=lambda: COUNT,
        deviceCanAccessPeer=lambda device, peer: int(device != peer),
        getDeviceProperties=_properties,
        driverGetVersion=lambda: 12090,
        runtimeGetVersion=lambda: 12090,
        memGetInfo=lambda: (CAPACITY - pool.total_bytes(), CAPACITY),
        pointerGetAttributes=lambda address: types.SimpleNamespace(
            type=int(is_page_locked(address))
        ),
    ),
)


def reset(monkeypatch: Any) -> None:
    """The state of a fresh process, until the test ends."""
    current[0] = 0
    _allocator[:] = [pool.malloc]
    of_thread.allocators, of_thread.streams = [], []
    _blocking.clear()
    monkeypatch.setattr(MemoryHook, "entered", [])
    if max(pool.used) > CAPACITY // 4:
        gc.collect()  # workspaces of products, which earlier tests' libraries hold in cycles
    for held in (pool, pinned_pool):
        held.reserved[:] = held.used
        held.limits[:] = [0] * MOST
