"""Reading and writing the safetensors format, by way of the ``safetensors`` package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.device import as_device
from gradlite.device import device as Device
from gradlite.io.archive import on_device
from gradlite.io.files import replacing
from gradlite.tensor import Tensor, make


def save_safetensors(
    tensors: Mapping[str, Any], path: str | os.PathLike[str], metadata: dict[str, str] | None = None
) -> None:
    """Write a dict of tensors or arrays in the safetensors format, replacing the file in one step.

    Args:
        metadata: strings to put in the file's header.

    Raises:
        ImportError: the ``safetensors`` package is missing.
        TypeError: a value that is neither a tensor nor an array.
    """
    library = _safetensors()
    arrays = {}
    for name, value in tensors.items():
        array = value.array if isinstance(value, Tensor) else value
        if hasattr(array, "get") and not isinstance(array, np.ndarray):
            array = array.get()
        if not isinstance(array, np.ndarray):
            raise TypeError(
                f"save_safetensors expects tensors and arrays, but {name!r} is "
                f"{type(value).__name__}"
            )
        arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    with replacing(path) as temporary:
        library.save_file(arrays, temporary, metadata=metadata)


def load_safetensors(
    path: str | os.PathLike[str], device: str | Device = "cpu"
) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        ImportError: the ``safetensors`` package is missing.
        FileNotFoundError: there is no such file.
        RuntimeError: the file is damaged.
        TypeError: the file holds a dtype that gradlite does not have.
    """
    library = _safetensors()
    name = os.fspath(path)
    where = as_device(device)
    if not os.path.exists(name):
        raise FileNotFoundError(f"No such file: {name}")
    try:
        arrays = library.load_file(name)
    except Exception as error:  # the package raises types of its own
        raise RuntimeError(
            f"{name} cannot be read as safetensors: {type(error).__name__}: {error}"
        ) from error
    for array in arrays.values():
        dtypes.from_numpy_dtype(array.dtype)
    return {key: make(Tensor, on_device(array, where)) for key, array in sorted(arrays.items())}


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "reading and writing safetensors needs the package safetensors: pip install safetensors"
        ) from error
    return safetensors.numpy
