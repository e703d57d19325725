"""Every planted bug is caught: the tests of kernels see what they are there to see."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gradlite.backends.kernel_source import index
from tests.cuda_on_cpu import compiler
from tests.kernels.mutants import MUTANTS
from tests.kernels.mutation import Mutant, caught, key_of, noticed

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs Linux and g++")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}: {m.bug}")
def test_a_planted_bug_is_caught(mutant: Mutant) -> None:
    assert caught(mutant) is not None


def test_every_file_has_mutants() -> None:
    touched = {Path(mutant.file).stem for mutant in MUTANTS if mutant.launch is None}
    files = {Path(kernel.file).stem for kernel in index().values()}
    assert files <= touched | {"activation"}


def test_a_bug_that_is_none_is_not_caught() -> None:
    harmless = Mutant("another order", "columns.cu", "total += widen(in[i])",
                      "total = widen(in[i]) + total")  # fmt: skip
    assert caught(harmless) is None


def test_without_pytorch_a_bug_that_it_alone_shows_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (shown,) = [mutant for mutant in MUTANTS if mutant.bug == "products overflow"]
    with pytest.raises(pytest.skip.Exception, match="compare with PyTorch"):
        caught(shown)
    (other,) = [mutant for mutant in MUTANTS if mutant.bug == "all lanes write a distance"]
    assert caught(other) is not None


@pytest.mark.parametrize("last", ["test_columns::test_no_such[f32]", "test_softmax::test_the_last"])
def test_another_test_may_notice_it_than_the_last_time(
    last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.bug == "all lanes write a distance"]
    monkeypatch.setitem(noticed(), key_of(mutant), last)
    assert caught(mutant) is not None


def test_a_text_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="not once in softmax.cu"):
        caught(Mutant("", "softmax.cu", "no such text", ""))
    with pytest.raises(ValueError, match="not once in softmax.cu"):
        caught(Mutant("", "softmax.cu", "team", ""))


def test_a_mutant_that_does_not_compile_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="unknown"):
        caught(Mutant("", "columns.cu", "sum[0] += value;", "sum[0] += unknown;"))
