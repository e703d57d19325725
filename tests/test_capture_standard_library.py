"""What Python's own library keeps for a step counts when somebody changes it: weak references,
settings, memory that processes share, what NumPy and Python keep for the whole program."""

from __future__ import annotations

import abc
import configparser
import contextlib
import contextvars
import ctypes
import decimal
import locale
import mmap
import multiprocessing
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from tests.capture_support import assert_change_counts

Case = Callable[[], tuple[Callable[..., Any], Callable[[], Any]]]
CASES: dict[str, Case] = {}
PROGRAM: dict[str, Case] = {}


def case(make: Case) -> Case:
    CASES[make.__name__.replace("_", " ").strip()] = make
    return make


def of_program(make: Case) -> Case:
    PROGRAM[make.__name__.replace("_", " ").strip()] = make
    return make


class Holder:
    """An object of a program's own."""

    def __init__(self, number: float = 2.0) -> None:
        self.number = number

    def scaled(self, x: Any) -> Any:
        return x * self.number


def putting(container: Any, key: Any, value: Any) -> Callable[[], None]:
    return lambda: container.__setitem__(key, value)


def setting(owner: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(owner, name, value)


# --------------------------------------------------------------------------- weak references
@case
def an_object_that_is_no_more() -> Any:
    holders = [Holder()]
    found = weakref.ref(holders[0])
    return lambda x: x * 2 if found() is not None else x * 3, holders.clear


@case
def an_object_that_is_no_more_and_its_method() -> Any:
    holders = [Holder()]
    found = weakref.WeakMethod(holders[0].scaled)
    return lambda x: x * 3 if found() is None else found()(x), holders.clear  # type: ignore[misc]


@case
def another_object_behind_a_weak_method() -> Any:
    holder = Holder()
    found = weakref.WeakMethod(holder.scaled)
    return lambda x: found()(x), setting(holder, "number", 3.0)  # type: ignore[misc]


@case
def one_object_less_in_a_weak_set() -> Any:
    holders = [Holder(2.0), Holder(3.0)]
    found = weakref.WeakSet(holders)
    return lambda x: x * sum(h.number for h in found), holders.pop


@case
def one_object_more_in_a_weak_set() -> Any:
    holders = [Holder(2.0), Holder(3.0)]
    found = weakref.WeakSet(holders[:1])
    return lambda x: x * sum(h.number for h in found), lambda: found.add(holders[1])


@case
def an_object_in_a_weak_set() -> Any:
    holders = [Holder(2.0), Holder(3.0)]
    found = weakref.WeakSet(holders)
    return lambda x: x * sum(h.number for h in found), setting(holders[0], "number", 5.0)


@case
def one_object_less_in_a_dictionary_of_weak_references() -> Any:
    holders = {"a": Holder(2.0), "b": Holder(3.0)}
    found = weakref.WeakValueDictionary(holders)
    return lambda x: x * sum(h.number for h in found.values()), lambda: holders.pop("b")


@case
def an_object_behind_a_proxy() -> Any:
    holder = Holder()
    found = weakref.proxy(holder)
    return lambda x: x * found.number, setting(holder, "number", 3.0)


@case
def a_layer_behind_a_proxy() -> Any:
    layer = nn.LeakyReLU(0.5)
    found = weakref.proxy(layer)
    return lambda x: found(x), setting(layer, "negative_slope", 0.25)


# ------------------------------------------------------------------- objects of the library's
@case
def settings_of_a_file() -> Any:
    settings = configparser.ConfigParser()
    settings["training"] = {"rate": "2"}
    return (
        lambda x: x * settings.getfloat("training", "rate"),
        putting(settings["training"], "rate", "3"),
    )


@case
def a_section_of_such_settings() -> Any:
    settings = configparser.ConfigParser()
    settings["training"] = {"rate": "2"}
    section = settings["training"]
    return lambda x: x * float(section["rate"]), putting(section, "rate", "3")


@case
def a_number_that_processes_share() -> Any:
    shared = multiprocessing.Value("d", 2.0)
    return lambda x: x * shared.value, setting(shared, "value", 3.0)


@case
def numbers_that_processes_share() -> Any:
    shared = multiprocessing.Array("d", [2.0, 3.0])
    return lambda x: x * shared[1], putting(shared, 1, 5.0)


@case
def memory_that_processes_share() -> Any:
    shared = SharedMemory(create=True, size=8)
    shared.unlink()
    shared.buf[0] = 2
    return lambda x: x * shared.buf[0], putting(shared.buf, 0, 3)


@case
def a_number_of_c() -> Any:
    value = ctypes.c_double(2.0)
    return lambda x: x * value.value, setting(value, "value", 3.0)


@case
def memory_of_a_file() -> Any:
    memory = mmap.mmap(-1, 8)
    return lambda x: x * memory[0], putting(memory, 0, 3)


@case
def a_result_that_is_there_later() -> Any:
    future: Future[float] = Future()
    return (
        lambda x: x * future.result() if future.done() else x,
        lambda: future.set_result(3.0),
    )


@case
def an_object_in_a_context_that_does_nothing() -> Any:
    holder = Holder()
    context = contextlib.nullcontext(holder)

    def step(x: Any) -> Any:
        with context as held:
            return x * held.number

    return step, setting(holder, "number", 3.0)


@case
def a_variable_of_another_context() -> Any:
    variable: contextvars.ContextVar[float] = contextvars.ContextVar("of another context")
    context = contextvars.copy_context()
    context.run(variable.set, 2.0)
    return lambda x: x * context[variable], lambda: context.run(variable.set, 3.0)


@case
def a_class_that_is_registered() -> Any:
    class Kind(abc.ABC):  # noqa: B024
        pass

    holder = Holder()
    return lambda x: x * 2 if isinstance(holder, Kind) else x * 3, lambda: Kind.register(Holder)


@case
def a_variable_of_the_environment_in_bytes() -> Any:
    name = b"GRADLITE_TEST_BYTES"
    os.environ.pop(os.fsdecode(name), None)
    return lambda x: x * 2 if name in os.environb else x * 3, putting(os.environb, name, b"1")


@pytest.mark.parametrize("name", CASES)
def test_a_change_counts(name: str) -> None:
    assert_change_counts(*CASES[name](), calls=8)


def test_a_recording_does_not_hold_on_to_what_is_weakly_known() -> None:
    holder = Holder()
    found = weakref.ref(holder)
    captured = gradlite.capture(lambda x: x * found().number, native=False)  # type: ignore[union-attr]
    for _ in range(5):
        captured(gradlite.ones(2))
    assert captured.replays == 2
    del holder
    assert found() is None


# ---------------------------------------------------------------- of the whole program
@pytest.fixture
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    printing, errors, limit = np.get_printoptions(), np.geterr(), sys.getrecursionlimit()
    place = locale.setlocale(locale.LC_ALL)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    with decimal.localcontext():
        yield
    monkeypatch.undo()
    time.tzset()
    np.set_printoptions(**printing)
    np.seterr(**errors)
    sys.setrecursionlimit(limit)
    locale.setlocale(locale.LC_ALL, place)


@of_program
def the_precision_of_decimal_numbers() -> Any:
    return (
        lambda x: x * float(decimal.Decimal(1) / decimal.Decimal(3)),
        lambda: setattr(decimal.getcontext(), "prec", 2),
    )


@of_program
def how_numpy_prints() -> Any:
    return (
        lambda x: x * np.get_printoptions()["precision"],
        lambda: np.set_printoptions(precision=3),
    )


@of_program
def what_numpy_does_about_errors() -> Any:
    np.seterr(divide="warn")
    return (
        lambda x: x * 2 if np.geterr()["divide"] == "warn" else x * 3,
        lambda: np.seterr(divide="ignore"),
    )


@of_program
def how_deep_calls_may_be() -> Any:
    limit = sys.getrecursionlimit()
    return (
        lambda x: x * 2 if sys.getrecursionlimit() == limit else x * 3,
        lambda: sys.setrecursionlimit(limit + 100),
    )


@of_program
def the_locale() -> Any:
    locale.setlocale(locale.LC_ALL, "C")
    return (
        lambda x: x * len(locale.setlocale(locale.LC_ALL)),
        lambda: locale.setlocale(locale.LC_CTYPE, "C.UTF-8"),
    )


@of_program
def the_time_zone() -> Any:
    def change() -> None:
        os.environ["TZ"] = "EST+5"
        time.tzset()

    return lambda x: x + time.timezone, change


@pytest.mark.parametrize("name", PROGRAM)
def test_a_change_of_the_program_counts(name: str, as_it_was: None) -> None:
    assert_change_counts(*PROGRAM[name]())
