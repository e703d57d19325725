"""Peak memory of an evaluation without grad, and resident memory of training, beside PyTorch.

    python -m benchmarks.memory [--libraries gradlite,torch] [--steps 200] [--json PATH]

Every figure comes from a fresh process (Linux only: it reads ``/proc/self``):

* evaluation: the peak over the resting level of a 50-layer network under ``no_grad``, in units
  of one layer's activations. About 2 when nothing is kept alive, about 50 when all of it is.
* training: the resident memory over that after the import, after the first step and at the
  end, of W3 and W5.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing

LAYERS, WIDTH, BATCH = 50, 256, 16384
TRAINED = ("W3", "W5")


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


def training(T: Any, name: str, steps: int) -> dict[str, float]:
    """Resident memory in MiB over the import's, after the first step and after all."""
    from benchmarks.workloads import WORKLOADS, Training

    resting = status_kib("VmRSS")
    run = Training(T, WORKLOADS[name])
    run.step()
    first = status_kib("VmRSS")
    for _ in range(steps - 1):
        run.step()
    return {
        "first": (first - resting) / 1024,
        "last": (status_kib("VmRSS") - resting) / 1024,
    }


def in_process(*options: str) -> Any:
    """Runs this module in a fresh process and returns what it printed as JSON."""
    command = [sys.executable, "-m", "benchmarks.memory", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("--libraries", default="gradlite,torch", help="comma-separated")
    parser.add_argument("--steps", type=int, default=200, help="training steps")
    parser.add_argument("--json", metavar="PATH", help="also write the results to PATH")
    parser.add_argument("--child", choices=(*TRAINED, "no_grad", "grad"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    timing.restart_with_threads("benchmarks.memory", 1)
    if options.child:
        T = timing.load_library(options.libraries, 1)
        if options.child in TRAINED:
            print(json.dumps(training(T, options.child, options.steps)))
        else:
            print(json.dumps(evaluation(T, options.child == "grad")))
        return
    results = []
    for library in options.libraries.split(","):
        if importlib.util.find_spec(library) is None:
            continue
        common = ("--libraries", library, "--steps", str(options.steps))
        result: dict[str, Any] = {"library": library}
        for name in TRAINED:
            result[name] = in_process(*common, "--child", name)
        result["no_grad_activations"] = in_process(*common, "--child", "no_grad")
        result["grad_activations"] = in_process(*common, "--child", "grad")
        results.append(result)
    facts = timing.machine(1, [])
    print(timing.describe(facts) + "\n")
    header = ["", f"{LAYERS} layers no_grad", "with grad"]
    for name in TRAINED:
        header += [f"{name} step 1, MiB", f"step {options.steps}"]
    rows = []
    for result in results:
        cells = [result["library"]]
        cells += [f"{result['no_grad_activations']:.1f}", f"{result['grad_activations']:.1f}"]
        for name in TRAINED:
            cells += [f"{result[name]['first']:.0f}", f"{result[name]['last']:.0f}"]
        rows.append(cells)
    print(timing.table(header, rows))
    if options.json:
        payload = {"benchmark": "memory", "machine": facts, "results": results}
        print(f"\nwritten: {timing.write_json(options.json, payload).name}")


if __name__ == "__main__":
    main()
