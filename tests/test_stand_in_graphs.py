"""Stream capture on the stand-in for CuPy: it keeps what CUDA keeps and refuses what it refuses.

The errors are those that CuPy's own tests and sources name; `test_stand_in_api` looks whether
CuPy has all these names.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops.namespaces import NAMESPACES
from tests import cublaslt_stand_in, cupy_stand_in
from tests.cuda_on_cpu import compiler
from tests.cupy_stand_in import runtime

CAPTURING = "the current stream is capturing"


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    cupy = cupy_stand_in.install(monkeypatch)
    cublaslt_stand_in.install(monkeypatch)
    return cupy


def captured(cupy: Any, function: Callable[[], Any], pool: Any = None) -> tuple[Any, Any]:
    """The graph of a function, with memory of its own, and what the function returned."""
    stream = cupy.cuda.Stream(non_blocking=True)
    pool = cupy.cuda.MemoryPool() if pool is None else pool
    with cupy.cuda.using_allocator(pool.malloc), stream:
        stream.begin_capture()
        try:
            result = function()
        finally:
            graph = stream.end_capture()
    return graph, result


def test_nothing_happens_before_a_launch_and_everything_at_each(cupy: Any) -> None:
    x, y = cupy.ones((2, 3)), cupy.zeros((2, 3))

    def step() -> Any:
        out = cupy.exp(x)[:, 1:] * 2
        y[...] = y + 1
        cupy.add(y, x, out=y)
        y.T[0] += 1
        return out

    graph, out = captured(cupy, step)
    assert np.isnan(out.get()).all() and not y.get().any()
    for count in (1, 2, 3):
        graph.launch()
        np.testing.assert_array_equal(out.get(), np.full((2, 2), 2 * np.exp(count)))
        row = count * (count + 3) / 2
        assert y.get().tolist() == [[row + count, row, row]] * 2
        x += 1
    assert graph.names[:2] == ["exp", "multiply"]


def test_methods_reductions_and_indices_are_kept(cupy: Any) -> None:
    x, i = cupy.arange(6.0), cupy.asarray(np.array([1, 4]))

    def step() -> list[Any]:
        total = cupy.zeros(2)
        cupy.add.at(total, i - i, x[i])
        return [
            x.sum(),
            x.reshape(2, 3).max(1),
            x[i],
            total,
            cupy.where(x > 2, x, 0),
            x.astype(int),
        ]

    graph, results = captured(cupy, step)
    for _ in range(2):
        graph.launch()
        host = x.get()
        expected = [host.sum(), host.reshape(2, 3).max(1), host[[1, 4]], [host[1] + host[4], 0],
                    np.where(host > 2, host, 0), host.astype(int)]  # fmt: skip
        for result, value in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result.get(), value)
        x *= -2


def test_kernels_and_products_are_kept(cupy: Any) -> None:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    K = NAMESPACES[cupy.ndarray].launcher
    a, b = gradlite.randn(2, 3, device="cuda").array, gradlite.randn(3, 4, device="cuda").array
    out = cupy.zeros((2, 4), np.float32)

    def step() -> None:
        product = K.gemm.matmul(a, b)
        K.rows("softmax_forward", product.dtype, 2, 4, product, out, 2, 4)

    graph, _ = captured(cupy, step)
    assert not out.get().any() and graph.names == ["matmul", "softmax_forward_f32"]
    for _ in range(2):
        graph.launch()
        logits = a.get() @ b.get()
        expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(out.get(), expected, rtol=1e-5)
        a *= 3


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda cupy, x: x.get(), CAPTURING),
        (lambda cupy, x: float(x.sum()), CAPTURING),
        (lambda cupy, x: bool(x.sum() > 0), CAPTURING),
        (lambda cupy, x: x.sum().item(), CAPTURING),
        (lambda cupy, x: x[x > 0], CAPTURING),
        (lambda cupy, x: cupy.nonzero(x), CAPTURING),
        (lambda cupy, x: cupy.asarray(np.ones(3)), CAPTURING),
        (lambda cupy, x: x.set(np.ones(3)), CAPTURING),
        (lambda cupy, x: x[[0, 1]], CAPTURING),
        (lambda cupy, x: x.dot(x), "cuBLAS API during stream capture"),
        (lambda cupy, x: cupy.matmul(x, x), "cuBLAS API during stream capture"),
    ],
)
def test_what_cupy_refuses_leaves_the_capture_as_it_was(cupy: Any, call: Any, error: str) -> None:
    x = cupy.ones(3)

    def step() -> Any:
        with pytest.raises(RuntimeError, match=error):
            call(cupy, x)
        return x + 1

    graph, y = captured(cupy, step)
    graph.launch()
    assert y.get().tolist() == [2.0] * 3


@pytest.mark.parametrize(
    ("wait", "error"),
    [
        (lambda cupy, s: s.synchronize(), "cudaErrorStreamCaptureUnsupported"),
        (lambda cupy, s: cupy.cuda.Device().synchronize(), "cudaErrorStreamCaptureUnsupported"),
        (lambda cupy, s: s.record().synchronize(), "cudaErrorCapturedEvent"),
        (lambda cupy, s: s.wait_event(cupy.cuda.Stream.null.record()), "StreamCaptureIsolation"),
        (lambda cupy, s: s.begin_capture(), "cudaErrorIllegalState"),
    ],
)
def test_what_cuda_refuses_ends_the_capture_without_a_graph(
    cupy: Any, wait: Any, error: str
) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(runtime.CUDARuntimeError, match=error):
            wait(cupy, stream)
        with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
        assert not stream.is_capturing()
        stream.synchronize()


def test_asking_whether_a_capturing_stream_is_done_spoils_the_capture(cupy: Any) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    assert not stream.done
    with pytest.raises(RuntimeError, match="Invalidated"):
        stream.end_capture()
    with pytest.raises(RuntimeError, match="cudaErrorIllegalState"):
        stream.end_capture()


def test_the_legacy_stream_captures_nothing_and_suffers_from_blocking_ones(cupy: Any) -> None:
    with pytest.raises(RuntimeError, match="default .legacy. stream"):
        cupy.cuda.Stream.null.begin_capture()
    x, blocking = cupy.ones(3), cupy.cuda.Stream()
    blocking.begin_capture()
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureImplicit"):
        x + 1
    with pytest.raises(RuntimeError, match="Invalidated"):
        blocking.end_capture()
    assert (x + 1).get().tolist() == [2.0] * 3


def test_memory_of_the_default_pool_is_caught(cupy: Any) -> None:
    x, stream = cupy.ones(3), cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(MemoryError, match="default pool"):
            x + 1
        stream.end_capture()


def test_a_launch_after_memory_was_given_back_is_an_illegal_access(cupy: Any) -> None:
    pool, x = cupy.cuda.MemoryPool(), cupy.ones(3)
    graph, out = captured(cupy, lambda: (x + 1) * 2, pool)
    graph.launch()
    assert out.get().tolist() == [4.0] * 3
    del out
    graph.launch()  # the memory is the pool's, and the pool lives
    x = None
    gc.collect()
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorIllegalAddress: add"):
        graph.launch()
    y = cupy.ones(3)
    graph, out = captured(cupy, lambda: y + 1)
    graph.launch()
    del out
    gc.collect()
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorIllegalAddress"):
        graph.launch()  # its pool is gone


def test_a_pool_asks_for_memory_that_it_does_not_hold(cupy: Any) -> None:
    sizes: list[int] = []

    def reserve(size: int) -> Any:
        sizes.append(size)
        return cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)

    pool = cupy.cuda.MemoryPool(reserve)
    with cupy.cuda.using_allocator(pool.malloc):
        for _ in range(3):
            cupy.ones(100)
        held = [cupy.ones(100), cupy.ones(100)]
    assert sizes == [1024, 1024] and len(held) == 2
    assert cupy.cuda.get_allocator() != pool.malloc


def test_arrays_at_an_address_and_their_bases(cupy: Any) -> None:
    x = cupy.arange(12.0).reshape(3, 4)
    row = cupy.ndarray((4,), x.dtype, x.data + 4 * 8, (8,))
    assert row.get().tolist() == [4.0, 5.0, 6.0, 7.0]
    row += 1
    assert x.get()[1].tolist() == [5.0, 6.0, 7.0, 8.0]
    owner = cupy.ones((2, 3))
    assert owner.base is None and owner.T.base is owner and owner[0][1:].base is owner
    assert (owner + 1).base is None
