"""gradlite.accelerator: CUDA under another name, and nothing without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gradlite
from gradlite import accelerator, nn
from tests import cupy_stand_in as stand_in
from tests.oracle import same, torch

without_cuda = pytest.mark.skipif(
    torch.version.cuda is not None, reason="PyTorch's builds for CUDA say something else"
)
NEED_ONE: dict[str, Callable[[Any], Any]] = {
    "current_device_index": lambda a: a.current_device_index(),
    "set_device_index": lambda a: a.set_device_index(0),
    "device_index": lambda a: a.device_index(0).__enter__(),
    "synchronize": lambda a: a.synchronize(),
    "current_stream": lambda a: a.current_stream(),
    "empty_cache": lambda a: a.empty_cache(),
    "memory_allocated": lambda a: a.memory_allocated(),
    "memory_reserved": lambda a: a.memory_reserved(),
    "max_memory_allocated": lambda a: a.max_memory_allocated(),
    "reset_peak_memory_stats": lambda a: a.reset_peak_memory_stats(),
    "get_memory_info": lambda a: a.get_memory_info(),
}


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch, devices=2)


@without_cuda
def test_without_one() -> None:
    def program(T: Any) -> Any:
        a = T.accelerator
        with a.device_index(None):
            return a.is_available(), a.device_count(), a.current_accelerator(), T.version.cuda

    assert same(program) == (False, 0, None, None)


@without_cuda
@pytest.mark.parametrize("name", NEED_ONE)
def test_what_needs_one(name: str) -> None:
    same(lambda T: NEED_ONE[name](T.accelerator), raises=RuntimeError, message="exact")


def test_it_is_cuda(cupy: Any) -> None:
    assert accelerator.is_available() and accelerator.device_count() == 2
    assert repr(accelerator.current_accelerator()) == "device(type='cuda')"
    assert accelerator.current_device_index() == 0
    with accelerator.device_index(1):
        assert accelerator.current_device_index() == 1
    accelerator.set_device_index("cuda:1")
    with pytest.warns(FutureWarning, match="Use `current_device_index` instead."):
        assert accelerator.current_device_idx() == 1
    with pytest.warns(FutureWarning, match="Use `set_device_index` instead."):
        accelerator.set_device_idx(0)
    assert accelerator.current_stream() == gradlite.cuda.current_stream()
    accelerator.reset_peak_memory_stats()
    held = gradlite.ones(1024, device=accelerator.current_accelerator())
    assert accelerator.memory_allocated() >= held.nbytes
    assert accelerator.max_memory_allocated() >= accelerator.memory_allocated()
    assert accelerator.memory_reserved() >= accelerator.memory_allocated()
    free, total = accelerator.get_memory_info()
    assert 0 < free <= total
    accelerator.synchronize()
    accelerator.empty_cache()


def test_what_a_gpu_is(cupy: Any) -> None:
    found = gradlite.cuda.get_device_properties(0)
    assert (found.name, found.major, found.minor) == ("Stand-in", 9, 0)
    assert found.total_memory == gradlite.cuda.mem_get_info()[1]
    assert found.multi_processor_count == 4 and found.warp_size == 32
    assert gradlite.cuda.is_bf16_supported()
    assert gradlite.cuda.is_bf16_supported(including_emulation=False)
    assert gradlite.version.cuda.count(".") == 1


def test_no_gpu_supports_no_bfloat16() -> None:
    assert same(lambda T: T.cuda.is_bf16_supported()) is False


def test_data_parallel_on_the_cpu() -> None:
    def program(T: Any) -> Any:
        T.manual_seed(0)
        inner = T.nn.Linear(2, 3)
        with T.no_grad():
            inner.weight.fill_(0.5)
            inner.bias.zero_()
        model = T.nn.DataParallel(inner, device_ids=[0, 1])
        y = model(T.ones(4, 2))
        y.sum().backward()
        return repr(model), model.state_dict(), y, inner.weight.grad, model.module is inner

    same(program)
    same(
        lambda T: T.nn.parallel.data_parallel(T.nn.Linear(2, 2), T.ones(2, 2)),
        raises=RuntimeError,
        message="exact",
    )


def test_data_parallel_on_one_gpu_of_several(cupy: Any) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(gradlite.ones(2))

        def forward(self, pairs: Any, *, more: Any) -> Any:
            return (pairs[0]["x"] + more[0]) * self.scale

    model = nn.DataParallel(Sum(), device_ids=["cuda:1"])
    assert model.module.scale.device == gradlite.device("cuda:1") and model.device_ids == [1]
    y = model([{"x": gradlite.ones(3, 2)}], more=(gradlite.ones(2), None))
    assert y.device == gradlite.device("cuda:1") and y.tolist() == [[2.0, 2.0]] * 3
    x = [{"x": gradlite.ones(2)}]
    more = {"more": (1.0,)}
    done = nn.parallel.data_parallel(model.module, (x,), [gradlite.device("cuda:1")], None, 0, more)
    assert done.tolist() == [2.0, 2.0]
    model.cpu()
    with pytest.raises(RuntimeError, match=r"on device cuda:1 \(device_ids\[0\]\) but found one"):
        model(x, more=(1.0,))


@pytest.mark.parametrize("device_ids", [None, [0, 1]])
def test_several_gpus_are_not_trained_on(cupy: Any, device_ids: Any) -> None:
    with pytest.raises(
        RuntimeError, match=r"on one device, but .* to use 2: pass device_ids=\[0\]"
    ):
        nn.DataParallel(nn.Linear(2, 2), device_ids)
    with pytest.raises(RuntimeError, match="call the module itself instead of Distributed"):
        nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
