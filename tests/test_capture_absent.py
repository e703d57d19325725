"""What a captured step asks for, and was not there when it was recorded, counts once it is."""

from __future__ import annotations

import contextlib
import gc
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest

import gradlite
from gradlite import nn, optim
from tests.capture_support import assert_change_counts

Case = Callable[[], tuple[Callable[..., Any], Callable[[], Any]]]
CASES: dict[str, Case] = {}


def case(make: Case) -> Case:
    CASES[make.__name__.replace("_", " ").strip()] = make
    return make


@case
def an_attribute_that_was_not_there() -> Any:
    settings = types.SimpleNamespace(factor=2.0)

    def step(x: Any) -> Any:
        try:
            return x * settings.weight
        except AttributeError:
            return x * settings.factor

    return step, lambda: setattr(settings, "weight", 3.0)


@case
def a_mark_of_a_parameter_that_was_not_there() -> Any:
    layer = nn.Linear(2, 2)
    return (
        lambda x: x * sum(getattr(p, "decay", 1.0) for p in layer.parameters()),
        lambda: setattr(layer.weight, "decay", 3.0),
    )


@case
def a_mark_of_a_class_that_was_not_there() -> Any:
    class Settings:
        pass

    settings = Settings()
    return (
        lambda x: x * getattr(settings, "factor", 2.0),
        lambda: setattr(Settings, "factor", 3.0),
    )


@case
def a_variable_of_a_module_that_was_not_there() -> Any:
    settings = types.ModuleType("settings_of_a_program")
    return (
        lambda x: x * 2 if hasattr(settings, "factor") else x * 3,
        lambda: setattr(settings, "factor", 3.0),
    )


@case
def an_attribute_of_any_name_that_was_not_there() -> Any:
    settings, names = types.SimpleNamespace(), ["factor"]
    return (
        lambda x: x * 2 if hasattr(settings, names[0]) else x * 3,
        lambda: setattr(settings, "factor", 3.0),
    )


@case
def a_variable_that_was_not_there() -> Any:
    variables = {"__builtins__": __builtins__}
    text = "def step(x):\n try: return x * number\n except NameError: return x"
    exec(text, variables)
    return variables["step"], lambda: variables.__setitem__("number", 3)


@case
def a_variable_around_that_was_not_there() -> Any:
    factor = 2.0

    def step(x: Any) -> Any:
        try:
            return x * factor
        except NameError:
            return x

    def fill() -> None:
        nonlocal factor
        factor = 3.0

    del factor
    return step, fill


@pytest.mark.parametrize("name", CASES)
def test_what_was_not_there_counts(name: str) -> None:
    assert_change_counts(*CASES[name]())


class Base:
    pass


def class_of_its_own() -> Any:
    return type("Derived", (type("Base", (Base,), {}),), {"__module__": __name__})


def function() -> Any:
    return lambda: None


# What an attribute is set of, and what the step asks for it.
HOLDERS: dict[str, Callable[[], tuple[Any, Callable[[], Any]]]] = {
    "a parameter": lambda: (p := nn.Parameter(gradlite.ones(2)), lambda: p),
    "a parameter of a layer": lambda: ((layer := nn.Linear(2, 2)).bias, lambda: layer.bias),
    "an optimizer": lambda: (o := optim.SGD(nn.Linear(2, 2).parameters()), lambda: o),
    "of a thread": lambda: (found := threading.local(), lambda: found),
    "a module of Python's": lambda: (m := types.ModuleType("of_a_program"), lambda: m),
    "an object": lambda: (found := Base(), lambda: found),
    "a class": lambda: (kind := class_of_its_own(), lambda: kind),
    "the class of an object": lambda: (kind := class_of_its_own(), kind),
    "a class it derives from": lambda: ((kind := class_of_its_own()).__mro__[1], kind),
    "a function": lambda: (found := function(), lambda: found),
    "a method's function": lambda: (f := function(), lambda: types.MethodType(f, 0)),
}


def by_default(get: Any) -> Any:
    return getattr(get(), "factor", 2.0)


def by_an_error(get: Any) -> Any:
    try:
        return get().factor
    except AttributeError:
        return 2.0


def by_any_error(get: Any) -> Any:
    def read() -> Any:
        return get().factor

    try:
        return read()
    except Exception:
        return 2.0


def by_a_block(get: Any) -> Any:
    with contextlib.suppress(Exception):
        return get().factor
    return 2.0


WAYS = (by_default, by_an_error, by_any_error, by_a_block)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", HOLDERS)
def test_what_comes_to_be_there_counts(name: str, way: Callable[[Any], Any]) -> None:
    holder, get = HOLDERS[name]()
    assert_change_counts(lambda x: x * way(get), lambda: setattr(holder, "factor", 3.0))


def test_a_recording_does_not_hold_on_to_what_the_step_has_made_and_asked() -> None:
    class Made(Base):
        pass

    captured = gradlite.capture(lambda x: x * by_an_error(Made))
    for _ in range(4):
        captured(gradlite.ones(2))
    assert captured.replays == 1
    assert not [o for o in gc.get_objects() if type(o) is Made]
