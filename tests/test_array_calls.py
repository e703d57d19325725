"""What each op asks of a GPU: no more than the checked-in table says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gradlite.ops.table import TABLE
from tests import array_calls, cublaslt_stand_in, cupy_stand_in
from tests.cuda_on_cpu import compiler

LINES = json.loads(array_calls.PATH.read_text(encoding="utf-8"))


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    cupy = cupy_stand_in.install(monkeypatch)
    cublaslt_stand_in.install(monkeypatch)
    return cupy


@pytest.mark.parametrize("name", sorted(TABLE))
def test_an_op_asks_for_no_more_than_the_table_says(name: str, cupy: Any) -> None:
    now, most = array_calls.text(array_calls.of_op(name)), LINES.get(name, "")
    assert not array_calls.more(now, most), (
        f"{name} asks for more (python -m tests.array_calls rewrites the table):\n{most}\n{now}"
    )


def test_the_table_has_no_other_ops() -> None:
    assert LINES.keys() == TABLE.keys()


def test_more_is_more_launches_or_more_that_waits() -> None:
    line = "2*add asarray of host kernel:a | read:bool"
    for now in ("add add", "4*add kernel:a", "", line):
        assert not array_calls.more(now, line)
    for now in ("6*add", "2*read:bool", "2*asarray of host", "add | read:bool read:get"):
        assert array_calls.more(now, line)
