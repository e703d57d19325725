"""Captured steps that try what may find no result: matrices that cannot be factored or solved."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import pytest

import gradlite
from gradlite import nn
from gradlite.capturing.code_names import catches_at

EYE = [[1.0, 0.0], [0.0, 1.0]]
FACTORED: dict[str, tuple[Callable[[Any], Any], float]] = {
    "cholesky": (lambda a: gradlite.linalg.cholesky(a), -1.0),
    "inv": (lambda a: gradlite.linalg.inv(a), 0.0),
    "solve": (lambda a: gradlite.linalg.solve(a, gradlite.tensor(EYE)), 0.0),
    "svdvals": (lambda a: gradlite.linalg.svdvals(a), float("nan")),
}


@pytest.fixture(params=[True, False], ids=["native", "array-calls"])
def capture(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return lambda step: gradlite.capture(step, native=request.param)


def outcome(step: Callable[[Any], Any], x: Any) -> Any:
    try:
        return step(x).tolist()
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("name", FACTORED)
@pytest.mark.parametrize("recorded", ["fails", "succeeds"])
def test_another_way_where_there_is_no_result(
    name: str, recorded: str, capture: Callable[[Any], Any]
) -> None:
    function, bad = FACTORED[name]

    def step(a: Any) -> Any:
        try:
            return function(a).sum()
        except gradlite.linalg.LinAlgError:
            return (gradlite.where(a.isnan(), 0.0, a) + 3.0).sum()

    captured = capture(step)
    first, other = (bad, 2.0) if recorded == "fails" else (2.0, bad)
    for value in [first] * 4 + [other] * 4 + [first, other, other, first]:
        a = gradlite.tensor(EYE) * value
        assert outcome(captured, a) == outcome(step, a)
    assert captured.replays >= 4


@pytest.mark.parametrize("name", FACTORED)
def test_the_error_is_that_of_the_step(name: str, capture: Callable[[Any], Any]) -> None:
    function, bad = FACTORED[name]
    captured = capture(lambda a: function(a).sum())
    for value in [2.0] * 4 + [bad, bad, 3.0]:
        a = gradlite.tensor(EYE) * value
        assert outcome(captured, a) == outcome(lambda a: function(a).sum(), a)
    assert captured.replays >= 2


def test_behind_an_update_the_error_is_raised(capture: Callable[[Any], Any]) -> None:
    p = gradlite.eye(2)

    def step(x: Any) -> Any:
        p.copy_(x)
        return gradlite.linalg.cholesky(p).sum()

    captured = capture(step)
    for _ in range(8):
        assert captured(gradlite.eye(2)).item() == 2.0
    assert captured.replays >= 3
    with pytest.raises(gradlite.linalg.LinAlgError, match="linalg.cholesky: "):
        captured(-gradlite.eye(2))
    assert captured(gradlite.eye(2) * 4.0).item() == 4.0


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize(
    "found",
    [
        lambda p: gradlite.linalg.cholesky(p).sum(),
        lambda p: nn.functional.embedding(2 - p.long(), gradlite.ones(3, 1)).sum(),
    ],
)
def test_an_error_behind_an_update_cannot_be_caught(
    fails: bool, found: Any, capture: Callable[[Any], Any]
) -> None:
    """Whether it is raised while the step is recorded, or could be later on."""
    p = gradlite.eye(2)

    def step(x: Any) -> Any:
        p.copy_(x)
        try:
            with gradlite.no_grad():
                return found(p)
        except (RuntimeError, IndexError):
            return p.sum()

    captured = capture(step)
    with pytest.raises(gradlite.CaptureError, match="branches on a value that it has itself"):
        for _ in range(6):
            captured(-gradlite.eye(2) if fails else gradlite.eye(2))


def test_an_error_is_caught_where_ops_take_no_shortcuts() -> None:
    """Since those of another one come too late."""
    table, p = nn.Embedding(3, 1), gradlite.eye(2)

    def step(i: Any) -> Any:
        try:
            found = table(i).sum()
        except IndexError:
            found = i.sum()
        p.copy_(gradlite.eye(2) * (found * 0.0 + 4.0))
        return found + gradlite.linalg.cholesky(p).sum()

    captured = gradlite.capture(step, native=False)
    for value in [0, 1, 2, 0, 1, 5, 5, 5, 2, 7]:
        i = gradlite.tensor([value])
        assert outcome(captured, i) == outcome(step, i)
    assert captured.replays >= 3


def caught(raises: Any) -> None:
    try:
        with contextlib.nullcontext():
            raises()
    except ValueError:
        pass


def caught_by_any(raises: Any) -> None:
    try:
        raises()
    except:  # noqa: E722
        pass


def caught_around(raises: Any) -> None:
    try:
        for _ in "ab":
            try:
                raises()
            finally:
                repr(raises)
    except (KeyError, ValueError) as error:
        str(error)


def handed_on(raises: Any) -> None:
    with contextlib.nullcontext():
        try:
            raises()
        finally:
            repr(raises)


def beside(raises: Any) -> None:
    try:
        raise ValueError
    except ValueError:
        raises()
    else:
        repr(raises)
    for _ in [raises() for _ in "ab"]:
        pass


@pytest.mark.parametrize("function", [caught, caught_by_any, caught_around, handed_on, beside])
def test_which_errors_code_catches(function: Callable[[Any], None]) -> None:
    found = []

    def raises() -> None:
        frame: Any = sys._getframe(1)
        found.append(catches_at(frame.f_code, frame.f_lasti))

    function(raises)
    assert set(found) == {function.__name__.startswith("caught")}


def test_an_index_that_is_out_of_range_for_a_time(capture: Callable[[Any], Any]) -> None:
    table = gradlite.arange(4.0)

    def step(i: Any) -> Any:
        try:
            return table.numpy().take(i.numpy()).sum() + i.sum()
        except IndexError:
            return i.sum()

    captured = capture(step)
    for value in [9, 9, 9, 9, 2, 1, 1, 3]:
        i = gradlite.tensor([value])
        assert outcome(captured, i) == outcome(step, i)
