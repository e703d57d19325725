"""Unit vectors with kernels: the op's rule in float64 is the reference."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops.unit_vectors import Normalize
from tests.kernels.support import ThreadsLauncher, by_kernel, by_rule, host, wide

# Rows, and the middle dimension of others.
SHAPES = [
    ((1,), 0), ((31,), 0), ((3, 32), 1), ((2, 33), 1), ((5, 1023), 1), ((3, 1024), 1),
    ((2, 1025), 1), ((1, 100003), 1), ((2100, 8), 1), ((2, 1, 1), 1), ((31, 2), 0), ((2, 3, 5), 1),
    ((2, 33, 32), 1), ((3, 8, 33), 1), ((1, 7, 1025), 1), ((1025, 3), 0),
]  # fmt: skip
TOLERANCES = {"bfloat16": 1.6e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-12}


def compare(
    K: Any, shape: tuple[int, ...], dim: int, dtype: str, p: int, eps: float = 1e-3
) -> None:
    """With a vector of zeros and one that is shorter than eps."""
    generator = np.random.default_rng(len(shape))
    x, grad = (generator.standard_normal(shape).astype(dtype) for _ in range(2))
    vectors = np.moveaxis(x, dim, -1)
    places = list(np.ndindex(vectors.shape[:-1]))
    if len(places) > 2:
        vectors[places[1]] = 0
        vectors[places[2]] *= x.dtype.type(1e-3 * eps)
    exact = by_rule(Normalize, [wide(x)], (dim, eps, p), wide(grad), (True,))
    found = by_kernel(K, Normalize, [x], (dim, eps, p), grad, (True,))
    lengths = np.maximum(np.linalg.norm(wide(x), p, axis=dim, keepdims=True), eps)
    for ours, reference, size in zip(found, exact, (1.0, np.abs(wide(grad)) / lengths)):
        assert ours.dtype == dtype and ours.shape == shape
        # A gradient is a difference, as exact as what is subtracted.
        size = np.max(np.broadcast_to(size, shape), axis=dim, keepdims=True)
        assert (np.abs(ours - reference) <= TOLERANCES[dtype] * size).all()


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "dim"), SHAPES, ids=str)
def test_values_and_gradients(launcher: Any, shape: Any, dim: int, dtype: str, p: int) -> None:
    compare(launcher, shape, dim, dtype, p)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("shape", "dim"), [((5, 33), 1), ((2, 640), 1), ((2, 9, 35), 1)], ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: Any, dim: int, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    for p in (1, 2):
        compare(threads, shape, dim, "float32", p)


def test_rows_that_start_anywhere(launcher: Any) -> None:
    flat = np.random.default_rng(0).standard_normal(700).astype("f4")
    device = launcher.xp.asarray(flat)
    for start in range(4):
        found = Normalize.fused_forward(
            launcher, device[start : start + 640].reshape(5, 128), 1, 1e-12, 2
        )
        rows = wide(flat[start : start + 640]).reshape(5, 128)
        np.testing.assert_allclose(host(found), Normalize.forward(np, rows, 1, 1e-12, 2), 1e-5)


INF, NAN = float("inf"), float("nan")
ROWS = [
    [0.0, 0.0], [3.0, -4.0], [INF, 1.0], [NAN, 1.0], [1e-13, 0.0], [1e-12, 0.0], [1e-30, 1e-30],
    [-INF, INF], [1e15, 1e15],
]  # fmt: skip


@pytest.mark.parametrize("eps", [1e-12, 0.0, 5.0])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("p", [1, 2])
def test_extreme_values_are_as_in_pytorch(launcher: Any, p: int, dim: int, eps: float) -> None:
    torch = pytest.importorskip("torch")
    x = np.asarray(ROWS, np.float32)
    x = x if dim == 1 else np.ascontiguousarray(x.T)
    weights = np.linspace(1, 2, x.size, dtype=np.float32).reshape(x.shape)
    theirs = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.normalize(theirs, p, dim, eps)
    (gradient,) = torch.autograd.grad(expected, theirs, torch.tensor(weights))
    found = by_kernel(launcher, Normalize, [x], (dim, eps, p), weights, (True,))
    np.testing.assert_allclose(found[0], expected.detach().numpy(), 1e-6)
    # A gradient is a difference, as exact as what is subtracted.
    for ours, reference in zip(
        np.moveaxis(found[1], dim, -1), np.moveaxis(gradient.numpy(), dim, -1)
    ):
        size = np.abs(reference[np.isfinite(reference)]).max(initial=0)
        np.testing.assert_allclose(ours, reference, 1e-5, 1e-5 * size)


# ---- as the function uses them -----------------------------------------------------------------


@pytest.mark.parametrize(("shape", "dim"), [((3, 4), 1), ((2, 3, 4), 1), ((4,), -1)], ids=str)
@pytest.mark.parametrize("p", [1.0, 2])
def test_one_kernel_each_way_and_derivatives(
    native_kernels: None, shape: Any, dim: int, p: float
) -> None:
    x = gradlite.randn(shape, dtype=gradlite.float64).requires_grad_()
    with kernels.record() as launched:
        F.normalize(x, p, dim).sum().backward()
    names = [n for n in launched if n.startswith("normalize")]
    strided = "_strided" if len(shape) == 3 else ""
    assert names == [f"normalize{strided}_forward", f"normalize{strided}_backward"]
    for eps in (1e-12, 50.0):
        function = partial(F.normalize, p=p, dim=dim, eps=eps)
        assert gradlite.autograd.gradcheck(function, [x])
        assert gradlite.autograd.gradgradcheck(function, [x])


def test_other_norms_are_composed(native_kernels: None) -> None:
    with kernels.record() as launched:
        F.normalize(gradlite.rand(3, 4), p=3.0)
        F.normalize(gradlite.rand(0, 4))
    assert not any(name.startswith("normalize") for name in launched)
    with pytest.raises(IndexError, match="Dimension out of range"):
        F.normalize(gradlite.rand(3), dim=1)
