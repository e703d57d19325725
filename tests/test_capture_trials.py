"""Captured steps that try what may find no result: matrices that cannot be factored or solved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gradlite

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


def test_a_failure_behind_an_update_cannot_be_recorded(capture: Callable[[Any], Any]) -> None:
    p = gradlite.eye(2)

    def step(x: Any) -> Any:
        p.copy_(x)
        try:
            return gradlite.linalg.cholesky(p).sum()
        except RuntimeError:
            return p.sum()

    captured = capture(step)
    with pytest.raises(gradlite.CaptureError, match="branches on a value that it has itself"):
        for _ in range(6):
            captured(-gradlite.eye(2))


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
