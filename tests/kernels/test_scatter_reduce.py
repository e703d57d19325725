"""What an index sends to one place, combined: the ops' rules in float64 are the reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops import indexing
from gradlite.ops.scatter import ScatterAdd
from gradlite.ops.scatter_combine import ScatterAmax, ScatterAmin, ScatterProd
from tests import cupy_stand_in as stand_in
from tests.kernels.support import DTYPES, ThreadsLauncher, by_kernel, compare, host
from tests.kernels.test_index import ALONG, on_both

OPS = [ScatterProd, ScatterAmax, ScatterAmin]
NAN = float("nan")


@pytest.fixture(params=["any order", "in order"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(indexing, "TERMS", 0)
    gradlite.use_deterministic_algorithms(request.param == "in order")
    yield
    gradlite.use_deterministic_algorithms(False)


def operands(op: Any, shape: tuple[int, int, int], count: int, dtype: str) -> list[np.ndarray]:
    """An array, indices and values: factors near 1 and some zeros, or a few different numbers."""
    outer, size, inner = shape
    generator = np.random.default_rng(4)
    arrays = []
    for own in (shape, (outer, count, inner)):
        if op is ScatterProd:
            made = generator.uniform(0.75, 1.25, own) * generator.choice([1, -1], own)
            made[generator.random(own) < 0.1] = 0
        else:
            made = generator.integers(-3, 4, own) / 2
        arrays.append(made.astype(dtype))
    index = generator.integers(0, max(size - 1, 1), (outer, count, inner))  # not to the last one
    return [arrays[0], index, arrays[1]]


def compare_all(K: Any, op: Any, shape: Any, count: int, dtype: str) -> None:
    inputs = operands(op, shape, count, dtype)
    for with_x in (True, False):
        for wanted in ((True, False, True), (True, False, False), (False, False, True)):
            compare(K, op, inputs, (1, with_x), wanted=wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "count"), ALONG, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_values_and_gradients(
    launcher: Any, order: None, op: Any, shape: Any, count: int, dtype: str
) -> None:
    compare_all(launcher, op, shape, count, dtype)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("op", OPS)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, order: None, op: Any, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    inputs = operands(op, (3, 4, 8), 20, "float32")
    for array in inputs:
        array.flags.writeable = False
    compare(threads, op, inputs, (1, True))


def compare_whole(
    K: Any, shape: tuple[int, int, int], count: int, dtype: str, ways: Any = (True, False)
) -> None:
    """Whole numbers, products and sums of which wrap."""
    outer, size, inner = shape
    generator, info = np.random.default_rng(4), np.iinfo(dtype)
    x, source = (
        generator.integers(info.min, info.max, own, dtype, endpoint=True)
        for own in (shape, (outer, count, inner))
    )
    index = generator.integers(0, size, source.shape)
    given = [K.xp.asarray(a) for a in (x, index, source)]
    for op in OPS:
        for with_x in ways:
            found = op.fused_forward(K, *given, 1, with_x)
            assert host(found).dtype == dtype
            expected = op.forward(np, x, index, source, 1, with_x)
            np.testing.assert_array_equal(host(found), expected)
    if dtype == "int64":
        found = ScatterAdd.fused_forward(K, *given, 1)
        np.testing.assert_array_equal(host(found), ScatterAdd.forward(np, x, index, source, 1))


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8"])
@pytest.mark.parametrize(("shape", "count"), ALONG, ids=str)
def test_whole_numbers(launcher: Any, shape: Any, count: int, dtype: str) -> None:
    compare_whole(launcher, shape, count, dtype)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_race_between_whole_numbers(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    # Not without what was there, where several threads put the same number into its place.
    compare_whole(threads, (3, 4, 8), 20, "int64", (True,))


@pytest.mark.parametrize("op", OPS[1:])
def test_a_nan_stays(launcher: Any, order: None, op: Any) -> None:
    x = np.array([0.0, NAN, -np.inf, -2.0, 5.0], np.float32)
    source = np.array([NAN, -1.0, np.inf, 0.1, NAN, 7.0], np.float32)
    index = np.array([0, 1, 2, 3, 4, 4])
    for with_x in (True, False):
        found = op.fused_forward(launcher, *map(launcher.xp.asarray, (x, index, source)), 0, with_x)
        with np.errstate(invalid="ignore"):
            expected = op.forward(np, x, index, source, 0, with_x)
        np.testing.assert_array_equal(host(found), expected)


def test_an_index_that_was_expanded(launcher: Any, order: None) -> None:
    x, index, source = operands(ScatterProd, (3, 4, 8), 20, "float32")
    vector = index[0, :, :1].copy()
    expanded = launcher.xp.broadcast_to(launcher.xp.asarray(vector), index.shape)
    grad, wanted = np.ones(x.shape, "f4"), (True, False, True)
    whole = np.ascontiguousarray(np.broadcast_to(vector, index.shape))
    one = by_kernel(launcher, ScatterProd, [x, expanded, source], (1, True), grad, wanted)
    other = by_kernel(launcher, ScatterProd, [x, whole, source], (1, True), grad, wanted)
    for a, b in zip(one, other):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, 1e-5)


# ---------------------------------------------------------------------- as the ops use them
@pytest.mark.parametrize("with_x", [True, False])
@pytest.mark.parametrize("reduce", ["prod", "amax", "amin", "mean"])
def test_ops_use_them(monkeypatch: pytest.MonkeyPatch, reduce: str, with_x: bool) -> None:
    stand_in.install(monkeypatch)

    def scattered(x: Any, y: Any, t: Any) -> Any:
        return x.scatter_reduce(1, t([[0, 0, 2]] * 3), y, reduce, include_self=with_x)

    def named(x: Any, y: Any, t: Any) -> Any:
        return x.index_reduce(0, t([1, 1]), y, reduce, include_self=with_x)

    assert "check_indices" not in on_both(scattered, (3, 4), (3, 3))
    assert "check_indices" not in on_both(named, (3, 4), (2, 4))
    on_both(lambda x, y, t: x.scatter_reduce(1, t([[0, 1, 0]]), y, reduce), (3, 4), (3, 3))


@pytest.mark.parametrize("reduce", ["prod", "amax", "mean"])
def test_indices_are_checked_without_waiting(monkeypatch: pytest.MonkeyPatch, reduce: str) -> None:
    cupy_reads = stand_in.arrays.reads
    stand_in.install(monkeypatch)
    x, source = gradlite.ones(5, 9, device="cuda"), gradlite.ones(3, 9, device="cuda")
    index = gradlite.tensor([1, 5, 4], device="cuda")
    for dtype in (gradlite.float32, gradlite.int64, gradlite.int16):
        stand_in.arrays.reads = reads = []
        try:
            x.to(dtype).index_reduce(0, index.clamp(max=4), source.to(dtype), reduce)
            gradlite.cuda.synchronize()  # nothing is wrong with these
            with pytest.raises(
                RuntimeError,
                match=r"device-side assert.*\n\w+: index 5 is out of bounds",
            ):
                x.to(dtype).index_reduce(0, index, source.to(dtype), reduce)
                gradlite.cuda.synchronize()
        finally:
            stand_in.arrays.reads = cupy_reads
        assert not reads
