"""What a captured step takes from Python itself and from the library's modules."""

from __future__ import annotations

import builtins
import functools
import io
import json
import math
import operator
import random
import sys
import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.capturing.code_names import reads_any
from gradlite.nn import functional as F
from tests.capture_support import assert_change_counts


def test_an_argument_of_the_program_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "2"])
    assert_change_counts(lambda x: x * float(sys.argv[1]), lambda: sys.argv.__setitem__(1, "3"))


def test_other_arguments_of_the_program_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "2"])

    def step(x: Any) -> Any:
        import sys as python

        return x * float(python.argv[-1])

    assert_change_counts(step, lambda: setattr(sys, "argv", ["train", "3"]))


class Scales(Protocol):
    """A class that only says what others are like."""

    def scale(self, x: Any) -> Any: ...


class Doubling(Scales):
    rate = 2.0

    def scale(self, x: Any) -> Any:
        return x * self.rate


def test_a_protocol_is_a_class_as_others() -> None:
    doubling = Doubling()

    def step(x: Any) -> Any:
        return doubling.scale(x) if Scales is not None else x

    assert_change_counts(step, lambda: setattr(doubling, "rate", 3.0))


def mine(x: Any) -> Any:
    return x * 10


@pytest.mark.parametrize(
    ("module", "name", "step"),
    [
        (F, "relu", lambda x: F.relu(x)),
        (F, "relu", nn.ReLU()),
        (nn.functional, "relu", nn.Sequential(nn.ReLU())),
        (gradlite, "tanh", lambda x: gradlite.tanh(x)),
        (gradlite.special, "expm1", lambda x: gradlite.special.expm1(x)),
    ],
)
def test_a_function_in_place_of_the_librarys_counts(
    module: Any, name: str, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        monkeypatch.setattr(module, name, lambda x, *args, **kwargs: mine(x))

    assert_change_counts(step, replace)


@pytest.mark.parametrize(
    ("module", "name", "step"),
    [
        (builtins, "pow", lambda x: x * pow(2, 3)),
        (math, "sqrt", lambda x: x * math.sqrt(4.0)),
        (math, "pi", lambda x: x * math.pi),
        (functools, "reduce", lambda x: x * functools.reduce(operator.mul, [1, 2, 3])),
        (random, "random", lambda x: x * random.random()),
    ],
)
def test_what_is_put_in_place_of_pythons_own_counts(
    module: Any, name: str, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module is random:  # which would be refused
        monkeypatch.setattr(random, "random", lambda: 0.5)
    other = 3.0 if name == "pi" else lambda *args: 7.0
    assert_change_counts(step, lambda: monkeypatch.setattr(module, name, other))


def test_the_librarys_function_again_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "relu", lambda x, *args, **kwargs: mine(x))
    assert_change_counts(lambda x: F.relu(x), monkeypatch.undo, calls=8)


class Doubled(nn.Linear):
    """A class of the program's own, with the method of the library's."""


def layer(kind: type[nn.Linear]) -> nn.Linear:
    made = kind(2, 2)
    nn.init.ones_(made.weight)
    nn.init.zeros_(made.bias)
    return made.requires_grad_(False)


def added_to(x: Any) -> Any:
    x += 1
    return x


rate = [10.0]


@pytest.mark.parametrize(
    ("kind", "name", "step"),
    [
        (nn.Linear, "forward", layer(nn.Linear)),
        (nn.Linear, "forward", nn.Sequential(layer(nn.Linear))),
        (nn.Linear, "forward", layer(Doubled)),
        (gradlite.Tensor, "relu", lambda x: x.relu()),
        (gradlite.Tensor, "clone", lambda x: x.clone()),
        (gradlite.Tensor, "new_ones", lambda x: x + x.new_ones(2)),
        (gradlite.Tensor, "__add__", lambda x: x + 1),
        (gradlite.Tensor, "__rsub__", lambda x: [2 - y for y in (x,)][0]),
        (gradlite.Tensor, "__iadd__", lambda x: added_to(x.clone())),
        (gradlite.Tensor, "__matmul__", lambda x: x @ x),
        (gradlite.Tensor, "__neg__", lambda x: -x),
        (gradlite.Tensor, "__getitem__", lambda x: x[0] + x),
        (gradlite.Tensor, "__gt__", lambda x: x > 1),
        (gradlite.Tensor, "__abs__", lambda x: abs(x)),
        (gradlite.Tensor, "__radd__", lambda x: sum([x, x])),
    ],
)
@pytest.mark.parametrize("before", [False, True])
def test_a_method_in_place_of_the_librarys_counts(
    kind: type, name: str, step: Any, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what such a method reads, when it was there before the first recording."""

    def method(self: Any, x: Any) -> Any:
        return (x if isinstance(x, gradlite.Tensor) else self) * rate[0]

    monkeypatch.setattr(sys.modules[__name__], "rate", [10.0])
    if before:
        monkeypatch.setattr(kind, name, lambda self, x=None: method(self, x))
        assert_change_counts(step, lambda: rate.__setitem__(0, 20.0))
    else:
        assert_change_counts(
            step, lambda: monkeypatch.setattr(kind, name, lambda self, x=None: method(self, x))
        )


def test_a_method_that_was_put_there_and_is_taken_away_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nn.Linear, "__call__", lambda self, x: x * 3, raising=False)
    linear = layer(nn.Linear)
    assert_change_counts(linear, monkeypatch.undo)


def test_a_method_of_an_optimizer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = nn.Parameter(gradlite.ones(2))
    optimizer = gradlite.optim.SGD([weight], lr=0.0)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        (x * weight).sum().backward()
        optimizer.step()
        return weight * 2

    def nothing(self: Any) -> None:
        weight.data.fill_(3.0)

    assert_change_counts(step, lambda: monkeypatch.setattr(gradlite.optim.SGD, "step", nothing))


def test_a_function_of_the_librarys_replaced_before_is_looked_into(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "rate", [10.0])
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: x * rate[0])
    assert_change_counts(nn.ReLU(), lambda: rate.__setitem__(0, 20.0))


def test_another_module_behind_a_variable_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    here = sys.modules[__name__]

    class Mine:
        relu = staticmethod(mine)

    assert_change_counts(lambda x: F.relu(x), lambda: monkeypatch.setattr(here, "F", Mine))


def test_a_profile_makes_no_other_recording() -> None:
    weight = nn.Parameter(gradlite.ones(3))
    optimizer = gradlite.optim.SGD([weight], lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        y = F.relu(x).clone().add_(1) + gradlite.tanh(x) * weight
        y.sum().backward()
        optimizer.step()
        return y.detach()

    captured = gradlite.capture(step, native=False)
    x = gradlite.ones(3)
    for _ in range(5):
        captured(x)
    replays = captured.replays
    with gradlite.profiler.profile():
        captured(x)
    captured(x)
    assert captured.replays == replays + 2


# ---------------------------------------------------------------------------------- files
def by_open(path: Path) -> float:
    with open(path) as file:
        return float(file.read())


def by_json(path: Path) -> float:
    with path.open() as file:
        return float(json.load(file))


READERS: list[Any] = [
    by_open,
    by_json,
    lambda path: float(path.read_text()),
    lambda path: float(io.open(path, "rb").read()),  # noqa: SIM115, UP020
    lambda path: float(np.loadtxt(path)),
    lambda path: float(np.load(path.with_suffix(".npy"))),
    lambda path: float(np.fromfile(path, sep=" ")[0]),
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("read", READERS)
def test_a_step_that_reads_a_file_is_refused(read: Any, tmp_path: Path) -> None:
    path = tmp_path / "rate"
    path.write_text("2")
    np.save(path.with_suffix(".npy"), 2.0)
    captured = gradlite.capture(lambda x: x * read(path))
    with pytest.raises(gradlite.CaptureError, match="reads a file .*rate"):
        for _ in range(3):
            captured(gradlite.ones(2))
    assert read(path) == 2.0  # and outside of it all is as it was


def test_tensors_of_a_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    gradlite.save({"w": gradlite.ones(2)}, path)
    captured = gradlite.capture(lambda x: x * gradlite.load(path)["w"])
    with pytest.raises(gradlite.CaptureError, match="reads a file"):
        for _ in range(3):
            captured(gradlite.ones(2))


def test_what_is_written_to_a_file_and_what_is_imported_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "rates_of_a_program.py").write_text("RATE = 3.0\n")

    def step(x: Any) -> Any:
        with open(tmp_path / "log", "a") as file:
            file.write("called\n")
        import rates_of_a_program

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.warn("shown with its line", stacklevel=1)
        return x * rates_of_a_program.RATE

    captured = gradlite.capture(step, warmup=0, native=False)
    sys.path.insert(0, str(tmp_path))
    try:
        for _ in range(5):
            assert captured(gradlite.ones(2)).tolist() == [3.0, 3.0]
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("rates_of_a_program", None)
    assert captured.replays >= 2


@pytest.mark.parametrize(
    ("function", "dynamic"),
    [
        (lambda o, k: getattr(o, k), True),
        (lambda o, k: getattr(o, "a" + k), True),
        (lambda o, k: getattr(o, f"a{k}"), True),
        (lambda o, k: getattr(o, "a%s" % k), True),  # noqa: UP031
        (lambda o, k: getattr(o, "a{}".format(k)), True),  # noqa: UP032
        (lambda o, k: getattr(o, "".join(k)), True),
        (lambda o, k: getattr(o, k, "default"), True),
        (lambda o, k: getattr(o, k or "a"), True),
        (lambda o, k: hasattr(o, k), True),
        (lambda o, k: getattr(o, "a" if o.b else k), True),
        (lambda o, k: getattr(o, "a"), False),  # noqa: B009
        (lambda o, k: getattr(o.b[0].c, "a", None), False),
        (lambda o, k: getattr(o, "a", k * 2), False),
        (lambda o, k: getattr(o, "a", o.default), False),
    ],
)
def test_which_look_ups_may_be_of_any_attribute(function: Any, dynamic: bool) -> None:
    assert reads_any(function.__code__) is dynamic
