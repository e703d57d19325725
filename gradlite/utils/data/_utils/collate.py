"""PyTorch's place of `default_collate` and `default_convert`."""

from gradlite.utils.data.collate import default_collate, default_convert

__all__ = ["default_collate", "default_convert"]
