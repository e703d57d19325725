"""What a captured step must not get wrong: every surprise is a test of its own.

Most tests run one program twice from the same state, as it is and captured, and want the very same
numbers; the others want an error that says what cannot be replayed.
"""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.capturing.native.build import available
from gradlite.capturing.step import BRANCHES
from gradlite.nn import functional as F
from tests import cublaslt_stand_in, cupy_stand_in
from tests.cuda_on_cpu import compiler

Step = Callable[..., Any]
CALLS = 8


@pytest.fixture(
    params=["array calls", "compiled", "stand-in", pytest.param("gpu", marks=pytest.mark.cuda)],
    autouse=True,
)
def replays(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every test with every kind of replay; on a GPU with CUDA graphs."""
    kind: str = request.param
    if kind == "compiled" and not available():
        pytest.skip("no C++ compiler, or GRADLITE_NATIVE=0")
    monkeypatch.setenv("GRADLITE_NATIVE", "1" if kind == "compiled" else "0")
    if kind == "stand-in":
        if compiler() is None:
            pytest.skip("kernels run thread by thread on Linux with g++ alone")
        cupy_stand_in.install(monkeypatch)
        cublaslt_stand_in.install(monkeypatch)
    gradlite.set_default_device("cuda" if kind in ("stand-in", "gpu") else None)
    yield kind
    gradlite.set_default_device(None)


def close(a: Any, b: Any) -> None:
    """The very same numbers, or nearly so from compiled code."""
    if available():
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    else:
        np.testing.assert_array_equal(a, b)


def batch(seed: int, rows: int = 6) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = gradlite.tensor(rng.standard_normal((rows, 4)).astype(np.float32))
    return x, gradlite.tensor(rng.integers(0, 3, rows))


def mlp(*middle: Any) -> Any:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *middle, nn.Linear(8, 3))


def norm() -> Any:
    return nn.BatchNorm1d(8)


def drop() -> Any:
    return nn.Dropout(0.5)


class Trainer:
    """A model, an optimizer and a step over them."""

    def __init__(self, *middle: Any, lr: float = 0.05, make: Any = optim.Adam) -> None:
        gradlite.manual_seed(7)
        self.model = mlp(*[layer() for layer in middle])
        self.optimizer = make(self.model.parameters(), lr=lr)

    def step(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def parameters(self) -> list[np.ndarray[Any, Any]]:
        values = [*self.model.parameters(), *self.model.buffers()]
        return [v.detach().cpu().numpy().copy() for v in values]


def assert_same(a: Trainer, b: Trainer) -> None:
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        close(x, y)


def pair(*args: Any, **kwargs: Any) -> tuple[Trainer, Trainer, Step]:
    """Two equal trainers and the captured step of the second."""
    a, b = Trainer(*args, **kwargs), Trainer(*args, **kwargs)
    return a, b, gradlite.capture(b.step)


def run(a: Trainer, b: Trainer, captured: Step, calls: int = CALLS, start: int = 0) -> None:
    for i in range(start, start + calls):
        gradlite.manual_seed(i)
        expected = a.step(*batch(i))
        gradlite.manual_seed(i)
        close(captured(*batch(i)).item(), expected.item())
    assert_same(a, b)


# ---------------------------------------------------------------------- what is honoured
def test_replays_continue_the_training_bit_for_bit() -> None:
    a, b, captured = pair()
    run(a, b, captured, 40)
    assert captured.replays == 37 and captured.recordings == 1


@pytest.mark.parametrize(
    "make",
    [
        optim.SGD,
        lambda p, lr: optim.SGD(p, lr, momentum=0.9, nesterov=True),
        optim.AdamW,
        optim.RMSprop,
        optim.Adagrad,
        optim.NAdam,
    ],
)
def test_every_optimizer_goes_on_as_it_would(make: Any) -> None:
    run(*pair(make=make))


def test_a_changed_learning_rate_counts_at_once() -> None:
    a, b, captured = pair()
    run(a, b, captured)
    for trainer in (a, b):
        trainer.optimizer.param_groups[0]["lr"] = 0.5
    run(a, b, captured, start=CALLS)
    assert captured.replays == 2 * CALLS - 3


def test_a_scheduler_inside_the_step_goes_on() -> None:
    def make() -> tuple[Trainer, Step]:
        trainer = Trainer()
        schedule = optim.lr_scheduler.ExponentialLR(trainer.optimizer, 0.8)

        def step(x: Any, y: Any) -> Any:
            loss = trainer.step(x, y)
            schedule.step()
            return loss

        return trainer, step

    a, eager = make()
    b, plain = make()
    captured = gradlite.capture(plain)
    for i in range(CALLS):
        close(captured(*batch(i)).item(), eager(*batch(i)).item())
    assert_same(a, b)
    assert a.optimizer.param_groups[0]["lr"] == b.optimizer.param_groups[0]["lr"] != 0.05
    assert captured.replays == CALLS - 3


def test_dropout_draws_new_masks_from_the_same_stream() -> None:
    a, b = Trainer(drop), Trainer(drop)
    captured = gradlite.capture(b.step)
    for trainer, step in ((a, a.step), (b, captured)):
        gradlite.manual_seed(11)
        losses = [step(*batch(0)).item() for _ in range(CALLS)]
        assert len(set(losses)) == CALLS
        trainer.end = gradlite.rand(3).tolist()  # type: ignore[attr-defined]
    assert_same(a, b)
    assert a.end == b.end  # type: ignore[attr-defined]


def test_running_statistics_of_batch_norm_go_on() -> None:
    a, b, captured = pair(norm)
    run(a, b, captured)
    assert a.model[2].num_batches_tracked.item() == b.model[2].num_batches_tracked.item() == CALLS
    assert captured.replays == CALLS - 3


def test_eval_between_train_replays() -> None:
    a, b, captured = pair(norm, drop)
    evaluate = gradlite.capture(lambda x: b.model(x), state=[b.model])
    for i in range(CALLS):
        gradlite.manual_seed(i)
        a.step(*batch(i))
        gradlite.manual_seed(i)
        captured(*batch(i))
        for t in (a, b):
            t.model.eval()
        with gradlite.no_grad():
            expected = a.model(batch(99)[0])
            close(evaluate(batch(99)[0]).tolist(), expected.tolist())
        for t in (a, b):
            t.model.train()
    assert_same(a, b)
    assert captured.replays == evaluate.replays == CALLS - 3


def test_one_step_in_train_and_eval_mode_has_two_recordings() -> None:
    gradlite.manual_seed(0)
    model = mlp(nn.Dropout(0.5))
    captured = gradlite.capture(lambda x: model(x))
    x, _ = batch(0)
    with gradlite.no_grad():
        for i in range(CALLS):
            model.train(i % 2 == 0)
            gradlite.manual_seed(i)
            result = captured(x)
            gradlite.manual_seed(i)
            close(result.tolist(), model(x).tolist())
    assert captured.recordings == 2 and captured.replays == 3


def test_gradients_that_accumulate_over_calls() -> None:
    def make() -> tuple[Trainer, Step]:
        trainer = Trainer()

        def step(x: Any, y: Any) -> Any:
            loss = F.cross_entropy(trainer.model(x), y)
            loss.backward()
            return loss

        return trainer, step

    (a, eager), (b, plain) = make(), make()
    captured = gradlite.capture(plain)
    for i in range(12):
        eager(*batch(i))
        captured(*batch(i))
        for p, q in zip(a.model.parameters(), b.model.parameters()):
            close(p.grad.tolist(), q.grad.tolist())
        if i == 8:
            a.optimizer.zero_grad()
            b.optimizer.zero_grad()
    assert captured.replays > 4


def test_gradients_cleared_at_the_end_of_the_step() -> None:
    def make() -> tuple[Trainer, Step]:
        trainer = Trainer()

        def step(x: Any, y: Any) -> Any:
            loss = F.cross_entropy(trainer.model(x), y)
            loss.backward()
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()
            return loss

        return trainer, step

    (a, eager), (b, plain) = make(), make()
    captured = gradlite.capture(plain)
    for i in range(CALLS):
        close(captured(*batch(i)).item(), eager(*batch(i)).item())
        assert all(p.grad is None for p in b.model.parameters())
    assert_same(a, b)
    # A gradient left by somebody else counts, as it does without capture.
    for trainer in (a, b):
        F.cross_entropy(trainer.model(batch(50)[0]), batch(50)[1]).backward()
    close(captured(*batch(9)).item(), eager(*batch(9)).item())
    assert_same(a, b)


def test_gradients_are_there_after_a_replay() -> None:
    a, b, captured = pair()
    run(a, b, captured)
    for p, q in zip(a.model.parameters(), b.model.parameters()):
        close(p.grad.tolist(), q.grad.tolist())


def test_clipping_inside_the_step() -> None:
    def make() -> tuple[Trainer, Step]:
        trainer = Trainer()

        def step(x: Any, y: Any) -> Any:
            trainer.optimizer.zero_grad()
            loss = F.cross_entropy(trainer.model(x), y)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(trainer.model.parameters(), 0.1)
            trainer.optimizer.step()
            return {"loss": loss, "norm": norm}

        return trainer, step

    (a, eager), (b, plain) = make(), make()
    captured = gradlite.capture(plain)
    for i in range(CALLS):
        expected, actual = eager(*batch(i)), captured(*batch(i))
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            close(actual[key].item(), value.item())
    assert_same(a, b)
    assert captured.replays == CALLS - 3


def test_two_models_interleaved() -> None:
    first, second = pair(), pair(lr=0.01)
    for i in range(CALLS):
        for a, _, captured in (first, second):
            close(captured(*batch(i)).item(), a.step(*batch(i)).item())
    for a, b, _ in (first, second):
        assert_same(a, b)


def test_two_optimizers_in_one_step() -> None:
    def make() -> tuple[Trainer, Step]:
        trainer = Trainer()
        heads = optim.SGD(trainer.model[2].parameters(), lr=0.1)
        body = optim.Adam(trainer.model[0].parameters(), lr=0.01)

        def step(x: Any, y: Any) -> Any:
            heads.zero_grad()
            body.zero_grad()
            loss = F.cross_entropy(trainer.model(x), y)
            loss.backward()
            heads.step()
            body.step()
            return loss

        return trainer, step

    (a, eager), (b, plain) = make(), make()
    captured = gradlite.capture(plain)
    for i in range(CALLS):
        close(captured(*batch(i)).item(), eager(*batch(i)).item())
    assert_same(a, b)


def test_a_frozen_layer_unfrozen() -> None:
    a, b, captured = pair()
    for trainer in (a, b):
        trainer.model[0].requires_grad_(False)
    run(a, b, captured)
    before = b.model[0].weight.tolist()
    for trainer in (a, b):
        trainer.model[0].requires_grad_(True)
    run(a, b, captured, start=CALLS)
    assert b.model[0].weight.tolist() != before
    assert captured.recordings == 2


def test_resume_from_a_checkpoint_between_replays() -> None:
    a, b, captured = pair()
    saved = {k: v.clone() for k, v in a.model.state_dict().items()}
    run(a, b, captured)
    for trainer in (a, b):
        trainer.model.load_state_dict(saved)
        trainer.optimizer.load_state_dict(Trainer().optimizer.state_dict())
    run(a, b, captured, start=20)


def test_an_in_place_edit_of_a_tensor_that_the_step_reads() -> None:
    scale = gradlite.ones(3)
    captured = gradlite.capture(lambda x: (x * scale).sum(0))
    x = gradlite.arange(6.0).reshape(2, 3)
    for i in range(CALLS):
        scale[0] = float(i)
        assert captured(x).tolist() == (x * scale).sum(0).tolist()
    assert captured.replays == CALLS - 3


def test_a_tensor_of_the_closure_that_was_replaced() -> None:
    scale = gradlite.ones(3)

    def step(x: Any) -> Any:
        return x * scale

    captured = gradlite.capture(step)
    x = gradlite.ones(2, 3)
    for _ in range(5):
        captured(x)
    scale = gradlite.full((3,), 2.0)
    assert captured(x).tolist() == [[2.0] * 3] * 2
    assert captured.replays == 2


def test_a_number_of_the_closure_that_has_changed() -> None:
    factor = 2.0

    def step(x: Any) -> Any:
        return x * factor

    captured = gradlite.capture(step)
    for _ in range(5):
        captured(gradlite.ones(2))
    factor = 3.0
    assert captured(gradlite.ones(2)).tolist() == [3.0, 3.0]


def test_a_new_parameter_and_a_replaced_layer() -> None:
    a, b, captured = pair()
    run(a, b, captured)
    for trainer in (a, b):
        gradlite.manual_seed(3)
        trainer.model[2] = nn.Linear(8, 3)
        trainer.optimizer.add_param_group({"params": list(trainer.model[2].parameters())})
    run(a, b, captured, start=CALLS)
    assert captured.recordings == 2


def test_a_parameter_given_other_memory() -> None:
    a, b, captured = pair()
    run(a, b, captured)
    for trainer in (a, b):
        trainer.model[0].weight.data = trainer.model[0].weight.data * 0.5
    run(a, b, captured, start=CALLS)


def test_another_shape_another_dtype_another_number() -> None:
    captured = gradlite.capture(lambda x, n: (x * n).sum())
    for _ in range(5):
        assert captured(gradlite.ones(2), 3).item() == 6.0
        assert captured(gradlite.ones(4), 3).item() == 12.0
        assert captured(gradlite.ones(2), 4).item() == 8.0
        assert captured(gradlite.ones(2, dtype=gradlite.float64), 3).dtype == gradlite.float64
        assert captured(gradlite.ones(2, dtype=gradlite.int64), 3).item() == 6
    assert captured.recordings == 5 and captured.replays == 10


def test_inputs_of_any_layout() -> None:
    captured = gradlite.capture(lambda x: x.sum(0))
    for i in range(CALLS):
        x = gradlite.arange(12.0).reshape(3, 4) * i
        x = x.t().contiguous().t() if i % 2 else x
        assert captured(x).tolist() == x.sum(0).tolist()
    assert captured.replays == CALLS - 3


def test_the_least_used_recording_makes_room() -> None:
    captured = gradlite.capture(lambda x: x + 1, max_recordings=2)
    for n in (1, 2, 3):
        for _ in range(4):
            captured(gradlite.ones(n))
    assert captured.recordings == 2
    assert captured(gradlite.ones(1)).tolist() == [2.0]


def test_results_belong_to_the_caller() -> None:
    captured = gradlite.capture(lambda x: [x * 2, x])
    kept = []
    for i in range(CALLS):
        x = gradlite.full((2,), float(i))
        doubled, same = captured(x)
        doubled += 1
        kept.append(doubled)
        assert captured.replays == 0 or same is x
    assert [k[0].item() for k in kept] == [2.0 * i + 1 for i in range(CALLS)]


def test_results_are_outside_of_any_graph() -> None:
    weight = gradlite.ones(2, requires_grad=True)
    captured = gradlite.capture(lambda x: (x * weight).sum())
    for _ in range(5):
        assert not captured(gradlite.ones(2)).requires_grad


def test_hooks_on_tensors_count() -> None:
    a, b, captured = pair()
    run(a, b, captured)
    for trainer in (a, b):
        trainer.model[0].weight.register_hook(lambda g: g * 3)
        trainer.model[2].register_forward_hook(lambda module, args, out: out * 0.5)
    run(a, b, captured, start=CALLS)
    assert captured.replays == 2 * (CALLS - 2) - 1


def test_checkpointed_layers_and_second_derivatives() -> None:
    from gradlite.utils.checkpoint import checkpoint

    def make() -> tuple[Trainer, Step]:
        trainer = Trainer(drop)

        def step(x: Any, y: Any) -> Any:
            trainer.optimizer.zero_grad()
            x = x.clone().requires_grad_()
            hidden = checkpoint(trainer.model[:3], x, use_reentrant=False)
            loss = F.cross_entropy(trainer.model[3](hidden), y)
            (g,) = gradlite.autograd.grad(loss, x, create_graph=True)
            (loss + (g * g).sum()).backward()
            trainer.optimizer.step()
            return loss

        return trainer, step

    (a, eager), (b, plain) = make(), make()
    captured = gradlite.capture(plain)
    for i in range(CALLS):
        gradlite.manual_seed(i)
        expected = eager(*batch(i))
        gradlite.manual_seed(i)
        close(captured(*batch(i)).item(), expected.item())
    assert_same(a, b)


def test_a_grad_scaler_inside_the_step() -> None:
    def make() -> tuple[Trainer, Step]:
        trainer = Trainer(make=optim.SGD)
        scaler = gradlite.amp.GradScaler(
            gradlite.zeros(()).device.type, init_scale=4.0, growth_interval=2
        )

        def step(x: Any, y: Any) -> Any:
            trainer.optimizer.zero_grad()
            loss = F.cross_entropy(trainer.model(x), y)
            scaler.scale(loss).backward()
            scaler.step(trainer.optimizer)
            scaler.update()
            return loss

        return trainer, step

    (a, eager), (b, plain) = make(), make()
    captured = gradlite.capture(plain)
    for i in range(CALLS):
        x, y = batch(i)
        if i == 6:
            x = x * float("inf")  # the step is skipped and the scale halved
        close(captured(x, y).item(), eager(x, y).item())
    assert_same(a, b)


def test_the_version_of_what_a_replay_has_written_goes_on() -> None:
    total = gradlite.zeros(2)

    def step(x: Any) -> Any:
        total.add_(x)
        return total.sum()

    captured = gradlite.capture(step)
    for _ in range(5):
        captured(gradlite.ones(2))
    weight = gradlite.ones(2, requires_grad=True)
    product = weight * total
    captured(gradlite.ones(2))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def test_a_method_of_a_class() -> None:
    class Model:
        def __init__(self, factor: float) -> None:
            self.weight = gradlite.tensor(factor)

        @gradlite.capture
        def scaled(self, x: Any) -> Any:
            return x * self.weight

    two, three = Model(2.0), Model(3.0)
    for _ in range(5):
        assert two.scaled(gradlite.ones(1)).item() == 2.0
        assert three.scaled(x=gradlite.ones(1)).item() == 3.0
    two.weight = gradlite.tensor(5.0)
    assert two.scaled(gradlite.ones(1)).item() == 5.0


def test_attributes_that_the_step_does_not_read_may_change() -> None:
    class Loop:
        def __init__(self) -> None:
            self.weight, self.calls = gradlite.ones(1), 0
            self.step = gradlite.capture(self.run)

        def run(self, x: Any) -> Any:
            return self.helped(x)

        def helped(self, x: Any) -> Any:
            return x * self.weight * self.factor

        factor = 2.0

    loop = Loop()
    for _ in range(6):
        loop.calls += 1
        assert loop.step(gradlite.ones(1)).item() == 2.0
    assert loop.step.replays == 3
    loop.weight = gradlite.full((1,), 3.0)
    assert loop.step(gradlite.ones(1)).item() == 6.0
    loop.factor = 5.0
    assert loop.step(gradlite.ones(1)).item() == 15.0


def test_a_number_that_changes_at_every_call_is_complained_of() -> None:
    count = 0

    def step(x: Any) -> Any:
        return x * count

    captured = gradlite.capture(step)
    with pytest.warns(UserWarning, match="recorded 6 times and not replayed, because count"):
        for count in range(40):  # noqa: B007
            assert captured(gradlite.ones(1)).item() == count


def test_a_captured_step_inside_a_captured_step() -> None:
    inner = gradlite.capture(lambda x: x * 2)
    outer = gradlite.capture(lambda x: inner(x) + 1, state=[inner])
    for i in range(CALLS):
        assert outer(gradlite.full((1,), float(i))).item() == 2.0 * i + 1
    assert outer.replays == CALLS - 3 and inner.replays == 0


def test_threads_take_turns() -> None:
    captured = gradlite.capture(lambda x: (x * 2).cumsum(0))
    wrong: list[int] = []

    def work(start: int) -> None:
        for i in range(start, start + 60):
            if captured(gradlite.full((50,), float(i)))[-1].item() != 100.0 * i:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -------------------------------------------------------------- branches on values
def test_each_way_of_a_branch_has_a_recording() -> None:
    def step(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x - 1

    captured = gradlite.capture(step)
    for value in (1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -2.0, -3.0, 4.0):
        x = gradlite.full((2,), value)
        assert captured(x).tolist() == step(x).tolist()
    assert captured.replays == 4 and captured.recordings == 2


def test_ways_that_are_not_recorded_run_as_they_are() -> None:
    def step(x: Any) -> Any:
        total = x * 0
        for bit in range(3):
            total = total + (2 if x[bit] > 0 else -bit)
        return total

    captured = gradlite.capture(step)
    values = [[(n >> bit & 1) - 0.5 for bit in range(3)] for n in range(8)]
    for value in [values[0]] * 4 + values * 4:
        x = gradlite.tensor(value)
        assert captured(x).tolist() == step(x).tolist()
    assert captured.recordings == 1 + BRANCHES
    replays = captured.replays
    assert captured(gradlite.tensor(values[0])).tolist() == [-3.0] * 3
    assert captured.replays == replays + 1


def test_a_way_that_is_always_another_one_is_refused() -> None:
    captured = gradlite.capture(lambda x: x * sum(1 if v > 0 else 3 for v in x), warmup=0)
    with pytest.raises(gradlite.CaptureError, match="always takes another branch"):
        for n in range(16):
            captured(gradlite.tensor([(n >> bit & 1) - 0.5 for bit in range(4)]))


def test_a_target_out_of_range_is_still_an_error(replays: str) -> None:
    if replays in ("stand-in", "gpu"):
        pytest.skip("no error on a GPU, with or without capture: the next test")
    a, b, captured = pair(norm, drop)
    run(a, b, captured)
    before = b.parameters()
    x, y = batch(0)
    y[2] = 7
    with pytest.raises(IndexError, match="Target 7 is out of bounds"):
        captured(x, y)
    # As without capture: the parameters are as they were, the forward pass has been.
    for p, q in zip(b.parameters()[:4], before[:4]):
        np.testing.assert_array_equal(p, q)
    with pytest.raises(IndexError):
        a.step(x, y)
    run(a, b, captured, start=CALLS)


def test_a_target_out_of_range_counts_as_it_does_without_capture_on_a_gpu(replays: str) -> None:
    """A GPU does not wait for the host to look at targets: the loss of a bad one is no number."""
    if replays not in ("stand-in", "gpu"):
        pytest.skip("an error on the CPU: the test before")
    a, b, captured = pair()
    run(a, b, captured)
    x, y = batch(0)
    y[2] = 7
    expected = a.step(x, y).item()
    close(captured(x, y).item(), expected)
    assert expected != expected
    assert_same(a, b)


def test_a_branch_on_something_the_step_has_changed_is_refused() -> None:
    count = gradlite.zeros(())

    def step(x: Any) -> Any:
        count.add_(1)
        if count > 100:
            return x * 2
        return x

    captured = gradlite.capture(step)
    captured(gradlite.ones(1))
    with pytest.raises(gradlite.CaptureError, match="itself changed"):
        for _ in range(3):
            captured(gradlite.ones(1))


# ---------------------------------------------------------------------- what is refused
def refused(step: Step, match: str, *args: Any, calls: int = 8) -> None:
    captured = gradlite.capture(step)
    with pytest.raises(gradlite.CaptureError, match=match):
        for _ in range(calls):
            captured(*(args or (gradlite.ones(3),)))
    assert issubclass(gradlite.CaptureError, RuntimeError)


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda x: x.sum().item(), "item"),
        (lambda x: float(x.sum()), "item"),
        (lambda x: int(x.sum()), "item"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: print(x), "tolist|item|mask|a copy to the CPU"),
        (lambda x: f"{x.sum():.2f}", "item|format"),
    ],
)
def test_reading_a_value_as_a_number_is_refused(read: Any, name: str) -> None:
    def step(x: Any) -> Any:
        read(x * 2)
        return x

    refused(step, name)


def test_a_result_whose_size_depends_on_values_is_refused() -> None:
    refused(lambda x: x[x > 0], "size depends on values")


def test_random_numbers_of_numpy_are_refused() -> None:
    rng = np.random.default_rng(0)
    refused(
        lambda x: x + gradlite.tensor(rng.standard_normal(3).astype(np.float32)),
        "another one at every call.*random number",
    )


def test_random_numbers_of_python_are_refused() -> None:
    refused(lambda x: x * random.random(), "another one at every call")


def test_a_counter_of_python_is_refused() -> None:
    counts = iter(range(1000))
    refused(lambda x: x * next(counts), "another one at every call.*instead of")


def test_a_step_that_does_something_else_each_time_is_refused() -> None:
    counts = iter(range(1000))

    def step(x: Any) -> Any:
        for _ in range(next(counts) % 5):
            x = x * 2
        return x

    refused(step, "array calls, and then")


def test_replacing_a_variable_of_the_closure_is_refused() -> None:
    hidden = gradlite.zeros(3)

    def step(x: Any) -> Any:
        nonlocal hidden
        hidden = hidden * 0.5 + x
        return hidden

    refused(step, "replaces hidden")


def test_replacing_a_buffer_of_a_module_is_refused() -> None:
    class Running(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", gradlite.zeros(3))

        def forward(self, x: Any) -> Any:
            self.mean = self.mean * 0.9 + x * 0.1
            return self.mean

    refused(Running(), "replaces Running.mean")


def test_giving_a_tensor_other_memory_is_refused() -> None:
    weight = gradlite.ones(3)

    def step(x: Any) -> Any:
        weight.data = weight.data + x
        return weight

    refused(step, "other memory|replaces")


def test_an_input_that_requires_grad_is_refused() -> None:
    refused(lambda x: x * 2, "requires grad", gradlite.ones(2, requires_grad=True))


def test_a_result_that_is_no_tensor_is_refused() -> None:
    refused(lambda x: object(), "returned object")


def test_drawing_from_weights_is_refused() -> None:
    refused(lambda x: gradlite.multinomial(x, 2), "multinomial|a copy to the CPU")


# ------------------------------------------------------------------------------- errors
def test_an_error_in_the_step_leaves_everything_as_it_was() -> None:
    fail = [False]

    def step(x: Any) -> Any:
        y = x * 2
        if fail[0]:
            raise ValueError("wanted")
        return y + 1

    captured = gradlite.capture(step)
    x = gradlite.ones(2)
    kind = x.array.__class__
    for call in range(6):
        fail[0] = call in (0, 1, 3)
        if fail[0]:
            with pytest.raises(ValueError, match="wanted"):
                captured(x)
        else:
            assert captured(x).tolist() == [3.0, 3.0]
    assert gradlite.ones(2).array.__class__ is kind
    assert isinstance(gradlite.Tensor.__dict__.get("array", None), type(type(x).array))


def test_an_error_of_the_optimizer_in_a_replay() -> None:
    a, b, captured = pair()
    run(a, b, captured)
    b.optimizer.param_groups[0]["lr"] = "fast"
    before = b.parameters()
    with pytest.raises((TypeError, ValueError)):
        captured(*batch(0))
    for p, q in zip(b.parameters(), before):
        np.testing.assert_array_equal(p, q)
    b.optimizer.param_groups[0]["lr"] = a.optimizer.param_groups[0]["lr"]
    run(a, b, captured, start=CALLS)


def test_what_is_captured_must_be_callable() -> None:
    with pytest.raises(TypeError, match="takes a function"):
        gradlite.capture(3)


def test_recording_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(*pair())
