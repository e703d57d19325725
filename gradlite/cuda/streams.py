"""Streams, the queues of work of a GPU, and events, marks in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gradlite.backends import asserts
from gradlite.backends.cuda import module as cupy_module
from gradlite.cuda.devices import DeviceLike, index_of, is_initialized
from gradlite.device import device as Device


class Event:
    """A mark in a stream, to wait for or to measure the time between.

    Raises:
        RuntimeError: CUDA cannot be used.
    """

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        self.cupy_event = cupy_module().cuda.Event(
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
        asserts.check()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds of the GPU between this mark and a later one; both measure time."""
        return float(cupy_module().cuda.get_elapsed_time(self.cupy_event, end_event.cupy_event))


class Stream:
    """A queue of work on a GPU, beside the default one.

    Raises:
        RuntimeError: CUDA cannot be used.
    """

    def __init__(self, device: DeviceLike = None, priority: int = 0) -> None:
        cupy = cupy_module()
        index = index_of(device, cupy)
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
        asserts.check()

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
    cupy = cupy_module()
    index = index_of(device, cupy)
    with cupy.cuda.Device(index):
        return _around(cupy.cuda.get_current_stream(), index)


def default_stream(device: DeviceLike = None) -> Stream:
    """The stream that takes up a GPU's work unless another is chosen."""
    cupy = cupy_module()
    return _around(cupy.cuda.Stream.null, index_of(device, cupy))


def set_stream(stream: Stream) -> None:
    """Let a stream take up this thread's work from here on, on its GPU; `stream` is preferred."""
    cupy = cupy_module()
    cupy.cuda.Device(stream.device_index).use()
    stream.cupy_stream.use()


def is_current_stream_capturing() -> bool:
    """Whether what is asked of the GPU now becomes part of a graph, and is not done."""
    return is_initialized() and bool(cupy_module().cuda.get_current_stream().is_capturing())


@contextmanager
def stream(stream: Stream | None) -> Iterator[None]:
    """Context manager: work inside the block goes to a stream; None changes nothing."""
    if stream is None:
        yield
        return
    cupy = cupy_module()
    with cupy.cuda.Device(stream.device_index), stream.cupy_stream:
        yield
