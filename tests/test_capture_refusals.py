"""Captured steps that branch on values, cannot be replayed, or fail: what is said of it."""

from __future__ import annotations

import contextlib
import io
import logging
import queue
import random
import warnings
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.capturing.step import BRANCHES
from tests.capture_support import (
    CALLS,
    Step,
    assert_same,
    batch,
    drop,
    norm,
    pair,
    replays,
    run,
)

__all__ = ["replays"]  # which is used by every test


def counting() -> Any:
    """A function that gives another number at every call, and does not show where it is."""
    numbers: Any = queue.SimpleQueue()
    for number in range(1000):
        numbers.put(number)
    return numbers.get


# -------------------------------------------------------------- branches on values
def test_each_way_of_a_branch_has_a_recording() -> None:
    def step(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x - 1

    captured = gradlite.capture(step)
    for value in (1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -2.0, -3.0, 4.0):
        x = gradlite.full((2,), value)
        assert captured(x).tolist() == step(x).tolist()
    assert captured.replays == 4 and captured.recordings == 2


def test_ways_that_are_not_recorded_run_as_they_are() -> None:
    def step(x: Any) -> Any:
        total = x * 0
        for bit in range(3):
            total = total + (2 if x[bit] > 0 else -bit)
        return total

    captured = gradlite.capture(step)
    values = [[(n >> bit & 1) - 0.5 for bit in range(3)] for n in range(8)]
    for value in [values[0]] * 4 + values * 4:
        x = gradlite.tensor(value)
        assert captured(x).tolist() == step(x).tolist()
    assert captured.recordings == 1 + BRANCHES
    replays = captured.replays
    assert captured(gradlite.tensor(values[0])).tolist() == [-3.0] * 3
    assert captured.replays == replays + 1


def test_a_way_that_is_always_another_one_is_refused() -> None:
    captured = gradlite.capture(lambda x: x * sum(1 if v > 0 else 3 for v in x), warmup=0)
    with pytest.raises(gradlite.CaptureError, match="always takes another branch, by values"):
        for n in range(16):
            captured(gradlite.tensor([(n >> bit & 1) - 0.5 for bit in range(4)]))


def test_a_target_out_of_range_is_still_an_error(replays: str) -> None:
    if replays in ("stand-in", "gpu"):
        pytest.skip("a GPU tells of it later: the next test")
    a, b, captured = pair(norm, drop)
    run(a, b, captured)
    before = b.parameters()
    x, y = batch(0)
    y[2] = 7
    with pytest.raises(IndexError, match="Target 7 is out of bounds"):
        captured(x, y)
    # As without capture: the parameters are as they were, the forward pass has been.
    for p, q in zip(b.parameters()[:4], before[:4]):
        np.testing.assert_array_equal(p, q)
    with pytest.raises(IndexError):
        a.step(x, y)
    run(a, b, captured, start=CALLS)


def test_a_gpu_tells_of_a_target_out_of_range_as_it_does_without_capture(replays: str) -> None:
    """A GPU does not wait for the host to look at targets, and goes on with what is no number."""
    if replays not in ("stand-in", "gpu"):
        pytest.skip("an error on the CPU: the test before")
    a, b, captured = pair()
    run(a, b, captured)
    x, y = batch(0)
    y[2] = 7
    for step in (a.step, captured):
        loss = step(x, y)
        with pytest.raises(
            RuntimeError, match="assert triggered\ncross_entropy: Target 7 is out of"
        ):
            gradlite.cuda.synchronize()
        assert loss.isnan().item()
    assert_same(a, b)


def test_a_branch_on_something_the_step_has_changed_is_refused() -> None:
    count = gradlite.zeros(())

    def step(x: Any) -> Any:
        count.add_(1)
        if count > 100:
            return x * 2
        return x

    captured = gradlite.capture(step)
    captured(gradlite.ones(1))
    with pytest.raises(gradlite.CaptureError, match="itself changed"):
        for _ in range(3):
            captured(gradlite.ones(1))


# ---------------------------------------------------------------------- what is refused
def refused(step: Step, match: str, *args: Any, calls: int = 8) -> None:
    captured = gradlite.capture(step)
    with pytest.raises(gradlite.CaptureError, match=match):
        for _ in range(calls):
            captured(*(args or (gradlite.ones(3),)))
    assert issubclass(gradlite.CaptureError, RuntimeError)


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda x: x.sum().item(), "item"),
        (lambda x: float(x.sum()), "item"),
        (lambda x: int(x.sum()), "int"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: print(x), r"repr\(\)"),
        (lambda x: str(x.long().array), r"str\(\).*use int\(\)"),
        (lambda x: print(x.long().sum().item()), r"item\(\).*print\(\)"),
        (lambda x: print(int(x.long().sum())), r"int\(\).*print\(\)"),
        (lambda x: logging.getLogger("x").warning(int(x.long().sum())), "logging"),
        (lambda x: f"{x.sum():.2f}", "item|format"),
    ],
)
def test_reading_a_value_as_a_number_is_refused(read: Any, name: str) -> None:
    def step(x: Any) -> Any:
        read(x * 2)
        return x

    refused(step, name)


def test_random_numbers_of_numpy_are_refused() -> None:
    rng = np.random.default_rng(0)
    refused(
        lambda x: x + gradlite.tensor(rng.standard_normal(3).astype(np.float32)),
        "another one at every call.*random number",
    )


def test_random_numbers_of_python_are_refused() -> None:
    refused(lambda x: x * random.random(), "another one at every call")


def test_a_part_that_python_chooses_is_refused() -> None:
    counts = counting()
    refused(lambda x: x.repeat(1000)[(n := counts()) : n + 3] * 2, "had another part")


GENERATOR, STATE = random.Random(0), np.random.RandomState(0)


@pytest.mark.parametrize(
    "draw",
    [
        random.random,
        lambda: random.randrange(10) / 10,
        lambda: random.shuffle([1, 2, 3]) or 1,
        np.random.rand,
        GENERATOR.random,
        lambda: GENERATOR.random(),
        lambda: STATE.rand(),
        lambda: random.seed(3) or 1,
        lambda: np.random.seed(3) or 1,
        lambda: (STATE.seed(3), STATE.rand())[1],
    ],
)
def test_random_numbers_that_go_the_same_way_at_first_are_refused(draw: Any) -> None:
    """As whether a decoder is given its own words or the true ones."""

    def step(x: Any) -> Any:
        return x * 2 if draw() < 2 else x

    captured, state = gradlite.capture(step, warmup=0), np.random.get_state()
    with pytest.raises(gradlite.CaptureError, match="random numbers of Python's or NumPy's"):
        captured(gradlite.ones(3))
    np.random.set_state(state)


def test_other_steps_leave_random_numbers_where_they_are() -> None:
    generators = [random.Random(0), np.random.RandomState(0), np.random.default_rng(0)]
    captured = gradlite.capture(lambda x: x * len(generators))
    states = random.getstate(), np.random.get_state()
    random.seed(3), np.random.seed(3)
    expected = [random.random(), np.random.rand(), random.Random(0).random()]
    expected += [np.random.RandomState(0).rand(), np.random.default_rng(0).random()]
    random.seed(3), np.random.seed(3)
    for _ in range(5):
        captured(gradlite.ones(2))
    assert captured.replays >= 2
    found = [random.random(), np.random.rand(), *(g.random() for g in generators)]
    random.setstate(states[0]), np.random.set_state(states[1])
    assert found == expected


@pytest.mark.parametrize(
    "leave",
    [
        lambda: gradlite.set_grad_enabled(False),
        lambda: gradlite.set_default_dtype(gradlite.float64),
    ],
)
def test_leaving_another_mode_is_refused(leave: Any) -> None:
    x = gradlite.ones(2)
    captured = gradlite.capture(lambda x: (x * 2, leave())[0], warmup=0)
    try:
        with pytest.raises(gradlite.CaptureError, match="the step leaves another mode"):
            captured(x)
    finally:
        gradlite.set_grad_enabled(True)
        gradlite.set_default_dtype(gradlite.float32)


def test_a_counter_of_python_is_refused() -> None:
    counts = counting()
    refused(lambda x: x * counts(), "another one at every call.*instead of")


def test_a_step_that_does_something_else_each_time_is_refused() -> None:
    counts = counting()

    def step(x: Any) -> Any:
        for _ in range(counts() % 5):
            x = x * 2
        return x

    refused(step, "array calls, and then")


def test_replacing_a_number_in_the_closure_is_refused() -> None:
    count = 0

    def step(x: Any) -> Any:
        nonlocal count
        count += 1
        return x * 2

    refused(step, "replaces count")


@pytest.mark.parametrize("text", [io.StringIO(), io.BytesIO()])
def test_writing_into_a_text_is_refused(text: Any) -> None:
    line: Any = "a line" if isinstance(text, io.StringIO) else b"a line"
    refused(lambda x: x * (text.write(line) and 2), "replaces the contents of a .*IO")


def test_printing_into_a_text_is_refused() -> None:
    text = io.StringIO()

    def step(x: Any) -> Any:
        with contextlib.redirect_stdout(text):
            print("a line")
        return x

    refused(step, "replaces the contents of a StringIO")


def test_putting_something_into_a_queue_is_refused() -> None:
    waiting: queue.Queue[int] = queue.Queue()
    refused(lambda x: x if waiting.put(1) is None else x * 2, "replaces")


def test_giving_a_tensor_other_memory_is_refused() -> None:
    weight = gradlite.ones(30)  # of another shape: others are copied

    def step(x: Any) -> Any:
        weight.data = weight.data[1:] + 1
        return weight

    refused(step, "other memory|replaces")


def test_an_input_that_requires_grad_is_refused() -> None:
    refused(lambda x: x * 2, "requires grad", gradlite.ones(2, requires_grad=True))


def test_a_result_that_is_no_tensor_is_refused() -> None:
    refused(lambda x: object(), "returned object")


# ------------------------------------------------------------------------------- errors
def test_an_error_in_the_step_leaves_everything_as_it_was() -> None:
    fail = [False]

    def step(x: Any) -> Any:
        y = x * 2
        if fail[0]:
            raise ValueError("wanted")
        return y + 1

    captured = gradlite.capture(step)
    x = gradlite.ones(2)
    kind = x.array.__class__
    for call in range(6):
        fail[0] = call in (0, 1, 3)
        if fail[0]:
            with pytest.raises(ValueError, match="wanted"):
                captured(x)
        else:
            assert captured(x).tolist() == [3.0, 3.0]
    assert gradlite.ones(2).array.__class__ is kind
    assert isinstance(gradlite.Tensor.__dict__.get("array", None), type(type(x).array))


def test_an_error_of_the_optimizer_in_a_replay() -> None:
    a, b, captured = pair()
    run(a, b, captured)
    b.optimizer.param_groups[0]["lr"] = "fast"
    before = b.parameters()
    with pytest.raises((TypeError, ValueError)):
        captured(*batch(0))
    for p, q in zip(b.parameters(), before):
        np.testing.assert_array_equal(p, q)
    b.optimizer.param_groups[0]["lr"] = a.optimizer.param_groups[0]["lr"]
    run(a, b, captured, start=CALLS)


def test_what_is_captured_must_be_callable() -> None:
    with pytest.raises(TypeError, match="takes a function"):
        gradlite.capture(3)


def test_recording_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(*pair())
