"""BLAS threads during a run."""

from __future__ import annotations

import pytest

from gradlite.cli import threads
from gradlite.cli.trainer import Trainer
from tests.cli.conftest import Cli

threadpoolctl = pytest.importorskip("threadpoolctl")


def blas_threads() -> set[int]:
    return {
        pool["num_threads"]
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    }


@pytest.mark.parametrize(("variable", "expected"), [(None, 1), ("2", 2)])
def test_a_run_uses_one_thread_unless_told_otherwise(
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    text_file: object,
    variable: str | None,
    expected: int,
) -> None:
    pytest.importorskip("sklearn")
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    seen: list[set[int]] = []
    original = Trainer.train_epoch

    def train_epoch(self: Trainer, *arguments: object) -> bool:
        seen.append(blas_threads())
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "train_epoch", train_epoch)
    with threadpoolctl.threadpool_limits(2, "blas"):
        options = ("--model", "gru", "--steps", 1)
        assert cli("train", "--data", f"text:{text_file}", *options).code == 0
        assert blas_threads() == {2}
    assert seen == [{expected}]
