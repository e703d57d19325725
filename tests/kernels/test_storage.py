"""What lies in memory and what is computed with: the conversions, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradlite.backends.kernel_source import expand
from tests.cuda_on_cpu import CpuModule, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs Linux and g++")

CONVERSIONS = """
#include "common.cuh"
KERNEL(narrowed)(const acc_t* x, scalar_t* y, i64 n) {
  for (i64 i = thread_index(); i < n; i += thread_count()) y[i] = narrow(x[i]);
}
KERNEL(widened)(const scalar_t* x, acc_t* y, i64 n) {
  for (i64 i = thread_index(); i < n; i += thread_count()) y[i] = widen(x[i]);
}
"""


def convert(name: str, dtype: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    module = CpuModule(expand("conversions.cu", CONVERSIONS), (f"-DGRADLITE_DTYPE={dtype}",))
    module.get_function(f"{name}_{dtype}")((2,), (64,), (x, y, x.size))
    return y


def numbers() -> np.ndarray:
    """Numbers of every size, halfway between two halves and next to that, and special ones."""
    generator = np.random.default_rng(0)
    halves = np.arange(1 << 15, dtype=np.uint16)[::7].view(np.float16).astype(np.float32)
    halves = halves[np.isfinite(halves)]
    middles = (halves[1:] + halves[:-1]) / 2
    patterns = generator.integers(0, 1 << 32, 3000, dtype=np.uint64).astype(np.uint32)
    patterns = np.concatenate([patterns, patterns & 0xFFFF0000, patterns | 0x8000])
    edges = [0.0, np.inf, np.nan, 65504.0, 65519.99, 65520.0, 1e-8, 2**-24, 2**-25, 3e38, 3.4e38]
    positive = np.concatenate([
        halves, middles, np.nextafter(middles, np.float32(9)), np.nextafter(middles, np.float32(0)),
        patterns.view(np.float32), np.array(edges, np.float32),
    ])  # fmt: skip
    found = np.concatenate([positive, -positive])
    return found[~(np.abs(found) < 2.0**-126)]  # a GPU takes subnormal numbers for 0


def test_narrow_to_float16_rounds_as_numpy() -> None:
    x = numbers()
    got = convert("narrowed", "f16", x, np.zeros(x.size, np.float16))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(np.float16)
    np.testing.assert_array_equal(got, expected)
    assert (np.signbit(got) == np.signbit(expected))[~np.isnan(x)].all()


def test_widen_float16_is_exact() -> None:
    x = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):
        expected = x.astype(np.float32)
    np.testing.assert_array_equal(convert("widened", "f16", x, np.zeros(x.size, "f4")), expected)


def test_bfloat16_rounds_as_pytorch() -> None:
    torch: Any = pytest.importorskip("torch", reason="needs PyTorch, the oracle")
    x = numbers()
    got = convert("narrowed", "bf16", x, np.zeros(x.size, np.uint16))
    expected = torch.from_numpy(x).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    nan = np.isnan(x)
    np.testing.assert_array_equal(got[~nan], expected[~nan])
    wide = convert("widened", "bf16", got, np.zeros(x.size, np.float32))
    assert np.isnan(wide[nan]).all()
    np.testing.assert_array_equal(wide.view(np.uint32) >> 16, got)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_other_numbers_stay_as_they_are(dtype: str) -> None:
    with np.errstate(invalid="ignore"):
        x = numbers().astype({"f32": "f4", "f64": "f8"}[dtype])
    for name in ("narrowed", "widened"):
        np.testing.assert_array_equal(convert(name, dtype, x, np.zeros_like(x)), x)
