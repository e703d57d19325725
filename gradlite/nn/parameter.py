"""Parameter and Buffer: tensors that a module registers when they are assigned to it."""

from __future__ import annotations

from typing import Any

from gradlite.tensor import Tensor, make

__all__ = ["Buffer", "Parameter"]


class Parameter(Tensor):
    """A tensor that a `Module` lists among its parameters when assigned as an attribute.

    Args:
        data: the values; the parameter shares their memory and starts a graph of its own.
        requires_grad: whether to compute gradients for it, also under `no_grad`.

    Raises:
        RuntimeError: the dtype is not a floating one and ``requires_grad`` is True.

    >>> import gradlite
    >>> Parameter(gradlite.ones(2))
    Parameter containing:
    tensor([1., 1.], requires_grad=True)
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Any:
        source = Tensor() if data is None else data.detach()
        parameter = make(cls, source.array)
        parameter._counter = source._counter
        return parameter.requires_grad_(requires_grad)

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        """Everything is done in ``__new__``; the signature is for readers and editors."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            twin = make(type(self), self.array.copy(order="K")).requires_grad_(self.requires_grad)
            memo[id(self)] = twin
        return memo[id(self)]

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class _BufferMeta(type):
    # A buffer stays a plain Tensor, so that results of ops on it are no buffers.
    def __instancecheck__(cls, instance: Any) -> bool:
        return is_buffer(instance)


class Buffer(Tensor, metaclass=_BufferMeta):
    """A tensor that a `Module` lists among its buffers when assigned as an attribute.

    The result is a plain `Tensor` marked as a buffer.

    Args:
        data: the values; the buffer shares their memory.
        persistent: whether it is part of the module's `state_dict`.
    """

    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Any:
        source = Tensor() if data is None else data
        buffer = source.detach().requires_grad_(source.requires_grad)
        buffer.persistent = persistent
        buffer._is_buffer = True
        return buffer


def is_buffer(value: Any) -> bool:
    """Whether a value was made by `Buffer`."""
    return isinstance(value, Tensor) and "_is_buffer" in value.__dict__
