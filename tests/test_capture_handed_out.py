"""What a call of a captured step hands out belongs to the program: no later call touches it."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gradlite
from tests.capture_support import replays

__all__ = ["replays"]  # which is used by every test
Place = types.SimpleNamespace


def put_view(place: Any, x: Any) -> Any:
    place.last = x[1:]
    return x.sum()


def put_in_list(place: Any, x: Any) -> Any:
    place.items.clear()
    place.items += [x[1:], x * 2]
    return x.sum()


def put_in_dictionary(place: Any, x: Any) -> Any:
    place.named["x"] = x.detach()
    return x.sum()


def go_on_from_a_view(place: Any, x: Any) -> Any:
    result = place.last.sum() + x
    place.last = x.view(2, 2)[1]
    return result


def put_constant(place: Any, x: Any) -> Any:
    place.last = gradlite.tensor([1.0, 2.0])
    return x.sum()


def leave_constant_gradient(place: Any, x: Any) -> Any:
    place.w.grad = gradlite.ones(2)
    return x.sum()


HANDED_OUT: list[Callable[[Any, Any], Any]] = [
    lambda place, x: x,
    lambda place, x: x.detach(),
    lambda place, x: (x[1:], x.view(2, 2).T, x * 2),
    lambda place, x: {"edited": x.add_(1).view(-1)},
    lambda place, x: gradlite.tensor([1.0, 2.0]),
    lambda place, x: (x + gradlite.zeros(4), gradlite.eye(4)[1:]),
    put_view,
    put_in_list,
    put_in_dictionary,
    go_on_from_a_view,
    put_constant,
    leave_constant_gradient,
]


def content(value: Any) -> Any:
    """The values of all tensors, nested as they are."""
    if isinstance(value, gradlite.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: content(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [content(item) for item in value]
    return content(vars(value)) if isinstance(value, Place) else None


@pytest.mark.parametrize("which", range(len(HANDED_OUT)))
def test_what_a_call_hands_out_stays_as_it_is(which: int) -> None:
    """Also what the recordings do: later calls leave alone what shares memory with an input."""

    def run(around: Callable[[Any], Any]) -> Any:
        place = Place(last=gradlite.zeros(2), items=[gradlite.zeros(3)], named={})
        place.named["x"] = gradlite.zeros(4)
        place.w = gradlite.zeros(2, requires_grad=True)
        step, kept, given = around(lambda x: HANDED_OUT[which](place, x)), [], []
        for i in range(7):
            given.append(gradlite.arange(4.0) + 10 * i)
            result = step(given[-1])
            kept += [result, place.last, [*place.items], {**place.named}, place.w.grad]
        return content(kept), content(given), getattr(step, "replays", 4)

    captured = run(gradlite.capture)
    assert captured == run(lambda step: step)


@pytest.mark.parametrize("first", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "which", [n for n, f in enumerate(HANDED_OUT) if f is not go_on_from_a_view]
)
def test_what_a_call_hands_out_may_be_edited(which: int, first: int) -> None:
    """No later call sees what the program writes to it, from the first or another call on."""

    def run(around: Callable[[Any], Any]) -> Any:
        place = Place(last=gradlite.zeros(2), items=[gradlite.zeros(3)], named={})
        place.named["x"] = gradlite.zeros(4)
        place.w = gradlite.zeros(2, requires_grad=True)
        step, seen = around(lambda x: HANDED_OUT[which](place, x)), []
        for i in range(7):
            result = step(gradlite.arange(4.0) + 10 * i)
            there = [result, place.last, place.items, place.named, place.w.grad]
            seen.append(content(there))
            if i >= first:
                for tensor in tensors_of(there):
                    tensor += 100
        return seen, getattr(step, "replays", 4)

    captured = run(gradlite.capture)
    assert captured == run(lambda step: step)


def tensors_of(value: Any) -> Iterator[Any]:
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, gradlite.Tensor):
            yield item
        elif item is not None:
            yield from tensors_of(item)
