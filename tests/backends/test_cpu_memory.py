"""What the C library does with the memory of freed arrays."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from gradlite.backends import cpu

# Page faults of making and dropping eight arrays of a megabyte, ten times over.
PROGRAM = """
import resource
import numpy as np
import gradlite

def step():
    arrays = [np.ones(1 << 20, np.uint8) for _ in range(8)]

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**variables: str) -> int:
    environment = {k: v for k, v in os.environ.items() if k not in cpu._DECIDED_BY}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env=environment | variables,
    )
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's malloc that is told")
def test_the_memory_of_a_step_stays_for_the_next_one() -> None:
    assert faults() < 1000
    # Each of the 8 MiB in each of the ten rounds, page by page.
    assert faults(MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536") > 10000


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in cpu._DECIDED_BY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu.ctypes, "CDLL", lambda _: object())
    assert not cpu.keep_memory()


def test_the_user_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not cpu.keep_memory()
