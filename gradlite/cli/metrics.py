"""What a run reports after each epoch: a line on the screen and a row of ``metrics.csv``."""

from __future__ import annotations

import csv
from pathlib import Path

from gradlite.cli.files import writing
from gradlite.io.files import replacing

Row = dict[str, float]
COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
)


def write(path: Path, history: list[Row]) -> None:
    """Write the rows of all epochs so far.

    The file is written anew each time, so a run that stopped between two files and was resumed
    leaves neither a gap nor a duplicate.
    """
    with (
        writing(path),
        replacing(path) as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8") as file,
    ):
        rows = csv.DictWriter(file, COLUMNS)
        rows.writeheader()
        rows.writerows(history)


def line(row: Row, epochs: int, speed: str) -> str:
    """The row as one line to read."""
    epoch = f"{row['epoch']:.0f}".rjust(len(str(epochs)))
    return (
        f"epoch {epoch}/{epochs}  loss {row['train_loss']:.4f}  "
        f"accuracy {row['train_accuracy']:6.2%}  validation loss {row['validation_loss']:.4f}  "
        f"accuracy {row['validation_accuracy']:6.2%}  {speed}"
    )
