"""Events of one name taken together, and how they are shown: a table, a trace."""

from __future__ import annotations

import json
import os
from typing import Any

from gradlite.io.files import replacing
from gradlite.profiler.events import RANGE, Event


class EventAverage:
    """The events of one name. Times are in microseconds.

    Attributes:
        key: the name.
        count: how many events.
        cpu_time_total: the time of the host from their begin to their end.
        self_cpu_time_total: that outside of other events.
        device_time_total: the time of the GPU of the kernels launched inside.
        bytes: of the arrays they read and wrote.
        launches: of kernels.
        input_shapes: the shapes they were given, where events were grouped by them.
    """

    def __init__(self, key: str, input_shapes: tuple[tuple[int, ...], ...] = ()) -> None:
        self.key, self.input_shapes = key, input_shapes
        self.count = self.bytes = self.launches = 0
        self.cpu_time_total = self.self_cpu_time_total = self.device_time_total = 0.0
        self.is_range = True

    def add(self, event: Event) -> None:
        """Take in one more event."""
        self.count += 1
        self.bytes += event.bytes
        self.launches += event.launches
        self.cpu_time_total += event.duration / 1000
        self.self_cpu_time_total += event.self_duration / 1000
        self.device_time_total += event.device_time * 1000
        self.is_range = self.is_range and event.kind == RANGE

    @property
    def cpu_time(self) -> float:
        """The mean time of one."""
        return self.cpu_time_total / self.count

    @property
    def device_time(self) -> float:
        """The mean time of the GPU of one."""
        return self.device_time_total / self.count

    cuda_time_total = property(lambda self: self.device_time_total)
    cuda_time = property(lambda self: self.device_time)

    def __repr__(self) -> str:
        return f"<EventAverage {self.key}: {self.count} calls, {self.cpu_time_total:.1f} us>"


SORTABLE = (
    "cpu_time", "cpu_time_total", "self_cpu_time_total", "cuda_time", "cuda_time_total",
    "device_time", "device_time_total", "count", "bytes", "launches", "key",
)  # fmt: skip


class EventList(list[Any]):
    """Events, or averages of them."""

    def key_averages(self, group_by_input_shape: bool = False) -> EventList:
        """The events of each name, or of each name and shapes, together."""
        found: dict[Any, EventAverage] = {}
        for event in self:
            shapes = event.input_shapes if group_by_input_shape else ()
            average = found.get((event.name, shapes))
            if average is None:
                average = found[event.name, shapes] = EventAverage(event.name, shapes)
            average.add(event)
        return EventList(found.values())

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of the host inside of any event."""
        averages = self if not self or isinstance(self[0], EventAverage) else self.key_averages()
        return sum(average.self_cpu_time_total for average in averages)

    def table(
        self,
        sort_by: str | None = None,
        row_limit: int = 100,
        max_name_column_width: int = 55,
    ) -> str:
        """The averages as plain text.

        Args:
            sort_by: an attribute of `EventAverage`, the largest first; default: as they came.
            row_limit: how many rows are shown; -1: all.
            max_name_column_width: longer names are cut.

        Raises:
            ValueError: nothing can be sorted by that.
        """
        averages = self if not self or isinstance(self[0], EventAverage) else self.key_averages()
        rows = list(averages)
        if sort_by is not None:
            if sort_by not in SORTABLE:
                raise ValueError(f"cannot sort by {sort_by!r}; known are {', '.join(SORTABLE)}")
            rows.sort(key=lambda row: getattr(row, sort_by), reverse=sort_by != "key")
        total = sum(row.self_cpu_time_total for row in rows)
        device_total = max((row.device_time_total for row in rows), default=0.0)
        launches = any(row.launches for row in rows)
        shapes = any(row.input_shapes for row in rows)
        header = ["Name", "Self CPU %", "Self CPU", "CPU total", "CPU time avg", "# of Calls"]
        header.append("Bytes")
        header += ["Launches"] * launches + ["CUDA total"] * (device_total > 0)
        header += ["Input Shapes"] * shapes
        lines = [header]
        for row in rows if row_limit < 0 else rows[:row_limit]:
            cells = [
                _cut(row.key, max_name_column_width),
                f"{100 * row.self_cpu_time_total / total if total else 0:.1f}%",
                _time(row.self_cpu_time_total),
                _time(row.cpu_time_total),
                _time(row.cpu_time),
                str(row.count),
                "" if row.is_range else _bytes(row.bytes),
            ]
            cells += [str(row.launches)] * launches
            cells += [_time(row.device_time_total)] * (device_total > 0)
            cells += [str([list(shape) for shape in row.input_shapes])] * shapes
            lines.append(cells)
        return f"{_aligned(lines)}\nSelf CPU time total: {_time(total)}"

    def export_chrome_trace(self, path: str | os.PathLike[str], shapes: bool = False) -> None:
        """Write events in the format of chrome://tracing."""
        process = os.getpid()
        entries: list[dict[str, Any]] = []
        for event in self:
            more: dict[str, Any] = {"bytes": event.bytes, "launches": event.launches}
            if event.device_time:
                more["device time (us)"] = event.device_time * 1000
            if shapes:
                more["Input Dims"] = [list(shape) for shape in event.input_shapes]
            entries.append(
                {
                    "ph": "X",
                    "cat": event.kind,
                    "name": event.name,
                    "pid": process,
                    "tid": event.thread,
                    "ts": event.start / 1000,
                    "dur": event.duration / 1000,
                    "args": more,
                }
            )
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump({"traceEvents": entries, "displayTimeUnit": "ms"}, file)


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in (rows[0], rule, *rows[1:], rule)
    )


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 3]}..."


def _time(us: float) -> str:
    """Microseconds with a unit that suits them."""
    if us >= 1e6:
        return f"{us / 1e6:.3f}s"
    return f"{us / 1e3:.3f}ms" if us >= 1e3 else f"{us:.3f}us"


def _bytes(count: int) -> str:
    """A number of bytes with a unit that suits it."""
    for unit, size in (("Gb", 1 << 30), ("Mb", 1 << 20), ("Kb", 1 << 10)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} b"
