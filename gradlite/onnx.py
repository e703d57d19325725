"""PyTorch's export to ONNX, which there is none of here: programs import the name, and some use it.

>>> import gradlite
>>> gradlite.onnx.export(gradlite.nn.Linear(2, 2), gradlite.ones(1, 2), "model.onnx")
Traceback (most recent call last):
    ...
RuntimeError: gradlite writes no ONNX files: gradlite.save() keeps a model's state_dict()
"""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["export"]


def export(*args: Any, **kwargs: Any) -> NoReturn:
    """Does not exist.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(
        "gradlite writes no ONNX files: gradlite.save() keeps a model's state_dict()"
    )
