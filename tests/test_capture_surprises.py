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
