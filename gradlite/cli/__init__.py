"""The command line: ``python -m gradlite train`` and ``python -m gradlite info``."""

from gradlite.cli.main import main

__all__ = ["main"]
