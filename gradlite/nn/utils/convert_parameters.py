"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from gradlite.nn.members import type_name
from gradlite.ops.joining import cat
from gradlite.tensor import Tensor

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters flattened into one vector, through which gradients flow.

    >>> from gradlite import nn
    >>> parameters_to_vector(nn.Linear(3, 2).parameters()).shape
    gradlite.Size([8])
    """
    return cat([p.reshape(-1) for p in parameters])  # type: ignore[attr-defined]


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Let parameters be consecutive pieces of a vector, whose memory they share.

    Raises:
        TypeError: the vector is no tensor.
        RuntimeError: it is too short.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected gradlite.Tensor, but got: {type_name(vec)}")
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        piece = vec[start:stop]  # type: ignore[index]
        parameter.data = piece.reshape(parameter.shape).data
        start = stop
