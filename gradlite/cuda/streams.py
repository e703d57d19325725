"""Streams, the queues of work of a GPU, and events, marks in them.

A backward pass is ordered like any other work of the current stream, whatever streams the ops that
it goes back over ran on: it waits for those, and what is asked of them later waits for it, since
the memory that it has read is theirs. The rules themselves run on the current stream.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gradlite import graph
from gradlite.backends import asserts
from gradlite.backends.cpu import loud, quiet
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
    _may_hold_ops(stream.device_index, cupy.cuda.get_current_stream())
    stream.cupy_stream.use()
    _may_hold_ops(stream.device_index, stream.cupy_stream)


def is_current_stream_capturing() -> bool:
    """Whether what is asked of the GPU now becomes part of a graph, and is not done."""
    return is_initialized() and bool(cupy_module().cuda.get_current_stream().is_capturing())


@contextmanager
def stream(stream: Stream | None) -> Iterator[None]:
    """Context manager: work inside the block goes to a stream; None changes nothing.

    A backward pass that is started elsewhere waits for the ops that were recorded inside.
    """
    if stream is None:
        yield
        return
    cupy = cupy_module()
    with cupy.cuda.Device(stream.device_index):
        _may_hold_ops(stream.device_index, cupy.cuda.get_current_stream())
        first = graph.next_sequence_number()
        try:
            with stream.cupy_stream:
                yield
        finally:
            # Not where nothing was recorded: copies of the next batch go on while a pass runs.
            if graph.next_sequence_number() > first + 1:
                _may_hold_ops(stream.device_index, stream.cupy_stream)


# --------------------------------------------------------------------------- backward passes
# By device and address: those on which a pass may find what it reads.
_with_ops: weakref.WeakValueDictionary[tuple[int, int], Any] = weakref.WeakValueDictionary()


def _may_hold_ops(index: int, cupy_stream: Any) -> None:
    graph.quiet, graph.loud = _begin_pass, _end_pass  # programs with one stream do without
    _with_ops[index, cupy_stream.ptr] = cupy_stream


def _begin_pass() -> Any:
    _order(pass_waits=True)
    return quiet()


def _end_pass(token: Any) -> None:
    loud(token)
    _order(pass_waits=False)


def _order(pass_waits: bool) -> None:
    """Let the current streams wait for those with ops, or these for the current ones."""
    cupy = cupy_module()
    for (index, _), other in list(_with_ops.items()):
        with cupy.cuda.Device(index):
            here = cupy.cuda.get_current_stream()
            # A captured stream is ordered with others of its capture alone.
            if here.ptr == other.ptr or here.is_capturing() != other.is_capturing():
                continue
            first, then = (other, here) if pass_waits else (here, other)
            then.wait_event(first.record(cupy.cuda.Event(disable_timing=True)))
