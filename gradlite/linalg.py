"""Linear algebra under PyTorch's names: ``gradlite.linalg.inv``, ``.solve``, ``.norm``, ..."""

from __future__ import annotations

from gradlite.ops.norms import linalg_norm as norm
from gradlite.ops.norms import matrix_norm, vector_norm

__all__ = [
    "matrix_norm",
    "norm",
    "vector_norm",
]
