"""NumPy arrays that a captured step finds in its variables, and how they are edited in between."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.utils.data import DataLoader, Dataset, Subset
from tests.capture_support import CALLS, close, replays

__all__ = ["replays"]  # which is used by every test


class Holder:
    """A plain object with arrays."""

    def __init__(self) -> None:
        self.row = np.ones(3, np.float32)
        self.table = np.arange(6, dtype=np.float32).reshape(2, 3)
        self.listed = [np.ones(3, np.float32), np.zeros(3, np.float32)]
        self.fixed = (self.row,)  # for which nothing is put
        self.named = {"row": np.ones(3, np.float32)}
        self.recent = deque([1.0, 2.0, 3.0])
        self.wanted = np.array([0, 1, 1])
        self.ops = np.array(["relu", "neg"])
        self.objects = np.array([[1.0, 2.0], [3.0, "x"]], object)
        self.complex = np.array([1 + 2j, 3j])

    def edit(self) -> None:
        self.row += 1
        self.table[0] *= 2
        self.listed[1][:] += 1
        self.named["row"][0] -= 1
        self.recent[1] += 1
        self.wanted[0] ^= 1
        self.ops[:] = self.ops[::-1].copy()
        self.objects[0, 1] += 1
        self.complex += 1


class Layer(nn.Module):
    def __init__(self, holder: Holder) -> None:
        super().__init__()
        self.row = holder.row

    def forward(self, x: Any) -> Any:
        return x * gradlite.tensor(self.row)


of = gradlite.tensor


def new() -> Any:
    """An array that the step itself makes, whose methods are NumPy's own."""
    return np.array([1.0, 2.0, 3.0], np.float32)


STEPS: dict[str, Callable[[Holder], Callable[[Any], Any]]] = {
    "tensor": lambda h: lambda x: x * gradlite.tensor(h.row),
    "as_tensor": lambda h: lambda x: x * gradlite.as_tensor(h.row, device=x.device),
    "of a part": lambda h: lambda x: x * gradlite.tensor(h.table[0]),
    "of chosen rows": lambda h: lambda x: x * gradlite.tensor(h.table[[1, 0]]),
    "on its own": lambda h: lambda x: x + (gradlite.tensor(h.row) * 2).sum(),
    "an element": lambda h: lambda x: x * h.row[0],
    "a rounded number": lambda h: lambda x: x * round(h.row[0], 1) * round(h.row[1]),
    "a number": lambda h: lambda x: x * float(h.row[0]),
    "a number of a table": lambda h: lambda x: x * h.table[0, 1].item(),
    "of a sum": lambda h: lambda x: x * gradlite.tensor(h.table.sum()),
    "of an expression": lambda h: lambda x: x * gradlite.tensor(np.sqrt(h.row * 2)),
    "in a list": lambda h: lambda x: x * gradlite.tensor(h.listed[1]),
    "in a dictionary": lambda h: lambda x: x * gradlite.tensor(h.named["row"]),
    "numbers in a deque": lambda h: lambda x: x * gradlite.tensor(list(h.recent)),
    "as an index": lambda h: lambda x: x[gradlite.tensor(h.wanted)],
    "as a list of indices": lambda h: lambda x: x[list(h.wanted)],
    "a branch": lambda h: lambda x: x * 2 if h.row[0] > 3 else x - 1,
    "also by a method in C": lambda h: lambda x: x * of(h.row) * new().dot(h.row).item(),
    "of a list, also in C": lambda h: lambda x: x * of(h.listed[1]) + of(new().dot(h.listed[1])),
    "of a dictionary, also in C": lambda h: (
        lambda x: x * of(h.named["row"]) + of(_filled(np.zeros(3, np.float32), h.named["row"]))
    ),
    "also as an index in C": lambda h: lambda x: x * of(h.wanted) + of(new()[h.wanted]),
    "also in a tuple": lambda h: lambda x: x * of(h.row) * float(h.fixed[0][0]),
    "of several": lambda h: lambda x: x * of(h.row) * of(np.array([h.row, h.row]))[1],
    "of a sequence": lambda h: lambda x: x * of(np.stack(deque([h.row, h.row])))[1],
    "of a part, also in C": lambda h: lambda x: x * of(h.table[0]) + of(new().dot(h.table[0])),
    "as text": lambda h: lambda x: x + len(str(h.wanted)) + len(f"{h.wanted[0]}"),
    "strings": lambda h: lambda x: getattr(gradlite, str(h.ops[0]))(x),
    "objects": lambda h: lambda x: x * h.objects[0, 1],
    "complex numbers": lambda h: lambda x: x * h.complex[0].real,
    "of a module": lambda h: Layer(h),
}


@pytest.mark.parametrize("name", STEPS)
def test_edits_of_arrays_count(name: str) -> None:
    holder = Holder()
    step = STEPS[name](holder)
    captured = gradlite.capture(step)
    for i in range(2 * CALLS):
        x = gradlite.tensor([1.0, 2.0, 3.0]) + i
        close(captured(x).tolist(), step(x).tolist())
        if i in (5, 6, 11):
            holder.edit()
    assert captured.replays >= 3


def test_a_buffer_that_is_filled_for_every_call_is_replayed() -> None:
    buffer = np.zeros(3, np.float32)

    def step() -> Any:
        return gradlite.tensor(buffer) * 2

    captured = gradlite.capture(step)
    for i in range(CALLS):
        buffer[:] = i
        assert captured().tolist() == [2.0 * i] * 3
    assert captured.replays == CALLS - 3 and captured.recordings == 1


def test_an_array_that_the_step_edits() -> None:
    totals = [np.zeros(3, np.float32) for _ in range(2)]

    def step_of(total: Any) -> Callable[[Any], Any]:
        def step(x: Any) -> Any:
            total[:] = total * 0.5 + 1
            return x + gradlite.tensor(total)

        return step

    step, captured = step_of(totals[0]), gradlite.capture(step_of(totals[1]))
    for i in range(CALLS):
        x = gradlite.full((3,), float(i))
        close(captured(x).tolist(), step(x).tolist())
        np.testing.assert_array_equal(totals[1], totals[0])
    assert captured.replays >= 3
    assert type(totals[1]) is np.ndarray


def test_a_number_that_is_computed_from_an_array_is_refused() -> None:
    row = np.ones(3, np.float32)
    captured = gradlite.capture(lambda x: x * float(row.sum()), warmup=0)
    with pytest.raises(gradlite.CaptureError, match=r"float\(\) reads"):
        captured(gradlite.ones(3))
    assert type(row) is np.ndarray


def test_variables_are_themselves_again_after_a_failing_step() -> None:
    row, holder = np.ones(3, np.float32), Holder()
    before = holder.row, holder.listed[0]

    def step(x: Any) -> Any:
        raise KeyError((row, holder.row, holder.listed))

    captured = gradlite.capture(step, warmup=0)
    with pytest.raises(KeyError):
        captured(gradlite.ones(3))
    assert type(row) is np.ndarray
    assert holder.row is before[0] and holder.listed[0] is before[1]


# ------------------------------------------------------- arrays of the program's own making
MAKERS: list[Callable[[Any], Any]] = [
    lambda x: np.asarray(x),
    lambda x: np.array(x),
    lambda x: np.asarray(x.numpy()),
    lambda x: np.array(x.numpy(), np.float64),
    lambda x: np.array([x, x.numpy() * 2])[1],
    lambda x: np.stack(deque([x.numpy(), x.numpy()]))[1],
    lambda x: np.ascontiguousarray(x.t()),
    lambda x: np.asanyarray(x) * 2,
    lambda x: np.asarray(x, dtype=np.float64).sum(0),
]


@pytest.mark.parametrize("make", MAKERS)
def test_arrays_that_the_program_makes_of_tensors_are_part_of_the_recording(make: Any) -> None:
    """A branch on one counts, and its values are those of every call."""
    w = gradlite.ones(2, 3, device="cpu")

    def step(x: Any) -> Any:
        made = make(x)
        scale = 2 if (make(w) > 5).all() else 3
        return gradlite.from_numpy(np.exp(-made)) * scale

    captured = gradlite.capture(step)
    for i in range(3 * CALLS):
        if i == 2 * CALLS:
            w.fill_(9.0)
        x = gradlite.arange(6.0, device="cpu").reshape(2, 3) + i
        close(captured(x).tolist(), step(x).tolist())
    assert captured.replays >= 2 * CALLS


@pytest.mark.parametrize(
    "read",
    [
        lambda x: float(np.asarray(x).sum()),
        lambda x: np.array(x)[0].tolist(),
        lambda x: bytes(x.numpy().data),
        lambda x: x.numpy().ctypes.data,
        lambda x: pickle.dumps(x),
        lambda x: gradlite.save(x, io.BytesIO()),
        lambda x: x.numpy().tofile(os.devnull),
    ],
)
def test_values_that_reach_the_host_are_refused(read: Any) -> None:
    """Also of what is the same in the calls that are recorded."""
    w = gradlite.ones(3, device="cpu")

    def step(x: Any) -> Any:
        read(w)
        return x * 2

    captured = gradlite.capture(step)
    captured(gradlite.ones(2))
    with pytest.raises(gradlite.CaptureError, match="reads a tensor's value"):
        captured(gradlite.ones(2))


# ------------------------------------------------------------ what NumPy does without a trace
TABLE = (0.5, 1.0, 2.0, 4.0)
UNSEEN: list[Callable[[Any], Any]] = [
    lambda x: np.array(TABLE)[x.numpy()],
    lambda x: np.array(TABLE)[np.asarray(x)],
    lambda x: np.array(TABLE)[x.numpy() + 1 - 1],
    lambda x: np.array(TABLE)[x.numpy()[::-1]],
    lambda x: np.array(TABLE).take(x.numpy()),
    lambda x: np.array(TABLE).searchsorted(x.numpy()) * 1.0,
    lambda x: _filled(np.zeros(3), x.numpy()),
    lambda x: np.from_dlpack(x) * 2,
    lambda x: np.eye(3).dot(x.numpy()),
    lambda x: np.eye(3).dot(x.array),
    lambda x: np.add(x.numpy(), 1.0, out=np.zeros(3)).cumsum(),
]


def _filled(array: Any, values: Any) -> Any:
    array[:] = values
    return array


@pytest.mark.parametrize("look_up", UNSEEN)
def test_values_that_are_looked_up_past_the_recording_are_recorded_anew(look_up: Any) -> None:
    """The same in the calls that are recorded, and others later."""

    def step(x: Any) -> Any:
        other = (x + 1) * 1
        return gradlite.from_numpy(look_up(other - 1)) + other

    captured = gradlite.capture(step)
    values = [[0, 1, 3]] * (2 * CALLS) + [[2, 1, 0]] * (2 * CALLS) + [[0, 1, 3], [3, 3, 3]]
    for value in values:
        x = gradlite.tensor(value, device="cpu")
        close(captured(x).tolist(), step(x).tolist())
    assert captured.recordings == 2
    assert captured.replays == 4 * CALLS - 5 + 1


def test_values_that_are_always_others_are_refused_to_code_that_is_not_recorded() -> None:
    captured = gradlite.capture(lambda x: x + gradlite.from_numpy(_filled(np.zeros(3), x.numpy())))
    with pytest.raises(gradlite.CaptureError, match="code that is not recorded"):
        for _ in range(3 * CALLS):
            captured(gradlite.randn(3, device="cpu"))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="a class may have buffers from there on")
def test_a_buffer_of_an_array_is_refused() -> None:
    row = np.ones(3, np.float32)
    captured = gradlite.capture(lambda x: x * sum(memoryview(row)), warmup=0)
    with pytest.raises(gradlite.CaptureError, match="reads memory by itself"):
        captured(gradlite.ones(3))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="a class may have buffers from there on")
def test_a_digest_of_an_array_is_refused() -> None:
    row = np.ones(3, np.float32)
    captured = gradlite.capture(lambda x: x * hashlib.sha1(row).digest()[0], warmup=0)
    with pytest.raises(gradlite.CaptureError, match="reads memory by itself"):
        captured(gradlite.ones(3))


def test_another_shape_of_the_very_array_counts() -> None:
    row = np.ones(6, np.float32)
    captured = gradlite.capture(lambda x: x + len(row))
    for i in range(2 * CALLS):
        if i == CALLS:
            row.resize((2, 3), refcheck=False)
        assert captured(gradlite.zeros(1)).tolist() == [6 if i < CALLS else 2]
    assert captured.replays > CALLS


def test_an_array_that_can_no_more_be_written_to_counts() -> None:
    row = np.ones(2, np.float32)

    def step(x: Any) -> Any:
        try:
            row[0] = 2.0
        except ValueError:
            return x * 3
        return x * 2

    captured = gradlite.capture(step)
    for i in range(2 * CALLS):
        if i == CALLS:
            row.flags.writeable = False
        assert captured(gradlite.ones(1)).tolist() == [2.0 if i < CALLS else 3.0]
    assert captured.replays > CALLS


class Rows(Dataset):
    def __init__(self) -> None:
        self.rows, self.factor = np.arange(6, dtype=np.float32).reshape(3, 2), 1.0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index] * self.factor


@pytest.mark.parametrize("around", [lambda rows: rows, lambda rows: Subset(rows, [2, 0])])
def test_a_data_set_behind_a_loader_is_looked_into(around: Any) -> None:
    rows = Rows()
    loader = DataLoader(around(rows), batch_size=2)

    def step() -> Any:
        return sum(batch.sum() for batch in loader)

    captured = gradlite.capture(step)
    for i in range(3 * CALLS):
        close(captured().item(), step().item())
        if i == CALLS:
            rows.rows += 1
        if i == 2 * CALLS:
            rows.factor = 3.0
    assert captured.replays > 2 * CALLS


@pytest.mark.parametrize(
    "make",
    [
        lambda row: row.astype(object),
        lambda row: np.frompyfunc(lambda v: v * 2, 1, 1)(row).astype(np.float32),
        lambda row: np.add(row, 1, out=np.zeros(3, object)),
        lambda row: row.astype(str)[0][0],
    ],
)
def test_arrays_of_other_things_than_numbers_are_refused(make: Any) -> None:
    """No replay has memory for Python's objects."""
    row = np.ones(3, np.float32)
    captured = gradlite.capture(lambda x: (make(row), x * 2)[1], warmup=0)
    with pytest.raises(gradlite.CaptureError, match="makes an array of (object|str)"):
        captured(gradlite.ones(3))


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (lambda x, row: x * (_edited(row), float(row[0]))[1], "float.. reads"),
        (lambda x, row: x * (_edited(row[:1]), int(row[0]))[1], "int.. reads"),
        (lambda x, row: x * (float(row[0]), _edited(row))[0], "replaces an array"),
    ],
)
def test_a_number_that_the_step_itself_edits_is_refused(step: Any, told: str) -> None:
    """As of a generator of random numbers, which goes on in every call."""
    row, same, x = np.array([1, 5]), np.array([1, 5]), gradlite.ones(1)
    captured = gradlite.capture(lambda x: step(x, row))
    with pytest.raises(gradlite.CaptureError, match=told):
        for _ in range(CALLS):
            expected = step(x, same).item()
            assert captured(x).item() == expected


def _edited(row: Any) -> None:
    row[0] = (row[0] * 5 + 1) % 8


def test_a_part_of_an_array_that_nobody_follows_is_refused() -> None:
    row = np.ones(3, np.float32)
    captured = gradlite.capture(lambda x: x * row.byteswap()[0], warmup=0)
    with pytest.raises(gradlite.CaptureError, match="byteswap"):
        captured(gradlite.ones(3))


def test_an_array_is_one_to_isinstance_and_its_numbers_are_keys() -> None:
    row, factors = np.array([1, 2]), {1: 2.0, 2: 5.0}

    def step(x: Any) -> Any:
        return x * factors[row[0]] if isinstance(row, np.ndarray) and 2 in row else x

    captured = gradlite.capture(step)
    for i in range(2 * CALLS):
        x = gradlite.ones(2) * i
        assert captured(x).tolist() == step(x).tolist()
        if i == CALLS:
            row[0] = 2
    assert captured.recordings == 2
