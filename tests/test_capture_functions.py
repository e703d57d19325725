"""Functions of elements in compiled code, optimised as it is in use, against those of NumPy."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import libraries, native
from gradlite.capturing.native.build import available

pytestmark = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")
ALL = [-np.inf, -1e4, -88.0, -3.5, -1.0, -0.7, -1e-3, -0.0]
VALUES = [*ALL, *(-x for x in ALL[::-1]), np.nan, 1e10, 2.0**127, *np.linspace(-9, 9, 100)]
ONE = """sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh exp exp2 expm1 log log2 log10
    log1p sqrt""".split()
TWO = {"atan2": "arctan2", "hypot": "hypot", "pow": "power"}
NAMES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh",
         "acosh": "arccosh", "atanh": "arctanh"}  # fmt: skip


@pytest.fixture(params=["its own", "narrower", "of single numbers"])
def vectors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of this processor, those of one without AVX-512, a C library without functions."""
    if request.param == "of single numbers":
        monkeypatch.setattr(native, "vector_functions", lambda: ())
    elif request.param == "narrower":
        if platform.machine() not in ("x86_64", "AMD64"):
            pytest.skip("the options are those of x86-64")
        monkeypatch.setattr(libraries, "OPTIONS", (*libraries.OPTIONS, "-mno-avx512f"))


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.filterwarnings("ignore")
def test_functions_of_any_number(dtype: str) -> None:
    x = np.array(VALUES, dtype)
    y = x[np.random.default_rng(1).permutation(x.size)]
    a, b = gradlite.tensor(x), gradlite.tensor(y)
    captured = gradlite.capture(
        lambda: (
            [getattr(gradlite, name)(a) for name in ONE]
            + [getattr(gradlite, name)(a, b) for name in TWO]
        ),
        warmup=0,
        native=True,
    )
    for _ in range(3):
        found: list[Any] = captured()
    assert captured.replays == 1
    assert captured._latest is not None and not captured._latest.plan.left  # all are compiled
    exact, other = x.astype(np.longdouble), y.astype(np.longdouble)
    expected = [getattr(np, NAMES.get(name, name))(exact) for name in ONE]
    expected += [getattr(np, name)(exact, other) for name in TWO.values()]
    rtol, least = {"float32": (1e-6, 1e-44), "float64": (2e-15, 1e-322)}[dtype]
    for name, ours, theirs in zip([*ONE, *TWO], found, expected):
        right = np.asarray(theirs).astype(dtype)
        np.testing.assert_allclose(ours.numpy(), right, rtol, least, err_msg=name)
        zero = right == 0
        signs = [np.signbit(array[zero]) for array in (ours.numpy(), right)]
        np.testing.assert_array_equal(*signs, err_msg=name)
