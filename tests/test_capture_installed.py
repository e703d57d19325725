"""Captured steps that use installed packages: what runs counts, the rest is not searched."""

from __future__ import annotations

import cProfile
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gradlite
from gradlite import nn
from gradlite.utils.checkpoint import checkpoint
from tests.capture_support import assert_change_counts

PACKAGE = """
import functools
import gradlite
from gradlite import nn

rate = [1.0]
unread = [1.0]

def scaled(x):
    return inner(x)

def inner(x):
    return x * rate[0]

def unused(x):
    return x * unread[0]

def adjusted(function):
    @functools.wraps(function)
    def call(x):
        return function(x) * rate[0]
    return call

def hook(module, inputs, output):
    return scaled(output)

def gradient_hook(gradient):
    return scaled(gradient)

class Layer(nn.Module):
    def forward(self, x):
        return scaled(x)

class Times(gradlite.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return scaled(x)

    @staticmethod
    def backward(ctx, gradient):
        return scaled(gradient)

class Settings:
    def __init__(self):
        self._content = {"rate": 1.0}

    def __getattr__(self, name):
        return self._content[name]

    def put(self, **content):
        self._content.update(content)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "installed_package.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module("installed_package")
    del sys.modules["installed_package"]


def gradient(function: Callable[[Any], Any], x: Any) -> Any:
    start = gradlite.ones(2, requires_grad=True)
    return gradlite.autograd.grad(function(start * x).sum(), start)[0]


def layer_with_hook(package: Any) -> Callable[[Any], Any]:
    layer = nn.Identity()
    layer.register_forward_hook(package.hook)
    return layer


def gradient_with_hook(package: Any) -> Callable[[Any], Any]:
    def step(x: Any) -> Any:
        start = gradlite.ones(2, requires_grad=True)
        y = start * x
        y.register_hook(package.gradient_hook)
        return gradlite.autograd.grad(y.sum(), start)[0]

    return step


STEPS: dict[str, Callable[[Any], Callable[[Any], Any]]] = {
    "function": lambda package: lambda x: package.scaled(x),
    "decorator": lambda package: package.adjusted(lambda x: x + 1),
    "layer": lambda package: package.Layer(),
    "layer made anew": lambda package: lambda x: package.Layer()(x),
    "forward hook": layer_with_hook,
    "gradient hook": gradient_with_hook,
    "autograd.Function": lambda package: lambda x: gradient(package.Times.apply, x),
    "checkpoint": lambda package: lambda x: checkpoint(package.scaled, x, use_reentrant=False),
    "vmap": lambda package: lambda x: gradlite.func.vmap(package.scaled)(x),
}


@pytest.mark.parametrize("name", STEPS)
def test_what_runs_of_a_package_counts(name: str, package: Any) -> None:
    step = STEPS[name](package)
    assert_change_counts(lambda x: step(x), lambda: package.rate.__setitem__(0, 3.0), calls=7)


def test_a_function_in_place_of_a_package_s_counts(package: Any) -> None:
    def change() -> None:
        package.inner = lambda x: x * 5

    assert_change_counts(lambda x: package.scaled(x), change, calls=7)


def test_objects_of_a_package_count(package: Any) -> None:
    settings = package.Settings()
    assert_change_counts(lambda x: x * settings.rate, lambda: settings.put(rate=3.0), calls=7)


def test_what_does_not_run_is_not_searched(package: Any) -> None:
    show = False

    def step(x: Any) -> Any:
        return package.unused(x) if show else x * 2

    captured = gradlite.capture(step, native=False)
    x = gradlite.ones(2)
    for _ in range(6):
        captured(x)
        package.unread[0] += 1
    assert (captured.recordings, captured.replays) == (1, 3)
    show = True  # now it does, in a step of its own
    for _ in range(8):
        assert captured(x).tolist() == [package.unread[0]] * 2
    package.unread[0] = 0.5
    assert captured(x).tolist() == [0.5, 0.5]


def test_classes_need_not_say_where_they_come_from() -> None:
    """Those of Cython have a descriptor in place of the name of their module."""
    kind = type("kind", (type,), {"__module__": property(lambda cls: "somewhere")})
    made: Any = types.new_class("made", (), {"metaclass": kind})()
    made.rate = 2.0
    captured = gradlite.capture(lambda x: x * made.rate, native=False)
    for _ in range(5):
        assert captured(gradlite.ones(2)).tolist() == [2.0, 2.0]
    assert captured.replays == 2


def test_beside_a_profiler_packages_are_searched(package: Any) -> None:
    """Which takes the place of what looks at calls."""
    profile = cProfile.Profile()
    profile.enable()
    try:
        # From Python 3.12 on calls are looked at beside it, and one more is recorded.
        change = lambda: package.rate.__setitem__(0, 2.0)  # noqa: E731
        assert_change_counts(lambda x: package.scaled(x), change, calls=8)
    finally:
        profile.disable()
