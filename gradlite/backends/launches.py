"""Which kernels were launched: the names, for tests, tables and profiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

recordings: list[list[str]] = []


@contextmanager
def record() -> Iterator[list[str]]:
    """Context manager: the names of the kernels launched inside, in order, by any launcher."""
    names: list[str] = []
    recordings.append(names)
    try:
        yield names
    finally:
        recordings[:] = [r for r in recordings if r is not names]


def note(name: str) -> None:
    """Enter a launch in what `record` lists."""
    for names in recordings:
        names.append(name)
