"""Variable: what Tensors that require grad were called once; kept for old programs."""

from __future__ import annotations

from typing import Any

from gradlite.tensor import Tensor


class _AnyTensor(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor)


class Variable(metaclass=_AnyTensor):
    """``Variable(tensor, requires_grad)`` is an alias of the tensor; every Tensor is an instance.

    >>> import gradlite
    >>> gradlite.autograd.Variable(gradlite.ones(2), requires_grad=True)
    tensor([1., 1.], requires_grad=True)
    """

    def __new__(cls, data: Tensor, requires_grad: bool = False) -> Any:
        return data.detach().requires_grad_(requires_grad)
