"""Times compiled products of matrices against NumPy's BLAS, at the sizes where either may win.

    python -m benchmarks.products [--sizes MxKxN,MxKxN] [--dtype NAME] [--rounds N]

For each size, and each way in which the two operands lie (N: row-major, T: transposed), the time of
the compiled product over that of ``a.dot(b)``; below 1 it is faster. A star marks those that ops
leave to it (``gradlite/ops/products.py``). Both run in turn in one process, in one thread.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import timing

SIZES = (
    "32x16x16,32x64x64,64x64x64,64x64x128,64x128x10,64x128x128,16x128x512,512x64x64,512x64x256,"
    "512x256x64,64x512x256,64x512x65,128x784x256,10x128x128,256x256x256,512x512x512,512x1024x256,"
    "64x4096x4096"
)
WAYS = ("NN", "NT", "TN", "TT")


def ratio(way: str, size: Sequence[int], dtype: str, rounds: int) -> tuple[float, bool]:
    """Compiled over BLAS, and whether ops leave such a product to compiled code."""
    import numpy as np

    from gradlite.ops import products

    rng = np.random.default_rng(0)

    def operand(letter: str, rows: int, columns: int) -> Any:
        if letter == "T":
            return rng.standard_normal((columns, rows)).astype(dtype).T
        return rng.standard_normal((rows, columns)).astype(dtype)

    rows, summed, columns = size
    a, b = operand(way[0], rows, summed), operand(way[1], summed, columns)
    repeats = max(1, 40_000_000 // (rows * summed * columns + 10_000))
    both = (lambda: a.dot(b), lambda: products.multiplied(np, a, b))
    times: list[list[float]] = [[], []]
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            timing.time_block(both[which], 1)
            times[which].append(timing.time_block(both[which], repeats, "cpu"))
    taken = a.size >= products.LEAST_SIZE and products.worth(a, b)
    return statistics.median(ours / blas for blas, ours in zip(*times)), taken


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products")
    parser.add_argument("--sizes", default=SIZES, help="rows, length of the sums and columns")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--rounds", type=int, default=11, help="rounds of interleaved timing")
    options = parser.parse_args(argv)
    timing.restart_with_threads("benchmarks.products", 1)
    library = importlib.import_module("gradlite")
    from gradlite.backends import multiply

    if multiply.function("f") is None:
        raise SystemExit("no products can be compiled here: there is no C++ compiler")
    facts = timing.machine(1, [library])
    print(f"{timing.describe(facts)}; compiled / BLAS, {options.dtype}\n", flush=True)
    lines = []
    for size in options.sizes.split(","):
        sizes = [int(n) for n in size.split("x")]
        found = [ratio(way, sizes, options.dtype, options.rounds) for way in WAYS]
        lines.append([size, *(f"{r:.2f}{'*' if taken else ' '}" for r, taken in found)])
    print(timing.table(["rows x summed x columns", *WAYS], lines))


if __name__ == "__main__":
    main()
