"""What captured steps do to the very tensors they are given: edits, flags, gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gradlite
from gradlite import nn
from tests.capture_support import CALLS, close, replays

__all__ = ["replays"]  # which is used by every test


def same(step: Callable[..., Any], *, least: int = 3) -> None:
    """The results, and all that can be seen of the input afterwards, at every call."""
    captured = gradlite.capture(step)
    for i in range(CALLS):
        given, other = (gradlite.arange(6.0).view(2, 3) * 0.3 + i for _ in range(2))
        version = given._version
        close(captured(given).tolist(), step(other).tolist())
        close(given.tolist(), other.tolist())
        assert given.requires_grad == other.requires_grad
        assert (given._version == version) == (other._version == version)
        assert (given.grad is None) == (other.grad is None)
        if other.grad is not None:
            close(given.grad.tolist(), other.grad.tolist())
    assert captured.replays >= least


def test_edits_in_place() -> None:
    def step(x: Any) -> Any:
        x.mul_(2)
        x[0] = 5
        return x.sum()

    same(step)


def test_an_edit_through_a_view() -> None:
    def step(x: Any) -> Any:
        x.view(-1)[1:].add_(1)
        return x * 2

    same(step)


def test_the_gradient_of_an_input() -> None:
    """As attacks on a network and penalties of its gradients ask for."""
    weight = nn.Parameter(gradlite.linspace(-1, 1, 3))

    def step(x: Any) -> Any:
        x.requires_grad_()
        (x * weight).sin().sum().backward()
        weight.grad = None
        return x.detach() + 0.1 * x.grad.sign()

    same(step)


def test_only_the_step_sees_the_flag_of_an_alias() -> None:
    def step(x: Any) -> Any:
        inner = x.detach().requires_grad_()
        (inner * inner).sum().backward()
        return inner.grad

    same(step)


def test_an_input_twice_cannot_be_edited() -> None:
    def step(x: Any, y: Any) -> Any:
        x.mul_(2)
        return x + y

    captured = gradlite.capture(step)
    for _ in range(4):
        assert captured(gradlite.ones(2), gradlite.ones(2)).tolist() == [3, 3]
    assert captured.replays == 1
    x = gradlite.ones(4)
    with pytest.raises(gradlite.CaptureError, match="edits input 0.*shares memory.*a clone"):
        captured(x[1:3], x[2:])
    assert x.tolist() == [1, 1, 1, 1]


def test_a_tensor_of_the_step_cannot_be_an_input_that_is_edited() -> None:
    total = gradlite.zeros(2)

    def step(x: Any) -> Any:
        x.add_(total + 1)
        return x * 2

    captured = gradlite.capture(step)
    for _ in range(4):
        assert captured(gradlite.ones(2)).tolist() == [4, 4]
    with pytest.raises(gradlite.CaptureError, match="shares memory"):
        captured(total)


def test_views_of_what_does_not_lie_in_order() -> None:
    def step(x: Any) -> Any:
        turned = (x.T.abs() + 1).sqrt()
        return turned.unflatten(0, (1, -1)).mul_(2) + turned.view(3, 2, 1).squeeze(2)

    same(step)


@pytest.mark.parametrize("edit", ["unsqueeze_(0)", "squeeze_()", "t_()", "transpose_(0, 1)"])
def test_another_shape_of_an_input_is_refused(edit: str) -> None:
    def step(x: Any) -> Any:
        eval(f"x.{edit}")
        return x * 2

    captured = gradlite.capture(step, warmup=0)
    with pytest.raises(gradlite.CaptureError, match="gives an input another shape"):
        captured(gradlite.ones(1, 3))


def test_a_graph_in_an_input_is_refused() -> None:
    weight = nn.Parameter(gradlite.ones(3))

    def step(x: Any) -> Any:
        x.mul_(weight)
        return x.sum()

    captured = gradlite.capture(step, warmup=0)
    with pytest.raises(gradlite.CaptureError, match="depends on parameters into an input"):
        captured(gradlite.ones(3))


def put(given: dict[str, Any]) -> Any:
    given["twice"] = given["x"] * 2
    return given["twice"]


def take(given: dict[str, Any]) -> Any:
    return given.pop("x") * given["y"][0]


def move(given: dict[str, Any]) -> Any:
    given["x"] = given.pop("x")
    return given["x"] * 2


def extend(given: dict[str, Any]) -> Any:
    given["y"].append(given["x"])
    return given["y"][0]


def replace(given: dict[str, Any]) -> Any:
    given["y"][0] = given["y"][0] * 2
    return given["y"][0]


@pytest.mark.parametrize("edit", [put, take, move, extend, replace])
def test_containers_that_are_given_stay_as_they_are(edit: Any) -> None:
    """What a step puts into one or takes out of it would be missed at the next call."""
    captured = gradlite.capture(lambda given, **rest: edit(given))
    given = [{"x": gradlite.ones(2), "y": [gradlite.ones(2)]} for _ in range(3)]
    captured(given[0])
    with pytest.raises(gradlite.CaptureError, match="edits a list or a dictionary"):
        captured(given[1])
    captured = gradlite.capture(lambda given: edit({**given, "y": [*given["y"]]}))
    for _ in range(5):
        captured(given[2])
    assert captured.replays == 2


def test_an_expanded_input_is_not_edited() -> None:
    captured = gradlite.capture(lambda x: x.add_(1) * 2)
    for i in range(5):
        captured(gradlite.full((3, 2), float(i)))
    with pytest.raises(RuntimeError, match="expanded"):
        captured(gradlite.ones(1, 2).expand(3, 2))
