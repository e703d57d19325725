"""Where the time of a program goes: ops, backward, kernels, in counts, times and bytes.

Off, it costs nothing: see `gradlite.profiler.instruments`.
"""

from gradlite.profiler.averages import EventAverage, EventList
from gradlite.profiler.events import Event
from gradlite.profiler.session import ProfilerActivity, profile, record_function

__all__ = [
    "Event",
    "EventAverage",
    "EventList",
    "ProfilerActivity",
    "profile",
    "record_function",
]
