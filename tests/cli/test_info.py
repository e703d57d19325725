"""``python -m gradlite info``."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import gradlite
from gradlite.backends import cuda, native
from gradlite.cli import info
from tests.cli.conftest import Cli


def test_info_names_versions_and_devices(cli: Cli) -> None:
    result = cli("info")
    assert (result.code, result.err) == (0, "")
    lines = {line[:13].strip(): line[13:] for line in result.out.splitlines() if line[0] != " "}
    assert lines["gradlite"] == gradlite.__version__
    assert lines["python"].startswith(sys.version.split()[0])
    assert lines["numpy"].startswith(f"{np.__version__} (BLAS")
    assert lines["devices"] == f"cpu ({os.cpu_count()} cores)"


def test_info_says_what_cuda_needs(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "status", lambda: (False, "no NVIDIA driver was found"))
    out = cli("info").out
    assert "no cuda" in out and "for CUDA     no NVIDIA driver was found\n" in out


def test_info_lists_the_gpus(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"name": b"NVIDIA H200", "totalGlobalMem": 139 * 2**30}
    runtime = SimpleNamespace(getDeviceCount=lambda: 2, getDeviceProperties=lambda number: gpu)
    monkeypatch.setattr(cuda, "status", lambda: (True, ""))
    monkeypatch.setattr(
        cuda, "module", lambda: SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))
    )
    monkeypatch.setitem(sys.modules, "nvmath", None)
    out = cli("info").out
    assert "products     CuPy (nvmath-python is not installed), not capturable\n" in out
    assert "cuda:0 (NVIDIA H200, 139 GiB)\n" in out and "cuda:1 (" in out
    assert "for CUDA" not in out


def test_info_says_what_is_not_installed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "version", lambda package: None)
    out = cli("info").out
    assert "cupy         not installed" in out
    assert out.count('not installed: pip install "gradlite[examples]"') == 4


def test_info_names_the_compiler(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLITE_NATIVE", "0")
    assert "\ncompiler     not used: GRADLITE_NATIVE is 0\n" in cli("info").out
    monkeypatch.delenv("GRADLITE_NATIVE")
    monkeypatch.setattr(info.native, "compiler", lambda: None)
    assert "\ncompiler     not found: with g++" in cli("info").out
    monkeypatch.setattr(info.native, "compiler", lambda: "a compiler")
    monkeypatch.setattr(info.native, "launcher", lambda: None)
    assert "\ncompiler     a compiler, but it does not work" in cli("info").out
    monkeypatch.setattr(info.native, "launcher", object)
    folder = native.cache_folder()
    assert f"\ncompiler     a compiler, compiled code is kept in {folder}\n" in cli("info").out
