"""Anomaly mode: find the forward line whose gradient became NaN."""

from __future__ import annotations

import warnings
from typing import Any

from gradlite import changes, graph


def _switch(enabled: bool, check_nan: bool) -> tuple[bool, bool]:
    """Set both parts of the mode; what they were before."""
    previous = graph.anomaly_enabled, graph.anomaly_check_nan
    graph.anomaly_enabled, graph.anomaly_check_nan = enabled, check_nan
    changes.count[0] += 1
    return previous


class set_detect_anomaly:
    """Switch anomaly mode: at once as a function, for a block as a context manager.

    While on, every node remembers where it was made, and backward raises when a rule returns
    NaN (``check_nan``), naming that place. It slows everything down.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._previous = _switch(bool(mode), bool(check_nan))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        _switch(*self._previous)


class detect_anomaly:
    """`set_detect_anomaly` for a block only, with a warning that it costs time."""

    def __init__(self, check_nan: bool = True) -> None:
        self._check_nan = check_nan
        self._previous: Any = None
        warnings.warn(
            "Anomaly Detection has been enabled. This mode will increase the runtime and should "
            "only be enabled for debugging.",
            stacklevel=2,
        )

    def __enter__(self) -> None:
        self._previous = _switch(True, self._check_nan)

    def __exit__(self, *exc: object) -> None:
        _switch(*self._previous)


def is_anomaly_enabled() -> bool:
    """Whether anomaly mode is on."""
    return graph.anomaly_enabled


def is_anomaly_check_nan_enabled() -> bool:
    """Whether anomaly mode looks for NaNs."""
    return graph.anomaly_check_nan
