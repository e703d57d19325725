"""CuPy itself, where it is installed: what is said when it finds no driver, too old a driver, no
GPU or a full one. What a driver would answer is put in its place, so no GPU is needed."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any

import pytest

import gradlite
from gradlite.backends import cuda as backend
from gradlite.ops.namespaces import NAMESPACES

cupy = pytest.importorskip("cupy", reason="asks CuPy itself, which is not installed here")
NO_DEVICE = 100  # cudaErrorNoDevice


class Driver:
    """The answers of a driver, for CuPy's runtime."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        monkeypatch.setattr(backend, "_cache", None)
        monkeypatch.setattr(backend, "_handed_out", False)
        load = ctypes.CDLL
        monkeypatch.setattr(
            ctypes,
            "CDLL",
            lambda name, *rest, **words: (
                object() if "cuda.so" in str(name) else load(name, *rest, **words)
            ),
        )
        monkeypatch.setattr(cupy.cuda, "is_available", lambda: False)

    def answers(self, name: str, answer: Any) -> None:
        def call(*arguments: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.patch.setattr(cupy.cuda.runtime, name, call)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return Driver(monkeypatch)


def asked() -> str:
    with pytest.raises(RuntimeError) as caught:
        gradlite.zeros(2, device="cuda")
    assert not gradlite.cuda.is_available() and gradlite.cuda.device_count() == 0
    return str(caught.value).removeprefix("CUDA is not available: ")


def test_a_library_without_a_driver(driver: Driver) -> None:
    driver.answers("driverGetVersion", 0)
    assert asked() == backend.NO_DRIVER


def test_a_driver_that_is_too_old(driver: Driver) -> None:
    needed = cupy.cuda.runtime.runtimeGetVersion()
    driver.answers("driverGetVersion", needed - 1000)
    text = asked()
    assert text.startswith("the NVIDIA driver is too old: it supports CUDA ")
    assert f"CuPy was built for CUDA {needed // 1000}.{needed % 1000 // 10}" in text
    assert "Update the driver" in text and backend.INSTALL in text


def test_a_driver_that_sees_no_gpu(driver: Driver) -> None:
    driver.answers("driverGetVersion", cupy.cuda.runtime.runtimeGetVersion())
    for answer in (0, cupy.cuda.runtime.CUDARuntimeError(NO_DEVICE)):
        driver.patch.setattr(backend, "_cache", None)
        driver.answers("getDeviceCount", answer)
        assert asked() == backend.NO_GPU


def test_a_full_gpu(driver: Driver) -> None:
    """CuPy's allocator raises its own error, and ours is one of these too."""

    def full(size: int) -> Any:
        raise cupy.cuda.memory.OutOfMemoryError(size, 3 << 20, 0)

    driver.patch.setattr(backend, "_cache", (True, ""))
    driver.answers("getDevice", 0)
    driver.answers("memGetInfo", (1 << 20, 4 << 20))
    driver.patch.setitem(NAMESPACES, cupy.ndarray, None)  # to ask nothing of the GPU
    sizes = {"used_bytes": 2 << 20, "total_bytes": 3 << 20, "get_limit": 0}
    pool = type("Pool", (), {name: lambda _, n=n: n for name, n in sizes.items()})
    driver.patch.setattr(cupy, "get_default_memory_pool", pool)
    before = cupy.cuda.get_allocator()
    cupy.cuda.set_allocator(full)
    try:
        backend.module()
        with pytest.raises(gradlite.OutOfMemoryError) as caught:
            cupy.cuda.alloc(8 << 20)
    finally:
        cupy.cuda.set_allocator(before)
    assert isinstance(caught.value, cupy.cuda.memory.OutOfMemoryError)
    assert str(caught.value).startswith(
        "CUDA out of memory. Tried to allocate 8.00 MiB. GPU 0 has a total capacity of 4.00 MiB of "
        "which 1.00 MiB is free. 2.00 MiB is held by tensors, and 1.00 MiB is reserved by the "
    )


def test_cupy_is_imported_when_a_driver_is_there_and_not_before() -> None:
    program = """
import ctypes, sys
import gradlite
gradlite.zeros(2).sum()
assert "cupy" not in sys.modules, "imported with gradlite"
def refuse(name):
    raise OSError(name)
load, ctypes.CDLL = ctypes.CDLL, refuse
assert not gradlite.cuda.is_available()
assert "cupy" not in sys.modules, "imported where there is no driver"
ctypes.CDLL = lambda name, *rest, **words: load(None if "cuda.so" in name else name, *rest, **words)
from gradlite.backends import cuda
cuda._cache = None
print(gradlite.cuda.is_available(), "cupy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "True"
