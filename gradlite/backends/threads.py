"""The threads of compiled code: `set_num_threads`, and who runs the chunks of its loops.

They are threads of this module alone, which wait asleep; NumPy's BLAS has others of its own.
"""

from __future__ import annotations

import builtins
import ctypes
import os
import subprocess
from contextlib import suppress
from importlib.resources import files
from typing import Any

from gradlite.backends import native

__all__ = ["get_num_threads", "set_flush_denormal", "set_num_threads"]

VARIABLES = ("GRADLITE_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MOST = 64


def _at_first() -> int:
    """What the environment asks for, or the processors that this process may use."""
    for name in VARIABLES:
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 0:
            return min(int(value), MOST)
    with suppress(AttributeError):  # there on Linux alone
        return min(len(os.sched_getaffinity(0)), MOST)
    return min(os.cpu_count() or 1, MOST)


class _Team:
    """The compiled threads, made when the first compiled code wants them."""

    def __init__(self) -> None:
        self.count: int | None = None
        self.library: ctypes.CDLL | None = None
        self.failed = False

    def load(self) -> ctypes.CDLL | None:
        if self.library is None and not self.failed:
            try:
                text = files("gradlite.backends").joinpath("team.hpp").read_text("utf-8")
                self.library = ctypes.CDLL(str(native.build("team", text, ("-pthread",))))
            except (RuntimeError, OSError, subprocess.SubprocessError):
                self.failed = True  # without them everything runs in the caller's thread
                return None
            self.library.gradlite_threads.argtypes = [ctypes.c_int]
            self.library.gradlite_threads.restype = None
            self.library.gradlite_threads(get_num_threads())
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self.forked)
        return self.library

    def forked(self) -> None:
        assert self.library is not None
        self.library.gradlite_forked()
        self.count = 1


_team = _Team()


def use_threads(library: Any) -> None:
    """Let the loops of compiled code (those of `parallel` in prelude.hpp) run on the threads."""
    team = _team.load()
    if team is not None:
        count = ctypes.addressof(ctypes.c_int.in_dll(team, "gradlite_count"))
        library.gradlite_use.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        library.gradlite_use.restype = None
        library.gradlite_use(ctypes.cast(team.gradlite_run, ctypes.c_void_p), count)


def get_num_threads() -> int:
    """How many threads compiled code may run on, the caller's included.

    >>> import gradlite
    >>> gradlite.get_num_threads() >= 1
    True
    """
    if _team.count is None:
        _team.count = _at_first()
    return _team.count


def set_num_threads(int: builtins.int) -> None:  # PyTorch's name for it
    """Set how many threads compiled code may run on: captured steps, and large convolutions.

    Only work above some ten microseconds is shared out, and no result depends on the number but
    for the weight gradients of convolutions, which are sums of one part for each thread. At first
    it is what ``GRADLITE_NUM_THREADS`` or ``OMP_NUM_THREADS`` says, or the number of processors.
    NumPy's matrix products have threads of their own: set ``OPENBLAS_NUM_THREADS``.

    Raises:
        RuntimeError: the number is no integer, or not positive.

    >>> import gradlite
    >>> before = gradlite.get_num_threads()
    >>> gradlite.set_num_threads(1)
    >>> gradlite.get_num_threads()
    1
    >>> gradlite.set_num_threads(before)
    """
    number = int  # which hides the type
    if type(number) is not builtins.int:
        raise RuntimeError(f"set_num_threads expects an int, but got {type(number).__name__}")
    if number <= 0:
        raise RuntimeError("set_num_threads expects a positive integer")
    _team.count = min(number, MOST)
    if _team.library is not None:
        _team.library.gradlite_threads(_team.count)


def set_flush_denormal(mode: bool) -> bool:
    """Let this thread take denormal numbers (below 1.2e-38 in float32) for zero, or keep them.

    It holds for all arithmetic of the thread that calls it: NumPy's, that of compiled code on its
    threads, and Python's own. Threads started later begin as it is then. Processors compute slowly
    with denormal numbers, which averages end as where nothing comes in any more. At first they are
    kept.

    Returns:
        Whether that is possible: on x86-64 and 64-bit ARM, where there is a C++ compiler.

    Raises:
        RuntimeError: the mode is no bool.

    >>> import gradlite
    >>> possible = gradlite.set_flush_denormal(False)
    """
    if mode.__class__ is not bool:
        raise RuntimeError(f"flush_denormal expects a bool, but got {type(mode).__name__}")
    team = _team.load()
    return team is not None and bool(team.gradlite_flush(mode))
