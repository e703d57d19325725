"""What captured steps carry on, and what else happens: other tensors, errors, aliases, refusals."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.capturing import carried
from tests.capture_support import close, replays
from tests.test_capture_carried import CALLS, batch, follow

__all__ = ["replays"]  # which is used by every test


def averaging() -> Any:
    holder = types.SimpleNamespace(h=gradlite.zeros(2, 3))

    def step(x: Any) -> Any:
        holder.h = holder.h * 0.5 + x
        return holder.h.sum(0)

    return holder, gradlite.capture(step)


def expect(holder: Any, captured: Any, i: int, rows: int = 2) -> None:
    x = batch(i, rows)
    expected = holder.h * 0.5 + x
    close(captured(x).tolist(), expected.sum(0).tolist())
    close(holder.h.tolist(), expected.tolist())


def test_another_tensor_between_replays_counts() -> None:
    holder, captured = averaging()
    for i in range(24):
        if i % 5 == 4:
            holder.h = gradlite.ones(2, 3) * i
        if i % 7 == 6:
            holder.h.add_(1)
        if i == 12:
            holder.h.data = gradlite.ones(2, 3)
        expect(holder, captured, i)
    assert captured.replays == 21 and captured.recordings == 1


def test_another_shape_dtype_or_layout_is_another_recording() -> None:
    holder, captured = averaging()
    changes = [
        lambda h: h[:1],
        lambda h: h.double(),
        lambda h: gradlite.zeros(3, 2).T,
        lambda h: gradlite.zeros(2, 3),
    ]
    for number, change in enumerate(changes):
        for i in range(6):
            expect(holder, captured, i)
        holder.h = change(holder.h)
        for i in range(6):
            x = batch(i + 10 * number)
            expected = holder.h * 0.5 + x
            close(captured(x).tolist(), expected.sum(0).tolist())
            assert holder.h.dtype == expected.dtype
        holder.h = gradlite.zeros(2, 3)
    assert captured.replays >= 24


def test_what_was_there_is_its_owners() -> None:
    holder, captured = averaging()
    kept = []
    for i in range(CALLS):
        expect(holder, captured, i)
        kept.append((holder.h, holder.h.tolist()))
        kept.append((captured.step, None))
    for tensor, values in kept[::2]:
        assert tensor.tolist() == values
    assert len({id(t) for t, _ in kept[::2]}) == CALLS


def test_two_signatures_take_turns() -> None:
    holder = types.SimpleNamespace(h=gradlite.zeros(3))

    def step(x: Any, first: bool) -> Any:
        holder.h = x.mean(0) if first else holder.h * 0.5 + x.mean(0)
        return holder.h * 2

    captured, expected = gradlite.capture(step), None
    for i in range(40):
        x, first = batch(i, 1 + i % 3), i % 5 == 0
        expected = x.mean(0) if first or expected is None else expected * 0.5 + x.mean(0)
        close(captured(x, first).tolist(), (expected * 2).tolist())
        close(holder.h.tolist(), expected.tolist())
    assert captured.replays >= 20


def test_a_step_that_only_sometimes_puts_something_there() -> None:
    holder = types.SimpleNamespace(h=gradlite.zeros(2, 3))

    def step(x: Any, learns: bool) -> Any:
        result = x * holder.h
        if learns:
            holder.h = holder.h * 0.5 + x
        return result

    captured, h = gradlite.capture(step), gradlite.zeros(2, 3)
    for i in range(30):
        x, learns = batch(i), i % 3 != 0
        close(captured(x, learns).tolist(), (x * h).tolist())
        h = h * 0.5 + x if learns else h
        close(holder.h.tolist(), h.tolist())
    assert captured.replays >= 16


class Running(nn.Module):
    """A running average, of which training goes on and evaluation reads."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", gradlite.zeros(3))
        self.states = {"sum": gradlite.zeros(3)}
        self.last: Any = None

    def train_step(self, x: Any) -> Any:
        self.mean = self.mean * 0.9 + x.mean(0) * 0.1
        self.states["sum"] = self.states["sum"] + x[0]
        self.last = x * 2
        return x - self.mean

    def read_mean(self, x: Any) -> Any:
        return x * self.mean

    def read_sum(self, x: Any) -> Any:
        return x * self.states["sum"]

    def read_last(self, x: Any) -> Any:
        return x if self.last is None else x * self.last


@pytest.mark.filterwarnings("ignore:this captured step has been recorded")
@pytest.mark.parametrize("name", ["read_mean", "read_sum", "read_last"])
@pytest.mark.parametrize("every", [1, 5])
def test_another_captured_step_reads_what_one_carries_on(name: str, every: int) -> None:
    results: list[list[Any]] = []
    for captured in (False, True):
        running, found = Running(), []
        learn, evaluate = running.train_step, getattr(running, name)
        if captured:
            learn, evaluate = gradlite.capture(learn), gradlite.capture(evaluate)
        for i in range(30):
            found.append(learn(batch(i)).tolist())
            if i % every == every - 1:
                found += [evaluate(batch(k)).tolist() for k in range(6)]
        results.append(found)
    for expected, values in zip(*results, strict=True):
        close(values, expected)
    assert learn.replays == 27 and evaluate.replays > 0


def test_a_replay_that_fails_leaves_what_was_there() -> None:
    holder = types.SimpleNamespace(h=gradlite.zeros(3), device="")
    table = nn.Embedding(4, 3)

    @gradlite.no_grad()
    def step(index: Any) -> Any:
        holder.h = holder.h * 0.5 + table(index).sum(0)
        return holder.h.sum()

    captured = gradlite.capture(step)
    good = gradlite.tensor([0, 3, 1])
    for _ in range(6):
        captured(good)
    before, values = holder.h, holder.h.tolist()
    if good.is_cpu:
        with pytest.raises(IndexError):
            captured(gradlite.tensor([0, 9, 1]))
        assert holder.h is before
    assert before.tolist() == values
    expected = holder.h * 0.5 + table(good).sum(0)
    close(captured(good).item(), expected.sum().item())


def test_an_edit_of_what_was_there_shows_in_it() -> None:
    holder = types.SimpleNamespace(h=gradlite.zeros(2, 3))

    def step(x: Any) -> Any:
        holder.h.add_(x)
        holder.h = holder.h * 2
        return x

    captured = gradlite.capture(step)
    for i in range(CALLS):
        before, expected = holder.h, holder.h + batch(i)
        version = before._version
        captured(batch(i))
        close(before.tolist(), expected.tolist())
        close(holder.h.tolist(), (expected * 2).tolist())
        assert before._version == version + 1
    assert captured.replays == CALLS - 3


def test_an_argument_may_be_what_is_there() -> None:
    holder, captured = averaging()
    for i in range(CALLS):
        h = holder.h
        x = h if i % 2 else batch(i)
        expected = h * 0.5 + x
        close(captured(x).tolist(), expected.sum(0).tolist())
        close(holder.h.tolist(), expected.tolist())
    assert captured.replays == CALLS - 3


def test_a_parameter_may_be_what_is_there_for_once() -> None:
    """As a target network that begins as a copy by name."""
    weight = nn.Parameter(gradlite.ones(2, 3))
    optimizer = optim.SGD([weight], lr=0.1)
    holder = types.SimpleNamespace(h=gradlite.zeros(2, 3))

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = ((weight - holder.h) * x).square().sum()
        loss.backward()
        optimizer.step()
        holder.h = holder.h * 0.9 + weight.detach() * 0.1
        return loss

    captured = gradlite.capture(step)
    w, h = weight.detach().clone(), gradlite.zeros(2, 3)
    for i in range(20):
        if i in (0, 9, 14):
            holder.h = weight.detach()
            h = w.clone()
        x = batch(i)
        w = w - 0.1 * 2 * x * x * (w - h)
        # What is there is the weight's memory, which the optimizer has changed by then.
        h = (w if i in (0, 9, 14) else h) * 0.9 + w * 0.1
        try:
            captured(x)
        except gradlite.CaptureError as error:
            assert "shares memory" in str(error)
        np.testing.assert_allclose(holder.h.tolist(), h.tolist(), rtol=1e-5)
        np.testing.assert_allclose(weight.tolist(), w.tolist(), rtol=1e-5)


def test_what_lasts_is_seen_in_what_is_put_there() -> None:
    weight, metrics = nn.Parameter(gradlite.ones(3)), {}

    def step(x: Any) -> Any:
        metrics["weight"] = weight.detach()
        return x * 2

    captured = gradlite.capture(step)
    for i in range(CALLS):
        captured(batch(i))
        with gradlite.no_grad():
            weight.add_(1)
        assert metrics["weight"].tolist() == weight.tolist()


def test_the_listing_names_it() -> None:
    holder, captured = averaging()
    for i in range(4):
        expect(holder, captured, i)
    assert "carried from call to call: SimpleNamespace.h [2x3 float32]" in captured.explain()


# ---------------------------------------------------------------------- what is refused
def refused(step: Any, match: str, calls: int = 8) -> None:
    captured = gradlite.capture(step)
    with pytest.raises(gradlite.CaptureError, match=match):
        for i in range(calls):
            captured(batch(i))


def test_a_graph_that_goes_on_is_refused() -> None:
    layer, holder = nn.Linear(3, 3), types.SimpleNamespace(h=None)

    def step(x: Any) -> Any:
        holder.h = layer(x) if holder.h is None else layer(x) + holder.h
        return holder.h.sum()

    refused(step, "goes on from SimpleNamespace.h with its graph.*detach")


def test_backward_through_the_last_call_is_the_error_that_it_is() -> None:
    layer, holder = nn.Linear(3, 3), types.SimpleNamespace(h=None)

    def step(x: Any) -> Any:
        holder.h = layer(x).tanh() if holder.h is None else (layer(x) + holder.h).tanh()
        loss = holder.h.sum()
        loss.backward()
        return loss

    captured = gradlite.capture(step)
    captured(batch(0))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        captured(batch(1))


def test_a_gradient_of_what_is_replaced_is_refused() -> None:
    holder = types.SimpleNamespace(w=gradlite.ones(3, requires_grad=True))

    def step(x: Any) -> Any:
        loss = (x * holder.w).sum()
        loss.backward()
        holder.w = (holder.w - holder.w.grad).detach().requires_grad_()
        return loss

    refused(step, "replaces SimpleNamespace.w, whose gradient.*autograd.grad")


def test_one_tensor_in_two_places_of_which_one_is_replaced() -> None:
    holder = types.SimpleNamespace(first=gradlite.zeros(3), h=None)

    def step(x: Any) -> Any:
        holder.h = holder.h + holder.first + x
        return x

    captured = gradlite.capture(step)
    with pytest.raises(gradlite.CaptureError, match="also to be found elsewhere.*clone"):
        for i in range(8):
            holder.h = holder.first
            captured(batch(i))


def test_what_shares_memory_with_what_lasts_is_refused() -> None:
    weight, holder = gradlite.ones(3), types.SimpleNamespace(last=gradlite.zeros(3))

    def step(x: Any) -> Any:
        weight.add_(1)
        result = x * holder.last
        holder.last = weight.detach()
        return result

    refused(step, "shares memory.*clone")


def test_its_address_is_refused() -> None:
    holder = types.SimpleNamespace(h=gradlite.zeros(3))

    def step(x: Any) -> Any:
        holder.h = holder.h + holder.h.data_ptr() % 2
        return x

    refused(step, "asks for its data_ptr")


def test_what_grows_is_recorded_in_vain() -> None:
    holder = types.SimpleNamespace(h=gradlite.zeros(1, 3))

    def step(x: Any) -> Any:
        holder.h = gradlite.cat([holder.h, x])
        return holder.h.sum(0)

    captured, expected = gradlite.capture(step), gradlite.zeros(1, 3)
    with pytest.warns(UserWarning, match="because SimpleNamespace.h changes between the calls"):
        for i in range(12):
            expected = gradlite.cat([expected, batch(i)])
            close(captured(batch(i)).tolist(), expected.sum(0).tolist())
    assert captured.replays == 0


# --------------------------------------------------------------------- negative controls
def test_copies_that_are_left_out_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = carried.Carried.bind

    def bind(self: Any, place_of: Any) -> None:
        original(self, place_of)
        self._placed = [(array, True, parts) for array, _, parts in self._placed]

    monkeypatch.setattr(carried.Carried, "bind", bind)
    with pytest.raises(AssertionError):
        test_what_was_there_is_its_owners()


def test_values_of_the_recording_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found, first = carried.Carried.found, dict[int, Any]()

    def once(self: Any) -> Any:
        return first.setdefault(id(self), found(self))

    monkeypatch.setattr(carried.Carried, "found", once)
    with pytest.raises(AssertionError):
        follow("a variable around it")
