"""The products of matrices, on the stand-ins for CuPy and cuBLASLt."""

from __future__ import annotations

from typing import Any

import pytest

from gradlite.backends.cublaslt import CublasLt
from gradlite.backends.gemm import gemm
from tests import cublaslt_stand_in
from tests import cupy_stand_in as stand_in


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch)


@pytest.fixture
def library(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    return cublaslt_stand_in.install(monkeypatch)


@pytest.fixture
def products(cupy: Any, library: Any) -> Any:
    found = gemm(cupy)
    assert isinstance(found, CublasLt)
    return found
