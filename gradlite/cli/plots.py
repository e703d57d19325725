"""The learning curves of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradlite.cli.files import writing
from gradlite.cli.metrics import Row
from gradlite.io.files import replacing

COLORS = {"train": "#7a8ca3", "validation": "#d1495b"}
INK = "#22303f"
GRID = "#e3e8ee"


def draw(path: Path, history: list[Row], title: str, text: bool) -> None:
    """Draw loss and accuracy over the epochs, training and held-out side by side.

    Args:
        path: the PNG file to write.
        history: the rows of ``metrics.csv``.
        title: what the run was and how well it ended.
        text: the run modelled text, whose loss is in nats per character.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    figure.suptitle(title, fontsize=13, fontweight="bold", color=INK)
    unit = " (nats per character)" if text else " (cross-entropy)"
    _curves(loss, history, "loss", ".3f", 1.0)
    loss.set_ylabel("Loss" + unit, color=INK)
    values = [row[f"{part}_loss"] for row in history for part in COLORS]
    if min(values) > 0 and max(values) / min(values) > 20:
        loss.set_yscale("log")
        loss.set_ylabel(f"Loss{unit[:-1]}, log scale)", color=INK)
    _curves(accuracy, history, "accuracy", ".2f", 100.0)
    accuracy.set_ylabel("Accuracy (%)", color=INK)
    figure.supxlabel(
        "Epoch (train: mean over the epoch while training; validation: held-out data after it)",
        fontsize=10,
        color=INK,
    )
    with writing(path), replacing(path) as unfinished:
        figure.savefig(unfinished, format="png")


def _curves(axes: Any, history: list[Row], quantity: str, final: str, scale: float) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in history]
    for part, color in COLORS.items():
        values = [scale * row[f"{part}_{quantity}"] for row in history]
        marker = "o" if len(epochs) <= 40 else ""
        label = f"{part}, at the end {values[-1]:{final}}"
        axes.plot(epochs, values, color=color, marker=marker, ms=4, lw=2, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, labelcolor=INK)
    axes.tick_params(colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
