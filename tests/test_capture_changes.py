"""What changes between the calls of a captured step: the next call honours it.

More surprises, as those in `test_capture_surprises`, on every device.
"""

from __future__ import annotations

from typing import Any

import pytest

import gradlite
from gradlite import nn
from tests.capture_support import (
    CALLS,
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

__all__ = ["replays"]  # which is used by every test


def test_a_changed_learning_rate_counts_at_once() -> None:
    a, b, captured = pair()
    run(a, b, captured)
    for trainer in (a, b):
        trainer.optimizer.param_groups[0]["lr"] = 0.5
    run(a, b, captured, start=CALLS)
    assert captured.replays == 2 * CALLS - 3


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


def test_hooks_on_tensors_count() -> None:
    a, b, captured = pair()
    run(a, b, captured)
    for trainer in (a, b):
        trainer.model[0].weight.register_hook(lambda g: g * 3)
        trainer.model[2].register_forward_hook(lambda module, args, out: out * 0.5)
    run(a, b, captured, start=CALLS)
    assert captured.replays == 2 * (CALLS - 2) - 1


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
