"""Powers of floats with a number as exponent, against PyTorch: signs, zeros, infinities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
EXPONENTS = (-4, -3, -2, -2.0, -1, 0, 0.5, 1, 2, 2.0, 2.5, 3, 3.0, 4, 5, 9, 1e18)
VALUES = [
    *(-np.inf, -1e20, -3.7, -2.0, -1.0, -0.3, -1e-30, -0.0),
    *(0.0, 1e-30, 0.3, 1.0, 2.0, 7.1, 1e20, np.inf, np.nan),
]


def powers(library: Any, exponent: float, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    x = library.tensor(VALUES, dtype=getattr(library, dtype), requires_grad=True)
    y = x**exponent
    y.sum().backward()
    return y.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_a_power_of_every_kind_of_number(exponent: float, dtype: str) -> None:
    theirs, ours = powers(torch, exponent, dtype), powers(gradlite, exponent, dtype)
    for expected, found in zip(theirs, ours):
        np.testing.assert_allclose(found, expected, {"float32": 1e-6, "float64": 1e-14}[dtype])
        signs = [np.signbit(np.nan_to_num(array)) for array in (found, expected)]
        np.testing.assert_array_equal(*signs)


@pytest.mark.parametrize("exponent", [3, -2, -1])
def test_powers_that_are_products_have_pytorchs_bits(exponent: int) -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    expected = (torch.tensor(values) ** exponent).numpy()
    np.testing.assert_array_equal((gradlite.tensor(values) ** exponent).numpy(), expected)
