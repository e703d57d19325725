"""Tables of addresses, and the first use of CUDA: threads and streams that do not get in each
other's way. On the stand-in for CuPy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import gradlite
from gradlite import nn
from gradlite.backends import cuda
from gradlite.backends.tables import table
from gradlite.nn import functional as F
from gradlite.ops.namespaces import NAMESPACES
from tests import cupy_stand_in

SECONDS = 10


def in_a_thread(function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join(SECONDS)
    (result,) = found
    return result


def test_threads_have_tables_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = cupy_stand_in.install(monkeypatch)
    array = gradlite.ones(3, device="cuda").array
    K = NAMESPACES[cupy.ndarray].launcher
    found = table(K, [array])
    assert table(K, [array + 1]) is found
    other = in_a_thread(lambda: table(K, [array]))
    assert other is not found and table(K, [array]) is found


def test_streams_have_tables_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = cupy_stand_in.install(monkeypatch)
    weight = gradlite.ones(3, device="cuda", requires_grad=True)
    weight.grad = gradlite.full((3,), 2.0, device="cuda")
    K = NAMESPACES[cupy.ndarray].launcher
    streams = [gradlite.cuda.Stream() for _ in range(2)]
    for stream in (*streams, *streams):
        with gradlite.cuda.stream(stream):
            norm = nn.utils.clip_grad_norm_([weight], 6.0)
    assert norm.item() == pytest.approx(12**0.5)
    assert len(K.tables) == 2


def test_streams_have_divisors_of_pooling_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = cupy_stand_in.install(monkeypatch)
    x = gradlite.ones(1, 1, 3, 3, device="cuda")
    K = NAMESPACES[cupy.ndarray].launcher
    streams = [gradlite.cuda.Stream() for _ in range(2)]
    for stream in (*streams, *streams):
        with gradlite.cuda.stream(stream):
            y = F.avg_pool2d(x, 2, 1, 1, count_include_pad=False)
    assert y.flatten().tolist() == [1.0] * 16
    assert [key[0] for key in K.tables] == ["divisors"] * 2


def test_who_asks_for_cupy_first_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = cupy_stand_in.install(monkeypatch)
    begun, go_on, order = threading.Event(), threading.Event(), []

    def prepare(module: Any) -> None:
        assert cuda.module() is module  # which may be asked for inside
        begun.set()
        go_on.wait(SECONDS)
        order.append("prepared")

    def ask() -> None:
        assert cuda.module() is cupy
        order.append("asked")

    monkeypatch.setattr(cuda, "_handed_out", False)
    monkeypatch.setattr(cuda, "_when_used", [prepare])
    threads = [threading.Thread(target=ask) for _ in range(2)]
    threads[0].start()
    assert begun.wait(SECONDS)
    threads[1].start()
    threads[1].join(0.2)
    assert order == [] and threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join(SECONDS)
    assert order == ["prepared", "asked", "asked"]
