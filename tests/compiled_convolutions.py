"""What the tests of compiled convolutions share."""

from __future__ import annotations

import numpy as np
import pytest

from gradlite.capturing.native.build import available
from gradlite.ops import conv_compiled


@pytest.fixture
def library() -> None:
    """Skips where there is no compiled code."""
    if not available():
        pytest.skip("no C++ compiler, or GRADLITE_NATIVE=0")
    if conv_compiled._loaded(np.dtype(np.float32)) is None:
        pytest.skip("this processor's vectors are too narrow for compiled convolutions to gain")


needs_compiler = pytest.mark.usefixtures("library")


@pytest.fixture
def all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code for all convolutions that it can do, however small."""
    monkeypatch.setattr(conv_compiled, "LEAST_WORK", 1)
