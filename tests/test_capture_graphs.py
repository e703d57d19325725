"""Captured steps as CUDA graphs: the training of real models to the bit, and what is in a graph.

On the stand-ins for CuPy and cuBLASLt, and on a GPU where there is one. What holds on every device
is in `test_capture_surprises`, which runs here as well.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.backends import kernels
from gradlite.nn import functional as F
from tests import launches
from tests.capture_support import where
from tests.cupy_stand_in import arrays
from tests.graph_support import MODELS, Dropped, images, repeated, trained

__all__ = ["where"]  # which is used by every test


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


LOSSES: dict[str, Any] = {
    "cross_entropy": F.cross_entropy, "nll_loss": F.nll_loss,
    "multi_margin_loss": F.multi_margin_loss,
    "multilabel_margin_loss": lambda x, y: F.multilabel_margin_loss(x, y[:, None].expand(4, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_class_numbers_out_of_bounds_are_told_of_when_the_host_waits(name: str) -> None:
    x = gradlite.randn(4, 3).requires_grad_()
    captured = gradlite.capture(lambda y: LOSSES[name](x, y))
    y = gradlite.tensor([0, 2, 1, 0])
    losses = [captured(y).item() for _ in range(5)]
    y[1] = 7
    with pytest.raises(RuntimeError, match=rf"assert triggered\n{name}: [Tt]arget 7 is out of"):
        captured(y).item()
    y[1] = 2
    assert captured(y).item() == losses[-1] and captured.recordings == 1


@pytest.mark.parametrize("weighted", [False, True])
def test_values_out_of_bounds_are_told_of_when_the_host_waits(weighted: bool) -> None:
    weight = gradlite.ones(3, requires_grad=True) if weighted else None
    captured = gradlite.capture(lambda p: F.binary_cross_entropy(p, p.detach() * 0.5, weight))
    p = gradlite.tensor([0.0, 0.25, 1.0])
    losses = [captured(p).item() for _ in range(5)]
    p[1] = 1.5
    with pytest.raises(RuntimeError, match="all elements of input should be between 0 and 1$"):
        captured(p).item()
    p[1] = 0.25
    assert captured(p).item() == losses[-1]


@pytest.mark.parametrize("make", [lambda: nn.RMSNorm(5), lambda: nn.InstanceNorm1d(3, affine=True)])
def test_norms_of_halves_with_single_parameters_are_part_of_a_graph(make: Any) -> None:
    norm = make()

    def step(x: Any) -> Any:
        y = norm(x.bfloat16().requires_grad_())
        norm.zero_grad()
        y.sin().sum().backward()
        return [y.float(), *(p.grad for p in norm.parameters())]

    captured = gradlite.capture(step)
    for number in range(5):
        x = gradlite.arange(30.0).reshape(2, 3, 5).add(number).sin()
        found = captured(x)
        for ours, expected in zip(found, step(x), strict=True):
            assert ours.tolist() == expected.tolist()
    assert captured.replays == 2


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
