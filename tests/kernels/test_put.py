"""Writing at indices: NumPy, which writes one after the other, is the reference."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops import indexing
from tests import array_calls
from tests import cupy_stand_in as stand_in
from tests.cuda_on_cpu import compiler
from tests.kernels.support import DTYPES, ThreadsLauncher, host
from tests.kernels.test_index import ALONG, on_both, values

WHOLE = ["int64", "int32"]


@pytest.fixture
def in_order() -> Iterator[None]:
    """The last of what is written to a place stays."""
    gradlite.use_deterministic_algorithms(True)
    yield
    gradlite.use_deterministic_algorithms(False)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    return stand_in.install(monkeypatch)


def numbers(K: Any, shape: Any, dtype: str, seed: int = 0) -> Any:
    """Numbers of a dtype; whole ones whose bits are those of any float."""
    if dtype not in WHOLE:
        return values(K, shape, dtype, seed)
    info = np.iinfo(dtype)
    made = np.random.default_rng(seed).integers(info.min, info.max, shape, dtype, endpoint=True)
    return K.xp.asarray(made)


def places(size: int, shape: tuple[int, int, int], repeated: bool) -> np.ndarray:
    """Indices along the middle, each of them once or any number of times."""
    generator = np.random.default_rng(3)
    if repeated:
        return generator.integers(0, size, shape)
    every = generator.permuted(np.broadcast_to(np.arange(size)[:, None], (size, shape[2])), axis=0)
    return np.ascontiguousarray(np.broadcast_to(every[: shape[1]], shape))


def compare(K: Any, shape: Any, count: int, dtype: str, repeated: bool) -> None:
    outer, size, inner = shape
    count = count if repeated else min(count, size)
    index = places(size, (outer, count, inner), repeated)
    x, source = numbers(K, shape, dtype), numbers(K, index.shape, dtype, 1)
    one = numbers(K, (1, 1, 1), dtype, 2)
    bits = indexing.bits_of(host(one).item(), host(one).dtype)
    for cut in (np.s_[:], np.s_[: outer // 2 + 1], np.s_[:, :, : inner // 2 + 1]):
        own, part = np.ascontiguousarray(index[cut]), source[cut]
        o, _, c = np.ogrid[tuple(map(slice, own.shape))]
        for given, number in (
            (part, 0),
            (K.xp.broadcast_to(one, own.shape), 0),
            (None, bits),
        ):
            out, expected = K.xp.array(x), host(x).copy()
            indexing.put_along(K, "op", out, K.xp.asarray(own), 1, given, number)
            expected[o, own, c] = host(one if given is None else given)
            np.testing.assert_array_equal(host(out), expected)
    vector = np.ascontiguousarray(index[0, :, 0])
    expanded = K.xp.broadcast_to(K.xp.asarray(vector)[:, None], index.shape)
    out, expected = K.xp.array(x), host(x).copy()
    indexing.put_along(K, "op", out, expanded, 1, source)
    expected[:, vector] = host(source)
    np.testing.assert_array_equal(host(out), expected)
    for lowest, named in ((0, vector), (-size, vector - size)):
        out = K.xp.array(x)
        indexing.put_slices(K, "op", out, K.xp.asarray(named), 1, source, lowest=lowest)
        np.testing.assert_array_equal(host(out), expected)


def compare_rows(K: Any, sizes: tuple[int, int, int], shape: tuple[int, ...]) -> None:
    """Three indices, which broadcast."""
    generator = np.random.default_rng(5)
    index = [
        generator.integers(-n, n, tuple(m if k == d else 1 for k, m in enumerate(shape)))
        for d, n in enumerate(sizes)
    ]
    rows, lowest = indexing.row_numbers(K, "op", (*sizes, 2), tuple(map(K.xp.asarray, index)))
    whole = np.broadcast_arrays(*(i % n for i, n in zip(index, sizes)))
    np.testing.assert_array_equal(host(rows), np.ravel_multi_index(tuple(whole), sizes))
    assert lowest == 0


@pytest.mark.parametrize("dtype", [*DTYPES, *WHOLE])
@pytest.mark.parametrize(("shape", "count"), ALONG, ids=str)
def test_each_place_once(launcher: Any, shape: Any, count: int, dtype: str) -> None:
    compare(launcher, shape, count, dtype, False)


@pytest.mark.parametrize("dtype", [*DTYPES, *WHOLE])
@pytest.mark.parametrize(("shape", "count"), ALONG, ids=str)
def test_the_last_one_stays(
    launcher: Any, in_order: None, shape: Any, count: int, dtype: str
) -> None:
    compare(launcher, shape, count, dtype, True)


@pytest.mark.parametrize("sizes", [(5, 1, 7), (2, 3, 40)], ids=str)
def test_numbers_of_rows(launcher: Any, sizes: tuple[int, int, int]) -> None:
    compare_rows(launcher, sizes, (3, 1, 2))
    compare_rows(launcher, sizes, (11, 5, 33))


@pytest.mark.parametrize("seed", [0, 1])
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for shape, count in ALONG:
        compare(threads, shape, count, "float32", False)
    compare_rows(threads, (5, 1, 7), (11, 5, 33))


def test_no_race_in_order(threads: ThreadsLauncher, in_order: None) -> None:
    threads.check = True
    compare(threads, (3, 4, 8), 20, "float32", True)


def test_nothing_is_written_at_a_wrong_index(threads: ThreadsLauncher) -> None:
    x, source = np.zeros((5, 3), np.float32), np.ones((4, 3), np.float32)
    indexing.put_slices(threads, "op", x, np.array([1, -1, 5, 4]), 0, source)
    np.testing.assert_array_equal(x.sum(1), [0, 3, 0, 0, 3])
    assert threads.errors("op")[0, [0, 2]].tolist() == [1, 5]
    threads.errors("op")[...] = 0
    index = np.array([1, 5, 2]), np.array([0, 1, -2])
    rows, _ = indexing.row_numbers(threads, "op", x.shape, index)
    np.testing.assert_array_equal(rows, [3, 1, 7])
    np.testing.assert_array_equal(threads.errors("op"), [[1, 5, 5]])


# ---------------------------------------------------------------------- as the ops use them
@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (lambda x, y, t: x.scatter(1, t([[2, 0]] * 3), y), [(3, 4), (3, 2)], "pt"),
        (lambda x, y, t: x.scatter(1, t([[2, 0]]), y), [(3, 4), (3, 2)], "pt"),
        (lambda x, t: x.scatter(0, t([[2], [0]]), -1.5), [(3, 4)], "p"),
        (lambda x, y, t: x.index_copy(1, t([2, 0]), y), [(2, 3, 4), (2, 2, 4)], "pt"),
        (lambda x, y, t: x.index_copy(0, t(0), y), [(), (1,)], ""),
        (lambda x, t: x.index_fill(1, t([2, -3]), 0.3), [(2, 3, 4)], "p"),
        (lambda x, y, t: x.index_put((t([2, -1]),), y), [(4, 9), (9,)], "pr"),
        (lambda x, y, t: x.index_put((t([2, -1]),), y), [(4, 9), ()], "pr"),
        (lambda x, y, t: x.index_put((t([0, -1]), t([[1], [0]])), y), [(4, 3), (1, 2)], "nnpt"),
    ],
)
def test_ops_use_them(
    monkeypatch: pytest.MonkeyPatch, function: Any, shapes: Any, expected: str
) -> None:
    stand_in.install(monkeypatch)
    names = {"p": "put_along", "n": "row_numbers", "t": "take_along", "r": "take_rows"}
    forward = [names[letter] for letter in expected if letter in "np"]
    backward = [names[letter] for letter in expected]
    launched = on_both(function, *shapes)
    assert launched == [*forward, *backward] or not expected


def test_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch)
    results = []
    for device in ("cpu", "cuda"):
        rows = gradlite.tensor([3, 1], device=device)
        columns = gradlite.tensor([0, -1], device=device)
        found = []
        for dtype in (gradlite.float32, gradlite.float16, gradlite.int64, gradlite.bool):
            x = gradlite.arange(20, device=device).reshape(5, 4).to(dtype)
            y = x.flip(0).contiguous()
            x[rows] = y[:2]
            x[rows, columns] = y[2, :2].clone()
            x.scatter_(1, rows[:, None], 1)
            x.index_copy_(1, columns[:1], y[:, 2:3].clone())
            x.index_fill_(0, rows[:1], 0)
            if dtype is not gradlite.bool:
                x.index_put_((rows, rows), y[0, :2].clone(), accumulate=True)
                x.index_add_(0, rows, y[:2].clone())
                x.scatter_add_(0, rows[None], y[:1, :2].clone())
            x.mT[columns] = y[:4].mT[:2].repeat(1, 2)[:, :5]
            found.append(x.cpu().tolist())
        results.append(found)
    assert results[0] == results[1]


# ---- elements of a source where a mask holds ---------------------------------------------------
LENGTHS = [1, 31, 33, 1023, 1025, 40003]


def compare_masked(K: Any, n: int, dtype: str, size: int) -> None:
    """``size``: of the source, which may have too few elements."""
    x, source = numbers(K, (n,), dtype), numbers(K, (size,), dtype, 1)
    mask = np.random.default_rng(2).integers(0, 3, n) > 0
    given = min(size, int(mask.sum()))
    expected = host(x).copy()
    places = np.flatnonzero(mask)[:given]
    expected[places] = host(source)[:given]
    found = host(indexing.masked_scatter(K, x, K.xp.asarray(mask), source))
    assert found.tobytes() == expected.tobytes()
    if dtype not in WHOLE:
        found = host(indexing.masked_elements(K, x, K.xp.asarray(mask), (size,)))
        expected = np.zeros(size, host(x).dtype)
        expected[:given] = host(x)[places]
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [*DTYPES, *WHOLE])
@pytest.mark.parametrize("n", LENGTHS)
def test_elements_where_a_mask_holds(wanted: Any, n: int, dtype: str) -> None:
    compare_masked(wanted, n, dtype, n + 3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_mask_and_a_source_have_no_race(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for n, size in ((1, 1), (300, 300), (5000, 4000), (5000, 100)):
        compare_masked(threads, n, "float32", size)


def test_masked_scatter_does_not_wait(cupy: Any) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (5, 1, 7)) > 0
    values = np.random.default_rng(1).standard_normal((4, 7)), np.arange(200.0)

    def run(device: str) -> list[Any]:
        x, source = (gradlite.tensor(v, device=device, requires_grad=True) for v in values)
        out = x.masked_scatter(gradlite.tensor(mask, device=device), source)
        return [out, *gradlite.autograd.grad((out * out).sum(), (x, source))]

    stand_in.arrays.reads = reads = []
    try:
        found = run("cuda")
        whole = gradlite.arange(6, device="cuda").masked_scatter(
            gradlite.arange(6, device="cuda") > 3, gradlite.tensor([7, 8, 9], device="cuda")
        )
    finally:
        stand_in.arrays.reads = None
    assert not reads
    for ours, reference in zip(found, run("cpu")):
        np.testing.assert_array_equal(ours.tolist(), reference.tolist())
    assert whole.tolist() == [0, 1, 2, 3, 7, 8]


def test_a_source_that_is_too_short(cupy: Any) -> None:
    x, source = gradlite.zeros(5, device="cuda"), gradlite.ones(2, device="cuda")
    assert x.masked_scatter(x > 0, source[:0]).tolist() == [0.0] * 5
    with pytest.raises(
        RuntimeError,
        match="device-side assert.*\nmasked_scatter: element of source 4 is out of bounds",
    ):
        x.masked_scatter(x == 0, source)
        gradlite.cuda.synchronize()


EDITS = {
    "index_add_": lambda x, i, v: x.index_add_(0, i, v),
    "index_copy_": lambda x, i, v: x.index_copy_(0, i, v),
    "index_fill_": lambda x, i, v: x.index_fill_(0, i, 2.0),
    "scatter_": lambda x, i, v: x.scatter_(0, i[:, None].repeat(1, 4), v),
    "scatter_add_": lambda x, i, v: x.scatter_add_(0, i[:, None].repeat(1, 4), v),
    "index_put_": lambda x, i, v: x.index_put_((i,), v, accumulate=True),
    "setitem": lambda x, i, v: x.__setitem__(i, v),
    "masked_fill_": lambda x, i, v: x.masked_fill_(i[:, None].sum(0) > 6, 3.0),
    "masked_fill_ by a tensor": lambda x, i, v: x.masked_fill_(x.detach() > 0, v.sum()),
}


# ---- where there is no place -------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name in EDITS if not name.startswith("masked")])
def test_indices_of_what_has_no_place_are_errors_at_once(cupy: Any, name: str) -> None:
    def error_on(device: str) -> Exception:
        x, values = (gradlite.zeros(n, 4, device=device) for n in (0, 3))
        with pytest.raises((RuntimeError, IndexError)) as caught:
            EDITS[name](x, gradlite.zeros(3, dtype=gradlite.int64, device=device), values)
        return caught.value

    ours, expected = error_on("cuda"), error_on("cpu")
    assert (type(ours), str(ours)) == (type(expected), str(expected))
    gradlite.cuda.synchronize()  # nor does another error come late


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_index_arrays_that_do_not_broadcast(cupy: Any, device: str) -> None:
    text = "shape mismatch: indexing tensors could not be broadcast together with shapes [2], [3]"
    x, values = gradlite.zeros(4, 4, device=device), gradlite.ones(2, device=device)
    index = tuple(gradlite.tensor(i, device=device) for i in ([0, 1], [0, 1, 2]))
    for call in (
        lambda: x[index],
        lambda: x.__setitem__(index, 1.0),
        lambda: x.index_put(index, values),
        lambda: x.index_put_(index, values, accumulate=True),
        lambda: x[:, None].__setitem__((index[0], slice(None), index[1]), 1.0),
    ):
        with pytest.raises(IndexError, match=re.escape(text)):
            call()


# ---- edits that a graph records ----------------------------------------------------------------
def edited(edit: Any, device: str, tracked: bool) -> tuple[list[Any], dict[str, int]]:
    """Values and gradients of a chain of edits, and what the last one asks for."""
    generator = np.random.default_rng(0)
    start, first, second = (
        gradlite.tensor(generator.standard_normal(s), device=device, requires_grad=True)
        for s in ((6, 4), (3, 4), (3, 4))
    )
    index, other = (gradlite.tensor(i, device=device) for i in ([4, 0, 2], [1, 2, 5]))
    x = start * 2 if tracked else start.detach().clone()
    before = x * 3 if tracked else x
    values = first * 2, second * 3
    edit(x, index, values[0])
    counts: dict[str, int] = {}
    with array_calls.counting(counts):
        edit(x, other, values[1])
    if not x.requires_grad:
        return [x], counts
    total = (x * x).sum() + before.sum() + values[0].sum()
    leaves = [start, first, second]
    return [x, *gradlite.autograd.grad(total, leaves, allow_unused=True)], counts


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("name", EDITS)
def test_edits_that_a_graph_records(cupy: Any, name: str, tracked: bool) -> None:
    found, counts = edited(EDITS[name], "cuda", tracked)
    expected, _ = edited(EDITS[name], "cpu", tracked)
    for ours, reference in zip(found, expected, strict=True):
        assert (ours is None) == (reference is None)
        if ours is not None:
            np.testing.assert_allclose(ours.tolist(), reference.tolist(), 1e-12)
            assert str(ours.grad_fn).split(" ")[0] == str(reference.grad_fn).split(" ")[0]
    copies = counts.keys() & {"array", "setitem", "copy"}
    assert not copies


def test_edits_of_what_a_graph_still_reads(cupy: Any) -> None:
    for device in ("cpu", "cuda"):
        x = gradlite.ones(4, device=device, requires_grad=True)
        y = x.exp()
        y.index_add_(0, gradlite.tensor([1], device=device), gradlite.ones(1, device=device))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_an_edit_of_itself(cupy: Any) -> None:
    """What is read from the memory that is written comes from before."""
    results = []
    for device in ("cpu", "cuda"):
        x = gradlite.arange(6.0, device=device, requires_grad=True)
        y = (x * 1).view(3, 2)
        y.index_add_(0, gradlite.tensor([0, 1], device=device), y[1:].detach())
        y[gradlite.tensor([2], device=device)] = y[:1] * 2
        results.append([y.tolist(), *[g.tolist() for g in gradlite.autograd.grad(y.sum(), x)]])
    assert results[0] == results[1]
