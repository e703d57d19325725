"""PyTorch's place of `Module`, for programs that import it from there."""

from gradlite.nn.module import Module

__all__ = ["Module"]
