"""Where a run may write, and what it says when it may not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from gradlite.cli.errors import UserError, because


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the failure to write ``path`` into a UserError that names it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {because(error)}") from error


def prepare_folder(folder: Path) -> None:
    """Make the folder where it is missing and see that files can be written there.

    Raises:
        UserError: they cannot.
    """
    probe = folder / f".{os.getpid()}.probe"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
