"""The DataLoader with worker processes: the same batches in the same order, and seeds."""

from __future__ import annotations

import multiprocessing
import os
import random as python_random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import random
from gradlite.random import Generator
from gradlite.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    TensorDataset,
    get_worker_info,
)
from gradlite.utils.data import workers as workers_module
from tests.utils.loading_workers import Numbers, Stream

# Two processors at most are taken for granted; more workers than processors only warn.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.usefixtures("no_process_is_left"),
]


def values(loader: Any) -> list[Any]:
    return [batch.tolist() for batch in loader]


def seeded(seed: int = 3) -> Generator:
    return Generator().manual_seed(seed)


# -- results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 3, "shuffle": True},
        {"batch_size": 4, "drop_last": True},
        {"batch_size": None},
        {"batch_sampler": [[1, 2], [5], [9, 9, 9]]},
        {"batch_size": 1, "prefetch_factor": 5},
    ],
)
def test_same_batches_in_the_same_order(num_workers: int, options: dict[str, Any]) -> None:
    def run(workers: int, **more: Any) -> list[Any]:
        loader = DataLoader(Numbers(), num_workers=workers, generator=seeded(), **more)
        assert len(loader) == len(list(iter(loader)))
        return [b if isinstance(b, int) else b.tolist() for b in loader]

    alone = {key: value for key, value in options.items() if key != "prefetch_factor"}
    assert run(num_workers, **options) == run(0, **alone)


def test_whole_batches_of_tensors() -> None:
    x, y = gradlite.arange(200_000).reshape(20, 10_000), gradlite.arange(20)
    dataset = TensorDataset(x, y)
    alone = list(DataLoader(dataset, 8, shuffle=True, generator=seeded()))
    with_workers = list(DataLoader(dataset, 8, shuffle=True, generator=seeded(), num_workers=2))
    assert len(alone) == len(with_workers) == 3
    for expected, got in zip(alone, with_workers, strict=True):
        for mine, theirs in zip(got, expected, strict=True):
            assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
            assert (mine.array == theirs.array).all()


class Structures(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        big = np.full((100, 100), index, np.float64)
        return {
            "tensor": gradlite.ones(300, 300) * index,
            "fortran": np.asfortranarray(big),
            "strided": big[::2, ::3],
            "empty": np.empty((0, 3), np.float32),
            "nested": [gradlite.tensor(index), ("text", None)],
            "leaf": gradlite.ones(2, requires_grad=True),
        }

    def __len__(self) -> int:
        return 3


def test_large_and_nested_values_arrive_whole() -> None:
    loader = DataLoader(Structures(), batch_size=None, num_workers=1, collate_fn=lambda x: x)
    batches = list(loader)
    assert len(batches) == 3
    for index, batch in enumerate(batches):
        assert isinstance(batch["tensor"], gradlite.Tensor)
        assert batch["tensor"].shape == (300, 300) and (batch["tensor"].array == index).all()
        assert batch["fortran"].flags.f_contiguous and (batch["fortran"] == index).all()
        assert batch["strided"].shape == (50, 34) and (batch["strided"] == index).all()
        assert batch["empty"].shape == (0, 3) and batch["empty"].dtype == np.float32
        assert batch["nested"][0].item() == index and batch["nested"][1] == ("text", None)
        assert batch["leaf"].requires_grad
        # The memory is the receiver's own.
        batch["tensor"].array[:] = -1
        batch["fortran"][:] = -1


def test_large_values_without_files_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    loader = DataLoader(Structures(), batch_size=None, num_workers=1, collate_fn=lambda x: x)
    assert [batch["tensor"].array[0, 0] for batch in loader] == [0, 1, 2]


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no memfd_create")
def test_no_file_descriptor_is_left_open() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    list(DataLoader(Structures(), None, num_workers=1, collate_fn=lambda x: x))
    before = count()
    kept = list(DataLoader(Structures(), None, num_workers=2, collate_fn=lambda x: x))
    assert len(kept) == 3 and count() == before


def test_offsets_are_aligned() -> None:
    assert workers_module._offsets([1, 64, 0, 65]) == [0, 64, 128, 128, 256]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"the system has no {method}")
    loader = DataLoader(Numbers(4), 2, num_workers=1, multiprocessing_context=method)
    assert loader.multiprocessing_context.get_start_method() == method
    assert values(loader) == [[0, 1], [2, 3]]


def test_out_of_order() -> None:
    class Slow(Numbers):
        def __getitem__(self, index: int) -> int:
            if index == 0:
                time.sleep(0.5)
            return index

    loader = DataLoader(Slow(6), None, num_workers=2, in_order=False)
    got = [int(value) for value in loader]
    assert sorted(got) == list(range(6)) and got[0] != 0


# -- streams ------------------------------------------------------------------------------------


def test_streams_are_split_among_workers() -> None:
    loader = DataLoader(Stream(0, 10), batch_size=2, num_workers=2)
    assert values(loader) == [[0, 2], [1, 3], [4, 6], [5, 7], [8], [9]]
    assert list(DataLoader(Stream(0, 5), batch_size=None, num_workers=2)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("lengths", [(0, 7), (7, 0), (1, 9), (9, 1, 4), (0, 0)])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_streams_of_unequal_lengths(lengths: tuple[int, ...], batch_size: int) -> None:
    torch = pytest.importorskip("torch")

    def shares(library: Any) -> Any:
        class Shares(library.utils.data.IterableDataset):
            def __iter__(self) -> Iterator[int]:
                worker = library.utils.data.get_worker_info().id
                return iter(range(100 * worker, 100 * worker + lengths[worker]))

        loader = library.utils.data.DataLoader(
            Shares(), batch_size=batch_size, num_workers=len(lengths)
        )
        return values(loader)

    assert shares(gradlite) == shares(torch)


def test_worker_init_fn_configures_streams() -> None:
    def configure(worker_id: int) -> None:
        info = get_worker_info()
        assert info is not None and info.id == worker_id and info.num_workers == 2
        info.dataset.bounds = (3, 5) if worker_id == 0 else (5, 7)

    class Range(IterableDataset[int]):
        bounds = (0, 0)

        def __iter__(self) -> Iterator[int]:
            return iter(range(*self.bounds))

    loader = DataLoader(Range(), num_workers=2, worker_init_fn=configure)
    assert values(loader) == [[3], [5], [4], [6]]


# -- seeds --------------------------------------------------------------------------------------


class Noise(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        info = get_worker_info()
        assert info is not None
        return (
            float(gradlite.rand(1).item()),
            python_random.random(),
            float(np.random.random()),  # noqa: NPY002
            info.id,
            info.seed,
        )

    def __len__(self) -> int:
        return 8


def noise(**options: Any) -> list[Any]:
    loader = DataLoader(
        Noise(), None, num_workers=2, generator=seeded(), collate_fn=lambda x: x, **options
    )
    return list(loader)


def test_workers_have_seeds_of_their_own_that_repeat() -> None:
    first = noise()
    assert first == noise()
    for column in range(3):
        assert len({sample[column] for sample in first}) == len(first)
    seeds = {sample[3]: sample[4] for sample in first}
    assert seeds[1] == seeds[0] + 1
    base = seeded().integers(0, 1 << 63, ()).item()
    assert seeds[0] == base
    rand = Generator().manual_seed(base).random((1,), np.float32)[0]
    assert first[0][0] == rand


def test_epochs_differ_and_repeat() -> None:
    def two_epochs() -> list[Any]:
        loader = DataLoader(
            Noise(), None, num_workers=1, generator=seeded(), collate_fn=lambda x: x
        )
        return [list(loader), list(loader)]

    first = two_epochs()
    assert first[0] != first[1] and first == two_epochs()


def test_the_main_process_is_untouched() -> None:
    state = python_random.getstate()
    before = random.default_generator.state_array().tolist()
    assert noise()
    assert get_worker_info() is None
    assert python_random.getstate() == state
    # The generator was given, so the global one was not needed.
    assert random.default_generator.state_array().tolist() == before


def test_saved_generator_state_repeats_with_workers() -> None:
    generator = seeded()
    loader = DataLoader(Numbers(), 3, shuffle=True, num_workers=2, generator=generator)
    values(loader)
    state = generator.state_array()
    expected = [values(loader), values(loader)]
    generator.set_state_array(state)
    assert [values(loader), values(loader)] == expected
