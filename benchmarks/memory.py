"""Peak memory of evaluation without grad and of training, as it is and captured, beside PyTorch.

    python -m benchmarks.memory [--libraries gradlite,torch] [--workloads W1,W5] [--json PATH]

Every figure comes from a fresh process (Linux only: it reads ``/proc/self``):

* evaluation: the peak over the resting level of a 50-layer network under ``no_grad``, in units
  of one layer's activations. About 2 when nothing is kept alive, about 50 when all of it is.
* training: the resident memory over that after the import, at the highest point of the last ten
  steps; model, optimizer, batches, and what the library loads as it goes, included. "growth" is
  that of the resident memory from the first step to the last.
* allocated: the same highest point as Python's `tracemalloc` counts it, exactly, for gradlite
  alone: NumPy's arrays, and with them Python's own objects; without the code that is loaded as it
  is first needed. It says whether a captured step needs more.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.util
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing

LAYERS, WIDTH, BATCH = 50, 256, 16384
WARM, LAST = 20, 10
MODES = {"gradlite": ("eager", "captured"), "torch": ("eager",)}
MIB = 1 << 20


def status_kib(field: str) -> int:
    """A field of ``/proc/self/status`` in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise LookupError(field)


def _release_freed_memory() -> None:
    """Hand freed memory back to the system, so that it does not count as resting."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def evaluation(T: Any, with_grad: bool) -> float:
    """Peak memory of one forward pass, in activations of one layer."""
    layers = []
    for _ in range(LAYERS):
        layers += [T.nn.Linear(WIDTH, WIDTH), T.nn.ReLU()]
    model = T.nn.Sequential(*layers).eval()
    inputs = T.randn(BATCH, WIDTH)
    with T.set_grad_enabled(with_grad):
        for _ in range(3):
            model[:2](inputs)  # buffers that the BLAS library keeps
        _release_freed_memory()
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        resting = status_kib("VmRSS")
        model(inputs)
        peak = status_kib("VmHWM")
    return (peak - resting) * 1024 / (BATCH * WIDTH * 4)


def training(T: Any, name: str, mode: str, steps: int) -> dict[str, float]:
    """Resident memory of a workload in MiB over the import's: see above."""
    from benchmarks.workloads import WORKLOADS, Training

    resting = status_kib("VmRSS")
    run = Training(T, WORKLOADS[name], mode=mode)
    run.step()
    first = status_kib("VmRSS")
    for _ in range(steps - LAST):
        run.step()
    growth = status_kib("VmRSS") - first
    _release_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(LAST):
        run.step()
    return {"peak": (status_kib("VmHWM") - resting) / 1024, "growth": growth / 1024}


def allocated(T: Any, name: str, mode: str) -> dict[str, float]:
    """What Python has allocated at the highest point of a step of a workload, in MiB."""
    from benchmarks.workloads import WORKLOADS, Training

    for other in ("W1", name):  # which loads what it needs
        run = Training(T, WORKLOADS[other], mode=mode)
        for _ in range(6):
            run.step()
    del run
    gc.collect()
    tracemalloc.start()
    run = Training(T, WORKLOADS[name], mode=mode)
    for _ in range(WARM):
        run.step()
    gc.collect()
    tracemalloc.reset_peak()
    for _ in range(3):
        run.step()
    resting, peak = tracemalloc.get_traced_memory()
    ours = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    arrays = sum(t.size for t in tracemalloc.take_snapshot().filter_traces([ours]).traces)
    # Nearly all that comes and goes within a step are arrays.
    return {"allocated": peak / MIB, "arrays": (arrays + peak - resting) / MIB}


def in_process(*options: str) -> Any:
    """Runs this module in a fresh process and returns what it printed as JSON."""
    command = [sys.executable, "-m", "benchmarks.memory", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(library: str, names: Sequence[str], steps: int) -> list[dict[str, Any]]:
    """The workloads of one library, in each of its modes."""
    results = []
    for name in names:
        for mode in MODES.get(library, ("eager",)):
            common = ("--libraries", library, "--mode", mode, "--steps", str(steps))
            result = {"library": library, "workload": name, "mode": mode}
            result |= in_process(*common, "--child", f"training:{name}")
            if library != "torch":  # whose memory Python does not know
                result |= in_process(*common, "--child", f"allocated:{name}")
            results.append(result)
            print(f"{name} {library} {mode}: {result['peak']:.1f} MiB", flush=True)
    return results


def rows(results: Sequence[dict[str, Any]], summaries: dict[str, str]) -> list[list[str]]:
    """One line a workload: the peaks, then what is allocated and the ratio of the two modes."""
    found = {(r["workload"], r["library"], r["mode"]): r for r in results}
    lines = []
    for name in dict.fromkeys(r["workload"] for r in results):
        eager, captured, torch = (
            found.get((name, *key), {})
            for key in (("gradlite", "eager"), ("gradlite", "captured"), ("torch", "eager"))
        )
        cells = [f"{name}  {summaries[name]}"]
        cells += [f"{r['peak']:.1f}" if r else "" for r in (eager, captured, torch)]
        cells += [f"{r['growth']:.1f}" if r else "" for r in (eager, captured, torch)]
        for what in ("arrays", "allocated"):
            cells += [f"{r[what]:.2f}" if r else "" for r in (eager, captured)]
            cells.append(f"{captured[what] / eager[what]:.2f}" if captured else "")
        lines.append(cells)
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("--libraries", default="gradlite,torch", help="comma-separated")
    parser.add_argument("--workloads", default="W1,W2,W3,W4,W5,W6", help="comma-separated")
    parser.add_argument("--steps", type=int, default=200, help="training steps")
    parser.add_argument("--json", metavar="PATH", help="also write the results to PATH")
    parser.add_argument("--mode", default="eager", help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    timing.restart_with_threads("benchmarks.memory", 1)
    if options.child:
        T = timing.load_library(options.libraries, 1)
        what, _, name = options.child.partition(":")
        if what == "training":
            print(json.dumps(training(T, name, options.mode, options.steps)))
        elif what == "allocated":
            print(json.dumps(allocated(T, name, options.mode)))
        else:
            print(json.dumps(evaluation(T, what == "grad")))
        return
    from benchmarks.workloads import WORKLOADS

    names = options.workloads.split(",")
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        raise SystemExit(f"unknown workloads {unknown}; there are {', '.join(WORKLOADS)}")
    libraries = [name for name in options.libraries.split(",") if importlib.util.find_spec(name)]
    facts = timing.machine(1, [timing.load_library(name, 1) for name in libraries])
    print(timing.describe(facts) + "\n", flush=True)
    evaluations = []
    for library in libraries:
        common = ("--libraries", library)
        kept = {m: in_process(*common, "--child", m) for m in ("no_grad", "grad")}
        evaluations.append({"library": library, **kept})
    header = ["activations in memory", f"{LAYERS} layers no_grad", "with grad"]
    lines = [[e["library"], f"{e['no_grad']:.1f}", f"{e['grad']:.1f}"] for e in evaluations]
    print(timing.table(header, lines) + "\n", flush=True)
    results = [r for library in libraries for r in measure(library, names, options.steps)]
    header = ["training step, MiB", "eager", "captured", "torch", "growth, eager", "captured"]
    header += ["torch", "arrays, eager", "captured", "ratio"]
    header += ["with objects, eager", "captured", "ratio"]
    print("\n" + timing.table(header, rows(results, {n: WORKLOADS[n].summary for n in names})))
    if options.json:
        payload = {
            "benchmark": "memory",
            "machine": facts,
            "evaluation": evaluations,
            "results": results,
        }
        print(f"\nwritten: {timing.write_json(options.json, payload).name}")


if __name__ == "__main__":
    main()
