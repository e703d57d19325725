"""The profile itself: a context manager that collects events, and the user's own ranges."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any

from gradlite.backends import cuda as backend
from gradlite.profiler import events
from gradlite.profiler.averages import EventList
from gradlite.profiler.events import RANGE, Event, begin, end
from gradlite.profiler.instruments import INSTRUMENTS


class ProfilerActivity(enum.Enum):
    """What a profile looks at."""

    CPU = "cpu"
    CUDA = "cuda"


class profile:
    """Context manager: counts and times what runs inside, in all threads.

    Listed are the forward and the gradient of every op, kernels that gradlite launches, and the
    ranges they run in: backward passes, steps of optimizers, captured steps, `record_function`.
    Factories and random numbers are not. Times are of the host's wall clock; the profile adds a
    few microseconds to each event, outside of its own time but inside that of the events around
    it. A recording or a replay of a captured step is one event. On a GPU kernels run after they
    have been launched: their times, from CUDA events, are the column "CUDA". While no profile is
    on, nothing on the path of an op is different from a library without this module. Profiles may
    be nested and may overlap in several threads: each sees all.

    Args:
        activities: `ProfilerActivity` values; default: CPU, and CUDA where it is available.
        record_shapes: keep the shapes of the arrays that ops are given.

    Raises:
        RuntimeError: it begins or ends inside a captured step, or is on already.

    >>> import gradlite
    >>> from gradlite import nn
    >>> from gradlite.profiler import profile, record_function
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    >>> with profile() as prof:
    ...     with record_function("loss"):
    ...         loss = model(gradlite.ones(4, 8)).square().mean()
    ...     loss.backward()
    >>> averages = {average.key: average for average in prof.key_averages()}
    >>> averages["linear"].count, averages["AddmmBackward0"].count, averages["relu"].bytes
    (2, 2, 512)
    >>> print(prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=3))
    Name      Self CPU %   Self CPU  CPU total  CPU time avg  # of Calls    Bytes
    --------...
    Self CPU time total: ...
    """

    def __init__(
        self,
        *,
        activities: Iterable[ProfilerActivity] | None = None,
        record_shapes: bool = False,
    ) -> None:
        self._activities = set(ProfilerActivity if activities is None else activities)
        self._shapes = record_shapes
        self._events: list[Event] = []
        self._on = self._timing = False

    def start(self) -> None:
        """Begin; what an earlier use has collected is forgotten."""
        if self._on:
            raise RuntimeError("this profile is on already: make another one to nest them")
        timing = ProfilerActivity.CUDA in self._activities and backend.status()[0]
        INSTRUMENTS.enter(timing)
        self._events, self._on, self._timing = [], True, timing
        events.listeners.append(self._events)

    def stop(self) -> None:
        """End; waits for the GPU where kernels have been timed."""
        if not self._on:
            raise RuntimeError("this profile is not on")
        INSTRUMENTS.leave(self._timing)
        self._on = False
        events.listeners[:] = [e for e in events.listeners if e is not self._events]
        if self._timing:
            _read_marks(self._events)

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def events(self) -> EventList:
        """What ran, in the order in which it ended."""
        found = self._events
        if ProfilerActivity.CPU not in self._activities:
            found = [event for event in found if event.marks is not None]
        return EventList(found)

    def key_averages(self, group_by_input_shape: bool = False) -> Any:
        """The events of each name together; also of each list of shapes, with ``record_shapes``."""
        return self.events().key_averages(group_by_input_shape and self._shapes)

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the events as a file that chrome://tracing and ui.perfetto.dev show.

        The file has its name when it is complete, and not before.
        """
        self.events().export_chrome_trace(path, self._shapes)


def _read_marks(found: list[Event]) -> None:
    """Turn the marks around kernels into times of the GPU, for them and all around them."""
    cuda = backend.module().cuda
    for event in found:
        if event.marks is not None:
            start, stop = event.marks
            stop.synchronize()
            time = float(cuda.get_elapsed_time(start, stop))
            for each in (event, *event.ancestors()):
                each.device_time += time


class record_function(ContextDecorator):
    """Context manager and decorator: a range of one's own in a profile, and nothing without one.

    Args:
        name: what the profile calls it.
        args: said beside the name, where given.

    >>> from gradlite.profiler import profile, record_function
    >>> @record_function("halve")
    ... def halve(x):
    ...     return x / 2
    >>> with profile() as prof:
    ...     _ = halve(3), halve(4)
    >>> [(average.key, average.count) for average in prof.key_averages()]
    [('halve', 2)]
    """

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name if args is None else f"{name}: {args}"
        self._open: Event | None = None

    def _recreate_cm(self) -> record_function:
        return record_function(self.name)

    def __enter__(self) -> record_function:
        self._open = begin(self.name, RANGE) if events.listeners else None
        return self

    def __exit__(self, *exc: object) -> None:
        if self._open is not None:
            end(self._open)
            self._open = None
