"""Times whole training steps against PyTorch: forward, loss, backward, optimizer, zero_grad.

    python -m benchmarks.training --vs torch [--mode eager,captured] [--workloads W1,W2]
    python -m benchmarks.training --device cuda
    python -m benchmarks.training --vs torch,jax --mode eager,captured

With ``--mode`` gradlite's steps run as they are (eager), captured and replayed by array calls
(array-calls), or captured and compiled (captured). All runs start from the same weights, see the
same batches, and must agree on the losses of the first steps before anything is timed. The ratio
is the median over pairs of neighbouring blocks, so a machine that slows down for a while slows
all.

The first library of ``--vs`` is the one that ratios are to. Where it names several, compilers are
compared: ``torch.compile`` of the model and of the optimizer's step, and ``jax.jit`` of the whole
step (`benchmarks.jax_steps`; ``pip install jax``). What is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from typing import Any

from benchmarks import pictures, timing

CHECKED_STEPS = 6
TOLERANCE = 5e-4


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training")
    parser.add_argument(
        "--vs", default="torch", help="comma-separated: torch, torch.compile, jax; or 'none'"
    )
    parser.add_argument("--library", default="gradlite", help="library to measure")
    parser.add_argument(
        "--mode", default="eager", help="comma-separated: eager, array-calls, captured"
    )
    parser.add_argument("--workloads", default="all", help="comma-separated names, or 'all'")
    parser.add_argument("--threads", type=int, default=1, help="threads for each library")
    parser.add_argument("--blocks", type=int, default=15, help="timed blocks of each library")
    parser.add_argument("--block-ms", type=float, default=100.0, help="length of a block")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall", help="what to read")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train")
    parser.add_argument("--json", metavar="PATH", help="also write the results, and a picture")
    options = parser.parse_args(argv)
    if options.device == "cuda" and options.clock != "wall":
        parser.error("the processor's clock does not see what a GPU takes: use --clock wall")
    return options


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


def references_of(text: str, compiler: bool = True) -> list[str]:
    """The names that ``--vs`` gives, with torch.compile where several compilers are compared."""
    names = [] if text == "none" else text.split(",")
    if compiler and len(names) > 1 and "torch" in names and "torch.compile" not in names:
        names.insert(names.index("torch") + 1, "torch.compile")
    kept = []
    for name in names:
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            if not kept:
                raise SystemExit(f"{name} is not installed")
            print(f"{name} is not installed: left out")
        else:
            kept.append(name)
    return kept


def load(name: str, threads: int) -> Any:
    """The library of that name."""
    if name == "jax":
        from benchmarks import jax_steps

        return jax_steps.load(threads)
    return timing.load_library(name.partition(".")[0], threads)


def run_of(reference: str, library: Any, name: str, weights: Any, device: str = "cpu") -> Any:
    """A workload in a library that is compared with."""
    from benchmarks.workloads import WORKLOADS, Training

    if reference == "jax":
        from benchmarks.jax_steps import JaxTraining

        return JaxTraining(library, name, weights, WORKLOADS[name].batches())
    mode = "torch.compile" if reference == "torch.compile" else "eager"
    return Training(library, WORKLOADS[name], weights, mode, device)


def measure(
    name: str,
    library: Any,
    references: dict[str, Any],
    blocks: int,
    block_seconds: float,
    clock: str = "wall",
    modes: Sequence[str] = ("eager",),
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Times one workload in some modes; microseconds per step and ratios to the references."""
    from benchmarks.workloads import WORKLOADS, Training

    workload = WORKLOADS[name]
    weights = Training(next(iter(references.values()), library), workload).weights()
    others = {key: run_of(key, T, name, weights, device) for key, T in references.items()}
    runs = [Training(library, workload, weights, mode, device) for mode in modes]
    deviation = check_losses(name, [*others.values(), *runs])
    steps = [run.step for run in (*others.values(), *runs)]

    def finish() -> None:
        for T in (library, *references.values()):
            if hasattr(T, "cuda"):
                T.cuda.synchronize()

    waits = finish if device == "cuda" else None
    timed = timing.interleave(steps, blocks, block_seconds, clock, waits)
    beside = dict(zip(others, timed, strict=False))
    results = []
    for mode, own in zip(modes, timed[len(beside) :], strict=True):
        result: dict[str, Any] = {
            "workload": name,
            "mode": mode,
            "us": own.median * 1e6,
            "quartiles_us": _us(own.quartiles),
        }
        for place, (key, other) in enumerate(beside.items()):
            low, median, high = timing.ratio(own, other)
            entry = {
                "reference_us": other.median * 1e6,
                "reference_quartiles_us": _us(other.quartiles),
                "ratio": median,
                "ratio_quartiles": [low, high],
            }
            if place == 0:
                base = other
                result |= {**entry, "loss_deviation": deviation}
            else:
                entry["reference_ratio"] = timing.ratio(other, base)[1]
                result.setdefault("others", {})[key] = entry
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
    for other in result.get("others", {}).values():
        cells += [f"{other['reference_us']:.0f}", f"{other['ratio']:.3f}"]
        cells.append(span(other["ratio_quartiles"], 3))
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
    references = {name: load(name, options.threads) for name in references_of(options.vs)}
    library = timing.load_library(options.library, options.threads)
    loaded = {T.__name__: T for T in (library, *references.values())}
    facts = timing.machine(options.threads, list(loaded.values()))
    if options.device == "cuda":
        facts |= timing.card(library)
    print(timing.describe(facts) + "\n", flush=True)
    results = []
    for name in names:
        found = measure(
            *(name, library, references, options.blocks, options.block_ms / 1000, options.clock),
            modes=modes,
            device=options.device,
        )
        results += found
        times = ", ".join(f"{r['mode']} {r['us']:.1f}" for r in found)
        print(f"{name} done: {times} us a step", flush=True)
    header = ["training step", "mode", f"{options.library} us", "quartiles"]
    for place, name in enumerate(references):
        header += [f"{name} us", *(["quartiles"] if place == 0 else []), "ratio", "quartiles"]
        header += ["loss diff"] if place == 0 else []
    print("\n" + timing.table(header, [row(r, WORKLOADS[r["workload"]].summary) for r in results]))
    if options.json:
        payload = {
            "benchmark": "training",
            "clock": options.clock,
            "device": options.device,
            "machine": facts,
            "results": results,
        }
        written = timing.write_json(options.json, payload)
        print(f"\nwritten: {', '.join([written.name, *pictures.beside(written)])}")


if __name__ == "__main__":
    main()
