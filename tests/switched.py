"""What a program launches with the variable that switches compiled code on and off."""

from __future__ import annotations

import os
import subprocess
import sys


def launched(code: str, native: str) -> str:
    """What a program prints as ``found``, the names of compiled functions that it has called.

    Args:
        code: statements, with gradlite at hand.
        native: the value of ``GRADLITE_NATIVE``.
    """
    program = (
        "import gradlite; from gradlite.backends import launches;"
        f"names = launches.record(); found = names.__enter__(); {code}; print(found)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True,
        env={**os.environ, "GRADLITE_NATIVE": native},
    )  # fmt: skip
    return done.stdout.strip()
