"""Times the characters of a sampled text: earlier keys and values kept, captured, computed anew.

    python -m benchmarks.sampling [--contexts 64,256] [--vs torch] [--json PATH]

The model is the one that ``python -m gradlite train --data text:FILE`` trains, with random weights;
PyTorch runs the very same source, in which only the library's name is another. All ways look at the
same windows of the text (``GPT.window``), so their logits agree, which is checked before anything
is timed; the ratios are medians over pairs of neighbouring blocks, to PyTorch's kept keys and
values where it is installed, else to gradlite's own.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import timing

VOCABULARY = 65
TOLERANCE = 1e-4
WAYS = {
    "kept": {"cached": True},
    "captured": {"captured": True},
    "anew": {"cached": False},
}


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling")
    parser.add_argument("--contexts", default="64,256", help="comma-separated characters")
    parser.add_argument("--vs", default="torch", help="torch, or 'none'")
    parser.add_argument("--blocks", type=int, default=7, help="timed texts of each kind")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall", help="what to read")
    parser.add_argument("--json", metavar="PATH", help="also write the results to PATH")
    return parser.parse_args(argv)


def model_of(library: Any) -> Any:
    """The class of the model, made of gradlite's own source for another library."""
    from gradlite.cli import models

    if library.__name__ == "gradlite":
        return models.GPT
    source = re.sub(r"\bgradlite\b(?!\.cli)", library.__name__, inspect.getsource(models))
    names: dict[str, Any] = {"__name__": "benchmarks.sampling"}
    exec(compile(source, models.__file__, "exec", dont_inherit=True), names)
    return names["GPT"]


def texts(library: Any, context: int, ways: Sequence[str]) -> list[Callable[[], np.ndarray]]:
    """Functions that write a text four times as long as the context, and give its last logits."""
    import gradlite

    gradlite.manual_seed(0)
    weights = model_of(gradlite)(VOCABULARY, context).state_dict()
    model = model_of(library)(VOCABULARY, context).eval()
    model.load_state_dict({k: library.tensor(v.numpy()) for k, v in weights.items()})
    numbers = np.random.default_rng(0).integers(0, VOCABULARY, (4 * context, 1, 1))
    tokens = [library.tensor(n) for n in numbers]

    def writer(way: str) -> Callable[[], np.ndarray]:
        feed = model.sampler(**WAYS[way])

        def run() -> np.ndarray:
            nonlocal feed
            if way != "captured":  # whose recordings are its own
                feed = model.sampler(**WAYS[way])
            with library.no_grad():
                for token in tokens:
                    logits = feed(token)
            return logits.numpy()

        return run

    return [writer(way) for way in ways]


def measure(context: int, reference: Any, blocks: int, clock: str) -> dict[str, Any]:
    """Microseconds a character in each way, and their ratios to the reference."""
    import gradlite

    names = [*(["torch"] if reference is not None else []), *WAYS]
    calls = [] if reference is None else texts(reference, context, ["kept"])
    calls += texts(gradlite, context, list(WAYS))
    logits = [call() for call in calls]
    difference = max(float(np.abs(found - logits[-1]).max()) for found in logits)
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the logits differ by {difference:.2e}; nothing is timed")
    times = dict(zip(names, timing.interleave(calls, blocks, 0.0, clock)))
    return {
        "context": context,
        "us": {name: t.median / (4 * context) * 1e6 for name, t in times.items()},
        "ratios": {name: timing.ratio(t, times[names[0]]) for name, t in times.items()},
        "logits_deviation": difference,
    }


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    timing.restart_with_threads("benchmarks.sampling", 1)
    libraries = [timing.load_library("gradlite", 1)]
    if options.vs != "none" and importlib.util.find_spec(options.vs) is not None:
        libraries.append(timing.load_library(options.vs, 1))
    facts = timing.machine(1, libraries)
    print(timing.describe(facts) + "\n", flush=True)
    reference = libraries[1] if len(libraries) > 1 else None
    contexts = [int(context) for context in options.contexts.split(",")]
    results = [measure(n, reference, options.blocks, options.clock) for n in contexts]
    header = ["context", "way", "us a character", "ratio", "quartiles"]
    rows = [
        [
            str(r["context"]),
            name,
            f"{r['us'][name]:.0f}",
            f"{median:.3f}",
            f"{low:.3f}-{high:.3f}",
        ]
        for r in results
        for name, (low, median, high) in r["ratios"].items()
    ]
    print(timing.table(header, rows))
    if options.json:
        payload = {
            "benchmark": "sampling",
            "clock": options.clock,
            "machine": facts,
            "results": results,
        }
        print(f"\nwritten: {timing.write_json(options.json, payload).name}")


if __name__ == "__main__":
    main()
