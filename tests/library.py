"""The library that the tests run on: gradlite, or PyTorch itself, to check the tests.

``GRADLITE_UNDER_TEST=torch pytest tests/test_graph.py`` runs the tests on PyTorch: a test that
fails there asks gradlite for something PyTorch does not do.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

NAME: str = os.environ.get("GRADLITE_UNDER_TEST", "gradlite")
library: Any = importlib.import_module(NAME)
T = library
ON_TORCH: bool = NAME == "torch"


def seed(library: Any, number: int) -> None:
    """Seeds a library's generators.

    PyTorch's own function keeps a call with a formatted stack for every kind of device that it has
    not started, which takes longer than many a test.
    """
    if library.__name__ == "torch" and not library.cuda.is_available():
        library.default_generator.manual_seed(number)
    else:
        library.manual_seed(number)
