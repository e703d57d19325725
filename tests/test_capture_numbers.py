"""Captured steps that take Python's numbers from lists, which programs edit between the calls."""

from __future__ import annotations

from typing import Any

import pytest

import gradlite
from gradlite import nn


@pytest.mark.parametrize("numbers", [[5.0, 3.0], [[5.0, 3.0]], {5.0, 3.0}, {"a": [5.0, 3.0]}])
def test_numbers_in_a_list_are_edited(numbers: Any) -> None:
    def flat(value: Any) -> list[float]:
        value = value["a"] if isinstance(value, dict) else value
        return flat(value[0]) if isinstance(value, list) and value[0].__class__ is list else value

    step = gradlite.capture(lambda x: sum(x * number for number in flat(numbers)))
    x = gradlite.ones(2)
    for _ in range(6):
        assert step(x).tolist() == [8.0, 8.0]
    assert step.replays == 3
    edited = flat(numbers)
    edited.append(4.0) if isinstance(edited, list) else edited.add(4.0)
    for _ in range(4):
        assert step(x).tolist() == [12.0, 12.0]
    edited.remove(4.0)
    assert step(x).tolist() == [8.0, 8.0]
    assert step.replays > 3


def test_sequences_are_packed_by_lengths_in_a_list() -> None:
    lengths, lstm = [5, 3, 2], nn.LSTM(3, 4, batch_first=True)

    def run(x: Any) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        padded, _ = nn.utils.rnn.pad_packed_sequence(lstm(packed)[0], batch_first=True)
        return padded.square().sum()

    step = gradlite.capture(run)
    for number in range(12):
        x = gradlite.randn(3, 5, 3)
        assert step(x).item() == pytest.approx(run(x).item(), rel=1e-5)
        if number == 5:
            lengths[1] = 4
    assert step.replays == 3 + 4
