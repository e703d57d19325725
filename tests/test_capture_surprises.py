"""What a captured step must not get wrong: every surprise is a test of its own.

Most tests run one program twice from the same state, as it is and captured, and want the very same
numbers; what is refused with an error is in `test_capture_refusals`.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

import gradlite
from gradlite import nn, optim
from gradlite.nn import functional as F
from tests.capture_support import (
    CALLS,
    Step,
    Trainer,
    assert_same,
    batch,
    close,
    drop,
    mlp,
    norm,
    pair,
    replays,
    run,
)
from tests.cuda_on_cpu import compiler

__all__ = ["replays"]  # which is used by every test


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


def test_a_tensor_that_was_given_another_array() -> None:
    weight, layer = gradlite.ones(2), nn.Linear(2, 2)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    optimizer = gradlite.optim.SGD(layer.parameters(), lr=0.1)

    def step(x: gradlite.Tensor) -> gradlite.Tensor:
        optimizer.zero_grad()
        loss = frozen(layer(x) * weight).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    captured = gradlite.capture(step, native=False)
    x = gradlite.tensor([1.5, -2.0])
    for tensor in (weight, layer.weight, frozen.bias):
        for _ in range(6):
            captured(x)
        replays = captured.replays
        tensor.array = gradlite.full_like(tensor, 3.0).array
        with gradlite.no_grad():
            expected = frozen(layer(x) * weight).sum()
        assert captured(x) == expected
        for _ in range(5):
            captured(x)
        assert captured.replays > replays


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
    with pytest.warns(UserWarning, match="recorded 8 times and not replayed, because count"):
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


@pytest.mark.parametrize("by", ["the kernel itself", "a reference"])
def test_a_kernel_of_ones_own(by: str) -> None:
    if compiler() is None:
        pytest.skip("on the CPU kernels are compiled by g++")
    source = """extern "C" __global__ void scaled(const float* x, float* y, float by, int n) {
      int i = blockIdx.x * blockDim.x + threadIdx.x;
      if (i < n) y[i] = by * x[i];
    }"""

    def reference(x: Any, y: Any, by: float, n: int) -> None:
        y[...] = by * x

    scaled = gradlite.cuda.kernel(
        source, "scaled", reference=reference if by == "a reference" else None
    )

    def step(x: Any) -> Any:
        y = gradlite.empty(3)
        scaled(1, 32, x + 1, y, 2.0, 3)
        return y

    captured = gradlite.capture(step)
    for i in range(6):
        assert captured(gradlite.full((3,), float(i))).tolist() == [2.0 * i + 2] * 3
    assert captured.replays == 3


def test_a_pass_over_a_data_loader_is_part_of_the_step() -> None:
    """And draws the seed that it would have for workers, so that the random numbers go on."""
    x = gradlite.arange(20.0).reshape(10, 2)
    loader = gradlite.utils.data.DataLoader(gradlite.utils.data.TensorDataset(x), batch_size=4)

    def epoch(weight: Any) -> Any:
        total = gradlite.zeros(())
        for (rows,) in loader:
            total = total + (rows * weight).sum() + gradlite.rand(())
            weight.mul_(0.5)
        return total

    weights, results = [gradlite.ones(2), gradlite.ones(2)], []
    captured = gradlite.capture(lambda: epoch(weights[1]))
    for step in (lambda: epoch(weights[0]), captured):
        gradlite.manual_seed(5)
        results.append([step().item() for _ in range(7)] + [gradlite.rand(()).item()])
        x.copy_(gradlite.arange(20.0).reshape(10, 2))
    close(*results)
    assert captured.replays == 4
