"""States of random numbers that a captured step looks up, hands out, and puts generators into."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from tests.capture_support import replays

__all__ = ["replays"]  # which is used by every test

Case = Callable[[], tuple[Callable[..., Any], Callable[[int], Any]]]
CASES: dict[str, Case] = {}
REFUSED: dict[str, Case] = {}


def case(make: Case) -> Case:
    CASES[make.__name__.replace("_", " ").strip()] = make
    return make


def refused(make: Case) -> Case:
    REFUSED[make.__name__.replace("_", " ").strip()] = make
    return make


def draw(**options: Any) -> Any:
    return gradlite.randn(2, **options)


def nothing(call: int) -> None:
    """What is done before a call: there are programs that do nothing."""


@case
def the_same_numbers_twice() -> Any:
    def step(x: Any) -> Any:
        state = gradlite.get_rng_state()
        first = draw()
        gradlite.set_rng_state(state)
        return x + first - draw() / 2

    return step, nothing


@case
def numbers_that_others_draw_again() -> Any:
    def step(x: Any) -> Any:
        first = draw()
        state = gradlite.get_rng_state()
        second = draw()
        gradlite.set_rng_state(state)
        return x + first + second

    return step, nothing


@case
def a_generator_of_its_own() -> Any:
    generator = gradlite.Generator(gradlite.get_default_device())

    def step(x: Any) -> Any:
        state = generator.get_state()
        first = draw(generator=generator)
        generator.set_state(state)
        return x + first - draw(generator=generator) / 2

    return step, lambda call: generator.manual_seed(9) if call == 6 else None


@case
def a_state_that_others_edit() -> Any:
    state = gradlite.get_rng_state()

    def step(x: Any) -> Any:
        gradlite.set_rng_state(state)
        return x + draw()

    def edit(call: int) -> None:
        if call == 6:
            gradlite.manual_seed(9)
            state.copy_(gradlite.get_rng_state())

    return step, edit


@case
def a_state_that_is_returned() -> Any:
    return lambda x: (x + draw(), gradlite.get_rng_state()), lambda call: draw()


@case
def a_state_that_is_computed_with() -> Any:
    return lambda x: x + gradlite.get_rng_state().sum().item(), lambda call: gradlite.manual_seed(
        3 if call < 6 else 4
    )


@refused
def a_copy_of_a_state() -> Any:
    def step(x: Any) -> Any:
        state = gradlite.get_rng_state().clone()
        first = draw()
        gradlite.set_rng_state(state)
        return x + first - draw() / 2

    return step, nothing


@refused
def a_copy_of_a_generator() -> Any:
    generator = gradlite.Generator(gradlite.get_default_device())
    return (
        lambda x: x + draw(generator=copy.deepcopy(generator)) + draw(generator=generator),
        nothing,
    )


def numbers(make: Case, around: Callable[[Any], Any]) -> list[Any]:
    gradlite.manual_seed(5)
    step, before = make()
    step, found = around(step), []
    for call in range(10):
        before(call)
        result = step(gradlite.full((2,), float(call)))
        parts = result if isinstance(result, tuple) else (result,)
        found += [part.cpu().numpy().copy() for part in (*parts, draw())]
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_without_capture(name: str) -> None:
    captured: list[Any] = []

    def around(step: Any) -> Any:
        captured.append(gradlite.capture(step))
        return captured[0]

    expected = numbers(CASES[name], lambda step: step)
    for found, wanted in zip(numbers(CASES[name], around), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert captured[0].replays


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    with pytest.raises(gradlite.CaptureError, match="is another one at every call"):
        numbers(REFUSED[name], gradlite.capture)
