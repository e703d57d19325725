"""Memory of GPUs, on the stand-in for CuPy: what is counted, what is said when it is full, and
page-locked memory."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import pytest

import gradlite
from gradlite import nn
from gradlite.backends import staging, transfer
from gradlite.cuda import memory
from gradlite.utils.data import DataLoader, TensorDataset
from tests import cupy_stand_in as stand_in
from tests.cupy_stand_in import runtime

MIB = 1 << 20


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(memory, "_peaks", {})
    monkeypatch.setattr(memory, "_hooks", [])
    gc.collect()  # what other tests left in cycles is not to go in the middle of this one
    return stand_in.install(monkeypatch, devices=2)


def quarter(device: str = "cuda") -> Any:
    return gradlite.zeros(MIB // 16, device=device)


# ------------------------------------------------------------------------------- counting
def test_memory_is_that_of_the_pool(cupy: Any) -> None:
    before, other = gradlite.cuda.memory_allocated(), gradlite.cuda.memory_allocated(1)
    x = quarter()
    assert gradlite.cuda.memory_allocated() == before + MIB // 4
    assert gradlite.cuda.memory_allocated(1) == other
    view = x[10:]
    del x
    assert gradlite.cuda.memory_allocated("cuda:0") == before + MIB // 4
    del view
    assert gradlite.cuda.memory_allocated() == before
    assert gradlite.cuda.memory_reserved() >= before + MIB // 4
    gradlite.cuda.empty_cache()
    assert gradlite.cuda.memory_reserved() == before
    assert gradlite.cuda.mem_get_info() == (runtime.CAPACITY - before, runtime.CAPACITY)


def test_what_the_allocator_held_at_most_outlives_an_emptied_cache(cupy: Any) -> None:
    x = quarter()
    most = gradlite.cuda.memory_reserved()
    del x
    gradlite.cuda.empty_cache()
    assert gradlite.cuda.memory_reserved() < most == gradlite.cuda.max_memory_reserved()
    gradlite.cuda.reset_peak_memory_stats()
    assert gradlite.cuda.max_memory_reserved() == gradlite.cuda.memory_reserved()


def test_all_that_is_known_of_memory_at_once(cupy: Any, capsys: Any) -> None:
    gradlite.cuda.reset_peak_memory_stats(1)
    x, y = quarter("cuda:1"), quarter("cuda:1")
    del x
    stats = gradlite.cuda.memory_stats(1)
    assert stats == {
        "allocated_bytes.all.current": gradlite.cuda.memory_allocated(1),
        "allocated_bytes.all.peak": gradlite.cuda.max_memory_allocated(1),
        "reserved_bytes.all.current": gradlite.cuda.memory_reserved(1),
        "reserved_bytes.all.peak": gradlite.cuda.max_memory_reserved(1),
    }
    assert stats["allocated_bytes.all.peak"] == stats["allocated_bytes.all.current"] + MIB // 4
    lines = gradlite.cuda.memory_summary(1).splitlines()
    assert lines[0].split() == ["memory", "of", "cuda:1", "now", "most"]
    assert len(lines) == 4 and len({len(line) for line in lines[:3]}) == 1
    assert lines[1].startswith("held by tensors ") and lines[3].endswith("1.00 GiB")
    del y


def test_the_peak_is_measured_from_the_reset_on(cupy: Any) -> None:
    x = quarter()
    assert gradlite.cuda.max_memory_allocated() == gradlite.cuda.memory_reserved()
    start = gradlite.cuda.memory_allocated()
    gradlite.cuda.reset_peak_memory_stats()
    y = [quarter(), quarter(), quarter("cuda:1")]
    del x
    y.append(quarter())
    assert gradlite.cuda.max_memory_allocated() == start + MIB // 2
    gradlite.cuda.reset_peak_memory_stats()
    assert gradlite.cuda.max_memory_allocated() == start + MIB // 2
    del y
    gradlite.cuda.reset_peak_memory_stats()
    assert gradlite.cuda.max_memory_allocated() == start - MIB // 4


# ------------------------------------------------------------------------------- full
def test_a_full_gpu_says_what_was_asked_and_what_is_free(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradlite.cuda.empty_cache()
    used = gradlite.cuda.memory_allocated()
    monkeypatch.setattr(runtime, "CAPACITY", used + 5 * MIB)
    held = gradlite.zeros(MIB // 2, device="cuda")
    gradlite.zeros(MIB // 4, device="cuda")
    with pytest.raises(gradlite.cuda.OutOfMemoryError) as caught:
        gradlite.zeros(2 * MIB, device="cuda")
    text = str(caught.value)
    assert text.startswith(
        "CUDA out of memory. Tried to allocate 8.00 MiB. GPU 0 has a total capacity of 5.0"
    )
    assert "of which 2.00 MiB is free. 2.0" in text
    assert "MiB is held by tensors, and 1.00 MiB is reserved by the memory pool but unused." in text
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, cupy.cuda.memory.OutOfMemoryError)
    assert gradlite.OutOfMemoryError is gradlite.cuda.OutOfMemoryError
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is gradlite.OutOfMemoryError and str(again) == text
    assert held.is_cuda


def test_a_process_keeps_to_its_fraction_of_a_gpu(cupy: Any) -> None:
    cuda = gradlite.cuda
    assert cuda.get_per_process_memory_fraction() == 1.0
    fraction = (cuda.memory_allocated() + MIB) / runtime.CAPACITY
    cuda.set_per_process_memory_fraction(fraction)
    assert cuda.get_per_process_memory_fraction() == pytest.approx(fraction)
    assert cuda.get_per_process_memory_fraction("cuda:1") == 1.0
    held = gradlite.zeros(MIB // 8, device="cuda")
    allowed = r"allowed \(set_per_process_memory_fraction\); .* is held by tensors"
    with pytest.raises(gradlite.OutOfMemoryError, match=allowed):
        gradlite.zeros(MIB // 4, device="cuda")
    cuda.set_per_process_memory_fraction(0.0)
    with pytest.raises(gradlite.OutOfMemoryError):
        gradlite.zeros(1, device="cuda")
    cuda.set_per_process_memory_fraction(1.0, "cuda")
    assert gradlite.zeros(MIB // 4, device="cuda").is_cuda and held.is_cuda
    with pytest.raises(TypeError, match="^Invalid type for fraction argument, must be `float`$"):
        cuda.set_per_process_memory_fraction(1)
    with pytest.raises(ValueError, match=r"^Invalid fraction value: 1.5. Allowed range: 0~1$"):
        cuda.set_per_process_memory_fraction(1.5)


def test_ops_and_backward_say_it_too(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = gradlite.zeros(MIB // 4, device="cuda", requires_grad=True)
    y = (x * 2).sum()
    monkeypatch.setattr(runtime, "CAPACITY", gradlite.cuda.memory_allocated() + MIB // 2)
    with pytest.raises(gradlite.OutOfMemoryError, match="Tried to allocate 1.00 MiB"):
        x.exp()
    with pytest.raises(gradlite.OutOfMemoryError, match="Tried to allocate 1.00 MiB"):
        y.backward()


def test_small_sizes_are_in_fitting_units() -> None:
    from gradlite.backends.cuda import in_units

    assert [in_units(n) for n in (7, 2048, 3 * MIB, 5 << 30)] == [
        "7 bytes", "2.00 KiB", "3.00 MiB", "5.00 GiB",
    ]  # fmt: skip


# ------------------------------------------------------------------------- page-locked
def test_without_cuda_nothing_can_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradlite.backends import cuda

    monkeypatch.setattr(cuda, "_cache", (False, "no GPU"))
    x = gradlite.ones(2)
    assert not x.is_pinned()
    with pytest.raises(RuntimeError, match="CUDA is not available: no GPU"):
        x.pin_memory()
    with pytest.raises(RuntimeError, match="CUDA is not available: no GPU"):
        gradlite.tensor([1.0], pin_memory=True)


def test_pinned_tensors(cupy: Any) -> None:
    x = gradlite.arange(6.0).reshape(2, 3).t()
    x.requires_grad_()
    y = x.pin_memory()
    assert y.is_pinned() and not x.is_pinned() and y.tolist() == x.tolist()
    assert y.pin_memory() is y
    assert y[1:].is_pinned()
    (y * y).sum().backward()
    assert x.grad.tolist() == (2 * x).tolist()
    assert gradlite.tensor([1, 2], pin_memory=True).is_pinned()
    assert gradlite.zeros(0).pin_memory().shape == (0,)
    there = gradlite.ones(2, device="cuda")
    assert not there.is_pinned()
    with pytest.raises(RuntimeError, match=r"cannot pin 'gradlite\.cuda\.FloatTensor' only dense"):
        there.pin_memory()


def test_a_copy_that_does_not_block_keeps_its_source(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.Event, "done", False)
    x = gradlite.arange(5.0).pin_memory()
    transfer._in_flight.clear()
    y = x.to("cuda", non_blocking=True)
    assert y.tolist() == x.tolist() and y.is_cuda
    ((event, array),) = transfer._in_flight
    assert array is x.array and event.recorded is cupy.cuda.Stream.null
    back = y.to("cpu", non_blocking=True)
    assert back.is_pinned() and back.tolist() == x.tolist()
    assert len(transfer._in_flight) == 2
    monkeypatch.setattr(runtime.Event, "done", True)
    x.cuda(non_blocking=True)
    assert len(transfer._in_flight) == 1


def test_other_copies_are_done_when_they_return(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.Event, "done", False)
    transfer._in_flight.clear()
    x = gradlite.arange(5.0)
    x.to("cuda", non_blocking=True)  # not page-locked
    x.pin_memory().cuda()  # not asked for
    x.pin_memory()[::2].to("cuda", non_blocking=True)  # not one piece of memory
    assert not transfer._in_flight
    x.pin_memory().to("cuda", gradlite.float64, non_blocking=True)
    assert len(transfer._in_flight) == 1  # copied first, and converted on the GPU
    assert not x.cuda().cpu().is_pinned()


def test_a_copy_that_blocks_has_read_its_source(cupy: Any) -> None:
    x = gradlite.arange(6.0).reshape(2, 3).pin_memory()
    runtime.under_way.clear()
    for source in (x, x.t(), x[:, 1:], x[1]):
        assert source.cuda().tolist() == source.tolist()
    x.new_zeros(2, 3, device="cuda").copy_(x)
    assert runtime.under_way == []


def test_what_the_cpu_goes_on_to_read_is_waited_for(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited, copy = [], transfer.to_host

    def to_host(array: Any, non_blocking: bool) -> Any:
        waited.append(not non_blocking)
        return copy(array, non_blocking)

    monkeypatch.setattr(transfer, "to_host", to_host)
    there = gradlite.ones(1, 2, 1, 3, device="cuda")
    there.to("cpu", gradlite.float32, non_blocking=True)
    assert waited == [False]
    gradlite.zeros(1, 2, 1, 3).pin_memory().copy_(there, non_blocking=True)
    there.to("cpu", gradlite.float64, non_blocking=True)
    there.to("cpu", non_blocking=True, memory_format=gradlite.channels_last)
    nn.Linear(2, 2, bias=False).cuda().to("cpu", gradlite.float64, non_blocking=True)
    assert waited[1:] == [True] * 4


def test_tables_that_go_leave_what_copies_still_read(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer._in_flight.clear()
    table = staging.Staging(cupy, 3)
    for n in range(2):
        table.values[:] = n + 1
        table.send()
    del table
    assert not transfer._in_flight
    table = staging.Staging(cupy, 3)
    table.values[:] = 7
    table.send()
    monkeypatch.setattr(runtime.Event, "done", property(lambda event: event.recorded is None))
    del table
    ((event, array),) = transfer._in_flight
    assert array.tolist() == [7, 7, 7] and event.recorded is cupy.cuda.Stream.null
    transfer._in_flight.clear()


def test_a_loader_pins_its_batches(cupy: Any) -> None:
    data = TensorDataset(gradlite.arange(6.0), gradlite.arange(6))
    loader = DataLoader(data, batch_size=4, pin_memory=True)
    for x, y in loader:
        assert x.is_pinned() and y.is_pinned()
        assert x.cuda(non_blocking=True).tolist() == y.cuda(non_blocking=True).tolist()


def test_what_is_saved_on_the_cpu_can_be_pinned(cupy: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).cuda()
    x = gradlite.randn(2, 3, device="cuda", requires_grad=True)
    model(x).sum().backward()
    expected = x.grad.clone()
    x.grad = None
    with gradlite.autograd.graph.save_on_cpu(pin_memory=True):
        y = model(x).sum()
    y.backward()
    assert x.grad.tolist() == expected.tolist()


# ------------------------------------------------------------- memory that streams still use
@pytest.fixture
def behind(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The streams that have not yet come to the events recorded in them."""
    streams: list[Any] = []
    monkeypatch.setattr(runtime.Event, "done", property(lambda e: e.recorded not in streams))
    monkeypatch.setattr(
        runtime.Event,
        "synchronize",
        lambda e: streams.count(e.recorded) and streams.remove(e.recorded),
    )
    return streams


def test_memory_waits_for_the_streams_that_have_used_it(behind: list[Any]) -> None:
    first, second = gradlite.cuda.Stream(), gradlite.cuda.Stream()
    before = gradlite.cuda.memory_allocated()
    x = quarter()
    for stream in (first, second, first):
        x.record_stream(stream)
    view = x[10:]
    behind[:] = [first.cupy_stream, second.cupy_stream]
    del x
    assert gradlite.cuda.memory_allocated() == before + MIB // 4
    del view
    assert gradlite.cuda.memory_allocated() == before + MIB // 4
    behind.remove(first.cupy_stream)
    y = quarter()
    y.record_stream(first)  # looks at what has waited
    assert gradlite.cuda.memory_allocated() == before + MIB // 2
    behind.clear()
    del y
    assert gradlite.cuda.memory_allocated() == before


def test_the_mark_is_where_the_stream_was_at_the_end(behind: list[Any], cupy: Any) -> None:
    marks: list[Any] = []
    record = runtime.Event.record
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime.Event, "record", lambda e, s=None: marks.append(s) or record(e, s))
        stream = gradlite.cuda.Stream()
        x = quarter()
        x[3:].record_stream(stream)  # of all of its memory
        assert not marks
        del x
        assert marks == [stream.cupy_stream]


def test_an_emptied_cache_waits_for_streams(behind: list[Any]) -> None:
    before = gradlite.cuda.memory_allocated()
    stream = gradlite.cuda.Stream()
    x = quarter()
    x.record_stream(stream)
    behind.append(stream.cupy_stream)
    del x
    assert gradlite.cuda.memory_allocated() == before + MIB // 4
    gradlite.cuda.empty_cache()
    assert gradlite.cuda.memory_allocated() == before


def test_nothing_is_asked_of_events_during_a_capture(behind: list[Any]) -> None:
    before = gradlite.cuda.memory_allocated()
    stream = gradlite.cuda.Stream()
    x, capturing = quarter(), gradlite.cuda.Stream()
    x.record_stream(stream)
    with gradlite.cuda.stream(capturing):
        capturing.cupy_stream.begin_capture()
        del x
        capturing.cupy_stream.end_capture()
    assert gradlite.cuda.memory_allocated() == before + MIB // 4
    gradlite.cuda.empty_cache()
    assert gradlite.cuda.memory_allocated() == before


def test_streams_are_recorded_of_tensors_of_gpus(cupy: Any) -> None:
    stream = gradlite.cuda.Stream()
    with pytest.raises(NotImplementedError, match="Could not run 'aten::record_stream' with arg"):
        gradlite.zeros(2).record_stream(stream)
    with pytest.raises(RuntimeError, match="unknown parameter type"):
        quarter().record_stream(1)
    with pytest.raises(TypeError, match="record_stream"):
        quarter().record_stream()
