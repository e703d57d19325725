"""Times the characters of a sampled text, with earlier keys and values kept and computed anew.

    python -m benchmarks.sampling [--contexts 64,256] [--json PATH]

The model is the one that ``python -m gradlite train --data text:FILE`` trains, with random weights.
Both ways look at the same windows of the text (``GPT.window``), so their logits agree, which is
checked before anything is timed; the ratio is the median over pairs of neighbouring blocks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import timing

VOCABULARY = 65
TOLERANCE = 1e-4


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling")
    parser.add_argument("--contexts", default="64,256", help="comma-separated characters")
    parser.add_argument("--blocks", type=int, default=7, help="timed texts of each kind")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall", help="what to read")
    parser.add_argument("--json", metavar="PATH", help="also write the results to PATH")
    return parser.parse_args(argv)


def measure(context: int, blocks: int, clock: str) -> dict[str, Any]:
    """Microseconds a character of a text four times as long as the context."""
    import gradlite
    from gradlite.cli.models import GPT

    gradlite.manual_seed(0)
    model = GPT(VOCABULARY, context).eval()
    numbers = np.random.default_rng(0).integers(0, VOCABULARY, (4 * context, 1, 1))
    tokens = [gradlite.tensor(n) for n in numbers]

    def text(cached: bool) -> Callable[[], np.ndarray]:
        def run() -> np.ndarray:
            with gradlite.no_grad():
                feed = model.sampler(cached)
                for token in tokens:
                    logits = feed(token)
            return logits.numpy()

        return run

    difference = float(np.abs(text(True)() - text(False)()).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the logits differ by {difference:.2e}; nothing is timed")
    cached, anew = timing.interleave([text(True), text(False)], blocks, 0.0, clock)
    low, median, high = timing.ratio(cached, anew)
    return {
        "context": context,
        "us": cached.median / len(tokens) * 1e6,
        "anew_us": anew.median / len(tokens) * 1e6,
        "ratio": median,
        "ratio_quartiles": [low, high],
        "logits_deviation": difference,
    }


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    timing.restart_with_threads("benchmarks.sampling", 1)
    library = timing.load_library("gradlite", 1)
    facts = timing.machine(1, [library])
    print(timing.describe(facts) + "\n", flush=True)
    contexts = [int(context) for context in options.contexts.split(",")]
    results = [measure(context, options.blocks, options.clock) for context in contexts]
    header = ["context", "kept, us a character", "anew, us", "ratio", "quartiles", "logits diff"]
    rows = [
        [
            str(r["context"]),
            f"{r['us']:.0f}",
            f"{r['anew_us']:.0f}",
            f"{r['ratio']:.3f}",
            "-".join(f"{value:.3f}" for value in r["ratio_quartiles"]),
            f"{r['logits_deviation']:.0e}",
        ]
        for r in results
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
