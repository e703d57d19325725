"""Bags of rows of a table with kernels: the rule in float64 is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.nn import functional as F
from gradlite.ops.embedding_bag_kernels import EmbeddingBag
from tests.kernels.support import ThreadsLauncher, by_kernel, by_rule, wide

TOLERANCES = {"bfloat16": 2e-2, "float16": 3e-3, "float32": 1e-5, "float64": 1e-12}
# (rows, columns, indices, bags): one of everything, a warp to a bag and a block, bags of one index.
SHAPES = [(1, 1, 1, 1), (5, 3, 8, 4), (9, 33, 40, 5), (7, 300, 12, 3), (40, 31, 33, 33)]


def arguments(
    shape: tuple[int, ...], dtype: str, flat: bool, weighted: bool
) -> tuple[list[Any], np.ndarray]:
    """A table, indices, starts and factors; the gradient."""
    rows, columns, size, bags = shape
    generator = np.random.default_rng(shape)
    # Distinct in half precision too, so that maxima are at one place.
    table = generator.permutation(rows * columns).reshape(rows, columns) % 199 / 64 - 1
    index = generator.integers(0, rows, size if flat else size // bags * bags)
    starts = np.sort(generator.integers(0, size + 1, bags))
    starts[0] = 0
    factors = generator.standard_normal(index.shape).astype(dtype) if weighted else None
    inputs = [table.astype(dtype), index, starts if flat else None, factors]
    return inputs, generator.standard_normal((bags, columns)).astype(dtype)


def compare(
    K: Any,
    shape: tuple[int, ...],
    dtype: str = "float32",
    mode: str = "sum",
    *,
    flat: bool = True,
    weighted: bool = False,
    padding: int = -1,
    by_freq: bool = False,
) -> None:
    inputs, grad = arguments(shape, dtype, flat, weighted)
    attrs, wanted = (shape[3], padding, mode, by_freq), (True, False, False, weighted)
    found = by_kernel(K, EmbeddingBag, inputs, attrs, grad, wanted)
    exact = [a if a is None else wide(a) for a in inputs]
    expected = by_rule(EmbeddingBag, exact, attrs, wide(grad), wanted)
    for ours, reference in zip(found, expected):
        assert (ours is None) == (reference is None)
        if ours is not None:
            assert ours.dtype == dtype and ours.shape == reference.shape
            size = max(1.0, float(np.abs(reference).max()))
            np.testing.assert_allclose(ours, reference, TOLERANCES[dtype], TOLERANCES[dtype] * size)


@pytest.mark.parametrize("flat", [False, True], ids=["rows", "flat"])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bags(launcher: Any, shape: tuple[int, ...], dtype: str, mode: str, flat: bool) -> None:
    compare(launcher, shape, dtype, mode, flat=flat)
    compare(launcher, shape, dtype, mode, flat=flat, padding=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_factors_and_their_gradient(launcher: Any, shape: tuple[int, ...]) -> None:
    for dtype in TOLERANCES:
        compare(launcher, shape, dtype, weighted=True)
        compare(launcher, shape, dtype, weighted=True, padding=0, flat=False)


def test_gradients_by_frequency(launcher: Any) -> None:
    for mode in ("sum", "mean"):
        compare(launcher, (5, 3, 20, 4), mode=mode, by_freq=True)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, mode: str, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for shape in ((5, 3, 12, 9), (9, 33, 20, 5), (4, 300, 6, 2)):
        compare(threads, shape, mode=mode, padding=1)
        compare(threads, shape, mode=mode, flat=False, weighted=mode == "sum")


WRONG = {
    "an index too large": (1, [1, 5, 2, 0], 5, 5),
    "an index below 0": (1, [1, -1, 2, 0], -1, 5),
    "a start beyond the end": (2, [0, 5], 5, 5),
    "no start at 0": (2, [1, 2], 1, 1),
    "a start before the last one": (2, [0, 3, 1], 1, 5),
    "an end beyond the end": (2, [0, 2, 5], 5, 5),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("mode", ["sum", "max"])
def test_what_does_not_fit_is_noted(threads: ThreadsLauncher, mode: str, what: str) -> None:
    threads.check = True
    inputs = [np.ones((5, 3), "f4"), np.array([1, 4, 2, 0]), np.array([0, 2]), None]
    place, value, index, size = WRONG[what]
    inputs[place] = np.array(value)
    for array in inputs[:3]:
        array.flags.writeable = False
    bags = inputs[2].size - (what == "an end beyond the end")
    attrs = (bags, -1, mode, False)
    out, _ = EmbeddingBag.fused_forward(threads, *inputs, *attrs)
    assert np.isfinite(out).all()
    found = threads.errors("embedding_bag", "index", "offset")
    assert found[place - 1].tolist() == [1, index, size] and not found[2 - place].any()


def test_the_first_of_equal_maxima(launcher: Any) -> None:
    inputs = [np.ones((3, 40), "f4"), np.array([2, 1, 0, 1]), np.array([0, 2]), None]
    grad = np.ones((2, 40), "f4")
    wanted = (True, False, False, False)
    _, dweight, *_ = by_kernel(launcher, EmbeddingBag, inputs, (2, -1, "max", False), grad, wanted)
    assert dweight[:, 0].tolist() == [1, 0, 1]


def test_second_derivatives(native_kernels: None) -> None:
    table = gradlite.randn(5, 3, dtype=gradlite.float64, requires_grad=True)
    factors = gradlite.randn(6, dtype=gradlite.float64, requires_grad=True)
    index, offsets = gradlite.tensor([1, 4, 1, 0, 2, 3]), gradlite.tensor([0, 2, 2, 5])
    for mode in ("sum", "mean", "max"):
        bag = lambda t, m=mode: F.embedding_bag(index, t, offsets, mode=m, padding_idx=2)  # noqa: E731
        assert gradlite.autograd.gradcheck(bag, (table,))
        assert gradlite.autograd.gradgradcheck(bag, (table,))

    def weighted(table: Any, factors: Any) -> Any:
        return F.embedding_bag(
            index, table, offsets, mode="sum", per_sample_weights=factors, padding_idx=2
        )

    assert gradlite.autograd.gradcheck(weighted, (table, factors))
    assert gradlite.autograd.gradgradcheck(weighted, (table, factors))
