"""Times whole training steps against PyTorch: forward, loss, backward, optimizer, zero_grad.

    python -m benchmarks.training --vs torch [--mode eager,captured] [--workloads W1,W2]

With ``--mode`` gradlite's steps run as they are (eager), captured and replayed by array calls
(array-calls), or captured and compiled (captured). All runs start from the same weights, see the
same batches, and must agree on the losses of the first steps before anything is timed. The ratio
is the median over pairs of neighbouring blocks, so a machine that slows down for a while slows
all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks import timing

CHECKED_STEPS = 6
TOLERANCE = 5e-4


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training")
    parser.add_argument("--vs", default="torch", help="reference library, or 'none'")
    parser.add_argument("--library", default="gradlite", help="library to measure")
    parser.add_argument(
        "--mode", default="eager", help="comma-separated: eager, array-calls, captured"
    )
    parser.add_argument("--workloads", default="all", help="comma-separated names, or 'all'")
    parser.add_argument("--threads", type=int, default=1, help="threads for each library")
    parser.add_argument("--blocks", type=int, default=15, help="timed blocks of each library")
    parser.add_argument("--block-ms", type=float, default=100.0, help="length of a block")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall", help="what to read")
    parser.add_argument("--json", metavar="PATH", help="also write the results to PATH")
    return parser.parse_args(argv)


def check_losses(name: str, runs: Sequence[Any]) -> float:
    """Trains all runs for a few steps; returns the largest relative difference of the losses.

    Raises RuntimeError when it exceeds `TOLERANCE`.
    """
    worst = 0.0
    for step in range(CHECKED_STEPS):
        reference, *others = [float(run.step().item()) for run in runs]
        for other in others:
            worst = max(worst, abs(other - reference) / max(abs(reference), 1e-6))
        if not worst <= TOLERANCE:
            raise RuntimeError(
                f"{name}: the losses differ by {worst:.2e} at step {step}: {others} against "
                f"{reference}; nothing is timed"
            )
    return worst


def measure(
    name: str,
    library: Any,
    reference: Any | None,
    blocks: int,
    block_seconds: float,
    clock: str = "wall",
    modes: Sequence[str] = ("eager",),
) -> list[dict[str, Any]]:
    """Times one workload in some modes; microseconds per step and ratios to the reference."""
    from benchmarks.workloads import WORKLOADS, Training

    workload = WORKLOADS[name]
    first = Training(library if reference is None else reference, workload)
    runs = [Training(library, workload, first.weights(), mode) for mode in modes]
    deviation = check_losses(name, [first, *runs])
    steps = [run.step for run in ([first] if reference is not None else []) + runs]
    timed = timing.interleave(steps, blocks, block_seconds, clock)
    base = timed.pop(0) if reference is not None else None
    results = []
    for mode, own in zip(modes, timed, strict=True):
        result: dict[str, Any] = {
            "workload": name,
            "mode": mode,
            "us": own.median * 1e6,
            "quartiles_us": _us(own.quartiles),
        }
        if base is not None:
            low, median, high = timing.ratio(own, base)
            result |= {
                "reference_us": base.median * 1e6,
                "reference_quartiles_us": _us(base.quartiles),
                "ratio": median,
                "ratio_quartiles": [low, high],
                "loss_deviation": deviation,
            }
        results.append(result)
    return results


def _us(seconds: tuple[float, float]) -> list[float]:
    return [value * 1e6 for value in seconds]


def row(result: dict[str, Any], summary: str) -> list[str]:
    """One line of the table."""

    def span(values: list[float], digits: int = 0) -> str:
        return f"{values[0]:.{digits}f}-{values[1]:.{digits}f}"

    cells = [f"{result['workload']}  {summary}", result["mode"], f"{result['us']:.1f}"]
    cells.append(span(result["quartiles_us"]))
    if "ratio" in result:
        cells += [f"{result['reference_us']:.0f}", span(result["reference_quartiles_us"])]
        cells += [f"{result['ratio']:.3f}", span(result["ratio_quartiles"], 3)]
        cells += [f"{result['loss_deviation']:.0e}"]
    return cells


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    timing.restart_with_threads("benchmarks.training", options.threads)
    from benchmarks.workloads import MODES, WORKLOADS

    names = list(WORKLOADS) if options.workloads == "all" else options.workloads.split(",")
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        raise SystemExit(f"unknown workloads {unknown}; there are {', '.join(WORKLOADS)}")
    modes = options.mode.split(",")
    strange = [mode for mode in modes if mode not in MODES]
    if strange:
        raise SystemExit(f"unknown modes {strange}; there are {', '.join(MODES)}")
    reference = None if options.vs == "none" else timing.load_library(options.vs, options.threads)
    library = timing.load_library(options.library, options.threads)
    facts = timing.machine(options.threads, [library] + ([reference] if reference else []))
    print(timing.describe(facts) + "\n", flush=True)
    results = []
    for name in names:
        found = measure(
            *(name, library, reference, options.blocks, options.block_ms / 1000, options.clock),
            modes=modes,
        )
        results += found
        times = ", ".join(f"{r['mode']} {r['us']:.1f}" for r in found)
        print(f"{name} done: {times} us a step", flush=True)
    header = ["training step", "mode", f"{options.library} us", "quartiles"]
    if reference is not None:
        header += [f"{options.vs} us", "quartiles", "ratio", "quartiles", "loss diff"]
    print("\n" + timing.table(header, [row(r, WORKLOADS[r["workload"]].summary) for r in results]))
    if options.json:
        payload = {
            "benchmark": "training",
            "clock": options.clock,
            "machine": facts,
            "results": results,
        }
        print(f"\nwritten: {timing.write_json(options.json, payload).name}")


if __name__ == "__main__":
    main()
