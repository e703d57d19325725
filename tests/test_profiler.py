"""gradlite.profiler: what it counts, against counts by hand, and that nothing of it stays."""

from __future__ import annotations

import gc
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import Tensor, graph, nn, optim
from gradlite.backends import kernels, native
from gradlite.backends.gemm import CupyGemm
from gradlite.backends.kernels import Launcher
from gradlite.backends.native import NativeLauncher
from gradlite.capturing import CapturedStep
from gradlite.cuda.kernel import Kernel
from gradlite.ops import binary, comparison, dispatch, guard
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.ops.table import TABLE
from gradlite.optim import optimizer as optimizer_module
from gradlite.profiler import ProfilerActivity, instruments, profile, record_function
from tests import cublaslt_stand_in
from tests import cupy_stand_in as stand_in
from tests.cuda_on_cpu import compiler


class Net:
    """A perceptron 8-16-3 with a step of training on a batch of 4."""

    def __init__(self, device: str = "cpu") -> None:
        layers = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)
        self.model = nn.Sequential(*layers).to(device)
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)
        self.x = gradlite.randn(4, 8).to(device)
        self.y = gradlite.tensor([0, 1, 2, 0]).to(device)

    def step(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(self.x), self.y)
        loss.backward()
        self.optimizer.step()
        return loss


def averages(prof: profile) -> dict[str, Any]:
    return {average.key: average for average in prof.key_averages()}


def compiled(**launches: int) -> dict[str, int]:
    """Launches of kernels on the CPU, where they can be compiled."""
    return launches if native.on_demand() is not None else {}


def counts(prof: profile) -> dict[str, int]:
    return {average.key: average.count for average in prof.key_averages()}


def test_the_counts_of_a_training_step() -> None:
    net = Net()
    with profile() as prof:
        for _ in range(3):
            net.step()
    assert counts(prof) == {
        "linear": 6,
        "relu": 3,
        "cross_entropy": 3,
        "backward": 3,
        "NllLossBackward0": 3,
        "AddmmBackward0": 6,
        "ReluBackward0": 3,
        "AccumulateGrad": 12,
        "Optimizer.zero_grad#SGD.zero_grad": 3,
        "Optimizer.step#SGD.step": 3,
        **compiled(sgd=3),
    }


def test_the_bytes_of_a_training_step() -> None:
    net = Net()
    with profile() as prof:
        net.step()
    found = averages(prof)
    # Inputs, weights, biases and outputs of both layers, 4 bytes each.
    first, second = 4 * 8 + 16 * 8 + 16 + 4 * 16, 4 * 16 + 3 * 16 + 3 + 4 * 3
    assert found["linear"].bytes == 4 * (first + second)
    assert found["relu"].bytes == 4 * (4 * 16 + 4 * 16)
    assert found["ReluBackward0"].bytes == 4 * 3 * 4 * 16
    # The gradient, the input (and the second layer's weight), and the gradients of all three.
    first = 4 * 16 + 4 * 8 + (16 * 8 + 16)
    second = 4 * 3 + 4 * 16 + 3 * 16 + (4 * 16 + 3 * 16 + 3)
    assert found["AddmmBackward0"].bytes == 4 * (first + second)
    assert found["AccumulateGrad"].bytes == 0  # the arrays become .grad as they are
    with profile() as prof:
        nn.functional.cross_entropy(net.model(net.x), net.y).backward()
    parameters = sum(p.numel() for p in net.model.parameters())
    assert averages(prof)["AccumulateGrad"].bytes == 4 * 3 * parameters  # read two, write one


def test_views_and_gradients_handed_on_move_nothing() -> None:
    x = gradlite.ones(6, requires_grad=True)
    with profile() as prof:
        (x.view(2, 3) + gradlite.ones(2, 3)).sum().backward()
    found = averages(prof)
    assert found["view"].bytes == found["AddBackward0"].bytes == found["ViewBackward0"].bytes == 0
    assert found["add"].bytes == 4 * 18


def test_shapes() -> None:
    net = Net()
    with profile(record_shapes=True) as prof:
        net.model(net.x)
    grouped = {
        (a.key, a.input_shapes): a.count for a in prof.key_averages(group_by_input_shape=True)
    }
    assert grouped["linear", ((4, 8), (16, 8), (16,))] == 1
    assert grouped["linear", ((4, 16), (3, 16), (3,))] == 1
    assert "[[4, 8], [16, 8], [16]]" in prof.key_averages(group_by_input_shape=True).table()


def test_what_has_no_gradient_is_counted() -> None:
    x = gradlite.ones(4)
    with profile() as prof:
        (x > 0).sum()
        gradlite.eq(x, 1)
        x.argmax()
        x.isnan()
        x += 1
        x.mul_(2)
        x.zero_()
    found = counts(prof)
    assert {name: found[name] for name in ("gt", "eq", "argmax", "isnan")} == {
        "gt": 1,
        "eq": 1,
        "argmax": 1,
        "isnan": 1,
    }
    assert found["add_"] == found["mul_"] == 1
    assert averages(prof)["add_"].bytes == 4 * 8


def test_a_function_that_is_an_op_is_counted_once() -> None:
    logits = gradlite.zeros(2, 3, requires_grad=True)
    with profile() as prof:
        nn.functional.cross_entropy(logits, gradlite.tensor([0, 1]))
        logits.detach().clone().exp_()
    assert counts(prof) == {"cross_entropy": 1, "clone": 1, "exp": 1}


def test_derivatives_of_derivatives() -> None:
    x = gradlite.tensor(2.0, requires_grad=True)
    y = x**3
    with profile() as prof:
        (dx,) = gradlite.autograd.grad(y, x, create_graph=True)
        (ddx,) = gradlite.autograd.grad(dx, x)
    found = counts(prof)
    assert ddx.item() == 12
    assert found["PowBackward0"] >= 1 and found["backward"] == 2
    assert averages(prof)["PowBackward0"].cpu_time_total >= averages(prof)["pow"].cpu_time_total


def test_backward_names_are_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="compared with PyTorch")

    def names(library: Any, profiler: Any) -> set[str]:
        layers = library.nn.Linear(3, 4), library.nn.Tanh(), library.nn.Linear(4, 1)
        model = library.nn.Sequential(*layers)
        with profiler() as prof:
            model(library.ones(2, 3)).exp().mean().backward()
        return {a.key for a in prof.key_averages() if a.key.endswith("Backward0")}

    theirs = {
        name.removeprefix("autograd::engine::evaluate_function: ")
        for name in names(torch, torch.profiler.profile)
    }
    # PyTorch transposes the weight in a node of its own.
    assert names(gradlite, profile) == theirs - {"TBackward0"}


# -------------------------------------------------------------------------------- times
def test_times_add_up() -> None:
    net = Net()
    with profile() as prof, record_function("everything"):
        net.step()
    everything = prof.events()[-1]
    assert everything.name == "everything"
    assert everything.duration == sum(e.self_duration for e in prof.events())
    found = averages(prof)
    assert found["everything"].self_cpu_time_total < found["everything"].cpu_time_total
    inside = [e for e in prof.events() if e.parent is not None and e.parent.name == "backward"]
    assert {e.name for e in inside} == {
        "NllLossBackward0", "AddmmBackward0", "ReluBackward0", "AccumulateGrad",
    }  # fmt: skip
    backward = next(e for e in prof.events() if e.name == "backward")
    assert backward.self_duration == backward.duration - sum(e.duration for e in inside)


def test_record_function() -> None:
    @record_function("twice")
    def twice(x: Tensor) -> Tensor:
        return x * 2

    assert twice(gradlite.ones(1)).item() == 2  # without a profile
    with profile() as prof:
        twice(gradlite.ones(1))
        with record_function("part", "first"), pytest.raises(ZeroDivisionError):
            with record_function("inner"):
                raise ZeroDivisionError
    assert counts(prof) == {"mul": 1, "twice": 1, "inner": 1, "part: first": 1}


# -------------------------------------------------------------------------- nothing stays
def everything_replaced() -> dict[Any, Any]:
    """What runs, or is called by, an op: by where it is kept."""
    for namespace in NAMESPACES.values():
        namespace.complete()
    gc.collect()  # ops of arrays that only a recording has had
    classes = [Op, Tensor, Launcher, NativeLauncher, CupyGemm, Kernel, CapturedStep]
    classes += [optim.Optimizer, instruments._FunctionOp, *instruments._all_ops()]
    modules = [graph, dispatch, binary, comparison, guard, optimizer_module]
    owners = (*classes, *modules, *NAMESPACES.values())
    found = {(id(o), n): v for o in owners for n, v in vars(o).items()}
    for entry in TABLE.values():
        function = entry.function
        found[entry.name, "code"] = getattr(function, "__code__", None)
        for place, cell in enumerate(getattr(function, "__closure__", None) or ()):
            found[entry.name, place] = cell.cell_contents
    return found


def assert_same(before: dict[Any, Any]) -> None:
    after = everything_replaced()
    assert after.keys() == before.keys()
    assert not [key for key, value in before.items() if after[key] is not value]


def test_ops_that_rules_ask_for_first_in_a_profile_are_not_measured_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    F = NAMESPACES[np.ndarray]
    F.use(F.launcher)  # as at the start
    with profile():
        F.exp(np.ones(3))

    def measured(*args: Any) -> None:
        raise AssertionError(f"measured without a profile: {args}")

    monkeypatch.setattr(instruments, "begin", measured)
    F.exp(np.ones(3))


def test_off_everything_is_the_very_same() -> None:
    net = Net()
    net.step()
    before = everything_replaced()
    with profile() as prof:
        net.step()
        during = everything_replaced()
    assert_same(before)
    assert len([k for k, v in during.items() if before.get(k) is not v]) > 500
    listed = len(prof.events())
    net.step()
    assert len(prof.events()) == listed


def test_errors_inside_put_everything_back() -> None:
    before = everything_replaced()
    with pytest.raises(RuntimeError, match="must match the size"), profile() as prof:
        gradlite.ones(2) + gradlite.ones(3)
    assert_same(before)
    assert counts(prof) == {"add": 1}
    with pytest.raises(KeyboardInterrupt), profile():
        raise KeyboardInterrupt
    assert_same(before)


def test_an_error_while_it_begins_puts_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything_replaced()

    def broken() -> Any:
        raise OSError("broken")

    monkeypatch.setattr(instruments, "_guarded", broken)
    with pytest.raises(OSError, match="broken"):
        profile().start()
    assert_same(before)
    monkeypatch.undo()
    with profile() as prof:
        gradlite.ones(2).exp()
    assert counts(prof) == {"exp": 1}


def test_graphs_of_one_side_run_on_the_other() -> None:
    x = gradlite.ones(2, requires_grad=True)
    y = x.exp().sum()
    with profile() as prof:
        y.backward()
        z = x.sin().sum()
    z.backward()
    assert counts(prof)["ExpBackward0"] == 1 and "SinBackward0" not in counts(prof)


# --------------------------------------------------------------------- nested, threads, use
def test_nested_profiles() -> None:
    x, before = gradlite.ones(2), everything_replaced()
    with profile() as outer:
        x.exp()
        with profile() as inner:
            x.sin()
        x.exp()
    assert counts(outer) == {"exp": 2, "sin": 1} and counts(inner) == {"sin": 1}
    assert_same(before)


def test_profiles_that_overlap() -> None:
    x, before = gradlite.ones(2), everything_replaced()
    first, second = profile(), profile()
    first.start()
    second.start()
    first.stop()
    x.exp()
    second.stop()
    assert counts(first) == {} and counts(second) == {"exp": 1}
    assert_same(before)


def test_threads_have_places_of_their_own() -> None:
    net, ready = Net(), threading.Barrier(2)

    def work() -> None:
        ready.wait()
        with record_function("work"):
            for _ in range(20):
                net.model(net.x)

    threads = [threading.Thread(target=work) for _ in range(2)]
    with profile() as prof:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts(prof) == {"linear": 80, "relu": 40, "work": 2}
    for event in prof.events():
        assert all(around.thread == event.thread for around in event.ancestors())
    assert len({event.thread for event in prof.events()}) == 2


def test_wrong_use() -> None:
    prof = profile()
    with pytest.raises(RuntimeError, match="not on"):
        prof.stop()
    with prof, pytest.raises(RuntimeError, match="on already"):
        prof.start()
    with pytest.raises(ValueError, match="cannot sort by 'name'.*self_cpu_time_total"):
        prof.key_averages().table(sort_by="name")


def test_captured_steps() -> None:
    net = Net()
    step, before = gradlite.capture(net.step), everything_replaced()
    with profile() as prof:
        for _ in range(6):
            step()
    assert step.replays == 3
    found = counts(prof)
    assert found["capture#step"] == 6
    assert found["linear"] == 2  # of the warm-up: recordings and replays are one event each
    assert_same(before)
    step()
    assert step.replays == 4

    def inside() -> Tensor:
        with profile():
            return net.x + 1

    captured = gradlite.capture(inside)
    captured()
    with pytest.raises(RuntimeError, match="cannot begin inside a captured step"):
        captured()
    assert_same(before)


# ------------------------------------------------------------------------- table and trace
def test_table() -> None:
    net = Net()
    with profile() as prof:
        net.step()
    lines = prof.key_averages().table(sort_by="count", row_limit=2).splitlines()
    header = "Name Self CPU % Self CPU CPU total CPU time avg # of Calls Bytes"
    header += " Launches" if compiled(sgd=1) else ""
    assert " ".join(lines[0].split()) == header
    assert len(lines) == 6 and lines[2].startswith("AccumulateGrad")
    assert lines[-1].startswith("Self CPU time total: ")
    everything = prof.key_averages().table(row_limit=-1)
    assert all(name in everything for name in counts(prof))
    with profile() as empty:
        pass
    assert "Self CPU time total: 0.000us" in empty.key_averages().table(sort_by="bytes")


def test_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    with profile() as prof, record_function("step"):
        net.step()
    path = tmp_path / "trace.json"
    prof.export_chrome_trace(path)
    entries = json.loads(path.read_text())["traceEvents"]
    assert len(entries) == len(prof.events())
    whole = next(e for e in entries if e["name"] == "step")
    for entry in entries:
        assert entry["ph"] == "X" and entry["tid"] == whole["tid"]
        assert whole["ts"] <= entry["ts"]
        assert entry["ts"] + entry["dur"] <= whole["ts"] + whole["dur"] + 1e-3

    def broken(value: Any, file: Any) -> None:
        file.write("{")
        raise OSError("disk full")

    monkeypatch.setattr(json, "dump", broken)
    with pytest.raises(OSError, match="disk full"):
        prof.export_chrome_trace(path)
    assert [p.name for p in tmp_path.iterdir()] == ["trace.json"]
    assert json.loads(path.read_text())["traceEvents"] == entries


# ------------------------------------------------------------------------------- kernels
@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> str:
    if compiler() is None:
        pytest.skip("no C++ compiler to run kernels with")
    stand_in.install(monkeypatch)
    return "cuda"


def test_launches_on_a_gpu(gpu: str) -> None:
    net = Net(gpu)
    net.step()
    before = everything_replaced()
    with kernels.record() as names, profile() as prof:
        net.step()
    assert_same(before)
    launched = [e.name for e in prof.events() if e.kind == "kernel"]
    assert launched == ["gemm" if name == "matmul" else name for name in names]
    found = averages(prof)
    assert found["bias_relu"].launches == 1 and found["ReluBackward0"].launches == 2
    # The stand-in's clock says half a millisecond for whatever stands between two marks.
    assert found["bias_relu"].device_time_total == pytest.approx(500)
    in_backward = sum(e.kind == "kernel" and _inside(e, "backward") for e in prof.events())
    assert found["backward"].cuda_time_total == pytest.approx(500 * in_backward)
    table = prof.key_averages().table(sort_by="cuda_time_total")
    assert "Launches" in table and "CUDA total" in table
    with profile(activities=[ProfilerActivity.CPU]) as prof:
        net.step()
    assert averages(prof)["bias_relu"].launches == 1
    assert averages(prof)["bias_relu"].device_time_total == 0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_profile_between_the_two_recordings(
    device: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda":
        request.getfixturevalue("gpu")
        cublaslt_stand_in.install(monkeypatch)
    net, plain = Net(device), Net(device)
    plain.model.load_state_dict(net.model.state_dict())
    plain.x, plain.y = net.x, net.y
    captured = gradlite.capture(net.step)
    before = everything_replaced()
    losses = [captured().item(), captured().item()]
    with profile():
        losses += [captured().item() for _ in range(3)]
    assert_same(before)
    losses.append(captured().item())
    assert captured.recordings == 1 and captured.replays == 3
    assert losses == pytest.approx([plain.step().item() for _ in losses], rel=1e-5)


def _inside(event: Any, name: str) -> bool:
    return any(around.name == name for around in event.ancestors())


def test_a_namespace_made_during_a_profile_keeps_nothing(gpu: str) -> None:
    with profile():
        x = gradlite.ones(4, device=gpu, requires_grad=True)
        x.relu().sum().backward()
    with profile() as prof:
        x.relu()
    assert counts(prof)["relu"] == 1


def test_kernels_on_the_cpu_and_of_the_user() -> None:
    source = 'extern "C" __global__ void one(float* y, int n) { y[0] = n; }'

    def reference(y: Any, n: int) -> None:
        y[0] = n

    one, y = gradlite.cuda.kernel(source, "one", reference=reference), gradlite.zeros(3)
    with profile() as prof:
        one(1, 32, y, 3)
    assert y[0].item() == 3
    (event,) = prof.events()
    assert (event.name, event.kind, event.bytes, event.launches) == ("one", "kernel", 12, 1)


class Double(gradlite.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2


def test_functions_of_the_user() -> None:
    x = gradlite.ones(2, requires_grad=True)
    with profile() as prof:
        Double.apply(x).sum().backward()
    found = counts(prof)
    assert found["DoubleBackward"] == 1 and found["mul"] == 2
    (event,) = [e for e in prof.events() if e.name == "DoubleBackward"]
    inner = [e.name for e in prof.events() if e.parent is event]
    assert inner == ["mul"]
