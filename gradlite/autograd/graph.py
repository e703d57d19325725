"""Hooks into what the graph saves: `saved_tensors_hooks`, `save_on_cpu`; and its `Node`."""

from __future__ import annotations

from typing import Any

from gradlite.graph import Node, saved_tensors_hooks
from gradlite.tensor import Tensor

__all__ = ["Node", "save_on_cpu", "saved_tensors_hooks"]


class save_on_cpu(saved_tensors_hooks):
    """Keep what backward will read in host memory, and bring it back when it does."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        def pack(tensor: Tensor) -> Any:
            return tensor.device, tensor.cpu()  # type: ignore[attr-defined]

        def unpack(packed: Any) -> Tensor:
            device, tensor = packed
            return tensor.to(device)  # type: ignore[no-any-return]

        super().__init__(pack, unpack)
