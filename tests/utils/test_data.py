"""Datasets, samplers, collation and the DataLoader in one process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.utils import data
from gradlite.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    RandomSampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    default_convert,
    random_split,
)
from tests.utils.loading import Numbers, Point, Stream, plain, seeded


def same_error(torch: Any, function: Callable[[Any], Any]) -> None:
    """Both libraries raise the same type with the same text."""
    with pytest.raises(Exception) as expected:
        function(torch)
    with pytest.raises(expected.type) as got:
        function(gradlite)
    theirs = str(expected.value).replace("torch.utils.data.dataset", "gradlite.utils.data.dataset")
    assert str(got.value).replace("\n", " ") == theirs.replace("\n", " ")


# -- datasets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda t: t.utils.data.Dataset()[0],
        lambda t: t.utils.data.TensorDataset(t.ones(3), t.ones(2)),
        lambda t: t.utils.data.ConcatDataset([]),
        lambda t: t.utils.data.ConcatDataset([[1], t.utils.data.IterableDataset()]),
        lambda t: t.utils.data.ConcatDataset([[1], [2, 3]])[-4],
        lambda t: t.utils.data.ConcatDataset([[1], [2, 3]])[5],
        lambda t: list(t.utils.data.ChainDataset([[1]])),
        lambda t: len(t.utils.data.ChainDataset([[1]])),
        lambda t: t.utils.data.StackDataset(),
        lambda t: t.utils.data.StackDataset([1], a=[1]),
        lambda t: t.utils.data.StackDataset([1], [1, 2]),
        lambda t: t.utils.data.StackDataset(a=[1], b=[1, 2]),
        lambda t: t.utils.data.random_split([1, 2, 3], [1, 1]),
        lambda t: t.utils.data.random_split([1, 2, 3], [-0.5, 1.5]),
        lambda t: t.utils.data.RandomSampler([]),
        lambda t: t.utils.data.RandomSampler([1], replacement=1),
        lambda t: t.utils.data.RandomSampler([1], num_samples=0),
        lambda t: t.utils.data.RandomSampler([1], num_samples=1.5),
        lambda t: t.utils.data.WeightedRandomSampler([1.0], 0),
        lambda t: t.utils.data.WeightedRandomSampler([1.0], True),
        lambda t: t.utils.data.WeightedRandomSampler([1.0], 1, replacement=0),
        lambda t: t.utils.data.WeightedRandomSampler([[1.0]], 1),
        lambda t: list(t.utils.data.WeightedRandomSampler([0.0, 0.0], 1)),
        lambda t: list(t.utils.data.WeightedRandomSampler([1.0], 2, replacement=False)),
        lambda t: t.utils.data.DistributedSampler([1], 2, 2),
        lambda t: t.utils.data.DistributedSampler([1], 2, -1),
        lambda t: t.utils.data.BatchSampler([1], 0, False),
        lambda t: t.utils.data.BatchSampler([1], True, False),
        lambda t: t.utils.data.BatchSampler([1], 1, 0),
        lambda t: t.utils.data.default_collate([None]),
        lambda t: t.utils.data.default_collate([np.array(["a"])]),
        lambda t: t.utils.data.default_collate([t.ones(2), t.ones(3)]),
        lambda t: t.utils.data.default_collate([(1, 2), (1,)]),
        lambda t: t.utils.data.DataLoader([1], batch_size=0),
        lambda t: t.utils.data.DataLoader([1], batch_size=2.5),
        lambda t: t.utils.data.DataLoader([1], num_workers=-1),
        lambda t: t.utils.data.DataLoader([1], timeout=-1),
        lambda t: t.utils.data.DataLoader([1], prefetch_factor=2),
        lambda t: t.utils.data.DataLoader([1], num_workers=1, prefetch_factor=-1),
        lambda t: t.utils.data.DataLoader([1], persistent_workers=True),
        lambda t: t.utils.data.DataLoader([1], shuffle=True, sampler=[0]),
        lambda t: t.utils.data.DataLoader([1], batch_sampler=[[0]], batch_size=2),
        lambda t: t.utils.data.DataLoader([1], batch_sampler=[[0]], shuffle=True),
        lambda t: t.utils.data.DataLoader([1], batch_size=None, drop_last=True),
        lambda t: t.utils.data.DataLoader([], shuffle=True),
        lambda t: t.utils.data.DataLoader([1], multiprocessing_context="fork"),
        lambda t: t.utils.data.DataLoader([1], num_workers=1, multiprocessing_context="x"),
        lambda t: t.utils.data.DataLoader([1], num_workers=1, multiprocessing_context=3),
        lambda t: setattr(t.utils.data.DataLoader([1]), "batch_size", 2),
        lambda t: setattr(t.utils.data.DataLoader([1]), "dataset", [2]),
        lambda t: next(
            iter(
                t.utils.data.DataLoader(
                    t.utils.data.TensorDataset(t.ones(3)), batch_sampler=[[0, 5]]
                )
            )
        ),
    ],
)
def test_errors_as_in_torch(function: Callable[[Any], Any]) -> None:
    same_error(pytest.importorskip("torch"), function)


def test_stream_options_are_refused() -> None:
    torch = pytest.importorskip("torch")
    for options in ({"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}):

        def make(library: Any, options: Any = options) -> Any:
            class Empty(library.utils.data.IterableDataset):
                pass

            return library.utils.data.DataLoader(Empty(), **options)

        same_error(torch, make)


def test_tensor_dataset() -> None:
    x, y = gradlite.arange(6).reshape(3, 2), gradlite.arange(3)
    dataset = TensorDataset(x, y)
    assert len(dataset) == 3
    assert plain(dataset[1]) == [[2, 3], 1]
    assert plain(dataset[1:]) == [[[2, 3], [4, 5]], [1, 2]]


def test_concat_chain_subset_stack() -> None:
    both = Numbers(3) + Numbers(2)
    assert isinstance(both, ConcatDataset) and both.cumulative_sizes == [3, 5]
    assert [both[i] for i in range(-5, 5)] == [0, 1, 2, 0, 1] * 2
    chain = Stream(2, 2) + Stream(3, 3)
    assert isinstance(chain, ChainDataset)
    assert list(chain) == [0, 1, 0, 1, 2] and len(chain) == 5
    part = Subset(Numbers(5), [4, 0, 2])
    assert len(part) == 3 and [part[i] for i in range(3)] == [4, 0, 2]
    assert part.__getitems__([0, 2]) == [4, 2]
    stacked = StackDataset(Numbers(3), Subset(Numbers(3), [2, 1, 0]))
    assert stacked[0] == (0, 2) and stacked.__getitems__([1, 2]) == [(1, 1), (2, 0)]
    assert StackDataset(a=Numbers(3)).__getitems__([1]) == [{"a": 1}]


def test_nested_batches_of_a_wrong_size_are_refused() -> None:
    class Short(Numbers):
        def __getitems__(self, indices: list[int]) -> list[int]:
            return indices[1:]

    with pytest.raises(ValueError, match=r"output size mismatch\. Expected 2, got 1"):
        StackDataset(Short(4)).__getitems__([0, 1])


def test_subset_must_override_both() -> None:
    class Half(Subset[int]):
        def __getitem__(self, index: Any) -> Any:
            return 0

    with pytest.raises(NotImplementedError, match="Half overrides __getitem__ but not"):
        Half(Numbers(3), [0])


def test_random_split() -> None:
    torch = pytest.importorskip("torch")
    for lengths in ([7, 3], [0.5, 0.25, 0.25], [0.3, 0.3, 0.4], [1.0], [0.35, 0.65]):
        parts = random_split(Numbers(10), lengths, seeded())
        expected = torch.utils.data.random_split(range(10), lengths)
        assert [len(part) for part in parts] == [len(part) for part in expected]
        assert sorted(i for part in parts for i in part.indices) == list(range(10))
        again = random_split(Numbers(10), lengths, seeded())
        assert [part.indices for part in parts] == [part.indices for part in again]
    with pytest.warns(UserWarning, match="Length of split at index 1 is 0"):
        random_split(Numbers(1), [0.5, 0.5])
    first = random_split(Numbers(100), [100])[0].indices
    assert first != random_split(Numbers(100), [100], None)[0].indices


# -- samplers -----------------------------------------------------------------------------------


def test_random_sampler() -> None:
    source = range(10)
    orders = [list(RandomSampler(source)) for _ in range(3)]
    assert all(sorted(order) == list(source) for order in orders)
    assert orders[0] != orders[1]
    assert list(RandomSampler(source, generator=seeded())) == seeded().permutation(10).tolist()
    for count in (1, 9, 10, 25, 2000):
        order = list(RandomSampler(source, num_samples=count))
        assert len(order) == count == len(RandomSampler(source, num_samples=count))
        whole = count // 10 * 10
        for start in range(0, whole, 10):
            assert sorted(order[start : start + 10]) == list(source)
        drawn = list(RandomSampler(source, replacement=True, num_samples=count))
        assert len(drawn) == count and set(drawn) <= set(source)
    assert len(set(RandomSampler(range(1000), True))) < 1000


def test_a_growing_source() -> None:
    source = [0]
    sampler = RandomSampler(source)
    source.extend([0, 0])
    assert sorted(sampler) == [0, 1, 2] and len(sampler) == 3


def test_global_seed_repeats_the_order() -> None:
    def order() -> list[int]:
        gradlite.manual_seed(5)
        return list(RandomSampler(range(50)))

    assert order() == order()


def test_other_samplers() -> None:
    assert list(SequentialSampler(range(3))) == [0, 1, 2]
    assert sorted(SubsetRandomSampler([5, 7, 9])) == [5, 7, 9]
    assert sorted(SubsetRandomSampler("abc", seeded())) == ["a", "b", "c"]
    drawn = list(WeightedRandomSampler([0.0, 1.0, 3.0], 4000, generator=seeded()))
    assert len(drawn) == 4000 and drawn.count(0) == 0
    assert abs(drawn.count(2) / 4000 - 0.75) < 0.03
    weights = gradlite.tensor([1.0, 0.0, 2.0])
    assert sorted(WeightedRandomSampler(weights, 2, replacement=False)) == [0, 2]
    for size, last in ((10, False), (10, True), (9, True), (2, False)):
        ours, theirs = BatchSampler(range(size), 3, last), len(range(size)) / 3
        assert len(list(ours)) == len(ours) == (int(theirs) if last else -int(-theirs // 1))
    assert list(BatchSampler(iter("abcde"), 2, True)) == [["a", "b"], ["c", "d"]]
    with pytest.raises(NotImplementedError):
        iter(data.Sampler())


# -- collation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda t: [1, 2],
        lambda t: [True, False],
        lambda t: [True, 2],
        lambda t: [1, 2.5],
        lambda t: [1.0, 2],
        lambda t: ["a", "b"],
        lambda t: [b"a", b"b"],
        lambda t: [np.float32(1), np.float32(2)],
        lambda t: [np.int8(1), np.int8(2)],
        lambda t: [np.bool_(True), np.bool_(False)],
        lambda t: [np.ones(2, np.float32), np.zeros(2, np.float32)],
        lambda t: [np.ones((2, 1)), np.zeros((2, 1))],
        lambda t: [t.ones(2), t.zeros(2)],
        lambda t: [t.tensor(1), t.tensor(2)],
        lambda t: [(t.ones(2), 1, "a"), (t.zeros(2), 2, "b")],
        lambda t: [[1, 2.0], [3, 4.0]],
        lambda t: [{"x": 1, "y": [1.0, "s"]}, {"x": 2, "y": [2.0, "t"]}],
        lambda t: [Point(1, "a"), Point(2, "b")],
        lambda t: [OrderedDict(a=1), OrderedDict(a=2)],
        lambda t: [range(2), range(2)],
        lambda t: [(), ()],
    ],
)
def test_default_collate_as_in_torch(make: Callable[[Any], Any]) -> None:
    torch = pytest.importorskip("torch")
    for function in ("default_collate", "default_convert"):
        expected = getattr(torch.utils.data, function)(make(torch))
        got = getattr(data, function)(make(gradlite))
        assert_same(got, expected)


def assert_same(got: Any, expected: Any) -> None:
    if hasattr(expected, "tolist"):
        assert isinstance(got, gradlite.Tensor)
        assert str(got.dtype).split(".")[1] == str(expected.dtype).split(".")[1]
        assert tuple(got.shape) == tuple(expected.shape) and got.tolist() == expected.tolist()
        return
    assert type(got) is type(expected)
    if isinstance(expected, dict):
        assert list(got) == list(expected)
        got, expected = list(got.values()), list(expected.values())
    if isinstance(expected, list | tuple):
        assert len(got) == len(expected)
        for mine, theirs in zip(got, expected, strict=True):
            assert_same(mine, theirs)
    else:
        assert got == expected


def test_collate_keeps_container_types_and_takes_a_map() -> None:
    class Bag(dict):
        pass

    bag = Bag(a=1)
    bag.note = "kept"  # type: ignore[attr-defined]
    batch = default_collate([bag, Bag(a=2)])
    assert type(batch) is Bag and batch.note == "kept" and batch["a"].tolist() == [1, 2]
    assert bag["a"] == 1
    functions = {str: lambda batch, *, collate_fn_map: "".join(batch)}
    assert data.collate([["a", "b"], ["c", "d"]], collate_fn_map=functions) == ["ac", "bd"]


def test_collated_tensors_keep_the_graph() -> None:
    x = gradlite.ones(2, requires_grad=True)
    batch = default_collate([x, x * 2])
    batch.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [3.0, 3.0]


def test_default_convert_leaves_the_rest() -> None:
    array = np.array(["a", "b"])
    assert default_convert(array) is array
    assert default_convert("text") == "text"
    assert default_convert(None) is None


def test_collate_is_where_programs_import_it_from() -> None:
    import gradlite.utils.data._utils.collate as place

    assert place.default_collate is gradlite.utils.data.default_collate
    assert gradlite.utils.data._utils.collate.default_convert is gradlite.utils.data.default_convert


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [0, 1, 2, 9, 10])
def test_a_data_set_shared_out_among_processes(size: int, drop_last: bool) -> None:
    oracle = pytest.importorskip("tests.oracle", reason="needs PyTorch")

    def program(t: Any) -> Any:
        parts = [
            t.utils.data.DistributedSampler(
                range(size), 3, rank, shuffle=False, drop_last=drop_last
            )
            for rank in range(3)
        ]
        return [[list(p), len(p), p.num_samples, p.total_size, p.epoch, p.seed] for p in parts]

    oracle.same(program)


def test_processes_shuffle_alike_and_otherwise_each_epoch() -> None:
    from gradlite.utils.data.distributed import DistributedSampler

    parts = [DistributedSampler(range(100), 4, rank, seed=3) for rank in range(4)]
    first = [list(part) for part in parts]
    assert sorted(sum(first, [])) == list(range(100)) and first == [list(part) for part in parts]
    for part in parts:
        part.set_epoch(1)
    second = [list(part) for part in parts]
    assert sorted(sum(second, [])) == list(range(100)) and second != first
    assert second == [list(DistributedSampler(range(100), 4, r, seed=4)) for r in range(4)]
    with pytest.raises(RuntimeError, match="Requires distributed package to be available"):
        DistributedSampler(range(3))
