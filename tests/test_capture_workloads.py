"""The memory of the benchmarks' training steps, captured: no more than as they are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

import gradlite
from benchmarks.memory import allocated
from gradlite.capturing import plan as plans
from gradlite.capturing.native.build import available

compiled = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")
KIB = 1 / 1024  # in MiB
# What NumPy takes within a call to spread a small operand, where eager is not at its highest point.
WITHIN = 8 * KIB


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    """Nothing is traced behind a test."""
    yield
    tracemalloc.stop()


def arrays(name: str, mode: str) -> float:
    """MiB of arrays at the highest point of a step."""
    found = allocated(gradlite, name, mode)["arrays"]
    tracemalloc.stop()
    return found


@compiled
@pytest.mark.parametrize("name", ["W1", "W2", "W3", "W4", "W5", "5m"])
def test_compiled_steps_take_no_more_than_eager(name: str) -> None:
    assert arrays(name, "captured") <= arrays(name, "eager") + KIB


@compiled  # NumPy's own products are followed by a call that adds the bias, which takes more
@pytest.mark.parametrize("name", ["W1", "W2", "W3", "W4"])
def test_array_calls_take_no_more_than_eager(name: str) -> None:
    assert arrays(name, "array-calls") <= arrays(name, "eager") + WITHIN


@compiled
def test_another_order_is_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    ordered = arrays("W5", "captured")
    monkeypatch.setattr(plans, "ordered", lambda calls, *rest: calls)
    assert arrays("W5", "captured") > ordered + 500 * KIB
