"""Tensors that a captured step puts into dictionaries, lists, attributes and variables."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gradlite
from gradlite import nn
from tests.capture_support import CALLS, close, replays

__all__ = ["replays"]  # which is used by every test

Case = Callable[[Any], tuple[Callable[..., Any], Callable[[], Any]]]
CASES: dict[str, Case] = {}
last: Any = None


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """A tensor in a variable of the module would hold its memory while other tests count theirs."""
    yield
    globals()["last"] = None


def case(make: Case) -> Case:
    CASES[make.__name__.replace("_", " ").strip()] = make
    return make


def batch(i: int) -> Any:
    return gradlite.arange(6.0).reshape(2, 3) + i


class Holder:
    """An object with an attribute."""

    def __init__(self) -> None:
        self.last: Any = None


class Slotted:
    __slots__ = ("last",)


# ----------------------------------------------- a step, and what it has left afterwards
@case
def an_item_of_a_dictionary(layer: Any) -> Any:
    metrics: dict[str, Any] = {}

    def step(x: Any) -> Any:
        loss = layer(x).square().mean()
        metrics["loss"] = loss.detach()
        return loss

    return step, lambda: metrics["loss"]


@case
def a_result_with_its_graph(layer: Any) -> Any:
    metrics: dict[str, Any] = {"loss": None}

    def step(x: Any) -> Any:
        metrics["loss"] = layer(x).sum()
        return metrics["loss"] * 2

    return step, lambda: metrics["loss"]


@case
def items_at_once(layer: Any) -> Any:
    metrics: dict[str, Any] = {}

    def step(x: Any) -> Any:
        metrics.update(loss=layer(x).sum(), other=x * 2)
        return x

    return step, lambda: [metrics["loss"], metrics["other"]]


@case
def a_dictionary_filled_anew(layer: Any) -> Any:
    metrics: dict[str, Any] = {}

    def step(x: Any) -> Any:
        metrics.clear()
        metrics["loss"] = layer(x).sum()
        return x

    return step, lambda: metrics["loss"]


@case
def a_new_dictionary(layer: Any) -> Any:
    holder = Holder()

    def step(x: Any) -> Any:
        holder.last = {"loss": layer(x).sum(), "parts": [x * 2, 3]}
        return x

    return step, lambda: [holder.last["loss"], holder.last["parts"][0], gradlite.tensor(3)]


@case
def what_a_hook_keeps(layer: Any) -> Any:
    features: dict[str, Any] = {}
    layer.register_forward_hook(lambda module, args, out: features.update(layer=out))

    def step(x: Any) -> Any:
        return layer(x).sum() + features["layer"].square().sum()

    return step, lambda: features["layer"]


@case
def a_list_filled_anew(layer: Any) -> Any:
    found: list[Any] = []
    layer.register_forward_hook(lambda module, args, out: found.append(out))

    def step(x: Any) -> Any:
        found.clear()
        return layer(x).sum() + layer(x + 1).sum() + sum(f.square().sum() for f in found)

    return step, lambda: found


@case
def other_items_of_a_list(layer: Any) -> Any:
    found: list[Any] = []

    def step(x: Any) -> Any:
        found[:] = [layer(x).sum(), x * 2]
        return x

    return step, lambda: found


@case
def one_item_of_a_list(layer: Any) -> Any:
    found: list[Any] = [None, None]

    def step(x: Any) -> Any:
        found[1] = layer(x).sum()
        return x

    return step, lambda: found[1]


@case
def a_queue_filled_anew(layer: Any) -> Any:
    found: Any = deque()

    def step(x: Any) -> Any:
        found.clear()
        found.append(layer(x))
        return x

    return step, lambda: list(found)


@case
def an_attribute_of_the_owner(layer: Any) -> Any:
    class Trainer:
        def step(self, x: Any) -> Any:
            out = layer(x)
            self.last = out.detach()
            return out.sum()

    trainer = Trainer()
    return trainer.step, lambda: trainer.last


@case
def an_attribute_of_a_namespace(layer: Any) -> Any:
    state = types.SimpleNamespace(last=None)

    def step(x: Any) -> Any:
        state.last = layer(x)
        return x

    return step, lambda: state.last


@case
def a_slot(layer: Any) -> Any:
    slotted = Slotted()
    slotted.last = None

    def step(x: Any) -> Any:
        slotted.last = layer(x)
        return x

    return step, lambda: slotted.last


@case
def an_attribute_of_a_function(layer: Any) -> Any:
    def step(x: Any) -> Any:
        step.last = layer(x)  # type: ignore[attr-defined]
        return x

    return step, lambda: step.last  # type: ignore[attr-defined]


@case
def a_variable_around_it(layer: Any) -> Any:
    found = None

    def step(x: Any) -> Any:
        nonlocal found
        found = layer(x)
        return x

    return step, lambda: found


@case
def a_variable_of_the_module(layer: Any) -> Any:
    def step(x: Any) -> Any:
        global last
        last = layer(x)
        return x

    return step, lambda: last


def numbers(value: Any) -> list[float]:
    """All numbers of a tensor, or of several."""
    tensors = value if isinstance(value, list) else [value]
    return [number for tensor in tensors for number in tensor.reshape(-1).tolist()]


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_that_of_the_last_call(name: str) -> None:
    seen = []
    for captured in (False, True):
        gradlite.manual_seed(0)
        step, left = CASES[name](nn.Linear(3, 3))
        if captured:
            step = gradlite.capture(step)
        results = []
        for i in range(2 * CALLS):
            results += [numbers(step(batch(i))), numbers(left())]
        seen.append(results)
        assert not captured or step.replays == 2 * CALLS - 3  # type: ignore[attr-defined]
    for expected, found in zip(*seen, strict=True):
        close(found, expected)


def test_what_was_written_belongs_to_the_caller() -> None:
    """Who keeps what a call has left finds there what it was: replays write to other memory."""

    class Keeping(nn.Module):
        def forward(self, x: Any) -> Any:
            self.last = x * 2
            metrics["last"] = x * 3
            return x + 1

    metrics: dict[str, Any] = {}
    keeping, kept = Keeping(), []
    captured = gradlite.capture(keeping)
    for i in range(CALLS):
        captured(batch(i))
        kept.append((keeping.last, metrics["last"].add_(1)))
    for i, (two, three) in enumerate(kept):
        close(two.tolist(), (batch(i) * 2).tolist())
        close(three.tolist(), (batch(i) * 3 + 1).tolist())
    assert captured.replays == CALLS - 3


def test_an_input_that_is_kept_is_the_one_that_was_given() -> None:
    holder = Holder()

    def step(x: Any) -> Any:
        holder.last = x
        return x * 2

    captured = gradlite.capture(step)
    for i in range(CALLS):
        x = batch(i)
        captured(x)
        assert holder.last is x
    assert captured.replays == CALLS - 3


def test_whether_there_is_something_counts() -> None:
    holder = Holder()

    def step(x: Any) -> Any:
        first = holder.last is None
        holder.last = x * 2
        return x * 3 if first else x

    captured = gradlite.capture(step)
    for i in range(40):
        if i % 7 == 6:
            holder.last = None
        x = batch(i)
        expected = x * 3 if i % 7 in (0, 6) and (i == 0 or i % 7 == 6) else x
        close(captured(x).tolist(), expected.tolist())
        close(holder.last.tolist(), (x * 2).tolist())
    assert captured.replays >= 25


def test_how_many_there_are_counts() -> None:
    found: list[Any] = []

    def step(x: Any) -> Any:
        count = len(found)
        found.clear()
        found.append(x * 2)
        return x * count

    captured = gradlite.capture(step)
    for i in range(24):
        if i in (9, 15):
            found.append(gradlite.ones(1))
        if i == 20:
            found.clear()
        count = len(found)
        close(captured(batch(i)).tolist(), (batch(i) * count).tolist())
        close(found[0].tolist(), (batch(i) * 2).tolist())
    assert captured.replays >= 15


def test_a_dictionary_that_is_another_one_in_every_epoch() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.metrics: dict[str, Any] = {}

        def step(self, x: Any) -> Any:
            self.metrics["sum"] = x.sum()
            return x * 2

    trainer = Trainer()
    captured = gradlite.capture(trainer.step)
    for i in range(40):
        if i % 8 == 7:
            trainer.metrics = {}
        captured(batch(i))
        close(trainer.metrics["sum"].item(), batch(i).sum().item())
    assert captured.replays >= 20


# ---------------------------------------------------------------------- what is refused
def appended(history: list[Any]) -> Any:
    return lambda x: history.append(x.sum()) or x


def counted(state: dict[str, Any]) -> Any:
    def step(x: Any) -> Any:
        state["calls"] += 1
        return x

    return step


def counted_beside(state: dict[str, Any]) -> Any:
    def step(x: Any) -> Any:
        state["last"] = {"sum": x.sum(), "calls": state["last"]["calls"] + 1}
        return x

    return step


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (appended, list),
        (appended, lambda: deque(maxlen=3)),
        (counted, lambda: {"calls": 0}),
        (counted_beside, lambda: {"last": {"sum": gradlite.zeros(()), "calls": 0}}),
    ],
)
def test_what_grows_or_counts_is_refused(make: Any, state: Any) -> None:
    captured = gradlite.capture(make(state()))
    captured(batch(0))
    with pytest.raises(gradlite.CaptureError, match="the step itself replaces .*outside of the"):
        captured(batch(1))
