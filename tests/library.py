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
