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

from collections.abc import Callable
from typing import Any, NoReturn

__all__ = [
    "all_gather",
    "all_reduce",
    "barrier",
    "broadcast",
    "destroy_process_group",
    "get_backend",
    "get_rank",
    "get_world_size",
    "init_process_group",
    "is_available",
    "is_initialized",
    "new_group",
    "reduce",
]


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


def destroy_process_group(group: Any = None) -> NoReturn:
    """The end of a group of processes.

    Raises:
        AssertionError: always: there is no group.
    """
    raise AssertionError("Process group cannot be None")


def _of_a_group(name: str, does: str) -> Callable[..., NoReturn]:
    """A function that programs import, and call where a group has been made."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(_NO_GROUP)

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = f"""{does}.

    Raises:
        ValueError: always: there is no group.
    """
    return refuse


all_gather = _of_a_group("all_gather", "A tensor of every process, in a list")
all_reduce = _of_a_group("all_reduce", "The sum over the processes, in place")
barrier = _of_a_group("barrier", "Wait for the other processes")
broadcast = _of_a_group("broadcast", "The tensor of one process, in all")
get_backend = _of_a_group("get_backend", "What the processes communicate by")
get_rank = _of_a_group("get_rank", "The place of this process among others")
get_world_size = _of_a_group("get_world_size", "The number of processes")
new_group = _of_a_group("new_group", "A group of some of the processes")
reduce = _of_a_group("reduce", "The sum over the processes, in one of them")


_NO_GROUP = (
    "Default process group has not been initialized, please make sure to call init_process_group."
)
