"""Time and memory of ``import gradlite``, beside NumPy alone and PyTorch.

    python -m benchmarks.imports [--rounds 15] [--json PATH]

Every measurement is a fresh interpreter; the bare interpreter's time is subtracted.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks import timing

NO_CACHE = ("PYTHONDONTWRITEBYTECODE",)
MODULES = ("numpy", "gradlite", "torch")
RESIDENT = "\nprint(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmRSS')))"


def environment() -> dict[str, str]:
    """The environment with bytecode caches on, which installed packages have anyway."""
    return {name: value for name, value in os.environ.items() if name not in NO_CACHE}


def seconds_for(code: str) -> float:
    """Wall time of a fresh interpreter that runs `code`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())
    return time.perf_counter() - start


def resident_mib(code: str) -> float:
    """Resident memory of a fresh interpreter after `code`, in MiB (Linux)."""
    command = [sys.executable, "-c", code + RESIDENT]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(output) / 1024


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports")
    parser.add_argument("--rounds", type=int, default=15, help="interpreters per module")
    parser.add_argument("--json", metavar="PATH", help="also write the results to PATH")
    options = parser.parse_args(argv)
    timing.restart_with_threads("benchmarks.imports", 1)
    modules = [name for name in MODULES if importlib.util.find_spec(name)]
    codes = {"": "pass", **{name: f"import {name}" for name in modules}}
    for code in codes.values():
        seconds_for(code)  # fills the disk cache and writes bytecode
    seconds: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(options.rounds):
        for name, code in codes.items():
            seconds[name].append(seconds_for(code))
    bare = statistics.median(seconds[""])
    memory = {name: resident_mib(code) for name, code in codes.items()}
    results = [
        {
            "module": name,
            "ms": (statistics.median(seconds[name]) - bare) * 1000,
            "resident_mib": memory[name] - memory[""],
        }
        for name in modules
    ]
    facts = timing.machine(1, [])
    print(timing.describe(facts) + "\n")
    rows = [
        [f"import {r['module']}", f"{r['ms']:.0f}", f"{r['resident_mib']:.0f}"] for r in results
    ]
    print(timing.table(["over the bare interpreter", "ms", "MiB"], rows))
    if options.json:
        payload = {"benchmark": "imports", "machine": facts, "results": results}
        print(f"\nwritten: {timing.write_json(options.json, payload).name}")


if __name__ == "__main__":
    main()
