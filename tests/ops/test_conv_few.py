"""Convolutions of few images by the compiled functions of few.hpp, against NumPy's columns."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import launches
from gradlite.nn import functional as F
from gradlite.ops import columns, conv_few
from gradlite.ops.windows import Geometry
from tests.compiled_convolutions import library, needs_compiler
from tests.ops.test_conv_compiled import DTYPES, by_columns, close, compared, geometries, laid_out

__all__ = ["library"]  # which tests use by its name
pytestmark = needs_compiler
LEAST = ("LEAST_WORK", "LEAST_TAPS", "LEAST_OUTPUTS", "LEAST_PIXELS")


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_geometries(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LEAST:
        monkeypatch.setattr(conv_few, name, 1)
    rng = np.random.default_rng(0)
    batches = itertools.cycle([1, 3, 2])
    compiled = 0
    for number, (h, w, c, o, kernel, geometry) in enumerate(geometries()):
        x = laid_out(rng.standard_normal((next(batches), c, h, w)).astype(dtype), number % 5)
        k = rng.standard_normal((o, c, *kernel)).astype(dtype)
        k = k if number % 2 else k[:, :, ::-1].copy()[:, :, ::-1]
        bias = rng.standard_normal(o).astype(dtype)[::-1]
        g, names = compared(x, k, bias, geometry, (number + 2) % 5)
        compiled += {"few_convolved", "few_kernels"} <= set(names)
        both = columns.gradients(np, x, g, k, geometry)
        for made, one in zip(both, by_columns(columns.gradients, x, g, k, geometry)):
            close(made, one, dtype)
    assert compiled >= 12


def test_what_small_and_odd_arrays_do() -> None:
    """Below the least sizes, and where elements do not lie at places for them, NumPy does it."""
    rng = np.random.default_rng(1)
    x = gradlite.tensor(rng.standard_normal((1, 16, 24, 24)).astype(np.float32))
    w = gradlite.tensor(rng.standard_normal((16, 16, 3, 3)).astype(np.float32))
    with launches.record() as names:
        F.conv2d(x, w, padding=1)
        F.conv2d(x[:, :, :8], w, padding=1)
        F.conv2d(x, w[:4], padding=1)
        F.conv2d(x, w[:, :, :1, :1])
        F.conv2d(x[:, :4], w[:, :4], padding=1)
    assert names == ["few_convolved"]


def test_a_bias_is_kept_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy that is made of one which is not in order lasts as long as the call."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, 16, 24, 24)).astype(np.float32)
    w = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    bias = rng.standard_normal(16).astype(np.float32)[::-1]
    geometry, library = Geometry((1, 1), ((1, 1), (1, 1))), conv_few._loaded(x.dtype)

    class Busy:
        def few_convolved(self, *args: Any) -> None:
            # What has just been let go of is what NumPy gives out next.
            taken = [np.full(bias.shape, np.nan, bias.dtype) for _ in range(16)]
            library.few_convolved(*args)
            del taken

    monkeypatch.setattr(conv_few, "_loaded", lambda dtype: Busy())
    with launches.record() as names:
        y = columns.convolve(np, x, w, geometry, bias)
    assert names == ["few_convolved"]
    close(y, by_columns(columns.convolve, x, w, geometry, bias), "float32")


def test_threads_change_nothing() -> None:
    rng = np.random.default_rng(2)
    x = gradlite.tensor(rng.standard_normal((3, 16, 40, 40)).astype(np.float32))
    w = gradlite.tensor(rng.standard_normal((16, 16, 3, 3)).astype(np.float32), requires_grad=True)
    before, found = gradlite.get_num_threads(), []
    try:
        for threads in (2, 1):
            gradlite.set_num_threads(threads)
            y = F.conv2d(x, w, padding=1)
            found.append((y, gradlite.autograd.grad(y.sum(), w)[0]))
    finally:
        gradlite.set_num_threads(before)
    assert found[0][0].equal(found[1][0]) and found[0][1].equal(found[1][1])
