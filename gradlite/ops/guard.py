"""Several GPUs: what runs, runs on the GPU of the arrays it is given.

CuPy computes on the current device, wherever the arrays are. Where there is more than one GPU,
every op gets a twin that looks at its arrays and, if they are elsewhere, makes their device the
current one for as long as it runs; arrays of two devices are PyTorch's error. Where there is one,
nothing of this is on the way of an op.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from gradlite.tensor import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])

MIXED = (
    "Expected all tensors to be on the same device, but found at least two devices, {} and {}! "
    "Move one with .to('{}')."
)
_nowhere: AbstractContextManager[Any] = nullcontext()


class Guard:
    """Makes functions run on the device of their arrays.

    Args:
        xp: CuPy.
    """

    def __init__(self, xp: Any) -> None:
        self.array, self.device = xp.ndarray, xp.cuda.Device
        self.current = xp.cuda.runtime.getDevice

    def place(self, *values: Any) -> int | None:
        """The number of the device where all arrays among the values are; None without arrays.

        Raises:
            RuntimeError: they are on several.
        """
        found: int | None = None
        for value in values:
            if value.__class__ is self.array:
                here = value.device.id
            elif isinstance(value, Tensor):
                here = self.place(value.array)
            elif value.__class__ is list or value.__class__ is tuple:
                here = self.place(*value)
            else:
                continue
            if found is None:
                found = here
            elif here is not None and here != found:
                raise RuntimeError(MIXED.format(f"cuda:{found}", f"cuda:{here}", f"cuda:{found}"))
        return found

    def on(self, *values: Any) -> AbstractContextManager[Any]:
        """A context in which the device of the arrays is the current one."""
        place = self.place(*values)
        return _nowhere if place is None or place == self.current() else self.device(place)

    def forward(self, function: Any) -> Any:
        """An op's forward, guarded."""

        def forward(xp: Any, *args: Any) -> Any:
            with self.on(*args):
                return function(xp, *args)

        return forward

    def backward(self, function: Any) -> Any:
        """An op's rule, guarded."""

        def backward(ctx: Any, grad: Any, F: Any) -> Any:
            with self.on(grad):
                return function(ctx, grad, F)

        return backward

    def call(self, function: Any) -> Any:
        """Any function of arrays, guarded."""

        def call(*args: Any) -> Any:
            with self.on(*args):
                return function(*args)

        return call


several: Guard | None = None  # where there are several GPUs


def on(*values: Any) -> AbstractContextManager[Any]:
    """A context in which the device of the arrays and Tensors is the current one."""
    return _nowhere if several is None else several.on(*values)


def at(device: Any) -> AbstractContextManager[Any]:
    """A context in which the device of an array (``array.device``) is the current one."""
    if several is None or not isinstance(device, several.device):
        return _nowhere
    return device  # type: ignore[no-any-return]


def on_the_current_device(function: Function) -> Function:
    """Let a function run on the device that is the current one now, wherever it is called."""
    if several is None:
        return function
    device = several.device(several.current())

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with device:
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def fill(array: Any, value: Any) -> None:
    """``array[...] = value``, on the array's device."""
    if several is None:
        array[...] = value
    else:
        with several.on(array):
            array[...] = value


def on_its_device(function: Function) -> Function:
    """Let a function that is no op compute on the device of the arrays and Tensors it is given."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if several is None:
            return function(*args, **kwargs)
        with several.on(*args, *kwargs.values()):
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]
