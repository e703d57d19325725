"""Memory of GPUs that streams beside its own have used: kept until these are through with it.

CuPy's pool knows of one stream, that of the allocation, and gives memory away when no array refers
to it any more. Here it is held beyond that, until the GPU has passed the place which the other
streams had been filled up to by then.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

# By the id of an array that owns its memory: the streams that have used it, with their devices.
_uses: dict[int, dict[tuple[int, int], Any]] = {}
# Memory that no array refers to any more, behind the events that it waits for. What ends an array
# may be the collector, in any thread and at any time, so each use is one step of its own.
_held: deque[tuple[list[Any], Any]] = deque()


def note(cupy: Any, array: Any, stream: Any, index: int) -> None:
    """Note that a stream of a GPU uses an array's memory."""
    release(cupy)
    owner = array if array.base is None else array.base
    uses = _uses.get(id(owner))
    if uses is None:
        uses = _uses[id(owner)] = {}
        end = weakref.finalize(owner, _hold, cupy, id(owner), owner.data.mem)
        end.atexit = False
    uses[index, stream.ptr] = stream


def _hold(cupy: Any, owner: int, memory: Any) -> None:
    """Keep an array's memory, for which this is the end, until its streams have come so far."""
    events = []
    for (index, _), stream in _uses.pop(owner, {}).items():
        with cupy.cuda.Device(index):
            event = cupy.cuda.Event(disable_timing=True)
            event.record(stream)
        events.append(event)
    _held.append((events, memory))
    release(cupy)


def release(cupy: Any, wait: bool = False) -> None:
    """Let go of the memory that streams are through with; with ``wait``, of all of it."""
    if not _held or cupy.cuda.get_current_stream().is_capturing():
        return  # nothing may be asked of an event during a capture
    for _ in range(len(_held)):
        try:
            events, memory = _held.popleft()
        except IndexError:  # another thread was faster
            return
        for event in events if wait else ():
            event.synchronize()
        if not all(event.done for event in events):
            _held.append((events, memory))
