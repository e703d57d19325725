"""Random programs of views, in-place ops, modes and backward calls end as in PyTorch.

``GRADLITE_FUZZ_EXAMPLES=2000 pytest tests/test_fuzz.py`` runs more programs, new ones each time.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz_pool import DifferenceError
from tests.fuzz_programs import run_program
from tests.fuzz_writers import WEIGHTS, WRITERS
from tests.library import library
from tests.oracle import torch

EXAMPLES = int(os.environ.get("GRADLITE_FUZZ_EXAMPLES", "0"))
profile = settings(
    max_examples=EXAMPLES or 150,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    print_blob=False,
    phases=[Phase.generate],  # a failing program is reduced line by line instead
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)

numbers = st.integers(0, 63)
every_kind = [name for name, weight in WEIGHTS.items() for _ in range(weight)]


def programs(*names: str) -> st.SearchStrategy:
    """Lists of instructions of these kinds, or of all of them by weight."""
    kinds = st.sampled_from(["nothing", *(names or every_kind)])
    return st.lists(st.tuples(kinds, numbers, numbers, numbers, numbers), min_size=18, max_size=40)


@profile
@given(programs())
def test_any_program(program):
    run_program(program, torch, library)


@profile
@given(programs("leaf", "unary", "binary", "matmul", "reduction", "join", "gathered", "backward"))
def test_programs_without_views(program):
    run_program(program, torch, library)


@profile
@given(programs("view", "view", "update", "update", "assignment", "unary", "binary", "backward"))
def test_programs_of_views_and_in_place_ops(program):
    run_program(program, torch, library)


@profile
@given(
    programs(
        *("view", "update", "assignment", "binary", "backward", "alias", "requires_grad"),
        *("view_without_grad", "value_without_grad", "update_without_grad", "detach_in_place"),
    )
)
def test_programs_with_modes_and_aliases(program):
    run_program(program, torch, library)


@profile
@given(programs("view", "update", "unary", "binary", "gradient", "second_gradient", "retain_grad"))
def test_programs_of_higher_gradients(program):
    run_program(program, torch, library)


@profile
@given(
    programs(
        *("leaf_of_another_dtype", "leaf_of_another_dtype", "conversion", "unary", "binary"),
        *("view", "reduction", "join", "gathered", "update", "update", "assignment", "backward"),
    )
)
def test_programs_of_mixed_dtypes(program):
    run_program(program, torch, library)


def test_the_generator_is_productive():
    """Most lines run, every kind runs, and most gradients that arrive at leaves are not zero."""
    counts: Counter[str] = Counter()

    @settings(profile, max_examples=150, derandomize=True)
    @given(programs(*every_kind, *(name for name, weight in WEIGHTS.items() if weight == 0)))
    def collect(program):
        counts.update(run_program(program, torch, torch).counts)

    collect()
    run = sum(count for name, count in counts.items() if name.endswith(" runs"))
    failed = sum(count for name, count in counts.items() if name.endswith(" fails"))
    assert run > 4 * failed
    for name in WRITERS.keys() - {"nothing"}:
        assert counts[f"{name} runs"] > 0, f"no {name} ever runs"
    assert counts["backward runs"] > 20
    assert counts["leaf gradients that are not zero"] > 50


def test_the_comparison_finds_a_planted_difference():
    class Broken:
        """PyTorch with an `add` whose result is slightly off."""

        def __getattr__(self, name):
            return getattr(torch, name)

        @staticmethod
        def add(x, y, *, alpha):
            return torch.add(x, y, alpha=alpha) + 1e-8

    with pytest.raises(DifferenceError, match="PyTorch"):
        run_program([("binary", 0, 6, 0, 0)], torch, Broken())
