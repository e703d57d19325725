"""Convolutions of single channels by the functions of depthwise.hpp, against array calls."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import launches
from gradlite.nn import functional as F
from gradlite.ops import depthwise_compiled, grouped
from gradlite.ops.windows import Geometry
from tests.compiled_convolutions import library, needs_compiler

__all__ = ["library"]  # which tests use by its name
pytestmark = needs_compiler
PADS = [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((2, 0), (0, 3)), ((-1, 1), (2, -2))]
CASES = [
    (kernel, Geometry(stride, pads, dilation), many)
    for (kernel, stride, dilation, many), pads in itertools.product(
        [
            ((3, 3), (1, 1), (1, 1), 1), ((3, 3), (2, 2), (1, 1), 1), ((1, 5), (1, 3), (1, 1), 2),
            ((4, 2), (3, 2), (1, 2), 1), ((2, 3), (1, 1), (2, 2), 3), ((7, 7), (1, 1), (1, 1), 1),
            ((1, 1), (3, 3), (1, 1), 1),
        ],
        PADS,
    )
]  # fmt: skip


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise_compiled, "LEAST_WORK", 0)


def arrays(kernel: Any, geometry: Geometry, many: int, dtype: str, width: int) -> Any:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 4, 11, width)).astype(dtype)
    w = rng.standard_normal((4 * many, 1, *kernel)).astype(dtype)
    bias = rng.standard_normal(4 * many).astype(dtype)
    g = rng.standard_normal((3, 4 * many, *geometry.counts(x.shape[2:], kernel))).astype(dtype)
    return x, w, bias, g


def all_of(x: Any, w: Any, bias: Any, g: Any, geometry: Geometry) -> list[np.ndarray]:
    groups = x.shape[1]
    return [
        grouped.convolve(np, x, w, bias, geometry, groups),
        grouped.convolve(np, x, w, None, geometry, groups),
        grouped.input_gradient(np, g, w, x.shape[2:], geometry, groups),
        grouped.weight_gradient(np, x, g, w.shape[2:], geometry, groups),
    ]


@pytest.mark.parametrize("width", [9, 16, 37])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kernel", "geometry", "many"), CASES)
def test_all_geometries(
    kernel: Any, geometry: Geometry, many: int, dtype: str, width: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    given = arrays(kernel, geometry, many, dtype, width)
    with launches.record() as names:
        made = all_of(*given, geometry)
    assert names == ["depthwise_convolved"] * 2 + ["depthwise_spread", "depthwise_kernels"]
    monkeypatch.setattr(depthwise_compiled, "_loaded", lambda dtype: None)
    exact = all_of(*[a.astype(np.longdouble) for a in given], geometry)
    tolerance = {"float32": 1e-5, "float64": 1e-13}[dtype]
    for found, expected in zip(made, exact):
        assert found.dtype == dtype and found.shape == expected.shape
        np.testing.assert_allclose(found, expected.astype(dtype), tolerance, 4 * tolerance)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_number_stays_where_it_is(value: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    rng = np.random.default_rng(2)
    for spoilt in range(3):
        given = [
            rng.standard_normal((2, 3, 6, 10)).astype(np.float32),
            rng.standard_normal((3, 1, 3, 3)).astype(np.float32),
            rng.standard_normal((2, 3, 3, 5)).astype(np.float32),
        ]
        given[spoilt].reshape(-1)[7] = value
        results = []
        for T in (gradlite, torch):
            x, w, g = map(T.tensor, given)
            x.requires_grad_(), w.requires_grad_()
            y = T.nn.functional.conv2d(x, w, stride=2, padding=1, groups=3)
            y.backward(g)
            results.append([np.isfinite(t.detach().numpy()) for t in (y, x.grad, w.grad)])
        for ours, theirs in zip(*results):
            # A kernel times padding is no number in some of PyTorch's ways and one in others.
            assert not (ours & ~theirs).any()
            assert spoilt == 1 or (ours == theirs).all()


def test_views_halves_and_threads() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4, 8, 9, 5)).astype(np.float32)
    w = gradlite.tensor(rng.standard_normal((8, 1, 3, 3)).astype(np.float32))
    turned = gradlite.tensor(x.swapaxes(2, 3))
    expected = F.conv2d(gradlite.tensor(np.ascontiguousarray(x.swapaxes(2, 3))), w, groups=8)
    assert F.conv2d(turned, w, groups=8).equal(expected)
    half = F.conv2d(turned.half(), w.half(), groups=8)
    assert half.dtype is gradlite.float16
    np.testing.assert_allclose(half.float().numpy(), expected.numpy(), 1e-2, 1e-2)
    before = gradlite.get_num_threads()
    gradlite.set_num_threads(2)
    try:
        large = gradlite.tensor(rng.standard_normal((8, 64, 40, 40)).astype(np.float32))
        kernels = gradlite.randn(64, 1, 5, 5, requires_grad=True)
        two = F.conv2d(large, kernels, padding=2, groups=64)
        (slope,) = gradlite.autograd.grad(two.sum(), kernels)
        gradlite.set_num_threads(1)
        one = F.conv2d(large, kernels, padding=2, groups=64)
        assert one.equal(two) and gradlite.autograd.grad(one.sum(), kernels)[0].equal(slope)
    finally:
        gradlite.set_num_threads(before)
