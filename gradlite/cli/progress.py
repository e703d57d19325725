"""The live bar of an epoch, and Ctrl-C that waits for the end of a step."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from gradlite.cli.errors import missing, optional

REFRESH_SECONDS = 0.1


class Bar:
    """A progress bar over the steps of one epoch; nothing where stderr is no terminal.

    Args:
        description: what stands before the bar.
        done, total: the steps taken and to take.
        scores: the text after the bar, asked for only when the bar is drawn, because on a GPU the
            answer waits for the device.
    """

    def __init__(self, description: str, done: int, total: int, scores: Callable[[], str]) -> None:
        self.scores = scores
        self.drawn = 0.0
        self.bar: Any = None
        if sys.stderr.isatty() and (tqdm := optional("tqdm")) is not None:
            self.bar = tqdm.tqdm(
                desc=description, initial=done, total=total, leave=False, dynamic_ncols=True
            )

    def step(self) -> None:
        """One step was taken."""
        if self.bar is None:
            return
        now = time.monotonic()
        if now - self.drawn > REFRESH_SECONDS:
            self.bar.set_postfix_str(self.scores(), refresh=False)
            self.drawn = now
        self.bar.update()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.close()


def note_without_bar() -> str | None:
    """What to say where a terminal could show a bar but tqdm is missing."""
    if sys.stderr.isatty() and optional("tqdm") is None:
        return missing("tqdm", "a progress bar")
    return None


class Interrupt:
    """Inside, the first Ctrl-C only sets ``requested``; a second one is a KeyboardInterrupt."""

    def __init__(self) -> None:
        self.requested = False
        self.previous: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
