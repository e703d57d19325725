"""Step functions where NumPy and PyTorch differ."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import same


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_sign_of_nan_is_zero(dtype: str) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([float("nan"), -2.0, 0.0, -0.0, float("inf")], dtype=getattr(T, dtype))
        y = x.clone().requires_grad_()
        y.abs().sum().backward()
        return x.sign(), x.sgn(), x.clone().sign_(), y.grad

    same(program)


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "bool"])
def test_the_sign_of_whole_numbers(dtype: str) -> None:
    same(lambda T: T.tensor([0, 1, 3]).to(getattr(T, dtype)).sign())
