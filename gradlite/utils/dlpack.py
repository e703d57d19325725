"""Memory shared with other libraries through DLPack, under PyTorch's names."""

from __future__ import annotations

from typing import Any

from gradlite.ops import creation
from gradlite.tensor import Tensor

__all__ = ["from_dlpack", "to_dlpack"]


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule of a tensor's memory, to be taken once.

    >>> import gradlite
    >>> from gradlite.utils.dlpack import from_dlpack, to_dlpack
    >>> from_dlpack(to_dlpack(gradlite.arange(3)))
    tensor([0, 1, 2])
    """
    return tensor.__dlpack__(max_version=(1, 0))  # an older one would be read-only


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor on the memory of another library's array, or of a capsule of the CPU's memory."""
    if hasattr(ext_tensor, "__dlpack__"):
        return creation.from_dlpack(ext_tensor)
    return creation.from_dlpack(_Capsule(ext_tensor))


class _Capsule:
    """A capsule as the array that it comes from."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the CPU
