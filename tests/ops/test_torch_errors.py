"""Calls that PyTorch's own tests of errors make: refused here with the same type and message.

``error_inputs`` of ``op_db`` in the installed PyTorch are the calls; what PyTorch does with them is
asked, and not looked up.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from tests.oracle import normalised, prefix, torch
from tests.torch_databases import AbsentError, Translation, op_db

MEMORY = "out= is resized or written where PyTorch refuses the memory that it is given"
DESCRIPTOR = "a method called on what is no tensor"
WORDS = "one mistake of several is named, or one in other words"
# Which calls of an entry differ, and why.
KNOWN: dict[str, tuple[set[int], str]] = {
    "__radd__": ({0, 1}, DESCRIPTOR),
    "__rand__": ({0, 1}, DESCRIPTOR),
    "__rmul__": ({0, 1}, DESCRIPTOR),
    "__ror__": ({0, 1}, DESCRIPTOR),
    "__rxor__": ({0, 1}, DESCRIPTOR),
    "amax": ({5}, WORDS),
    "amin": ({5}, WORDS),
    "arange": ({6}, "a step of 0.5 is not rounded to the integers of out="),
    "cat": ({6, 7, 8}, MEMORY),
    "gather": ({7}, MEMORY),
    "index_select": ({0}, MEMORY),
    "linspace": ({1}, WORDS),
    "linspace.tensor_overload": ({1}, WORDS),
    "logspace": ({1}, WORDS),
    "logspace.tensor_overload": ({1}, WORDS),
    "multinomial": ({2}, WORDS),
    "narrow_copy": ({1, 6}, "narrow's errors"),
    "nn.functional.adaptive_max_pool3d": ({2}, WORDS),
    "nn.functional.avg_pool3d": ({0, 1, 2, 3, 5}, WORDS),
    "nn.functional.conv1d": ({4}, WORDS),
    "nn.functional.conv2d": ({4, 5}, WORDS),
    "nn.functional.conv3d": ({4, 5}, WORDS),
    "nn.functional.max_pool3d": ({0, 1, 2, 3}, WORDS),
    "nn.functional.multi_margin_loss": ({7}, WORDS),
    "nn.functional.soft_margin_loss": ({1}, WORDS),
    "normal.in_place": ({0}, "the entry is of the method, under the function's name"),
}


@pytest.fixture(autouse=True)
def numpy_generator_kept() -> Iterator[None]:
    state = np.random.get_state()
    yield
    np.random.set_state(state)


def function_of(name: str) -> Callable[..., Any] | None:
    """gradlite's function or method of an entry's name."""
    if name == "nn.functional.embedding":  # PyTorch's entry has the table first
        embedding = gradlite.nn.functional.embedding
        return lambda weight, indices, **options: embedding(indices, weight, **options)
    for start in (gradlite, gradlite.Tensor):
        found = functools.reduce(lambda at, part: getattr(at, part, None), name.split("."), start)
        if callable(found):
            return found  # type: ignore[no-any-return]
    return None


def error_of(function: Any, args: Any, kwargs: Any) -> BaseException | None:
    try:
        function(*args, **kwargs)
    except Exception as error:
        return error
    return None


def difference(ours: BaseException | None, theirs: BaseException, pattern: str) -> str | None:
    """What is wrong with an exception beside PyTorch's, if anything."""
    if ours is None:
        return f"taken; PyTorch raises {theirs!r}"
    if type(ours).__name__ != type(theirs).__name__:
        return f"{ours!r}; PyTorch raises {theirs!r}"
    if prefix(str(ours)) == prefix(str(theirs)) or normalised(ours) == normalised(theirs):
        return None
    if re.search(pattern, str(ours).replace("gradlite", "torch")):
        return None
    return f"says {ours}; PyTorch says {theirs}"


def differences(called: Callable[[str], Any]) -> tuple[int, dict[str, dict[int, str]]]:
    """How many calls were compared, and what was different, by entry and by call."""
    count, found = 0, {}
    for info in op_db():
        function = called(info.name)
        if info.error_inputs_func is None or function is None:
            continue
        # Not `error_inputs`, which inspects the whole stack of calls for every case.
        for number, case in enumerate(info.error_inputs_func(info, "cpu")):
            given = case.sample_input
            args, kwargs = [given.input, *given.args], given.kwargs
            try:
                translated = Translation(copies=False)
                mine = translated(args), translated(dict(kwargs))
            except AbsentError:
                continue
            except ValueError as error:  # more dimensions than NumPy has
                assert "number of dimensions" in str(error)
                continue
            theirs = error_of(info.op, args, kwargs)
            if theirs is None:
                continue
            count += 1
            ours = error_of(function, *mine)
            what = difference(ours, theirs, case.error_regex)
            if what is not None:
                found.setdefault(info.full_name, {})[number] = what
    return count, found


@pytest.mark.filterwarnings("ignore")
def test_calls_are_refused_as_in_pytorch() -> None:
    count, found = differences(function_of)
    unknown = [
        f"{name} {number}: {what}"
        for name, calls in found.items()
        for number, what in calls.items()
        if number not in KNOWN.get(name, (set(), ""))[0]
    ]
    assert not unknown, f"{len(unknown)} of {count}:\n" + "\n".join(unknown)
    gone = {
        name: numbers - found.get(name, {}).keys()
        for name, (numbers, _) in KNOWN.items()
        if numbers - found.get(name, {}).keys()
    }
    assert not gone, f"no longer different: {gone}"
    assert count > 450


@pytest.mark.filterwarnings("ignore")
def test_wrong_errors_are_found() -> None:
    """The negative control: nothing raised, another type, another message."""

    def wrong(name: str) -> Any:
        if name == "diag":
            return lambda *args, **kwargs: None
        if name == "roll":
            return failing(KeyError)
        return failing(RuntimeError) if name == "diff" else None

    def failing(kind: type[Exception]) -> Any:
        def function(*args: Any, **kwargs: Any) -> Any:
            raise kind("something else")

        return function

    count, found = differences(wrong)
    assert count == sum(map(len, found.values()))
    assert set(found) >= {"diag", "roll", "diff"}
    assert all("taken" in what for what in found["diag"].values())


def test_translated_arguments_are_those_of_pytorch() -> None:
    given = [torch.arange(6.0).reshape(2, 3).t(), {"dtype": torch.int32}, torch.ones(2).bfloat16()]
    made = Translation()([*given, given[0]])
    assert made[0] is made[3]
    assert np.array_equal(made[0].numpy(), given[0].numpy())
    assert made[1] == {"dtype": gradlite.int32}
    assert made[2].dtype is gradlite.bfloat16
