"""Captured steps as CUDA graphs: the training of real models to the bit, memory, order, failures.

On the stand-ins for CuPy and cuBLASLt, and on a GPU where there is one. What holds on every device
is in `test_capture_surprises`, which runs here as well.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.backends import kernels, staging
from gradlite.capturing import graphs
from gradlite.cli.models import CNN, GPT, MLP, CharGRU
from gradlite.nn import functional as F
from tests import cupy_stand_in, launches
from tests.capture_support import Trainer, where
from tests.cupy_stand_in import arrays, runtime

__all__ = ["where"]  # which is used by every test
CHARACTERS = 7


@pytest.fixture
def cupy(where: str) -> Any:
    from gradlite.backends import cuda

    return cuda.module()


class Dropped(nn.Module):
    """A model with dropout before its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.drop = nn.Linear(16, 12), nn.Linear(12, 5), nn.Dropout(0.3)

    def forward(self, x: Any) -> Any:
        return self.last(self.drop(F.gelu(self.first(x.flatten(1)))))


def images(rng: Any) -> tuple[Any, Any]:
    x = rng.standard_normal((4, 1, 4, 4)).astype(np.float32)
    return gradlite.tensor(x), gradlite.tensor(rng.integers(0, 5, 4))


def text(rng: Any) -> tuple[Any, Any]:
    x = gradlite.tensor(rng.integers(0, CHARACTERS, (2, 5)))
    return x, gradlite.tensor(rng.integers(0, CHARACTERS, (2, 5)))


MODELS: dict[str, Any] = {
    "mlp": (lambda: MLP(4, 4, 5, hidden=8), images),
    "dropout": (Dropped, images),
    "cnn": (lambda: CNN(4, 4, 5, channels=(2, 3)), images),
    "gru": (lambda: CharGRU(CHARACTERS, hidden=6, embedding=4), text),
    "gpt": (lambda: GPT(CHARACTERS, 5, width=8, heads=2, layers=1), text),
}


def trained(
    name: str, steps: int, capture: bool
) -> tuple[list[float], list[Any], list[float], Any]:
    """Losses, parameters and the numbers drawn next after training, as it is or captured."""
    make, batch = MODELS[name]
    gradlite.manual_seed(5)
    model = make()
    model = model.cuda()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss

    run = gradlite.capture(step) if capture else step
    losses = []
    for i in range(steps):
        losses.append(run(*batch(np.random.default_rng(i))).item())
        schedule.step()
    values = [v.detach().cpu().numpy() for v in (*model.parameters(), *model.buffers())]
    return losses, values, gradlite.rand(3).tolist(), run


@pytest.mark.parametrize("name", MODELS)
def test_a_captured_training_is_the_eager_one_to_the_bit(name: str) -> None:
    steps = 110
    losses, values, drawn, _ = trained(name, steps, False)
    again, same, next_drawn, captured = trained(name, steps, True)
    assert captured.replays == steps - 3 and captured.recordings == 1
    assert again == losses and len(set(losses)) > steps // 2
    for a, b in zip(same, values, strict=True):
        np.testing.assert_array_equal(a, b)
    assert next_drawn == drawn


def repeated(captured: Any, *args: Any, calls: int = 5) -> list[Any]:
    return [captured(*args).tolist() for _ in range(calls)]


# ------------------------------------------------------------------------- what is in it
def test_explain_lists_the_kernels_of_the_graph() -> None:
    captured = trained("dropout", 6, True)[3]
    text = captured.explain()
    assert "3 replays of" in text and "in 1 CUDA graphs" in text
    for name in ("matmul", "dropout", "cross_entropy", "norm", "clip"):
        assert name in text
    starred = [line for line in text.splitlines() if "* " in line[:8]]
    assert [line.rpartition("Python: ")[2] for line in starred] == [
        "Generator.reserve", "the numbers of AdamW.step",
    ]  # fmt: skip


def test_a_step_on_the_cpu_becomes_no_graph_where_cuda_is_in_use() -> None:
    assert gradlite.cuda.is_initialized()
    captured = gradlite.capture(lambda x: F.dropout(x).exp() + 1, native=False)
    x = gradlite.ones(3, device="cpu")
    gradlite.manual_seed(1)
    drawn = repeated(captured, x)
    gradlite.manual_seed(1)
    assert drawn == [captured.step(x).tolist() for _ in range(5)]
    assert captured.replays == 2 and "CUDA graph" not in captured.explain()


def test_the_first_use_of_cuda_is_too_late_in_a_recording(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "gpu":
        pytest.skip("CUDA is in use by now")
    from gradlite.backends import cuda

    gradlite.set_default_device(None)
    monkeypatch.setattr(cuda, "_handed_out", False)
    captured = gradlite.capture(lambda x: x.to("cuda") + 1, warmup=0)
    with pytest.raises(gradlite.CaptureError, match="the first to use CUDA: call it once before"):
        captured(gradlite.ones(2))
    assert repeated(captured, gradlite.ones(2)) == [[2.0, 2.0]] * 5 and captured.replays == 3


def test_draws_of_a_step_are_taken_before_its_one_graph(where: str) -> None:
    captured = gradlite.capture(lambda x: F.dropout(F.dropout(x) + gradlite.rand(4)) + 1)
    gradlite.manual_seed(3)
    drawn = repeated(captured, gradlite.ones(4))
    gradlite.manual_seed(3)
    assert drawn == [captured.step(gradlite.ones(4)).tolist() for _ in range(5)]
    (recording,) = (r for kept in captured._kept.values() for r in kept)
    assert len(recording.plan.graphs) == 1
    if where == "stand-in":
        (graph,) = recording.plan.graphs.values()
        assert [name.removesuffix("_f32") for name in graph.names].count("dropout") == 2


def test_places_of_draws_are_sent_where_the_generator_has_moved_otherwise(where: str) -> None:
    if where == "gpu":
        pytest.skip("the stand-in counts the calls of CuPy")
    other = gradlite.Generator("cuda").manual_seed(9)

    def step(x: Any) -> Any:
        return F.dropout(F.dropout(x) + 1) + gradlite.rand(5, generator=other)

    captured, x = gradlite.capture(step), gradlite.ones(5)
    repeated(captured, x)
    sent, state = [], gradlite.get_rng_state()
    for i in range(9):
        if i == 3:
            gradlite.rand(7)
        elif i == 5:
            gradlite.manual_seed(1 << 63)
        elif i == 7:
            gradlite.set_rng_state(state)
        state, others = gradlite.get_rng_state(), other.get_state()
        arrays.calls = calls = []
        try:
            result = captured(x).tolist()
        finally:
            arrays.calls = None
        sent.append(calls.count("set"))
        gradlite.set_rng_state(state)
        other.set_state(others)
        assert result == step(x).tolist()
    assert sent == [0, 0, 0, 1, 0, 1, 0, 1, 0]


def test_a_seed_inside_the_step_splits_the_draws() -> None:
    def step(x: Any) -> Any:
        first = F.dropout(x)
        gradlite.manual_seed(11)
        return first * 10 + F.dropout(x)

    captured = gradlite.capture(step)
    gradlite.manual_seed(3)
    drawn = repeated(captured, gradlite.ones(8))
    gradlite.manual_seed(3)
    assert drawn == [step(gradlite.ones(8)).tolist() for _ in range(5)]


def test_inputs_on_the_host_are_copied_by_the_step(where: str) -> None:
    weight = gradlite.rand(3)
    captured = gradlite.capture(lambda x: (x.to("cuda") * weight).sum())
    for i in range(8):
        x = gradlite.full((3,), float(i), device="cpu")
        assert captured(x).item() == (x.cuda() * weight).sum().item()
    assert captured.replays == 5


def test_work_of_the_host_inside_the_step_is_done_between_graphs() -> None:
    def step(x: Any, y: Any) -> Any:
        return x * (y * 2 + 1).to("cuda")

    captured = gradlite.capture(step)
    for i in range(7):
        x, y = gradlite.full((2,), float(i)), gradlite.tensor([i, -i], device="cpu")
        assert captured(x, y).tolist() == step(x, y).tolist()
    assert captured.replays == 4


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda params: optim.SGD(params, lr=1e-3, momentum=0.9),
    "adam": lambda params: optim.Adam(params, lr=1e-3),
    "adamw": lambda params: optim.AdamW(params, lr=1e-3),
}


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("name", ["mlp", "cnn", "gru", "gpt"])
def test_a_replay_launches_a_graph_and_nothing_else(where: str, name: str, rule: str) -> None:
    if where == "gpu":
        pytest.skip("the stand-in counts the calls of CuPy")
    gradlite.manual_seed(0)
    model, x, y = launches.MODELS[name]()
    model = model.cuda()
    optimizer = OPTIMIZERS[rule](model.parameters())

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss

    captured = gradlite.capture(step)
    for _ in range(4):
        captured(x, y)
    (recording,) = (r for kept in captured._kept.values() for r in kept)
    (graph,) = recording.plan.graphs.values()
    arrays.calls, arrays.reads = calls, reads = [], []
    try:
        with kernels.record() as launched:
            captured(x, y)
    finally:
        arrays.calls = arrays.reads = None
    assert launched == reads == []
    assert sorted(calls) == ["copy", "setitem", "setitem"]  # the loss and the inputs
    # The optimizer's numbers are no launch, its update is two; all draws are moved on at once.
    draws = captured.explain().count("Generator.reserve")
    assert len(graph.names) == len(recording.plan.calls) - draws + bool(draws)
    assert graph.names[-1 - bool(draws)].startswith(rule.removesuffix("w"))
    table = json.loads(launches.PATH.read_text(encoding="utf-8"))[name]["kernels"]
    products = sum(n for kernel, n in table.items() if kernel.startswith("gemm"))
    assert graph.names.count("matmul") == products


def test_a_scaler_with_clipping_and_an_average() -> None:
    def make() -> tuple[Any, Any, Any]:
        gradlite.manual_seed(2)
        model = Dropped()
        average = optim.swa_utils.AveragedModel(model)
        optimizer = optim.AdamW(model.parameters(), lr=0.01, fused=True)
        scaler = gradlite.amp.GradScaler("cuda", init_scale=8.0, growth_interval=3)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.3)
            scaler.step(optimizer)
            scaler.update()
            average.update_parameters(model)
            return loss, norm

        return step, average, scaler

    (eager, first, _), (plain, second, scaler) = make(), make()
    captured = gradlite.capture(plain)
    for i in range(10):
        x, y = images(np.random.default_rng(i))
        if i in (5, 8):
            x = x * float("inf")  # the step is skipped and the scale halved
        gradlite.manual_seed(i)
        expected = [v.item() for v in eager(x, y)]
        gradlite.manual_seed(i)
        np.testing.assert_array_equal([v.item() for v in captured(x, y)], expected)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach().cpu().numpy(), b.detach().cpu().numpy())
    assert captured.replays == 7 and scaler.get_scale() != 8.0


def test_indices_out_of_bounds_are_told_of_when_the_host_waits() -> None:
    weight = gradlite.arange(4.0)
    captured = gradlite.capture(lambda i: weight.take_along_dim(i, 0))
    for i in range(5):
        assert captured(gradlite.tensor([i % 4])).tolist() == [i % 4]
    with pytest.raises(RuntimeError, match="device-side assert"):
        captured(gradlite.tensor([7])).tolist()
    assert captured(gradlite.tensor([2])).tolist() == [2.0]


def test_gradients_that_accumulate_are_added_in_the_graph() -> None:
    weight = gradlite.ones(2, requires_grad=True)

    def step(x: Any) -> Any:
        loss = (weight * x).sum() + (weight * weight).sum()
        loss.backward()
        return loss

    captured = gradlite.capture(step)
    for _ in range(6):
        captured(gradlite.ones(2))
    assert captured.replays == 3 and weight.grad.tolist() == [18.0, 18.0]


# -------------------------------------------------------------------------- memory, order
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


def graphs_of(captured: Any) -> list[Any]:
    return [g for kept in captured._kept.values() for r in kept for g in r.plan.graphs.values()]


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


# ------------------------------------------------------------------------------- failures
def state_of(model: Any, optimizer: Any) -> list[Any]:
    values = [p.detach().cpu().numpy() for p in model.parameters()]
    for p in model.parameters():
        values += [v.cpu().numpy().copy() for v in optimizer.state[p].values()]
    return [*values, gradlite.get_rng_state().numpy()]


class Training(Trainer):
    """A small model with dropout, and its captured step."""

    def __init__(self) -> None:
        gradlite.manual_seed(2)
        self.model = Dropped()
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.01)
        self.captured = gradlite.capture(self.step)


@pytest.mark.parametrize("at", [0, 3, -1])
def test_a_failure_during_capture_leaves_everything_as_it_was(
    where: str, cupy: Any, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    if where == "gpu":
        pytest.skip("the stand-in lets a launch fail")
    training = Training()
    x, y = images(np.random.default_rng(0))
    for _ in range(3):
        training.captured(x, y)
    before = state_of(training.model, training.optimizer)
    grads = [p.grad for p in training.model.parameters()]
    (recording,) = (r for kept in training.captured._kept.values() for r in kept)
    positions = [i for piece in recording.plan.pieces for i in piece if len(piece) > 1]
    call = recording.plan.calls[positions[at]]

    def fail(*args: Any, **kwargs: Any) -> None:
        cupy.cuda.get_current_stream().synchronize()  # which no capture outlives

    whole, call.function = call.function, fail
    for _ in range(2):
        with pytest.raises(gradlite.CaptureError, match="cannot be part of a CUDA graph: cudaErr"):
            training.captured(x, y)
    for a, b in zip(state_of(training.model, training.optimizer), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(p.grad is g for p, g in zip(training.model.parameters(), grads))
    assert gc.isenabled()
    home = recording.plan._home
    assert not home.stream.is_capturing()
    home.stream.synchronize()
    assert cupy.cuda.get_current_stream() is runtime.Stream.null
    call.function = whole
    expected = Training()
    for _ in range(3):
        expected.step(x, y)
    gradlite.set_rng_state(gradlite.tensor(before[-1], device="cpu"))
    losses = [expected.step(x, y).item() for _ in range(3)]
    gradlite.set_rng_state(gradlite.tensor(before[-1], device="cpu"))
    assert [training.captured(x, y).item() for _ in range(3)] == losses
    assert training.captured.replays == 3


def test_products_of_cupy_cannot_be_captured(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "gpu":
        pytest.skip("cuBLASLt is there")
    monkeypatch.setitem(sys.modules, "nvmath.bindings", None)
    captured = gradlite.capture(lambda x: x @ x)
    with pytest.raises(gradlite.CaptureError, match="matmul, cannot be part.*cuBLAS"):
        repeated(captured, gradlite.ones(2, 2))


def test_a_copy_to_the_host_is_refused() -> None:
    captured = gradlite.capture(lambda x: (x * 2).cpu())
    with pytest.raises(gradlite.CaptureError, match="a copy to the CPU reads a tensor's value"):
        repeated(captured, gradlite.ones(2))


def test_arrays_given_to_other_code_are_refused(cupy: Any) -> None:
    captured = gradlite.capture(lambda x: gradlite.asarray(np.ones(2)) + other(x.array))

    def other(array: Any) -> Any:
        return array.__cuda_array_interface__ and 1

    with pytest.raises(gradlite.CaptureError, match="code that is not gradlite's"):
        repeated(captured, gradlite.ones(2))


def test_a_step_that_uses_two_gpus_is_refused(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "gpu":
        pytest.skip("needs two GPUs")
    cupy_stand_in.install(monkeypatch, devices=2)
    x = gradlite.ones(2, device="cuda:0")
    captured = gradlite.capture(lambda x: x.to("cuda:1") + 1)
    with pytest.raises(gradlite.CaptureError, match="runs on one GPU, the current one: cuda:0"):
        repeated(captured, x)


def test_an_error_of_the_optimizer_between_graphs_leaves_the_stream_usable(cupy: Any) -> None:
    training = Training()
    x, y = images(np.random.default_rng(0))
    for _ in range(5):
        training.captured(x, y)
    before = state_of(training.model, training.optimizer)[:-1]
    training.optimizer.param_groups[0]["lr"] = "fast"
    with pytest.raises((TypeError, ValueError)):
        training.captured(x, y)
    training.optimizer.param_groups[0]["lr"] = 0.01
    for a, b in zip(state_of(training.model, training.optimizer), before):
        np.testing.assert_array_equal(a, b)
    assert training.captured(x, y).item() > 0


# --------------------------------------------------------------------------------- tables
def test_copies_go_beside_a_capture(where: str, cupy: Any) -> None:
    side = cupy.cuda.Stream(non_blocking=True)
    assert staging.own_tables() is None
    with staging.beside(side) as tables:
        assert staging.own_tables() is tables == {}
        with staging.not_captured():
            assert cupy.cuda.get_current_stream() == side
    assert staging.own_tables() is None
