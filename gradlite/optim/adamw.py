"""PyTorch's place of `AdamW`, for programs that import it from there."""

from gradlite.optim.adam import AdamW

__all__ = ["AdamW"]
