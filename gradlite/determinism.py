"""Whether ops have to give the same bits at every run."""

from __future__ import annotations

from gradlite import changes

_mode = False
_warn_only = False


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Have every op give the same bits at every run, or let faster ones vary in the last bits.

    It concerns repeated indices on a GPU: the order of the terms of sums is fixed then, and of what
    is written to one place the last stays. All other ops are deterministic always, and so is the
    CPU.

    Args:
        mode: whether from now on, in all threads.
        warn_only: accepted for PyTorch's sake; there is no op that could not follow.

    >>> import gradlite
    >>> gradlite.use_deterministic_algorithms(True)
    >>> gradlite.are_deterministic_algorithms_enabled()
    True
    >>> gradlite.use_deterministic_algorithms(False)
    """
    global _mode, _warn_only
    changes.count[0] += 1
    _mode, _warn_only = bool(mode), bool(warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """Whether ops give the same bits at every run."""
    return _mode


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """What `use_deterministic_algorithms` was given as ``warn_only``."""
    return _warn_only
