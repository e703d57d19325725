"""Tests marked ``cuda`` without a GPU, on CuPy itself:

python -m pytest -p tests.cuda_driver.plugin --cuda-driver lazy -m cuda tests/kernels
"""

from __future__ import annotations

import pytest

from tests import cuda_driver


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("CUDA without a GPU")
    group.addoption("--cuda-driver", choices=cuda_driver.MODES, default="eager")
    group.addoption("--cuda-devices", type=int, default=1)
    group.addoption("--cuda-seed", type=int, default=0, help="of the random mode")


def pytest_configure(config: pytest.Config) -> None:
    option = config.getoption
    cuda_driver.install(option("--cuda-driver"), option("--cuda-devices"), option("--cuda-seed"))
