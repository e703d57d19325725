"""Values that CuPy's functions give otherwise than NumPy's and PyTorch's: here as on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from tests import cupy_stand_in

FLOATS = np.array([1, 0.1, -0.3, 0.7, 10, 3, -1, 2.5, -3.3, 1e-3, np.nan, np.inf, -np.inf, -0.0])
WHOLE = np.array([1, 7, -9, 3, -2, 2**53 + 1, -(2**60) - 1, 2**31 + 5])
OF_TWO: dict[str, Callable[..., Any]] = {
    "floor_divide": gradlite.floor_divide,
    "div": lambda x, y: gradlite.div(x, y, rounding_mode="floor"),
    "remainder": gradlite.remainder,
    "fmod": gradlite.fmod,
    "maximum": gradlite.maximum,
    "pow": lambda x, y: x.abs() ** y,
    "xlogy": lambda x, y: gradlite.xlogy(x, y.abs()),
}
OF_ONE = {name: getattr(gradlite, name) for name in "sinc sign logit rsqrt".split()}


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.cuda)], autouse=True)
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "stand-in":
        cupy_stand_in.install(monkeypatch)


def compare(function: Callable[..., Any], *arrays: Any) -> None:
    """Zeros have signs too."""
    here, there = (
        function(*(gradlite.tensor(a).to(device) if np.ndim(a) else a for a in arrays))
        for device in ("cpu", "cuda")
    )
    found, expected = there.cpu().numpy(), here.numpy()
    assert found.dtype == expected.dtype
    single = expected.dtype in (np.float32, np.float16)
    np.testing.assert_allclose(found, expected, 2e-3 if single else 1e-12, 1e-7 if single else 0)
    if expected.dtype.kind == "f":
        zero = expected == 0
        np.testing.assert_array_equal(np.signbit(found[zero]), np.signbit(expected[zero]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "int32", "uint8"])
@pytest.mark.parametrize("name", OF_TWO)
def test_functions_of_two(name: str, dtype: str) -> None:
    if dtype.startswith("float"):
        x, y = (a.astype(dtype) for a in np.meshgrid(FLOATS, FLOATS[FLOATS != 0]))
    elif name in ("pow", "xlogy"):
        return
    else:
        x, y = np.meshgrid(*[WHOLE[np.abs(WHOLE) < np.iinfo(dtype).max].astype(dtype)] * 2)
    compare(OF_TWO[name], x, y)
    if name not in ("maximum", "xlogy"):
        compare(OF_TWO[name], x, 3)
    if name in ("floor_divide", "div", "fmod"):
        compare(OF_TWO[name], x, 0.1)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", OF_ONE)
def test_functions_of_one(name: str, dtype: str) -> None:
    compare(OF_ONE[name], np.concatenate([FLOATS, np.arange(-40, 41) / 8]).astype(dtype))
