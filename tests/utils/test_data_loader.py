"""Batches of the DataLoader in one process."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.random import Generator
from gradlite.utils import data
from gradlite.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
    default_convert,
)
from tests.utils.loading import Numbers, Point, Stream, seeded, values

# -- batches of tensor datasets -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "uint8"])
def test_whole_batches_equal_stacked_samples(dtype: str) -> None:
    array = np.arange(30).reshape(10, 3).astype(dtype)
    dataset = TensorDataset(
        gradlite.from_numpy(array), gradlite.from_numpy(np.asfortranarray(array)[:, ::2])
    )
    part = Subset(Subset(dataset, [9, 1, 2, 3, -4]), [0, 2, 4, 3])
    for source, indices in ((dataset, [3, 0, 3, -1]), (part, [3, 0, -1])):
        whole = source._collated(indices)
        stacked = default_collate([source[i] for i in indices])
        assert whole is not None and len(whole) == len(stacked) == 2
        for mine, theirs in zip(whole, stacked, strict=True):
            assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
            assert mine.tolist() == theirs.tolist()
            assert mine.is_contiguous() and not mine.requires_grad
            mine.array[:] = 0
    assert array.any(), "a batch must not share memory with the dataset"


def test_whole_batches_hold_back() -> None:
    x = gradlite.ones(3, 2)

    class Doubled(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            return tuple(2 * value for value in super().__getitem__(index))

    class Renamed(TensorDataset):
        pass

    assert values(DataLoader(Doubled(x), batch_size=3)) == [[[[2.0, 2.0]] * 3]]
    assert data.dataset.collated_at(Doubled(x), [0]) is None
    assert data.dataset.collated_at(Subset(Doubled(x), [0]), [0]) is None
    assert data.dataset.collated_at(Renamed(x), [0]) is not None
    dataset = TensorDataset(x)
    for indices in ([0, 3], [-4], [0.5], [True, False], [[0]], [slice(1)], [], ["a"]):
        assert data.dataset.collated_at(dataset, indices) is None
    assert data.dataset.collated_at(Subset(dataset, [0]), [5]) is None
    leaf = gradlite.ones(3, 2, requires_grad=True)
    (batch,) = next(iter(DataLoader(TensorDataset(leaf), batch_size=2)))
    batch.sum().backward()
    assert leaf.grad is not None and leaf.grad.tolist() == [[1, 1], [1, 1], [0, 0]]


def test_custom_collate_sees_samples() -> None:
    dataset = TensorDataset(gradlite.arange(4))
    loader = DataLoader(dataset, batch_size=2, collate_fn=lambda samples: samples)
    assert values(loader) == [[[0], [1]], [[2], [3]]]
    assert isinstance(next(iter(loader))[0], tuple)


def test_getitems_is_preferred() -> None:
    class Batched(Numbers):
        def __getitems__(self, indices: list[int]) -> list[int]:
            return [10 * i for i in indices]

    assert values(DataLoader(Batched(3), batch_size=2)) == [[0, 10], [20]]
    assert values(DataLoader(Batched(3), batch_size=None)) == [0, 1, 2]
    assert values(DataLoader(Subset(Batched(3), [2]), batch_size=2)) == [[20]]


# -- the loader ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 3},
        {"batch_size": 3, "drop_last": True},
        {"batch_size": None},
        {"batch_size": 20},
        {"batch_size": 20, "drop_last": True},
        {"sampler": [3, 1, 3]},
        {"sampler": [3, 1, 3], "batch_size": 2},
        {"batch_sampler": [[1], [2, 3], []]},
        {"batch_size": None, "sampler": [[1, 2]], "collate_fn": list},
    ],
)
def test_batches_as_in_torch(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    if options.get("batch_sampler"):
        options = {"batch_sampler": options["batch_sampler"][:2]}
    source = list(range(10))
    if options.get("collate_fn"):

        class Any_(Numbers):
            def __getitem__(self, index: Any) -> Any:
                return index

        source = Any_(10)  # type: ignore[assignment]
    ours = DataLoader(source, **options)  # type: ignore[arg-type]
    theirs = torch.utils.data.DataLoader(source, **options)
    assert len(ours) == len(theirs)
    assert len(iter(ours)) == len(theirs)
    assert values(ours) == values(theirs)


def test_attributes() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = DataLoader([1, 2]), torch.utils.data.DataLoader([1, 2])
    for name in (
        "batch_size num_workers pin_memory drop_last timeout prefetch_factor persistent_workers "
        "worker_init_fn generator multiprocessing_context in_order pin_memory_device dataset"
    ).split():
        assert getattr(ours, name) == getattr(theirs, name)
    assert isinstance(ours.sampler, SequentialSampler)
    assert isinstance(ours.batch_sampler, BatchSampler)
    assert DataLoader([1, 2], batch_sampler=[[0]]).batch_size is None
    assert ours.collate_fn is default_collate
    assert DataLoader([1, 2], batch_size=None).collate_fn is default_convert
    assert DataLoader([1, 2], num_workers=1).prefetch_factor == 2
    ours.num_workers = 0
    with pytest.raises(NotImplementedError, match="cannot be pickled"):
        iter(ours).__getstate__()


def test_shuffle() -> None:
    loader = DataLoader(Numbers(50), batch_size=8, shuffle=True)
    first, second = (sum(values(loader), []) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_saved_generator_state_repeats_the_epochs() -> None:
    generator = seeded()
    loader = DataLoader(Numbers(20), batch_size=4, shuffle=True, generator=generator)
    values(loader)
    state = generator.state_array()
    expected = [values(loader) for _ in range(3)]
    fresh = Generator()
    fresh.set_state_array(state)
    again = DataLoader(Numbers(20), batch_size=4, shuffle=True, generator=fresh)
    assert [values(again) for _ in range(3)] == expected
    # The order belongs to the generator alone: numbers drawn meanwhile elsewhere are no matter.
    fresh.set_state_array(state)
    iterator = iter(again)
    next(iterator)
    gradlite.rand(100)
    assert values(iterator) == expected[0][1:]


def test_saved_global_state_repeats_the_epochs() -> None:
    loader = DataLoader(Numbers(20), batch_size=4, shuffle=True)
    state = gradlite.get_rng_state()
    expected = [values(loader), values(loader)]
    gradlite.set_rng_state(state)
    assert [values(loader), values(loader)] == expected


def test_streams() -> None:
    assert values(DataLoader(Stream(5), batch_size=2)) == [[0, 1], [2, 3], [4]]
    assert values(DataLoader(Stream(5), batch_size=2, drop_last=True)) == [[0, 1], [2, 3]]
    assert values(DataLoader(Stream(3), batch_size=None)) == [0, 1, 2]
    assert values(DataLoader(Stream(0), batch_size=2)) == []
    assert len(DataLoader(Stream(5, 5), batch_size=2)) == 3
    assert len(DataLoader(Stream(5, 5), batch_size=2, drop_last=True)) == 2
    assert len(DataLoader(Stream(5, 5), batch_size=None)) == 5
    iterator = iter(DataLoader(Stream(3), batch_size=2))
    assert values(iterator) == [[0, 1], [2]]
    with pytest.raises(StopIteration):
        next(iterator)


def test_stream_that_starts_again_after_its_end() -> None:
    class Restless(IterableDataset[int]):
        def __iter__(self) -> Any:
            class Iterator:
                def __init__(self) -> None:
                    self.count = 0

                def __iter__(self) -> Any:
                    return self

                def __next__(self) -> int:
                    self.count += 1
                    if self.count == 3:
                        raise StopIteration
                    return self.count

            return Iterator()

    assert values(DataLoader(Restless(), batch_size=2)) == [[1, 2]]
    assert values(DataLoader(Restless(), batch_size=3)) == [[1, 2]]


def test_stream_longer_than_announced_warns() -> None:
    loader = DataLoader(Stream(3, 2), batch_size=None)
    assert values(loader) == [0, 1, 2]
    len(loader)
    with pytest.warns(UserWarning, match=r"reported to be 2\(when .* but 3 samples have been"):
        values(loader)


def test_pin_memory_without_a_gpu_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradlite.backends.cuda.status", lambda: (False, "none"))
    loader = DataLoader([1, 2], pin_memory=True)
    with pytest.warns(UserWarning, match="no accelerator is found"):
        assert values(loader) == [[1], [2]]


def test_pin_reaches_every_tensor() -> None:
    class Pinned:
        def __init__(self, value: Any = None) -> None:
            self.value = value

        def pin_memory(self) -> str:
            return "pinned"

    batch = {"a": [Pinned(), 1], "b": Point(Pinned(), "s"), "c": (Pinned(),)}
    expected = {"a": ["pinned", 1], "b": Point("pinned", "s"), "c": ("pinned",)}
    assert data.dataloader.pin(batch) == expected


def test_too_many_workers_warn() -> None:
    with pytest.warns(UserWarning, match="This DataLoader will create 9999 worker processes"):
        DataLoader([1], num_workers=9999)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DataLoader([1], num_workers=1)
