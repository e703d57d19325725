"""The functions of floats that compiled loops use, against float64 over all exponents."""

from __future__ import annotations

import ctypes
import math
import re
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from gradlite.backends import native
from gradlite.backends.kernel_source import expand, text_of

# What each is compared with, its bound in units in the last place, and the coefficient that it
# feels most: that of its polynomial's lowest power but those that are exact.
FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float, str]] = {
    "exp": (np.exp, 1.0, "4.99999940e-1f"),
    "expm1": (np.expm1, 1.5, "1.66666359e-1f"),
    "log": (np.log, 1.0, "3.33333313e-1f"),
    "log1p": (np.log1p, 1.5, "3.33333313e-1f"),
    "tanh": (np.tanh, 2.5, "1.66666359e-1f"),
    "erf": (np.vectorize(math.erf), 1.5, "1.28379166e-1f"),
    "erfc": (np.vectorize(math.erfc), 5.0, "-1.25675893f"),
}
LOOP = (
    'extern "C" void {0}(const float* __restrict x, float* __restrict y, long long n) {{\n'
    "  for (long long i = 0; i < n; i++) y[i] = float_math::{0}(x[i]);\n}}\n"
)
# Captured steps keep the order of sums and the signs of zeros, kernels do not.
ORDERED = ("-fno-associative-math", "-fsigned-zeros")
# Without the C library: a function that is called would be missing.
ALONE = ("-nostdlib", "-Wl,-z,defs") if sys.platform == "linux" else ()


def build(text: str, options: tuple[str, ...]) -> ctypes.CDLL:
    if native.compiler() is None:
        pytest.skip("there is no C++ compiler here")
    loops = "".join(LOOP.format(name) for name in FUNCTIONS)
    return ctypes.CDLL(str(native.build("float_math", text + loops, (*options, *ALONE))))


def call(library: ctypes.CDLL, name: str, x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    library[name](
        ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_longlong(x.size)
    )
    return y


@cache
def numbers() -> np.ndarray:
    """Every exponent with both signs, and many numbers where the functions bend or end."""
    generator = np.random.default_rng(0)
    upper = np.repeat(np.arange(1 << 9, dtype=np.uint32) << 23, 32)
    patterns = upper | generator.integers(0, 1 << 23, upper.size).astype(np.uint32)
    dense = [generator.uniform(*ends, 12000) for ends in ((-12, 12), (-105, 90), (-1, 2))]
    edges = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 88.72, 88.73, 89.0, -87.5, -103.9, -104.0, 1e-38]
    return np.concatenate([patterns.view(np.float32), *dense, edges], dtype=np.float32)


def worst(library: ctypes.CDLL, name: str) -> float:
    """The largest error in units in the last place; infinite where one side alone is finite."""
    x = numbers()
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name][0](x.astype(np.float64))
        rounded, found = exact.astype(np.float32), call(library, name, x)
        units = np.abs(found - exact) / np.maximum(np.spacing(np.abs(rounded)), 2.0**-149)
    same = (found == rounded) | (np.isnan(found) & np.isnan(rounded))
    return float(np.nan_to_num(np.where(same, 0, units), nan=np.inf).max())


@pytest.mark.parametrize("options", [(), ORDERED], ids=["kernels", "captured steps"])
def test_errors_are_within_their_bounds(options: tuple[str, ...]) -> None:
    library = build(text_of("float_math.h"), options)
    errors = {name: worst(library, name) for name in FUNCTIONS}
    assert errors == {n: e for n, e in errors.items() if e <= FUNCTIONS[n][1]}


def test_signs_of_zeros_are_kept_where_the_compiler_may_not_lose_them() -> None:
    library = build(text_of("float_math.h"), ORDERED)
    zeros = np.array([0.0, -0.0], np.float32)
    for name in ("expm1", "log1p", "tanh", "erf"):
        found = call(library, name, zeros)
        assert np.signbit(found).tolist() == [False, True] and not found.any(), name


def test_a_coefficient_that_is_wrong_by_a_thousandth_shows() -> None:
    text = text_of("float_math.h")
    for coefficient in {c for _, _, c in FUNCTIONS.values()}:
        wrong = f"{float(coefficient[:-1]) * 1.001:.9g}f"
        text, count = re.subn(rf"(?<=[ (]){re.escape(coefficient)}(?=[,)])", wrong, text)
        assert count == 1, coefficient
    library = build(text, ())
    for name, (_, bound, _) in FUNCTIONS.items():
        assert worst(library, name) > 2 * bound, name


def test_kernels_call_the_c_library_for_none_of_them() -> None:
    if native.compiler() is None:
        pytest.skip("there is no C++ compiler here")
    loops = "".join(LOOP.format(name).replace("float_math::", "math::") for name in FUNCTIONS)
    text = f'#include "common.cuh"\n#if FLOAT_MATH_FUSES\n{loops}#endif\n'
    native.build("loops", expand("loops", text), ("-DGRADLITE_DTYPE=f32", *ALONE))
