"""What CUDA graphs of captured steps keep for each other, and in which order they run.

On the stand-ins for CuPy and cuBLASLt, and on a GPU where there is one.
"""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.backends import staging
from gradlite.capturing import graphs
from gradlite.nn import functional as F
from tests.capture_support import where
from tests.graph_support import cupy, repeated, trained

__all__ = ["cupy", "where"]  # fixtures


def graphs_of(captured: Any) -> list[Any]:
    return [g for kept in captured._kept.values() for r in kept for g in r.plan.graphs.values()]


def test_graphs_share_a_pool_that_goes_with_the_last_of_them(cupy: Any) -> None:
    graphs._homes.clear()
    first = gradlite.capture(lambda x: (x * 2).exp().sum())
    second = gradlite.capture(lambda x: (x + 1).exp().mean())
    one, two = gradlite.zeros(300), gradlite.ones(500)
    expected = repeated(first, one, calls=3)[0], repeated(second, two, calls=3)[0]
    for _ in range(3):
        assert first(one).item() == expected[0] and second(two).item() == expected[1]
    (home,) = graphs._homes.values()
    assert home.pool.total_bytes() > 0
    del home
    first.reset()
    gc.collect()
    assert second(two).item() == expected[1] and len(graphs._homes) == 1
    second.reset()
    gc.collect()
    assert len(graphs._homes) == 0


def test_a_pool_that_is_out_of_memory_takes_none_from_graphs(where: str, cupy: Any) -> None:
    graphs._homes.clear()
    captured = gradlite.capture(lambda x: ((x * 2).exp() + 1).sum())
    x = gradlite.ones(1000)
    expected = repeated(captured, x)[0]
    (home,) = graphs._homes.values()
    home.pool.free_all_blocks()  # what it does by itself before it gives up
    with cupy.cuda.using_allocator(home.pool.malloc):
        spoilt = [cupy.full(1000, 7.0, np.float32) for _ in range(8)]
    assert captured(x).item() == expected and len(spoilt) == 8


def test_what_a_graph_reads_is_kept_and_what_it_computes_by_the_way_is_not(where: str) -> None:
    if where == "gpu":
        pytest.skip("the stand-in knows what memory a graph uses")
    captured = trained("mlp", 5, True)[3]
    (graph,) = graphs_of(captured)
    blocks = graph._capture.used.values()
    assert all(block() is not None for block, *_, name in blocks if name != "result")
    assert sum(block() is None for block, *_, name in blocks if name == "result") > 10


@pytest.mark.parametrize("neighbours", [False, True])
def test_a_part_without_elements_is_written_to(neighbours: bool) -> None:
    size = 128 if neighbours else 1  # 128 floats fill a place of the pool, and the next one begins

    def step(x: Any) -> tuple[Any, Any]:
        first, second = x * 1.5, x + 2
        with gradlite.no_grad():
            first[None, size:].mul_(0.5)
        return first, second + first

    captured = gradlite.capture(step, warmup=0)
    for number in range(6):
        x = gradlite.full((size,), float(number))
        for ours, expected in zip(captured(x), step(x), strict=True):
            assert ours.tolist() == expected.tolist()
    assert (captured.recordings, captured.replays) == (1, 4)


def test_what_one_graph_makes_for_another_is_kept(where: str) -> None:
    if where == "gpu":
        pytest.skip("the stand-in knows what memory a graph uses")

    def step(x: Any) -> Any:
        y = x * 2
        gradlite.manual_seed(1)
        return F.dropout(y).sum()

    captured = gradlite.capture(step)
    repeated(captured, gradlite.ones(9))
    first, second = (g._capture.used for g in graphs_of(captured))
    crossing = [second[key] for key in first.keys() & second.keys()]
    assert crossing and all(block() is not None for block, *_ in crossing)


def test_tables_of_equal_sizes_in_one_step_are_two() -> None:
    def make() -> tuple[Any, Any]:
        weights = [gradlite.full((4,), float(n), requires_grad=True) for n in (1, 2)]

        def step(x: Any) -> Any:
            for weight in weights:
                weight.grad = None
            sum((w * w * x).sum() for w in weights).backward()
            return [nn.utils.clip_grad_norm_([w], 3.0) for w in weights]

        return weights, step

    (first, eager), (second, plain) = make(), make()
    captured = gradlite.capture(plain)
    for i in range(6):
        x = gradlite.full((4,), float(i + 1))
        assert [n.item() for n in captured(x)] == [n.item() for n in eager(x)]
        assert [w.grad.tolist() for w in second] == [w.grad.tolist() for w in first]
    assert captured.replays == 3


def test_results_lie_in_the_callers_memory(where: str, cupy: Any) -> None:
    if where == "gpu":
        pytest.skip("CuPy does not tell of which pool an array is")
    captured = gradlite.capture(lambda x: x + 1)
    for _ in range(5):
        result = captured(gradlite.ones(3))
    assert result.array.memory.pool is cupy.get_default_memory_pool()


def test_a_replay_is_ordered_with_the_stream_that_calls_it(where: str, cupy: Any) -> None:
    captured = gradlite.capture(lambda x: x * 3)
    stream = gradlite.cuda.Stream()
    with gradlite.cuda.stream(stream):
        x = gradlite.ones(2)
        assert repeated(captured, x)[-1] == [3.0, 3.0]
        if where == "stand-in":
            (home,) = graphs._homes.values()
            assert home.stream.waited[-1].recorded is stream.cupy_stream
            assert stream.cupy_stream.waited[-1].recorded is home.stream


def test_a_replay_waits_for_the_stream_that_copies_the_last_results(where: str) -> None:
    captured = gradlite.capture(lambda x: x * 3)
    first, second = gradlite.cuda.Stream(), gradlite.cuda.Stream()
    with gradlite.cuda.stream(first):
        assert repeated(captured, gradlite.ones(2))[-1] == [3.0, 3.0]
    with gradlite.cuda.stream(second):
        assert captured(gradlite.ones(2)).tolist() == [3.0, 3.0]
        if where == "stand-in":
            (home,) = graphs._homes.values()
            streams = [stream.cupy_stream for stream in (first, second)]
            assert home.stream.waited_for[-2:] == streams


def test_steps_of_several_threads_do_not_mix() -> None:
    weights = [gradlite.full((64,), float(n)) for n in range(3)]
    wrong: list[int] = []

    def work(n: int) -> None:
        captured = gradlite.capture(lambda x: (x * weights[n]).exp().log().sum(), native=False)
        with gradlite.device("cuda"):
            for i in range(12):
                x = gradlite.full((64,), i / 16)
                if abs(captured(x).item() - 64 * n * i / 16) > 1e-3:
                    wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_copies_go_beside_a_capture(where: str, cupy: Any) -> None:
    side = cupy.cuda.Stream(non_blocking=True)
    assert staging.own_tables() is None
    with staging.beside(side) as tables:
        assert staging.own_tables() is tables == {}
        with staging.not_captured():
            assert cupy.cuda.get_current_stream() == side
    assert staging.own_tables() is None
