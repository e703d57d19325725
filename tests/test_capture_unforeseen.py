"""What a captured step runs, or asks, without that its code says so."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import functools
import gc
import importlib
import io
import logging.handlers
import os
import pathlib
import random
import secrets
import sys
import threading
import time
import uuid
import weakref
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


SYSTEM = random.SystemRandom()


@dataclasses.dataclass
class Settings:
    """As configurations are: with methods that `dataclass` writes."""

    rate: float = 1.0
    name: str = "plain"


@dataclasses.dataclass(order=True, unsafe_hash=True)
class Key:
    rate: float = 1.0


@dataclasses.dataclass(slots=True)
class Slotted:
    rate: float = 1.0


class Named:
    """An object with texts of its own."""

    def __init__(self) -> None:
        self.rate = 1.0

    def __repr__(self) -> str:
        return f"Named({self.rate})"

    def __str__(self) -> str:
        return f"at {self.rate}"


def raised(owner: Any) -> Callable[[], None]:
    return lambda: setattr(owner, "rate", 5.0)


@pytest.mark.parametrize("kind", [Settings, Slotted, Key])
@pytest.mark.parametrize(
    "same",
    [
        lambda a, b: a == b,
        lambda a, b: not a != b,
        lambda a, b: a in [b],
        lambda a, b: repr(a) == repr(b),
        lambda a, b: f"{a}" == str(b),
        lambda a, b: "%s" % a == "{}".format(b),  # noqa: UP031, UP032
        lambda a, b: dataclasses.astuple(a) == dataclasses.astuple(b),
        lambda a, b: dataclasses.asdict(a) == dataclasses.asdict(b),
        lambda a, b: copy.deepcopy(a) == b,
    ],
)
def test_dataclasses_as_a_whole(kind: Any, same: Any) -> None:
    one, other = kind(), kind()
    assert_change_counts(lambda x: x * 2 if same(one, other) else x * 3, raised(one), 8)


@case
def an_order_of_dataclasses() -> Any:
    one, other = Key(), Key(2.0)
    return lambda x: x * 2 if one < other else x * 3, raised(one)


@case
def the_hash_of_a_dataclass() -> Any:
    one, table = Key(), {Key(1.0): 2.0, Key(5.0): 3.0}
    return lambda x: x * table[one], raised(one)


@case
def a_dataclass_in_a_dataclass() -> Any:
    @dataclasses.dataclass
    class Outer:
        inner: Settings = dataclasses.field(default_factory=Settings)

    one, other = Outer(), Outer()
    return lambda x: x * 2 if one == other else x * 3, raised(one.inner)


@case
def a_sum_over_all_fields() -> Any:
    key = Key()
    return lambda x: x * sum(dataclasses.asdict(key).values()), raised(key)


@case
def a_key_that_is_a_text() -> Any:
    named, table = Named(), {"Named(1.0)": 2.0, "Named(5.0)": 3.0}
    return lambda x: x * table[repr(named)], raised(named)


@case
def a_key_that_is_another_text() -> Any:
    named, table = Named(), {"at 1.0": 2.0, "at 5.0": 3.0}
    return lambda x: x * table[f"{named}"], raised(named)


@case
def the_text_of_a_list() -> Any:
    named = [Named()]
    return lambda x: x * 2 if str(named) == "[Named(1.0)]" else x * 3, raised(named[0])


@case
def a_variable_of_a_hook_in_a_trainer() -> Any:
    class Trainer:
        def __init__(self) -> None:
            self.weight, self.by = nn.Parameter(gradlite.ones(2)), [2.0]
            self.weight.register_hook(lambda grad: grad * self.by[0])

        def step(self, x: Any) -> Any:
            self.weight.grad = None
            (self.weight * x).sum().backward()
            return self.weight.grad.clone()  # type: ignore[union-attr]

    trainer = Trainer()
    return trainer.step, lambda: trainer.by.__setitem__(0, 3.0)


class Telling:
    """It hands itself on to others, and knows their methods by their names."""

    def __init__(self) -> None:
        self.scale, self.listeners = 2.0, [Listener()]

    def step(self, x: Any) -> Any:
        return self.tell("scaled", x)

    def tell(self, name: str, x: Any) -> Any:
        for listener in self.listeners:
            x = getattr(listener, name)(self, x)
        return x


class Listener:
    def __init__(self) -> None:
        self.on = True

    def scaled(self, trainer: Telling, x: Any) -> Any:
        return x * trainer.scale if self.on else x


def test_what_nobody_reads_of_an_object_that_tells_others_may_change() -> None:
    """As a trainer that calls its listeners counts beside the step."""
    trainer = Telling()
    captured = gradlite.capture(trainer.step, native=False)
    for i in range(8):
        trainer.epoch = i  # type: ignore[attr-defined]
        captured(gradlite.ones(2))
    assert captured.replays >= 3


@case
def an_object_that_is_told_by_a_name() -> Any:
    trainer = Telling()
    return trainer.step, lambda: setattr(trainer.listeners[0], "on", False)


@case
def what_is_read_of_an_object_that_hands_itself_on() -> Any:
    trainer = Telling()
    return trainer.step, lambda: setattr(trainer, "scale", 3.0)


@case
def an_attribute_of_a_name_that_others_put_together() -> Any:
    class Choosing(Telling):
        kind = "linear"

        def step(self, x: Any) -> Any:
            return self.chosen(x)

        def chosen(self, x: Any) -> Any:
            return x * getattr(self, "by_" + self.kind)

    trainer: Any = Choosing()
    trainer.by_linear, trainer.by_other = 2.0, 3.0
    return trainer.step, lambda: setattr(trainer, "by_linear", 5.0)


@case
def one_object_more_that_is_told() -> Any:
    trainer = Telling()
    return trainer.step, lambda: trainer.listeners.append(Listener())


# ------------------------------------------------------------- what libraries hand out
@case
def a_variable_of_the_environment_by_a_variable() -> Any:
    patch, name = pytest.MonkeyPatch(), "GRADLITE_TEST_NUMBER"
    patch.setenv(name, "2")
    return lambda x: x * float(os.environ.get(name, "5")), patch.undo


@case
def an_event() -> Any:
    event = threading.Event()
    return lambda x: x * 2 if event.is_set() else x * 3, event.set


@case
def the_level_of_a_logger() -> Any:
    logger = logging.getLogger("gradlite.tests.level")
    logger.setLevel(logging.INFO)
    return (
        lambda x: x * 2 if logger.isEnabledFor(logging.INFO) else x * 3,
        lambda: logger.setLevel(logging.ERROR),
    )


@case
def what_an_optimizer_saves() -> Any:
    optimizer = optim.SGD([nn.Parameter(gradlite.ones(2))], lr=2.0)
    return (
        lambda x: x * max(optimizer.state_dict()["param_groups"][0].values(), key=str_of_number),
        lambda: optimizer.param_groups[0].update(lr=9.0),
    )


def str_of_number(value: Any) -> str:
    return str(value) if isinstance(value, float) else ""


@case
def the_text_of_an_optimizer() -> Any:
    optimizer = optim.SGD([nn.Parameter(gradlite.ones(2))], lr=2.0)
    return (
        lambda x: x * 2 if ": 2.0\n" in repr(optimizer) else x * 3,
        lambda: optimizer.param_groups[0].update(lr=3.0),
    )


@case
def what_a_schedule_saves() -> Any:
    optimizer = optim.SGD([nn.Parameter(gradlite.ones(2))], lr=2.0)
    schedule = optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.step()
    return lambda x: x * sum(schedule.state_dict()[k] for k in ["last_" + "epoch"]), schedule.step


@case
def a_seed() -> Any:
    generator = gradlite.Generator("cpu").manual_seed(2)
    return lambda x: x * generator.initial_seed(), lambda: generator.manual_seed(3)


@pytest.mark.parametrize("name", CASES)
def test_a_change_counts(name: str) -> None:
    assert_change_counts(*CASES[name](), calls=8)


def test_what_is_met_is_of_use_for_the_next_recordings() -> None:
    """One recording more, and that for one signature."""
    one, other = Settings(), Settings()
    captured = gradlite.capture(lambda x: x * 2 if one == other else x * 3, native=False)
    for _ in range(6):
        captured(gradlite.ones(2))
    assert captured.replays == 2
    for _ in range(6):
        captured(gradlite.ones(3))
    assert captured.replays == 5


@pytest.mark.parametrize(
    "now",
    [
        time.time,
        time.perf_counter_ns,
        lambda: time.monotonic(),
        datetime.datetime.now,
        lambda: datetime.date.today(),
        lambda: time.localtime(),
        lambda: time.strftime("%S"),
        lambda: time.clock_gettime(time.CLOCK_MONOTONIC),
        lambda: os.times().elapsed,
    ],
)
def test_asking_for_the_time_is_refused(now: Any) -> None:
    """As a step would that is to stop when its time is over."""
    start = now()
    captured = gradlite.capture(lambda x: x * 2 if now() >= start else x * 3)
    captured(gradlite.ones(2))
    with pytest.raises(gradlite.CaptureError, match="asks for the time"):
        captured(gradlite.ones(2))


@pytest.mark.parametrize(
    "ask",
    [
        lambda: os.urandom(1),
        uuid.uuid4,
        lambda: secrets.randbelow(2),
        lambda: SYSTEM.random(),
        lambda: os.path.exists("stop"),
        lambda: pathlib.Path("stop").is_file(),
        lambda: os.listdir("."),
        lambda: list(pathlib.Path(".").glob("*.stop")),
        os.getcwd,
        lambda: os.read(os.open(__file__, os.O_RDONLY), 1),
    ],
)
def test_asking_the_system_is_refused(ask: Any) -> None:
    """As a step would that is to stop when somebody makes a file."""
    captured = gradlite.capture(lambda x: x * 2 if ask() is None else x * 3)
    captured(gradlite.ones(2))
    with pytest.raises(gradlite.CaptureError, match="asks for (files|random numbers)"):
        captured(gradlite.ones(2))


def test_what_runs_because_garbage_is_collected_is_not_the_step_s() -> None:
    """Programs that time collections, as Hypothesis and JAX do; and finalizers."""
    asked: list[float] = []

    def timed(phase: str, info: dict[str, int]) -> None:
        asked.append(time.perf_counter())

    class Held:
        pass

    def step(x: Any) -> Any:
        held = Held()
        held.itself = held  # type: ignore[attr-defined]  # only a collection finds it
        weakref.finalize(held, lambda: time.time())
        del held
        gc.collect()
        return x * 2

    captured = gradlite.capture(step)
    before = list(gc.callbacks)
    gc.callbacks.append(timed)
    try:
        for _ in range(6):
            captured(gradlite.ones(2))
    finally:
        gc.callbacks.remove(timed)
    assert captured.replays >= 2 and len(asked) >= 3
    assert gc.callbacks == before


def test_what_an_import_runs_is_not_the_step_s(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library imports modules at one call alone; packages and test runners look too."""
    finders = tmp_path / "site-packages" / "finders.py"
    finders.parent.mkdir()
    finders.write_text(
        "asked = []\n\n\nclass Finder:\n    def find_spec(self, name, path, target=None):\n"
        "        asked.append(name)\n"
    )
    monkeypatch.syspath_prepend(finders.parent)
    module = importlib.import_module("finders")
    monkeypatch.setattr(sys, "meta_path", [module.Finder(), *sys.meta_path])
    captured = gradlite.capture(lambda x: x * len("ab".encode("cp1006")), warmup=0)
    for _ in range(5):
        captured(gradlite.ones(2))
    assert "encodings.cp1006" in module.asked
    assert captured.replays == 3


def test_what_libraries_do_for_themselves_is_not_refused(tmp_path: pathlib.Path) -> None:
    """Loggers ask for the time and for files, and keep what they have found out."""
    stream = io.StringIO()
    logger = logging.Logger("of a test")
    logger.addHandler(logging.StreamHandler(stream))
    handler = logging.handlers.RotatingFileHandler(tmp_path / "log", maxBytes=1 << 20)
    logger.addHandler(handler)

    def step(x: Any) -> Any:
        os.makedirs(tmp_path / "a" / "b", exist_ok=True)
        logger.info("a step")
        return x * 2

    captured = gradlite.capture(step)
    for _ in range(6):
        captured(gradlite.ones(2))
    assert captured.replays >= 2
    assert stream.getvalue().count("a step") == 6 - captured.replays
    handler.close()


def test_methods_that_replays_call_anew_may_count() -> None:
    """A rule for learning rates of one's own, which no recording stands for."""
    optimizer = optim.SGD([nn.Parameter(gradlite.ones(2))], lr=1.0)
    asked: list[int] = []

    @functools.cache
    def factor(epoch: int) -> float:
        asked.append(epoch)
        return 0.5**epoch

    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: factor(epoch))

    def step(x: Any) -> Any:
        optimizer.step()
        schedule.step()
        return x * 2

    captured = gradlite.capture(step, native=False)
    for _ in range(6):
        captured(gradlite.ones(2))
    assert captured.replays == 3
    assert asked == list(range(7))
