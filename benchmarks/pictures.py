"""Pictures of results: a bar for each ratio to the library that is compared with.

    python -m benchmarks.pictures RESULTS.json

`benchmarks.training` and `benchmarks.ops` draw theirs with ``--json``, beside the results, where
matplotlib is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Bars = dict[str, dict[str, float]]  # of each group, the ratios by what they are of


def of_training(results: Sequence[dict[str, Any]]) -> Bars:
    """Each workload's ratios: gradlite's modes, then the other libraries."""
    groups: Bars = {}
    for row in results:
        group = groups.setdefault(row["workload"], {})
        group[f"gradlite, {row['mode']}"] = row["ratio"]
    for row in results:
        for name, other in row.get("others", {}).items():
            groups[row["workload"]][name] = other["reference_ratio"]
    return groups


def of_ops(results: Sequence[dict[str, Any]]) -> Bars:
    """Each op's ratios in each mode at the largest size."""
    largest = max(row["elements"] for row in results)
    groups: Bars = {}
    for row in (r for r in results if r["elements"] == largest):
        group = groups.setdefault(row["op"], {})
        group[f"gradlite, {row['mode']}"] = row["ratio"]
    for row in (r for r in results if r["elements"] == largest):
        for name, other in row.get("others", {}).items():
            groups[row["op"]][name] = other["reference_ratio"]
    return groups


BARS = {"training": of_training, "ops": of_ops}


def beside(results: Path) -> list[str]:
    """Draw a file of results into a picture of the same name, and give that; [] without."""
    payload = json.loads(results.read_text("utf-8"))
    if not all("ratio" in row for row in payload["results"]):
        return []  # compared with nothing
    if importlib.util.find_spec("matplotlib") is None:
        print("\nno picture: matplotlib is not installed")
        return []
    path = results.with_suffix(".png")
    draw(payload, path)
    return [path.name]


def draw(payload: dict[str, Any], path: Path) -> None:
    """A group of bars for each workload or op, on a logarithmic scale; 1 is the reference."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = BARS[payload["benchmark"]](payload["results"])
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    height = 0.8 / len(names)
    figure, panel = pyplot.subplots(
        figsize=(8, 1.2 + 0.22 * len(names) * len(groups)), layout="constrained"
    )
    for number, name in enumerate(names):
        places = [i for i, group in enumerate(groups.values()) if name in group]
        values = [group[name] for group in groups.values() if name in group]
        at = [i + (number - (len(names) - 1) / 2) * height for i in places]
        bars = panel.barh(at, values, height * 0.92, label=name, color=f"C{number}")
        panel.bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=7)
    panel.axvline(1.0, color="black", lw=1)
    panel.set_xscale("log")
    panel.margins(x=0.12, y=0.01)
    low, high = panel.get_xlim()
    ticks = [t for t in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0) if low <= t <= high]
    panel.set_xticks(ticks, [f"{t:g}" for t in ticks])
    panel.minorticks_off()
    panel.set_yticks(range(len(groups)), list(groups))
    panel.invert_yaxis()
    machine = payload["machine"]
    of = "step" if payload["benchmark"] == "training" else "op, forward and backward"
    panel.set_xlabel(
        f"time of a {of} over PyTorch {machine.get('torch', '')} eager, {machine['threads']} "
        f"thread each ({machine['processor']}, {machine['date']})",
        fontsize=8,
    )
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures")
    parser.add_argument("results", type=Path, help="a JSON file of benchmarks.training or .ops")
    for name in beside(parser.parse_args(argv).results):
        print(f"written: {name}")


if __name__ == "__main__":
    main()
