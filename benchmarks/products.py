"""Times compiled products of matrices against NumPy's BLAS, at the sizes where either may win.

    python -m benchmarks.products [--sizes MxKxN,MxKxN] [--dtype NAME] [--rounds N]
    python -m benchmarks.products --layers

For each size, and each way in which the two operands lie (N: row-major, T: transposed), the time of
the compiled product over that of ``a.dot(b)``; below 1 it is faster. A star marks those that ops
leave to it (``gradlite/ops/products.py``). Both run in turn in one process, in one thread.

With ``--layers`` it is ``relu(x @ weight.T + bias)`` and its gradients, each in one compiled
call and in NumPy's calls; a star marks what ops leave to one (``gradlite/ops/small.py``).
"""

from __future__ import annotations

import argparse
import importlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import timing

SIZES = (
    "32x16x16,32x64x64,64x64x64,64x64x128,64x128x10,64x128x128,16x128x512,512x64x64,512x64x256,"
    "512x256x64,64x512x256,64x512x65,128x784x256,10x128x128,256x256x256,512x512x512,512x1024x256,"
    "64x4096x4096"
)
WAYS = ("NN", "NT", "TN", "TT")
LAYERS = (
    "32x2x16,32x16x16,32x16x1,1x16x16,1x64x64,4x128x128,8x64x64,16x32x32,32x32x32,32x64x64,64x32x32,"
    "64x64x64,64x64x128,64x128x10,128x10x128,128x128x10,512x2x32"
)


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
    taken = a.size >= products.LEAST_SIZE and products.worth(a, b)
    ours = compared(lambda: a.dot(b), lambda: products.multiplied(np, a, b), repeats, rounds)
    return ours, taken


def compared(
    theirs: Callable[[], Any], ours: Callable[[], Any], repeats: int, rounds: int
) -> float:
    """The median of how many times as long the second takes, in pairs of neighbouring blocks."""
    both, times = (theirs, ours), [list[float](), list[float]()]
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            timing.time_block(both[which], 1)
            times[which].append(timing.time_block(both[which], repeats, "cpu"))
    return statistics.median(second / first for first, second in zip(*times))


def of_layer(size: Sequence[int], dtype: str, rounds: int) -> list[tuple[float, bool]]:
    """`ratio` of a layer's two directions."""
    import numpy as np

    from gradlite.ops import small

    rng = np.random.default_rng(0)
    rows, summed, columns = size
    x, weight, bias, grad = (
        rng.standard_normal(shape).astype(dtype)
        for shape in ((rows, summed), (columns, summed), (columns,), (rows, columns))
    )
    result = small.layer(np, x, weight, bias, True)
    pairs = (
        (
            lambda: small.layer_in_parts(np, x, weight, bias, True),
            lambda: small.layer(np, x, weight, bias, True),
            small.worth(x, weight),
        ),
        (
            lambda: small.gradients_in_parts(np, grad, result, x, weight),
            lambda: small.gradients(np, grad, result, x, weight),
            small.worth_gradients(grad, x),
        ),
    )
    repeats = max(1, 4_000_000 // (rows * summed * columns + 5_000))
    return [(compared(*pair[:2], repeats, rounds), pair[2]) for pair in pairs]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products")
    parser.add_argument("--sizes", help="rows, length of the sums and columns")
    parser.add_argument("--layers", action="store_true", help="small layers instead of products")
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
    for size in (options.sizes or (LAYERS if options.layers else SIZES)).split(","):
        sizes = [int(n) for n in size.split("x")]
        if options.layers:
            found = of_layer(sizes, options.dtype, options.rounds)
        else:
            found = [ratio(way, sizes, options.dtype, options.rounds) for way in WAYS]
        lines.append([size, *(f"{r:.2f}{'*' if taken else ' '}" for r, taken in found)])
    columns = ("forward", "gradients") if options.layers else WAYS
    print(timing.table(["rows x summed x columns", *columns], lines))


if __name__ == "__main__":
    main()
