"""How often a training step launches what: a change of the checked-in table is deliberate."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import cublaslt_stand_in, cupy_stand_in, launches
from tests.cuda_on_cpu import compiler

TABLE = json.loads(launches.PATH.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    cupy = cupy_stand_in.install(monkeypatch)
    cublaslt_stand_in.install(monkeypatch)
    return cupy


@pytest.mark.parametrize("name", [*launches.MODELS, *launches.OPS])
def test_a_step_launches_what_the_table_says(name: str) -> None:
    changed = launches.difference(TABLE[name], launches.counted(name))
    assert not changed, "\n".join(
        [f"{name} launches otherwise (python -m tests.launches rewrites the table):", *changed]
    )


def test_differences_are_listed_by_name() -> None:
    was = {"kernels": {"a": 1, "b": 2}, "calls": {}}
    now = {"kernels": {"b": 3, "c": 1}, "calls": {}}
    assert launches.difference(was, now) == [
        "kernels: a 1 -> 0", "kernels: b 2 -> 3", "kernels: c 0 -> 1",
    ]  # fmt: skip
    assert launches.difference(was, was) == []
