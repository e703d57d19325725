"""The README's tables of speeds, from the newest results of `benchmarks.training`.

python -m benchmarks.table            # prints them
python -m benchmarks.table --write    # puts them in the README
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import RESULTS

README = Path(__file__).parents[1] / "README.md"
MARKS = {
    "cpu": ("<!-- speed table: python -m benchmarks.table --write -->", "<!-- end of table -->"),
    "cuda": ("<!-- table of a GPU: as above -->", "<!-- end of the GPU's table -->"),
}
NAMES = {
    "W1": "MLP 2-16-16-1, batch 32, SGD",
    "W2": "MLP 64-128-128-10, batch 64, Adam",
    "W3": "MLP 784-256-128-10, batch 128, Adam",
    "3m": "the same, images with black backgrounds",
    "W4": "CNN 16-32 on 28x28, batch 64, Adam",
    "W5": "character GPT 2x64, batch 8, AdamW",
    "5m": "the same, attention written out",
    "W6": "character LSTM 128, batch 16, Adam",
    "6g": "character GRU 128, batch 16, Adam",
}
MODES = {"eager": "as it is", "array-calls": "captured, array calls", "captured": "captured"}
OTHERS = {"torch.compile": "torch.compile", "jax": "JAX jit"}


def newest(device: str = "cpu") -> dict[str, Any]:
    """The newest results of training steps on a device, by the date in them."""
    every = [
        json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("training-*.json"))
    ]
    own: list[dict[str, Any]] = [r for r in every if r.get("device", "cpu") == device]
    return max(own, key=lambda r: r["machine"]["date"])  # type: ignore[no-any-return]


def table(results: dict[str, Any]) -> str:
    """Ratios to the reference as Markdown, with what they were measured on."""
    machine = results["machine"]
    ratios: dict[str, dict[str, float]] = {}
    for row in results["results"]:
        found = ratios.setdefault(row["workload"], {})
        found[row["mode"]] = row["ratio"]
        for name, other in row.get("others", {}).items():
            found[name] = other["reference_ratio"]
            found[f"{row['mode']} / {name}"] = other["ratio"]
    names = {**MODES, **OTHERS, "captured / jax": "captured / JAX jit"}
    columns = [c for c in names if any(c in found for found in ratios.values())]
    versions = [("PyTorch", "torch"), ("JAX", "jax"), ("NumPy", "numpy"), ("CuPy", "cupy")]
    card = f"{machine['card']} beside " if "card" in machine else ""
    lines = [
        f"Measured on {machine['date']} ({card}{machine['processor']}, {machine['cores']} cores, "
        + ", ".join(f"{name} {machine[key]}" for name, key in versions if key in machine)
        + f"), {machine['threads']} thread each, "
        f"{'time on the processor' if results['clock'] == 'cpu' else 'wall time'}"
        + (
            f", others on the machine (load {machine['load']})"
            if machine.get("load", 0) > 1.5
            else ""
        )
        + ":",
        "",
        "| training step | " + " | ".join(names[c] for c in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for name, found in ratios.items():
        cells = " | ".join(f"{found[c]:.2f}" if c in found else "" for c in columns)
        lines.append(f"| {NAMES[name]} | {cells} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table")
    parser.add_argument("--write", action="store_true", help="put it in the README")
    write = parser.parse_args(argv).write
    for device, (begin, end) in MARKS.items():
        made = table(newest(device))
        if not write:
            print(made + "\n")
            continue
        before, rest = README.read_text("utf-8").split(begin)
        README.write_text(f"{before}{begin}\n{made}\n{end}{rest.split(end)[1]}", "utf-8")


if __name__ == "__main__":
    main()
