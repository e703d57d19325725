"""Variable: what Tensors that require grad were called once; kept for old programs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from gradlite.graph import current_pass
from gradlite.ops.creation import empty
from gradlite.tensor import Tensor


class _Engine:
    """What old programs find as ``Variable._execution_engine``."""

    @staticmethod
    def queue_callback(callback: Callable[[], Any]) -> None:
        """Call a function when the backward pass that runs is over, after all of its hooks.

        Raises:
            RuntimeError: no backward pass runs.
        """
        running = current_pass()
        if running is None:
            raise RuntimeError("Final callbacks can only be installed during backward pass.")
        if running.callbacks is None:
            running.callbacks = []
        running.callbacks.append(callback)


class _AnyTensor(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor)


class Variable(metaclass=_AnyTensor):
    """``Variable(tensor, requires_grad)`` is an alias of the tensor; every Tensor is an instance.

    >>> import gradlite
    >>> gradlite.autograd.Variable(gradlite.ones(2), requires_grad=True)
    tensor([1., 1.], requires_grad=True)
    """

    _execution_engine = _Engine()

    def __new__(
        cls, data: Tensor | None = None, requires_grad: bool = False, volatile: bool = False
    ) -> Any:
        if volatile:
            warnings.warn(
                "volatile was removed and now has no effect. Use `with gradlite.no_grad():` "
                "instead.",
                stacklevel=2,
            )
            if requires_grad:
                raise ValueError("Variable can't be volatile and require_grad at the same time!")
        if data is None:
            data = empty(0)
        if not isinstance(data, Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {data.__class__.__name__}")
        return data.detach().requires_grad_(requires_grad)
