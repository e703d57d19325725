"""The memory of CUDA graphs: what outlives a launch belongs to one graph alone.

On the stand-ins for CuPy and cuBLASLt, and on a GPU where there is one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import gradlite
from gradlite.backends import cuda
from gradlite.capturing import graphs
from gradlite.nn import functional as F
from tests.capture_support import where
from tests.cupy_stand_in import runtime

__all__ = ["where"]  # which is used by every test
SIZE = 1000


def plan_of(captured: Any) -> Any:
    (recording,) = (r for kept in captured._kept.values() for r in kept)
    return recording.plan


def busy(x: Any) -> Any:
    """A step with many arrays of one size that are needed for a moment."""
    return (((x * 2).exp() + x.sin()) * (x.cos() + 1) * (x.tan() * 2) * x.sinh()).sum()


@pytest.fixture
def earlier() -> Any:
    """A captured step that had all the memory of the pool before the others."""
    graphs._homes.clear()
    captured = gradlite.capture(busy)
    for _ in range(4):
        captured(gradlite.ones(SIZE))
    return captured


def test_gradients_outlive_launches_of_other_graphs(where: str, earlier: Any) -> None:
    weights = [gradlite.ones(SIZE, requires_grad=True) for _ in range(3)]

    def step(x: Any) -> Any:
        for weight in weights:
            weight.grad = None
        loss = sum((w * x).sum() * (n + 1) for n, w in enumerate(weights))
        loss.backward()
        return loss

    captured = gradlite.capture(step)
    for _ in range(5):
        captured(gradlite.full((SIZE,), 4.0))
    earlier(gradlite.ones(SIZE))
    assert [w.grad[-1].item() for w in weights] == [4.0, 8.0, 12.0]
    if where == "stand-in":
        (home,) = graphs._homes.values()
        plan = plan_of(captured)
        kept = [plan._roots[b].memory for b in plan._retained if b.kind == graphs.MADE]
        assert len(kept) == 4 and all(memory.pool is home.lasting for memory in kept)
        assert home.pool.used_bytes() == 0  # they are all that stays


def test_places_of_draws_outlive_launches_of_other_graphs(where: str, earlier: Any) -> None:
    def step(x: Any) -> Any:
        return F.dropout(x).sum(), F.dropout(x, 0.3).sum()

    captured = gradlite.capture(step)
    x = gradlite.ones(SIZE)
    gradlite.manual_seed(3)
    found = []
    for _ in range(8):
        found.append([value.item() for value in captured(x)])
        earlier(x)
    gradlite.manual_seed(3)
    assert found == [[value.item() for value in step(x)] for _ in range(8)]
    if where == "stand-in":
        (home,) = graphs._homes.values()
        assert plan_of(captured)._slots.array.memory.pool is home.lasting


class Full:
    """`cupy.cuda.Memory` of a GPU that is full until the pool gives back what it does not use."""

    ever = False  # or for good

    def __init__(self, size: int) -> None:
        pool = cuda.module().get_default_memory_pool()
        if self.ever or pool.total_bytes() > pool.used_bytes():
            raise runtime.CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")


def test_graphs_get_what_eager_steps_have_left(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "gpu":
        pytest.skip("the stand-in says that it is full")
    graphs._homes.clear()
    captured, x = gradlite.capture(busy), gradlite.ones(SIZE)
    expected = [captured(x).item() for _ in range(3)]
    monkeypatch.setattr(cuda.module().cuda, "Memory", Full)
    assert [captured(x).item() for _ in range(2)] == expected[:2] and captured.replays == 2


def test_a_gpu_that_is_full_is_no_step_that_cannot_be_captured(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "gpu":
        pytest.skip("the stand-in says that it is full")
    graphs._homes.clear()
    captured, x = gradlite.capture(busy), gradlite.ones(SIZE)
    expected = [captured(x).item() for _ in range(3)][0]
    with monkeypatch.context() as patch:
        patch.setattr(cuda.module().cuda, "Memory", Full)
        patch.setattr(Full, "ever", True)
        with pytest.raises(gradlite.cuda.OutOfMemoryError, match="CUDA out of memory. Tried to"):
            captured(x)
    assert captured(x).item() == expected


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads that change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_results_in_threads_outlive_launches_of_other_graphs(hurried: None) -> None:
    weights = [gradlite.full((64,), float(n)) for n in range(3)]
    wrong: list[Any] = []

    def work(n: int) -> None:
        captured = gradlite.capture(lambda x: (x * weights[n]).exp().log().sum(), native=False)
        with gradlite.device("cuda"):
            for i in range(64):
                x = gradlite.full((64,), i % 16 / 16)
                value = captured(x).item()
                if abs(value - 64 * n * (i % 16) / 16) > 1e-3:
                    wrong.append((n, i, value))

    for _ in range(4):
        threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
