"""Reading rows and elements at indices and adding to them: NumPy in float64 is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.backends.kernel_source import index
from gradlite.nn import functional as F
from gradlite.ops import indexing
from tests import cupy_stand_in as stand_in
from tests.cupy_stand_in import arrays
from tests.kernels.support import ThreadsLauncher, host, said, taken

# One thread to a sum rounds each term, which shows in half precision.
TOLERANCES = {"bfloat16": 2e-2, "float16": 2e-2, "float32": 1e-5, "float64": 1e-12}
# (rows, columns, indices)
ROWS = [(1, 1, 1), (5, 31, 40), (9, 32, 33), (70, 33, 65), (3, 1025, 7), (33, 160, 100)]
# (outer, size, inner), indices
ALONG = [((1, 5, 1), 3), ((33, 7, 1), 1), ((4, 9, 1), 31), ((3, 4, 8), 70), ((2, 33, 17), 5)]


def values(K: Any, shape: Any, dtype: str, seed: int = 0) -> Any:
    return K.xp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def indices(K: Any, low: int, high: int, shape: Any) -> Any:
    return K.xp.asarray(np.random.default_rng(3).integers(low, high, shape))


def wide(array: Any) -> np.ndarray:
    return host(array).astype("f8")


def close(found: Any, expected: Any, dtype: str) -> None:
    scale = TOLERANCES[dtype] * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(wide(found), expected, TOLERANCES[dtype], scale)


def compare_rows(K: Any, rows: int, columns: int, count: int, dtype: str) -> None:
    table, grad = values(K, (rows, columns), dtype), values(K, (count, columns), dtype, 1)
    index = indices(K, -rows, rows, count)
    taken = indexing.take_slices(K, "op", table, index, 0, (count, columns), -rows)
    np.testing.assert_array_equal(host(taken), host(table)[host(index)])
    out = K.xp.array(table)
    indexing.add_rows(K, "op", out, index, grad, -rows)
    expected = wide(table)
    np.add.at(expected, host(index), wide(grad))
    close(out, expected, dtype)
    out = K.xp.array(table)
    indexing.add_rows(K, "op", out, abs(index) % rows, grad, skipped=rows // 2)
    expected = wide(table)
    np.add.at(expected, abs(host(index)) % rows, wide(grad))
    expected[rows // 2] = wide(table)[rows // 2]
    close(out, expected, dtype)


def compare_along(K: Any, shape: Any, count: int, dtype: str) -> None:
    outer, size, inner = shape
    x, grad = values(K, shape, dtype), values(K, (outer, count, inner), dtype, 1)
    index = indices(K, 0, size, (outer, count, inner))
    taken = indexing.take_along(K, "op", x, index, 1)
    np.testing.assert_array_equal(host(taken), np.take_along_axis(host(x), host(index), 1))
    out = K.xp.array(x)
    indexing.add_along(K, "op", out, index, grad, 1)
    expected = wide(x)
    o, _, c = np.ogrid[:outer, :count, :inner]
    np.add.at(expected, (o, host(index), c), wide(grad))
    close(out, expected, dtype)
    for cut in (np.s_[: outer // 2 + 1], np.s_[:, :, : inner // 2 + 1]):
        compare_part(K, x, K.xp.array(index[cut], order="C"), grad[cut], dtype)
    vector = host(index)[0, :, 0]
    taken = indexing.take_slices(K, "op", x, K.xp.asarray(vector), 1, (outer, count, inner))
    np.testing.assert_array_equal(host(taken), host(x)[:, vector])
    out = K.xp.array(x)
    indexing.add_slices(K, "op", out, K.xp.asarray(vector), grad, 1)
    expected = wide(x)
    np.add.at(expected, (slice(None), vector), wide(grad))
    close(out, expected, dtype)


def compare_part(K: Any, x: Any, index: Any, grad: Any, dtype: str) -> None:
    """Indices that are fewer than the array's elements in the other dimensions too."""
    o, _, c = np.ogrid[tuple(map(slice, index.shape))]
    places = (o, host(index), c)
    np.testing.assert_array_equal(host(indexing.take_along(K, "op", x, index, 1)), host(x)[places])
    out = K.xp.array(x)
    indexing.add_along(K, "op", out, index, grad, 1)
    expected = wide(x)
    np.add.at(expected, places, wide(grad))
    close(out, expected, dtype)


@pytest.fixture(params=["searched", "sorted", "atomic"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Which kernel adds rows where there is a choice."""
    if request.param != "searched":
        monkeypatch.setattr(indexing, "SEARCHED", 0)
    gradlite.use_deterministic_algorithms(request.param == "sorted")
    yield request.param
    gradlite.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("sizes", ROWS, ids=str)
def test_rows(launcher: Any, way: str, sizes: tuple[int, int, int], dtype: str) -> None:
    compare_rows(launcher, *sizes, dtype)


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "count"), ALONG, ids=str)
def test_along(
    launcher: Any, monkeypatch: Any, shape: Any, count: int, dtype: str, few: bool
) -> None:
    monkeypatch.setattr(indexing, "TERMS", 1000 if few else 0)
    compare_along(launcher, shape, count, dtype)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, monkeypatch: Any, way: str, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    monkeypatch.setattr(indexing, "TERMS", 0 if way == "atomic" else 1000)
    for sizes in ((5, 31, 40), (9, 64, 65)):
        compare_rows(threads, *sizes, "float32")
    compare_along(threads, (3, 4, 8), 20, "float32")


def compare_sorted(K: Any, rows: int, columns: int, count: int, dtype: str) -> None:
    """The kernel for indices in order, which `indexing.add_rows` leaves to GPUs."""
    table, grad = values(K, (rows, columns), dtype), values(K, (count, columns), dtype, 1)
    index = host(indices(K, 0, rows, count))
    order = np.argsort(index, kind="stable")
    out, skipped = K.xp.array(table), int(index[0])
    K.rows(
        "add_rows_sorted", table.dtype, count, columns, grad, K.xp.asarray(index[order]),
        K.xp.asarray(order), out, K.errors("op"), skipped, rows, count, columns,
    )  # fmt: skip
    expected = wide(table)
    np.add.at(expected, index[index != skipped], wide(grad)[index != skipped])
    close(out, expected, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("sizes", ROWS, ids=str)
def test_rows_in_the_order_of_their_indices(launcher: Any, sizes: Any, dtype: str) -> None:
    compare_sorted(launcher, *sizes, dtype)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_where_indices_are_sorted_or_wrong(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for sizes in ((5, 31, 40), (9, 64, 65)):
        compare_sorted(threads, *sizes, "float32")
    table, index = values(threads, (5, 3), "float32"), np.full(40, 7)
    taken = indexing.take_slices(threads, "op", table, index, 0, (40, 3), -5)
    np.testing.assert_array_equal(taken, np.zeros((40, 3)))
    np.testing.assert_array_equal(threads.errors("op"), [[1, 7, 5]])


# ---------------------------------------------------------------------- as the ops use them
@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch)


def on_both(function: Any, *shapes: Any) -> list[str]:
    """Compare values and gradients of a device with the CPU's; the kernels that ran there."""
    results = []
    for device in ("cpu", "cuda"):
        generator = np.random.default_rng(1)
        given = [
            gradlite.tensor(generator.standard_normal(s), device=device, requires_grad=True)
            for s in shapes
        ]
        with kernels.record() as launched:
            out = function(*given, lambda x, device=device: gradlite.tensor(x, device=device))
            weight = np.random.default_rng(2).standard_normal(out.shape)
            (out * gradlite.tensor(weight, device=device)).sum().backward()
        results.append([t.detach().cpu().numpy() for t in (out, *[g.grad for g in given])])
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, 1e-10, 1e-10)
    own = {k.name for k in index().values() if k.file in ("index.cu", "put.cu")}
    return [name for name in launched if name in own]


# Of a pair of indices the kernel sees what they come to together.
TOGETHER = ["row_numbers", "row_numbers"]
PAIR = [*TOGETHER, "take_along", *TOGETHER, "add_rows_searched"]


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (lambda w, t: F.embedding(t([[1, 4], [4, 0]]), w), [(5, 9)], ["take_rows"]),
        (lambda w, t: F.embedding(t([1, 4, 1]), w, padding_idx=1), [(5, 3)], ["take_along"]),
        (
            lambda w, t: F.embedding(t([1, 4, 1]), w, padding_idx=4, scale_grad_by_freq=True),
            [(5, 3)],
            ["take_along"],
        ),
        (lambda x, t: x.index_select(1, t([2, 0, 2])), [(2, 3, 4)], ["take_along", "add_along"]),
        (lambda x, t: x.gather(1, t([[0, 2], [1, 1]])), [(2, 3)], ["take_along", "add_along"]),
        (lambda x, t: x.gather(1, t([[0, 2, 2]])), [(2, 3)], ["take_along", "add_along"]),
        (lambda x, t: x.gather(0, t([[2], [2]])), [(3, 4)], ["take_along", "add_along"]),
        (lambda x, t: x.T.gather(0, t([[2], [0]])), [(4, 3)], ["take_along", "add_along"]),
        (
            lambda x, t: x.take_along_dim(t([[2, -1]]), 1),
            [(2, 3)],
            ["row_numbers", "take_along", "add_along"],
        ),
        (lambda x, t: x.max(1).values, [(2, 3, 4)], ["take_along", "add_along"]),
        (lambda x, t: x.min(-1, True).values, [(3, 4)], ["take_along", "add_along"]),
        (lambda x, t: x.kthvalue(2, 0).values, [(3, 4)], ["take_along", "add_along"]),
        (lambda x, t: x[t([0, -1, 0])], [(3, 10)], ["take_rows"]),
        (lambda x, t: x[t([0, -1]), t([[2], [1]])], [(3, 4, 2)], PAIR),
        (lambda x, y, t: x.scatter_add(1, t([[0, 0]] * 3), y), [(3, 4), (3, 2)], ["add_along"]),
        (lambda x, y, t: x.scatter_add(1, t([[0, 0]]), y), [(3, 4), (3, 2)], ["add_along"]),
        (lambda x, y, t: x.scatter_add(0, t([[1], [1]]), y), [(3, 4), (2, 2)], ["add_along"]),
        (lambda x, y, t: x.index_add(0, t([0, 0]), y), [(3, 9), (2, 9)], None),
        (lambda x, y, t: x.index_add(1, t([0, 1]), y, alpha=2), [(2, 3, 9), (2, 2, 9)], None),
    ],
)
def test_ops_use_them(cupy: Any, function: Any, shapes: Any, expected: Any) -> None:
    launched = on_both(function, *shapes)
    if expected is None:
        expected = ["add_rows_searched" if len(shapes[0]) == 2 else "add_along", "take_rows"]
    elif len(expected) == 1 and expected[0] != "add_along":
        expected = [*expected, "add_rows_searched"]
    elif expected == ["add_along"]:
        expected = [*expected, "take_along"]
    assert launched == expected


def test_one_index_without_a_dimension(cupy: Any) -> None:
    assert on_both(lambda x, t: x.gather(0, t(2)), (3,)) == ["check_indices"]
    added = on_both(lambda x, y, t: x.scatter_add(0, t(2), y), (3,), ())
    assert added == ["check_indices"]


def test_whole_numbers_are_moved_as_they_are(cupy: Any) -> None:
    """Also those whose bits are a NaN's, a subnormal's or a -0.0's as floats."""
    rows = np.array([[0, 1, -1], [2**63 - 1, -(2**63), 0x7FF0_0000_0000_0001]])
    for places in ([[2, 0, 1, 2], [1, 2, 0, 0]], [[2, 1]]):
        with kernels.record() as launched:
            x = gradlite.tensor(rows, device="cuda")
            taken = x.gather(1, gradlite.tensor(places, device="cuda"))
        assert launched == ["take_along"]
        assert taken.dtype == gradlite.int64
        expected = np.take_along_axis(rows[: len(places)], np.array(places), 1)
        assert taken.tolist() == expected.tolist()


def test_one_hot_asks_the_device_nothing(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = gradlite.tensor([[0, 3], [1, 1]], device="cuda")
    with monkeypatch.context() as patch:
        patch.setattr(stand_in.Array, "__bool__", None)
        patch.setattr(stand_in.Array, "__int__", None)
        result = F.one_hot(x, 4)
    assert result.tolist() == F.one_hot(x.cpu(), 4).tolist()
    assert result.dtype == gradlite.int64


@pytest.mark.parametrize("bad", [5, -1])
@pytest.mark.parametrize(
    "op",
    [
        lambda x, i: F.embedding(i, x),
        lambda x, i: x.index_select(0, i),
        lambda x, i: x.gather(0, i[:, None].expand(3, 9)),
        lambda x, i: x.repeat(1, 2).gather(0, i[:, None].expand(3, 9)),
        lambda x, i: F.one_hot(i, 5),
        lambda x, i: x.index_add(0, i, gradlite.ones(3, 9, device="cuda")),
    ],
)
def test_an_index_out_of_bounds_is_an_error_in_the_end(cupy: Any, op: Any, bad: int) -> None:
    x = gradlite.ones(5, 9, device="cuda")
    index = gradlite.tensor([1, bad, 4], device="cuda")
    result = op(x, index)
    with pytest.raises(RuntimeError, match=rf"assert.*\n\w+: [\w ]+ {bad} is out .* size 5"):
        gradlite.cuda.synchronize()
    gradlite.cuda.synchronize()  # it is told once
    rows = result.tolist()
    expected = {3: [[1.0] * 9, [0.0] * 9, [1.0] * 9], 5: [[1.0] * 9, [2.0] * 9] + [[1.0] * 9] * 2}
    if result.dtype == gradlite.float32:
        assert rows[:4] == expected[len(rows)]
    op(x, index)
    with pytest.raises(RuntimeError, match="device-side assert"):
        x.sum().item()


def written(x: Any, index: Any, value: float) -> Any:
    x[index] = value
    return x


@pytest.mark.parametrize("bad", [5, -6])
@pytest.mark.parametrize(
    "op",
    [
        lambda x, i: x[i],
        lambda x, i: x[i, i.new_zeros(3)],
        lambda x, i: x.mT[:, i],
        lambda x, i: x.long()[i],
        lambda x, i: written(x, i, 2.0),
        lambda x, i: written(x.long(), i, 2),
        lambda x, i: written(x, (i, i.new_zeros(3)), 2.0),
        lambda x, i: written(x.mT, (slice(None), i), 2.0),
        lambda x, i: written(gradlite.ones(9, 5, device="cuda").mT, i, 2.0),
        lambda x, i: written(x[:, :3], (i, i.new_ones(3).bool()), 2.0),
        lambda x, i: x.index_put((i, i.new_zeros(3)), x[:3, 0].clone(), accumulate=True),
        lambda x, i: x.long().index_put((i,), x[:3].long(), accumulate=True),
        lambda x, i: x.index_put((i,), x[:3].clone()),
        lambda x, i: x.index_fill(0, i, 2.0),
        lambda x, i: x.index_copy(0, i, x[:3].clone()),
        lambda x, i: x.long().gather(0, i[:, None].expand(3, 9)),
        lambda x, i: x.scatter(0, i[:, None].expand(3, 9), 2.0),
        lambda x, i: x.scatter_(0, i[:, None].expand(3, 9), x[:3].clone()),
        lambda x, i: x.bool().scatter(0, i[:, None].expand(3, 9), True),
        lambda x, i: x.bool().index_fill(0, i, True),
        lambda x, i: x[:, 0].take(i),
        lambda x, i: x.take_along_dim(i[:, None], 0),
    ],
)
def test_indices_are_checked_without_waiting(cupy: Any, op: Any, bad: int) -> None:
    x, good = gradlite.ones(5, 9, device="cuda"), gradlite.tensor([1, 0, 4], device="cuda")
    index = gradlite.tensor([1, bad, 4], device="cuda")
    arrays.reads = reads = []
    try:
        op(x, good)
        gradlite.cuda.synchronize()  # nothing is wrong with these
        with pytest.raises(
            RuntimeError, match=r"device-side assert.*\n\w+: index .* is out of bounds"
        ):
            op(x, index)
            gradlite.cuda.synchronize()
    finally:
        arrays.reads = None
    assert not reads


def test_a_number_among_the_indices_is_not_read(cupy: Any) -> None:
    x, one = gradlite.zeros(5, 9, device="cuda"), gradlite.tensor(1, device="cuda")
    values = gradlite.ones(1, 9, device="cuda")
    arrays.reads = reads = []
    try:
        x.index_put_((one,), values[0])
        with pytest.raises(RuntimeError, match=r"shape \[1, 9\] cannot be .* of shape \[9\]"):
            x.index_put_((one,), values)
        x[gradlite.tensor([2, 3], device="cuda")] = values[None]
    finally:
        arrays.reads = None
    assert not reads
    assert x.sum(1).tolist() == [0, 9, 9, 9, 0]


def test_a_grid_has_no_more_rows_of_blocks_than_cuda_takes(cupy: Any, monkeypatch: Any) -> None:
    K, grids = ThreadsLauncher(), []
    monkeypatch.setattr(K, "launch", lambda name, dtype, grid, *rest: grids.append(grid))
    wide = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (2, 1 << 24), (0, 4))
    values = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 1 << 24), (1 << 26, 4))
    indexing.add_rows(K, "op", wide, np.zeros(1, np.int64), values)
    assert grids == [(1, 65535)]


@pytest.mark.parametrize("count", [1, 31, 257])
def test_check_indices(launcher: Any, count: int) -> None:
    K = launcher
    index = indices(K, -4, 4, count)
    indexing.check(K, "op", index, -4, 4)
    assert taken(K) == []
    index[count // 2] = 4
    indexing.check(K, "op", index, -4, 4)
    assert taken(K) == [said("op: index", 4, 4)]


def test_determinism_can_be_asked_for() -> None:
    assert not gradlite.are_deterministic_algorithms_enabled()
    gradlite.use_deterministic_algorithms(True, warn_only=True)
    assert gradlite.are_deterministic_algorithms_enabled()
    assert gradlite.is_deterministic_algorithms_warn_only_enabled()
    gradlite.use_deterministic_algorithms(False)
    assert not gradlite.are_deterministic_algorithms_enabled()
    assert not gradlite.is_deterministic_algorithms_warn_only_enabled()
