"""PyTorch's communication between processes, which there is none of here: one process, one device.

Programs and packages import the name, and ask whether it is there before they use it, as of those
builds of PyTorch that lack it.

>>> import gradlite
>>> gradlite.distributed.is_available(), gradlite.distributed.is_initialized()
(False, False)
>>> gradlite.distributed.init_process_group("gloo")
Traceback (most recent call last):
    ...
RuntimeError: gradlite runs in one process, on one device: there are no groups of processes
"""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["get_rank", "get_world_size", "init_process_group", "is_available", "is_initialized"]


def is_available() -> bool:
    """False: there are no groups of processes."""
    return False


def is_initialized() -> bool:
    """False: no group of processes has been made."""
    return False


def init_process_group(*args: Any, **kwargs: Any) -> NoReturn:
    """Does not exist.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(
        "gradlite runs in one process, on one device: there are no groups of processes"
    )


def get_rank(group: Any = None) -> NoReturn:
    """The place of this process among others.

    Raises:
        ValueError: always: there is no group.
    """
    raise ValueError(_NO_GROUP)


def get_world_size(group: Any = None) -> NoReturn:
    """The number of processes.

    Raises:
        ValueError: always: there is no group.
    """
    raise ValueError(_NO_GROUP)


_NO_GROUP = (
    "Default process group has not been initialized, please make sure to call init_process_group."
)
