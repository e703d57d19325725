"""Arguments and results of captured steps that are no tensors."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import gradlite

CALLS = 6


class Holder:
    """An object with attributes."""

    def __init__(self) -> None:
        self.number, self.ways = 2.0, {"by": 2.0}


@pytest.mark.parametrize(
    ("step", "arguments"),
    [
        (lambda x, part: x[part] * 2, [slice(0, 2), slice(1, 3)]),
        (lambda x, shape: x.reshape(shape), [gradlite.ones(3, 1).shape, gradlite.ones(1, 3).shape]),
        (lambda x, times: sum(x * n for n in times), [range(3), range(1, 4)]),
        (lambda x, number: x * float(number), [np.float32(2), np.float32(3)]),
        (lambda x, zero: 1 / (x * zero), [0.0, -0.0]),
    ],
)
def test_arguments_that_look_the_same_are_the_same(step: Any, arguments: Any) -> None:
    captured = gradlite.capture(step, native=False)
    x = gradlite.tensor([1.0, 2.0, 3.0])
    for _ in range(CALLS):
        for argument in arguments:
            given = copy.deepcopy(argument)
            assert captured(x, given).tolist() == step(x, argument).tolist()
    assert captured.recordings == 2 and captured.replays == 2 * (CALLS - 3)


def test_an_argument_that_is_edited() -> None:
    numbers, holder = np.ones(3, np.float32), Holder()

    def step(x: Any, array: Any, owner: Any) -> Any:
        return x * gradlite.tensor(array) * owner.number * owner.ways["by"]

    captured = gradlite.capture(step, native=False)
    x = gradlite.ones(3)
    for i in range(4 * CALLS):
        numbers[i // CALLS % 3], holder.ways["by"] = i // CALLS, 1.0 + i // (2 * CALLS)
        expected = step(x, numbers, holder).tolist()
        assert captured(x, numbers, owner=holder).tolist() == expected
    assert captured.replays >= 4


def test_other_objects_that_come_to_lie_at_the_same_place() -> None:
    captured = gradlite.capture(lambda x, owner: x * owner.number, native=False)
    for i in range(40):
        holder = Holder()
        holder.number = float(i)
        assert captured(gradlite.ones(1), holder).item() == i
        del holder


def test_results_may_describe_tensors() -> None:
    def step(x: Any) -> Any:
        return x * 2, x.shape, x.dtype, x.device, x.dim()

    captured = gradlite.capture(step, native=False)
    for _ in range(CALLS):
        result, *described = captured(gradlite.ones(2, 3))
        assert described == [gradlite.Size([2, 3]), gradlite.float32, gradlite.device("cpu"), 2]
        assert type(described[0]) is gradlite.Size and result.sum().item() == 12
    assert captured.replays == CALLS - 3
