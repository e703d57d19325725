"""What a captured step asks for, and was not there when it was recorded, counts once it is."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest

from gradlite import nn
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


@pytest.mark.parametrize("name", CASES)
def test_what_was_not_there_counts(name: str) -> None:
    assert_change_counts(*CASES[name]())
