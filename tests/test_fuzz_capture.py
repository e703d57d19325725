"""Random captured steps do what they do without capture.

``GRADLITE_FUZZ_EXAMPLES=2000 pytest tests/test_fuzz_capture.py`` runs more of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import gradlite
from gradlite.capturing import carried, effects, plan, surroundings
from gradlite.capturing.native.build import available
from tests import cublaslt_stand_in, cupy_stand_in, fuzz_surroundings
from tests.cuda_on_cpu import compiler
from tests.fuzz_steps import Program, difference, reduced, written

EXAMPLES = int(os.environ.get("GRADLITE_FUZZ_EXAMPLES", "0")) or 60
compiled = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")


def search(
    native: bool, examples: int, chosen: Callable[[Program], bool] = lambda program: True
) -> tuple[str | None, Counter[str]]:
    counts: Counter[str] = Counter()
    for seed in range(examples):
        program = written(seed)
        if program is None or not chosen(program):
            continue
        found = difference(program, native, counts)
        if found is not None:
            return f"seed {seed}: {reduced(program, native, found)}", counts
    return None, counts


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=compiled)])
def test_any_step(native: bool) -> None:
    examples = EXAMPLES // 3 if native else EXAMPLES  # most of the time goes to the compiler
    found, counts = search(native, examples)
    assert found is None, found
    assert counts["steps"] > examples // 2, counts
    assert counts["replays"] > 4 * counts["steps"], counts


def test_any_step_that_goes_on_from_the_last_call_as_a_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    programs = [p for seed in range(1, EXAMPLES // 2, 2) if (p := written(seed)) is not None]
    cupy_stand_in.install(monkeypatch)
    cublaslt_stand_in.install(monkeypatch)
    counts: Counter[str] = Counter()
    gradlite.set_default_device("cuda")
    try:
        found = [difference(p, False, counts) for p in programs if "carried" in p.roles]
    finally:
        gradlite.set_default_device(None)
    assert [text for text in found if text is not None] == []
    assert counts["replays"] > 4 * counts["steps"] > 0, counts


def test_gradients_that_are_not_put_in_their_places_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "placed_grads", lambda call, place: [])
    found, _ = search(False, 60)
    assert found is not None and ".step()" in found


def test_edits_of_inputs_that_are_forgotten_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(self: Any, given: Any) -> None:
        """As if nothing had been done to the inputs."""

    monkeypatch.setattr(effects.InputEffects, "hand_on", forget)
    assert search(False, 60)[0] is not None


def test_states_that_stay_in_the_memory_of_a_replay_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bind = carried.Carried.bind

    def without_copies(self: Any, place_of: Any) -> None:
        bind(self, place_of)
        self._placed = [(array, True, parts) for array, _, parts in self._placed]

    monkeypatch.setattr(carried.Carried, "bind", without_copies)
    found, _ = search(False, 60)
    assert found is not None and "state[" in found


def test_states_that_are_not_fetched_anew_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    there, first = carried.Carried.found, dict[int, Any]()

    def once(self: Any) -> Any:
        return first.setdefault(id(self), there(self))

    monkeypatch.setattr(carried.Carried, "found", once)
    # Data that are given anew go the same way, and are found too: here those without any.
    found, _ = search(False, 120, lambda program: "given" not in program.roles)
    assert found is not None and "state[" in found


def other_results(examples: int) -> list[str]:
    found = map(fuzz_surroundings.difference, range(examples))
    return [text for text in found if text is not None]


@pytest.mark.filterwarnings("ignore:this captured step has been recorded")
def test_any_way_to_a_number_that_changes() -> None:
    assert other_results(2 * EXAMPLES) == []


@pytest.mark.filterwarnings("ignore:this captured step has been recorded")
def test_changes_that_are_not_looked_at_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings.Surroundings, "unchanged", lambda self: True)
    assert other_results(60)
