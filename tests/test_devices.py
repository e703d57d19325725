"""Devices: what is said without CUDA, and ``gradlite.cuda`` on the stand-in for CuPy."""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest

import gradlite
from gradlite import nn
from gradlite.backends import cuda as backend
from tests import cupy_stand_in as stand_in


class Missing:
    """A CuPy that finds no GPU it can use."""

    def __init__(self, driver: int, devices: int | str) -> None:
        self.driver, self.devices = driver, devices
        self.cuda = types.SimpleNamespace(is_available=lambda: False, runtime=self)

    def driverGetVersion(self) -> int:  # noqa: N802
        return self.driver

    def runtimeGetVersion(self) -> int:  # noqa: N802
        return 13000

    def getDeviceCount(self) -> int:  # noqa: N802
        if isinstance(self.devices, str):
            raise RuntimeError(self.devices)
        return self.devices


def driver(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """Let the driver's library be there or not; all others are loaded as ever."""
    load = ctypes.CDLL

    def loaded(name: Any, *args: Any, **kwargs: Any) -> Any:
        if "cuda.so" not in str(name):
            return load(name, *args, **kwargs)
        if not there:
            raise OSError(f"{name}: cannot open shared object file")
        return object()

    monkeypatch.setattr(ctypes, "CDLL", loaded)


def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    no_cupy(monkeypatch)
    driver(monkeypatch, there=False)


def no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    driver(monkeypatch, there=True)


def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", Missing(0, 0))
    driver(monkeypatch, there=False)


def with_driver(version: int, devices: int | str) -> Callable[[pytest.MonkeyPatch], None]:
    def simulate(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cupy", Missing(version, devices))
        driver(monkeypatch, there=True)

    return simulate


SITUATIONS = {
    "nothing": (nothing, "this machine has neither an NVIDIA driver nor CuPy. Without an NVIDIA"),
    "no CuPy": (no_cupy, "CuPy is not installed"),
    "no driver library": (no_library, "no NVIDIA driver was found"),
    "a library without driver": (with_driver(0, 0), "no NVIDIA driver was found"),
    "an old driver": (
        with_driver(12040, "cudaErrorInsufficientDriver"),
        "the NVIDIA driver is too old: it supports CUDA 12.4, and CuPy was built for CUDA 13.0",
    ),
    "no GPU": (with_driver(13000, 0), "the NVIDIA driver sees no GPU"),
    "no GPU, as an error": (
        with_driver(13000, "cudaErrorNoDevice: no CUDA-capable device is detected"),
        "the NVIDIA driver sees no GPU",
    ),
    "anything else": (
        with_driver(13000, "cudaErrorUnknown: unknown error"),
        "CuPy cannot use the GPU: cudaErrorUnknown: unknown error",
    ),
}


@pytest.fixture(params=SITUATIONS)
def missing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    simulate, text = SITUATIONS[request.param]
    monkeypatch.setattr(backend, "_cache", None)
    simulate(monkeypatch)
    return text


NEEDS_CUDA: list[Callable[[], Any]] = [
    lambda: gradlite.zeros(2, device="cuda"),
    lambda: gradlite.tensor([1.0], device="cuda:0"),
    lambda: gradlite.arange(3, device="cuda"),
    lambda: gradlite.eye(3, device="cuda"),
    lambda: gradlite.randn(3, device="cuda"),
    lambda: gradlite.randperm(3, device="cuda"),
    lambda: gradlite.ones(2).to("cuda"),
    lambda: gradlite.ones(2).cuda(),
    lambda: gradlite.zeros_like(gradlite.ones(2), device="cuda"),
    lambda: nn.Linear(2, 2).cuda(),
    lambda: nn.Linear(2, 2).to("cuda"),
    lambda: nn.Linear(2, 2, device="cuda"),
    lambda: gradlite.Generator("cuda"),
    lambda: gradlite.cuda.current_device(),
    lambda: gradlite.cuda.set_device(0),
    lambda: gradlite.cuda.device(0).__enter__(),
    lambda: gradlite.cuda.get_device_name(),
    lambda: gradlite.cuda.synchronize(),
    lambda: gradlite.cuda.reset_peak_memory_stats(),
    lambda: gradlite.cuda.Stream(),
    lambda: gradlite.cuda.Event(),
    lambda: gradlite.cuda.current_stream(),
]


def test_without_cuda_one_error_says_what_is_missing(missing: str) -> None:
    for call in NEEDS_CUDA:
        with pytest.raises(RuntimeError) as caught:
            call()
        text = str(caught.value)
        assert text.startswith(f"CUDA is not available: {missing}")
        assert 'pip install "gradlite[cuda12]"' in text


def test_without_cuda_questions_have_answers(missing: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(backend, "_handed_out", False)
    assert gradlite.cuda.is_available() is False
    assert gradlite.cuda.device_count() == 0
    assert gradlite.cuda.is_initialized() is False
    assert gradlite.cuda.memory_allocated() == gradlite.cuda.memory_reserved() == 0
    assert gradlite.cuda.max_memory_allocated() == 0
    gradlite.cuda.empty_cache()
    with gradlite.cuda.device(None), gradlite.cuda.device(-1), gradlite.cuda.stream(None):
        assert str(gradlite.device("cuda")) == "cuda"  # a name alone needs no GPU


def test_a_failed_default_device_changes_nothing(missing: str) -> None:
    with pytest.raises(RuntimeError, match="CUDA is not available"):
        gradlite.set_default_device("cuda")
    assert gradlite.zeros(1).device.type == "cpu"
    with gradlite.device("cuda"), pytest.raises(RuntimeError, match="CUDA is not available"):
        gradlite.zeros(1)
    assert gradlite.zeros(1).device.type == "cpu"


def test_a_model_that_cannot_move_stays_whole(missing: str) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="CUDA is not available"):
        model.cuda()
    assert model(gradlite.ones(1, 2)).shape == (1, 2)


def test_working_on_the_cpu_imports_no_cupy() -> None:
    program = """
import sys
import gradlite
x = gradlite.ones(2, requires_grad=True)
(x * x).sum().backward()
gradlite.cuda.manual_seed_all(1)
gradlite.cuda.is_initialized(), gradlite.cuda.empty_cache(), gradlite.cuda.memory_allocated()
assert "cupy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_seeding_cuda_seeds_the_one_generator() -> None:
    gradlite.cuda.manual_seed(9)
    first = gradlite.rand(3)
    gradlite.manual_seed(9)
    assert first.tolist() == gradlite.rand(3).tolist()
    assert gradlite.cuda.initial_seed() == 9


def test_states_of_random_numbers_are_of_gpus() -> None:
    if gradlite.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gradlite.cuda.get_rng_state_all() == []
    gradlite.cuda.set_rng_state_all([])
    for call in (
        gradlite.cuda.get_rng_state,
        lambda: gradlite.cuda.set_rng_state(gradlite.get_rng_state()),
        gradlite.cuda.init,
    ):
        with pytest.raises(RuntimeError, match="CUDA is not available"):
            call()
    assert not gradlite.cuda.is_current_stream_capturing()


@pytest.mark.parametrize("name", ["CUDAGraph", "graph", "make_graphed_callables"])
def test_what_there_is_instead_of_graphs_is_told(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"no attribute '{name}': gradlite\.capture\(step\)"):
        getattr(gradlite.cuda, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'$"):
        _ = gradlite.cuda.nothing


# -------------------------------------------------------------------- on the stand-in
@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch, devices=2)


def test_devices_are_counted_named_and_chosen(cupy: Any) -> None:
    assert gradlite.cuda.is_available() and gradlite.cuda.device_count() == 2
    assert gradlite.cuda.current_device() == 0
    assert gradlite.cuda.get_device_name("cuda:1") == "Stand-in"
    assert gradlite.cuda.get_device_capability() == (9, 0)
    with gradlite.cuda.device(1):
        assert gradlite.cuda.current_device() == 1
        assert gradlite.zeros(2, device="cuda").device == gradlite.device("cuda:1")
    assert gradlite.cuda.current_device() == 0
    gradlite.cuda.set_device("cuda:1")
    assert gradlite.cuda.current_device() == 1
    gradlite.cuda.set_device(-1)
    assert gradlite.cuda.current_device() == 1
    gradlite.cuda.synchronize(0)
    assert gradlite.cuda.is_initialized()


def test_whole_numbers_are_counted_on_the_device(cupy: Any) -> None:
    for numbers in ((5,), (1, 9, 3), (5, 0, -2), (0,), (3, 3), (-2, 2)):
        for dtype in (None, gradlite.float32, gradlite.int8):
            here = gradlite.arange(*numbers, dtype=dtype)
            there = gradlite.arange(*numbers, dtype=dtype, device="cuda:1")
            assert there.device == gradlite.device("cuda:1") and there.dtype == here.dtype
            assert there.tolist() == here.tolist()
    assert gradlite.arange(0, 1, 0.25, device="cuda").tolist() == [0.0, 0.25, 0.5, 0.75]


def test_wrong_devices_are_refused(cupy: Any) -> None:
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        gradlite.cuda.set_device(2)
    for make in (
        lambda: gradlite.ones(2, device="cuda:7"),
        lambda: gradlite.ones(2).to("cuda:7"),
        lambda: gradlite.randn(2, device="cuda:7"),
        lambda: gradlite.arange(3, device="cuda:7"),
    ):
        with pytest.raises(RuntimeError, match="there is no cuda:7 but GPUs from cuda:0 to cuda:1"):
            make()
    with pytest.raises(ValueError, match="Expected a cuda device, but got: cpu"):
        gradlite.cuda.synchronize("cpu")
    with pytest.raises(TypeError, match="expected a CUDA device, but got float"):
        gradlite.cuda.get_device_name(1.0)


def test_streams_and_events(cupy: Any) -> None:
    side = gradlite.cuda.Stream()
    assert gradlite.cuda.current_stream() == gradlite.cuda.default_stream() != side
    with gradlite.cuda.stream(side):
        assert gradlite.cuda.current_stream() == side
        mark = side.record_event()
    assert mark.cupy_event.recorded is side.cupy_stream
    assert gradlite.cuda.current_stream() == gradlite.cuda.default_stream()
    side.wait_stream(gradlite.cuda.current_stream())
    mark.wait()
    side.synchronize()
    mark.synchronize()
    assert side.query() and mark.query()
    start, end = (gradlite.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    end.record()
    assert start.elapsed_time(end) == 0.5
    assert repr(side).startswith("<gradlite.cuda.Stream device=cuda:0 cuda_stream=0x")


def test_passes_many_levels_deep_stay_on_their_device_and_stream(cupy: Any) -> None:
    seen: list[Any] = []

    class Deep(gradlite.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, depth: int) -> Any:
            ctx.depth = depth
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            here = gradlite.cuda.current_device(), gradlite.cuda.current_stream()
            seen.append((*here, threading.get_ident()))
            if ctx.depth:
                with gradlite.enable_grad():
                    x = gradlite.ones((), device="cuda", requires_grad=True)
                    Deep.apply(x, ctx.depth - 1).backward()
            return grad * 2, None

    with gradlite.cuda.device(1):
        side = gradlite.cuda.Stream()
        with gradlite.cuda.stream(side):
            x = gradlite.ones((), device="cuda", requires_grad=True)
            Deep.apply(x, 130).backward()
    devices, streams, threads = (set(column) for column in zip(*seen))
    assert devices == {1} and len(seen) == 131
    assert all(stream == side for stream in streams)
    assert len(threads) == 3
    side.synchronize()  # what reads the gradient here is on the default stream, which does not wait
    assert x.grad.item() == 2


def test_modules_move_with_their_gradients(cupy: Any) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).cuda()
    tensors = [*model.parameters(), *model.buffers()]
    assert all(t.is_cuda for t in tensors)
    model(gradlite.ones(4, 2, device="cuda")).sum().backward()
    model.cpu()
    assert all(p.grad.device.type == "cpu" for p in model.parameters())
    with gradlite.device("cuda"):
        assert nn.Linear(2, 2).weight.is_cuda
    assert nn.Linear(2, 2, device="cuda:1").weight.device == gradlite.device("cuda:1")


def test_cuda_takes_no_other_device() -> None:
    from tests.oracle import same

    same(lambda T: T.ones(2).cuda("cpu"), raises=RuntimeError, message="exact")
    same(lambda T: T.ones(2).cuda(T.device("cpu")), raises=RuntimeError, message="exact")
    same(lambda T: T.ones(2).cuda(-1), raises=RuntimeError, message="exact")


def test_states_of_random_numbers_are_the_same_on_every_device(cupy: Any) -> None:
    gradlite.manual_seed(4)
    states = gradlite.cuda.get_rng_state_all()
    assert len(states) == 2 and states[0].equal(gradlite.get_rng_state())
    first = gradlite.rand(3, device="cuda:1").tolist()
    gradlite.cuda.set_rng_state_all(states)
    assert gradlite.rand(3).tolist() == first
    gradlite.cuda.set_rng_state(states[0], "cuda:1")
    assert gradlite.rand(3, device="cuda").tolist() == first
    with pytest.raises(RuntimeError, match="there is no cuda:2"):
        gradlite.cuda.get_rng_state(2)
    with pytest.raises(ValueError, match="Expected a cuda device, but got: cpu"):
        gradlite.cuda.get_rng_state("cpu")


def test_streams_are_chosen_for_good_and_devices_reach_each_other(cupy: Any) -> None:
    stream = gradlite.cuda.Stream(1)
    gradlite.cuda.set_stream(stream)
    assert gradlite.cuda.current_device() == 1 and gradlite.cuda.current_stream() == stream
    assert not gradlite.cuda.is_current_stream_capturing()
    stream.cupy_stream.begin_capture()
    assert gradlite.cuda.is_current_stream_capturing()
    stream.cupy_stream.end_capture()
    gradlite.cuda.set_stream(gradlite.cuda.default_stream(0))
    assert gradlite.cuda.current_device() == 0 and gradlite.cuda.current_stream() != stream
    assert gradlite.cuda.can_device_access_peer(0, 1)
    assert not gradlite.cuda.can_device_access_peer(1, "cuda:1")


def test_tasks_do_not_mix_their_devices() -> None:
    async def task(name: str) -> list[str]:
        found = []
        for _ in range(3):
            with gradlite.device(name):
                await asyncio.sleep(0)
                found.append(str(gradlite.get_default_device()))
            await asyncio.sleep(0)
            found.append(str(gradlite.get_default_device()))
        return found

    async def main() -> list[list[str]]:
        return await asyncio.gather(task("cpu:0"), task("cpu:1"))

    assert asyncio.run(main()) == [["cpu:0", "cpu"] * 3, ["cpu:1", "cpu"] * 3]
