"""The stand-in against CuPy itself, where that is installed (a GPU is not needed): it may offer
nothing that CuPy lacks, and has to refuse what CuPy refuses."""

from __future__ import annotations

import inspect
import re
import types
from typing import Any

import pytest

from tests.cupy_stand_in import CUPYX, SPECIAL, arrays, runtime
from tests.cupy_stand_in.kernels import Function, RawKernel, RawModule

cupy = pytest.importorskip("cupy", reason="compares with CuPy, which is not installed here")


def public(cls: type) -> list[str]:
    return [name for name in dir(cls) if not name.startswith("_")]


def test_cupy_cuda_has_what_the_stand_in_has() -> None:
    def compare(ours: Any, theirs: Any, path: str) -> None:
        for name, value in vars(ours).items():
            assert hasattr(theirs, name), f"{path}.{name}"
            if isinstance(value, types.SimpleNamespace):
                compare(value, getattr(theirs, name), f"{path}.{name}")

    compare(runtime.CUDA, cupy.cuda, "cupy.cuda")
    assert cupy.cuda.runtime.memoryTypeHost == runtime.CUDA.runtime.memoryTypeHost
    for ours, theirs, own in (
        (runtime.Device, cupy.cuda.Device, set()),
        (runtime.Stream, cupy.cuda.Stream, {"capture", "waited", "waited_for"}),
        (runtime.Event, cupy.cuda.Event, {"capture", "recorded"}),
        (runtime.Graph, cupy.cuda.Graph, {"names"}),
        (
            runtime.MemoryPool,
            cupy.cuda.MemoryPool,
            {"used", "reserved", "allocator", "chunks", "is_default"},
        ),
        (runtime.MemoryHook, cupy.cuda.MemoryHook, {"entered"}),
        (Function, cupy.cuda.Function, {"run", "device", "streams"}),
        (RawKernel, cupy.RawKernel, set()),
        (RawModule, cupy.RawModule, {"check", "load", "module"}),
    ):
        assert set(public(ours)) - own <= set(public(theirs)), ours


def test_arrays_have_no_attribute_that_cupys_lack() -> None:
    ours = set(public(arrays.Array)) - {"host", "memory", "root"}
    assert ours <= set(public(cupy.ndarray))
    for name in ("get", "set"):
        words = list(inspect.signature(getattr(arrays.Array, name)).parameters)[1:]
        signature = getattr(cupy.ndarray, name).__doc__.splitlines()[0]
        assert all(re.search(rf"\b{word}\b", signature) or word == "array" for word in words)


def test_what_is_missing_is_missing() -> None:
    assert not [name for name in sorted(arrays.MISSING) if hasattr(cupy, name)]
    for name in arrays.AT:
        assert hasattr(getattr(cupy, name), "at")
    for name in ("empty_pinned", "errstate"):
        assert hasattr(__import__("cupyx"), name) and hasattr(CUPYX, name)
    import cupyx.scipy.special as special

    assert all(hasattr(special, name) for name in vars(SPECIAL) if name[0] != "_")


def test_a_full_gpu_is_named() -> None:
    from gradlite.backends.cuda import OutOfMemoryError

    class BothError(OutOfMemoryError, cupy.cuda.memory.OutOfMemoryError):
        def __init__(self, message: str) -> None:
            RuntimeError.__init__(self, message)

    assert str(BothError("full")) == "full"
    assert issubclass(cupy.cuda.compiler.CompileException, Exception)


def test_modules_are_made_without_a_device() -> None:
    from gradlite.backends.kernel_source import source

    module = cupy.RawModule(
        code=source("softmax.cu"), options=("-std=c++17", "-DGRADLITE_DTYPE=f32")
    )
    kernel = cupy.RawKernel('extern "C" __global__ void k() {}', "k", ("-std=c++17",))
    assert hasattr(module, "get_function") and "kernel" in dir(kernel)
