"""Captured steps that read data where somebody puts other data for every call."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.nn import functional as F
from tests.capture_support import close, replays

__all__ = ["replays"]  # which is used by every test

CALLS = 10
batch: Any = None
images: Any = None
labels: Any = None


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    globals().update(batch=None, images=None, labels=None)


def data(i: int, rows: int = 4) -> tuple[Any, Any]:
    rng = np.random.default_rng(i)
    x = gradlite.tensor(rng.standard_normal((rows, 3)).astype(np.float32))
    return x, gradlite.tensor(rng.integers(0, 2, rows))


Put = Callable[[Any, Any], None]
Get = Callable[[], tuple[Any, Any]]


def two_variables() -> tuple[Put, Get]:
    return lambda x, y: globals().update(images=x, labels=y), lambda: (images, labels)


def a_pair_in_a_variable() -> tuple[Put, Get]:
    return lambda x, y: globals().update(batch=(x, y)), lambda: batch


def cells() -> tuple[Put, Get]:
    first: Any = None
    second: Any = None

    def put(x: Any, y: Any) -> None:
        nonlocal first, second
        first, second = x, y

    return put, lambda: (first, second)


def items_of_a_dictionary() -> tuple[Put, Get]:
    kept: dict[str, Any] = {"x": None, "y": None}
    return lambda x, y: kept.update(x=x, y=y), lambda: (kept["x"], kept["y"])


def a_list() -> tuple[Put, Get]:
    kept: list[Any] = [None, None]
    return lambda x, y: kept.__setitem__(slice(None), [x, y]), lambda: (kept[0], kept[1])


def attributes() -> tuple[Put, Get]:
    kept = types.SimpleNamespace(x=None, y=None)

    def put(x: Any, y: Any) -> None:
        kept.x, kept.y = x, y

    return put, lambda: (kept.x, kept.y)


def a_dictionary_for_each() -> tuple[Put, Get]:
    return (
        lambda x, y: globals().update(batch={"x": x, "y": y}),
        lambda: (batch["x"], batch["y"]),
    )


def a_list_in_an_attribute_for_each() -> tuple[Put, Get]:
    kept = types.SimpleNamespace(batch=None)
    return lambda x, y: setattr(kept, "batch", [x, [y]]), lambda: (kept.batch[0], kept.batch[1][0])


class Holder(nn.Module):
    """A module of the program's own."""


def buffers() -> tuple[Put, Get]:
    kept: Any = Holder()
    kept.register_buffer("x", None)
    kept.register_buffer("y", None)

    def put(x: Any, y: Any) -> None:
        kept.x, kept.y = x, y

    return put, lambda: (kept.x, kept.y)


PLACES = [
    buffers,
    two_variables, a_pair_in_a_variable, cells, items_of_a_dictionary, a_list, attributes,
    a_dictionary_for_each, a_list_in_an_attribute_for_each,
]  # fmt: skip


def trained(get: Get) -> tuple[Any, nn.Module]:
    gradlite.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step() -> gradlite.Tensor:
        x, y = get()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, model


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.filterwarnings("error")
def test_batches_are_taken_for_inputs(place: Any) -> None:
    """Replayed from the third change on, with the losses of the step as it is."""
    put, get = place()
    (eager, expected), (step, model) = trained(get), trained(get)
    captured = gradlite.capture(step)
    for i in range(CALLS):
        put(*data(i))
        before = get()
        close(captured().cpu(), eager().cpu())
        assert all(a is b for a, b in zip(get(), before))  # the caller's own are still there
    assert captured.replays >= CALLS - 6
    for p, q in zip(model.parameters(), expected.parameters()):
        close(p.detach().cpu(), q.detach().cpu())


def test_other_sizes_are_other_recordings() -> None:
    put, get = a_pair_in_a_variable()
    (eager, _), (step, _) = trained(get), trained(get)
    captured = gradlite.capture(step)
    for i in range(4 * CALLS):
        put(*data(i, rows=4 if i % 4 else 7))
        close(captured().cpu(), eager().cpu())
    assert captured.replays >= 2 * CALLS


def test_a_tensor_that_is_changed_once_is_no_input() -> None:
    scale = gradlite.ones(3)
    captured = gradlite.capture(lambda x: x * scale)
    x = gradlite.ones(3)
    for value in range(4):
        scale = gradlite.full((3,), float(value))
        for _ in range(5):
            assert captured(x).tolist() == [float(value)] * 3
    assert "carried" not in captured.explain()


def test_an_edit_of_what_is_given() -> None:
    """It reaches the tensor that was put there, and is refused where that is an input too."""
    kept = types.SimpleNamespace(x=None)

    def step(y: Any) -> Any:
        kept.x.mul_(2)
        return kept.x + y

    captured = gradlite.capture(step)
    for i in range(CALLS):
        kept.x = gradlite.full((3,), float(i))
        assert captured(gradlite.ones(3)).tolist() == [2.0 * i + 1] * 3
        assert kept.x.tolist() == [2.0 * i] * 3
    assert captured.replays >= CALLS - 6
    with pytest.raises(gradlite.CaptureError, match="share memory"):
        captured(kept.x)


def test_what_shares_memory_with_another_tensor_stays_as_it_is() -> None:
    """Rows of a tensor that the step reads as well: recorded anew, and right."""
    rows = gradlite.arange(30.0).reshape(10, 3)
    kept = types.SimpleNamespace(x=None)
    captured = gradlite.capture(lambda: kept.x + rows.mean(0))
    with pytest.warns(UserWarning, match="recorded 8 times"):
        for i in range(14):
            kept.x = rows[i % 10]
            assert captured().tolist() == (rows[i % 10] + rows.mean(0)).tolist()


def test_leaves_with_gradients_are_no_data() -> None:
    """An adversary's perturbation, made anew for every image, whose gradient the step leaves."""
    kept = types.SimpleNamespace(delta=None)
    weight = gradlite.tensor([1.0, 2.0, 3.0])

    def step() -> Any:
        (kept.delta * weight).sum().backward()
        return kept.delta.sum().detach()

    captured = gradlite.capture(step)
    with pytest.warns(UserWarning, match="recorded 8 times"):
        for i in range(12):
            kept.delta = gradlite.full((3,), float(i), requires_grad=True)
            assert captured() == 3.0 * i
            assert kept.delta.grad.tolist() == [1.0, 2.0, 3.0]


def test_a_branch_that_does_not_look() -> None:
    """A call that takes another way leaves what was given as it is."""
    kept = types.SimpleNamespace(x=None, use=True)
    captured = gradlite.capture(lambda y: kept.x + y if kept.use else y * 3)
    for i in range(3 * CALLS):
        kept.x, kept.use = gradlite.full((2,), float(i)), i % 5 != 4
        given = kept.x
        expected = i + 1.0 if kept.use else 3.0
        assert captured(gradlite.ones(2)).tolist() == [expected] * 2
        assert kept.x is given and given.tolist() == [float(i)] * 2


def test_a_buffer_that_the_step_does_not_read() -> None:
    """Such as a running average that is another tensor after every step of training."""

    class Averaging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.register_buffer("mean", gradlite.zeros(2))

        def forward(self, x: Any) -> Any:
            y = self.layer(x)
            if self.training:
                self.mean = self.mean * 0.9 + y.detach().mean(0) * 0.1
            return y

    model = Averaging()
    train = gradlite.capture(lambda x: model.train()(x).sum())
    evaluate = gradlite.capture(lambda x: model.eval()(x).sum())
    for i in range(CALLS):
        x = data(i)[0]
        close(train(x).detach().cpu(), model(x).sum().detach().cpu())
        model.mean = model.mean.clone()
        close(evaluate(x).detach().cpu(), model(x).sum().detach().cpu())
    assert evaluate.replays >= CALLS - 6
