"""Kernels on the CPU: compiled by the system's compiler, cached, absent where they cannot be."""

from __future__ import annotations

import ctypes
import locale
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels, native
from gradlite.ops.namespaces import NAMESPACES

ANSWER = 'extern "C" long long answer() { return ANSWER; }\n'


def library(name: str, text: str, options: tuple[str, ...] = ()) -> Any:
    return ctypes.CDLL(str(native.build(name, text, options)))


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    if native.compiler() is None:
        pytest.skip("there is no C++ compiler here")
    monkeypatch.setenv("GRADLITE_CACHE", str(tmp_path))
    return tmp_path


def test_a_text_is_compiled_once_and_again_when_anything_changes(folder: Path) -> None:
    first = library("answer", ANSWER, ("-DANSWER=42",))
    (built,) = folder.glob("answer-*.so")
    when = os.stat(built).st_mtime_ns
    assert first.answer() == 42
    assert library("answer", ANSWER, ("-DANSWER=42",)).answer() == 42
    assert os.stat(built).st_mtime_ns == when and list(folder.iterdir()) == [built]
    assert library("answer", ANSWER, ("-DANSWER=43",)).answer() == 43
    assert library("answer", ANSWER + "\n", ("-DANSWER=44",)).answer() == 44
    assert len(list(folder.glob("answer-*.so"))) == 3


def test_what_does_not_compile_says_why_and_leaves_nothing(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)wrong does not compile with .*error: "):
        library("wrong", "no C++ at all")
    assert list(folder.iterdir()) == []


def test_a_locale_without_such_letters_does_not_matter(folder: Path) -> None:
    """Programs of text may set one; the sources of kernels have letters of their own."""
    before = locale.setlocale(locale.LC_ALL)
    locale.setlocale(locale.LC_ALL, "C")
    try:
        assert library("answer", "// x² und ß\n" + ANSWER, ("-DANSWER=42",)).answer() == 42
        with pytest.raises(RuntimeError, match="does not compile"):
            library("wrong", "ß is no C++")
    finally:
        locale.setlocale(locale.LC_ALL, before)


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compiler", lambda: None)


def broken_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compiler", lambda: "/bin/false")


def without_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLITE_CACHE", "/dev/null/none")


def switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLITE_NATIVE", "0")


@pytest.mark.parametrize(
    "situation", [without_compiler, broken_compiler, without_cache, switched_off]
)
def test_without_what_it_takes_there_is_no_launcher(
    folder: Path, situation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    situation(monkeypatch)
    assert native.launcher.__wrapped__() is None


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADLITE_CACHE", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert native.cache_folder() == Path("/x/gradlite")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert native.cache_folder() == Path("/home/somebody/.cache/gradlite")


def test_ops_run_natively_on_request() -> None:
    launcher = native.launcher()
    if launcher is None:
        pytest.skip("kernels cannot be compiled here")
    namespace = NAMESPACES[np.ndarray]
    x = gradlite.randn(6, 9, dtype=gradlite.float64, requires_grad=True)
    weight = gradlite.randn(6, 9, dtype=gradlite.float64)

    def run() -> list[Any]:
        y = gradlite.log_softmax(x, 1)
        return [y, *gradlite.autograd.grad((y * weight).sum(), x)]

    expected = run()
    namespace.use(launcher)
    try:
        with kernels.record() as names:
            actual = run()
    finally:
        namespace.use(None)
    softmax = [name for name in names if "softmax" in name]
    assert softmax == ["log_softmax_forward", "log_softmax_backward"]
    for a, b in zip(actual, expected):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1,), "wrong number of arguments"),
        (([1.0], None, 0, 1.0), "takes an array of NumPy or None"),
        ((None, 7, 0, 1.0), "takes an array of NumPy or None"),
        ((None, None, 0.5, 1.0), "'float' object cannot be interpreted as an integer"),
        ((None, None, 0, "1"), "must be real number, not str"),
    ],
)
def test_what_a_kernel_cannot_take_is_refused(
    folder: Path, arguments: tuple[Any, ...], message: str
) -> None:
    probe = native._function(native.callable_from_python("probe", native.PROBE, ["probe"]), "probe")
    with pytest.raises(TypeError, match=message):
        probe(arguments)
