"""The checkpoint of a run: everything that the rest of the run depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradlite import io
from gradlite.cli.errors import UserError, because
from gradlite.cli.files import writing

NAME = "checkpoint"
FORMAT = "gradlite training run 1"


def write(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint by one of that state."""
    path = folder / NAME
    with writing(path):
        io.save({"format": FORMAT, **state}, path)


def read(folder: Path) -> dict[str, Any]:
    """The state in the folder's checkpoint, its tensors on the CPU.

    Raises:
        UserError: there is none, or it is damaged or something else.
    """
    path = folder / NAME
    if not path.exists():
        raise UserError(f"nothing to resume: there is no {path}")
    try:
        state = io.load(path, map_location="cpu")
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} is not a readable checkpoint: {because(error)}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of gradlite train")
    return state
